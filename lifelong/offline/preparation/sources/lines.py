"""Files with one object per line: JSON, or Python literals (never evaluated, only parsed as literals)."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lifelong.errors import SourceError
from lifelong.offline.preparation.sources.text import open_text

Object = Mapping[str, Any]
_PYTHON: Mapping[pa.DataType, tuple[type, ...]] = {pa.string(): (str,), pa.int64(): (int,), pa.float64(): (int, float)}
_ROWS = 65_536


def object_rows(
    files: Sequence[Path], schema: pa.Schema, record: dict[str, int], *, make: Callable[[Object], Object]
) -> Iterator[pa.RecordBatch]:
    """Rows of lines that are JSON objects or Python literals; `sequence` is the running number of the line.

    Args:
        files: the files.
        schema: fields and their types, and `sequence` at the end; a field that may not be null is in every line.
        record: gets the number of files and of rows.
        make: a row (without `sequence`) from the object of a line.

    Raises:
        SourceError: a line is no such object, or lacks a field; names file, line and field.
    """
    record |= {"files": len(files), "rows": 0}
    every = _rows(files, schema, make)
    while part := list(islice(every, _ROWS)):
        record["rows"] += len(part)
        yield pa.RecordBatch.from_pylist(part, schema=schema)


def _rows(files: Sequence[Path], schema: pa.Schema, make: Callable[[Object], Object]) -> Iterator[dict[str, Any]]:
    before = line = 0
    needed = [(field.name, field.type, _PYTHON[field.type]) for field in schema if not field.nullable]
    for path in files:
        for line, found in objects(path):
            row = make(found)
            for name, kind, kinds in needed:
                value = row.get(name)
                if not isinstance(value, kinds) or isinstance(value, bool) or value == "":
                    raise SourceError(
                        "the field is missing" if value is None or value == "" else f"the field holds {value!r}",
                        file=str(path),
                        line=line,
                        column=name,
                        expected=f"a value of type {kind}",
                        fix="correct the line, or remove it",
                    )
            yield {**row, "sequence": before + line - 1}
        before += line
        line = 0


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line that is not blank.

    Raises:
        SourceError: a line is no object.
    """
    with open_text(path) as stream:
        for line, data in enumerate(stream, start=1):
            if not data.strip():
                continue
            try:
                found = _parsed(data.decode().strip())
            except UnicodeDecodeError as error:
                raise SourceError(
                    f"byte {data[error.start]:#04x} is not utf-8",
                    file=str(path),
                    line=line,
                    column=error.start + 1,
                    fix="convert the file to UTF-8",
                ) from error
            except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                raise SourceError(
                    f"cannot be parsed: {getattr(error, 'msg', None) or error}",
                    file=str(path),
                    line=line,
                    column=getattr(error, "offset", None),
                    expected="one object on each line",
                    fix="correct the line",
                ) from error
            if not isinstance(found, dict):
                raise SourceError(
                    f"a {type(found).__name__}",
                    file=str(path),
                    line=line,
                    expected="one object on each line",
                    fix="write each event as one object on a line of its own (JSON Lines)",
                )
            yield line, found


def _parsed(text: str) -> Any:
    """A JSON object or Python literal."""
    if text.startswith('{"'):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return ast.literal_eval(text)
