"""Files with one object per line: JSON, or Python literals (never evaluated, only parsed as literals)."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from lifelong.errors import SourceError
from lifelong.offline.preparation.sources.text import Chunk, Places, chunks

_PYTHON: Mapping[pa.DataType, tuple[type, ...]] = {pa.string(): (str,), pa.int64(): (int,), pa.float64(): (int, float)}
Take = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Makes a row of an object; raises KeyError for a missing field, ValueError for a wrong value."""


def json_rows(files: Sequence[Path], schema: pa.Schema, places: Places) -> Iterator[pa.Table]:
    """Fields of JSON lines, and `sequence`; every field must be there and have its type.

    Args:
        files: the files.
        schema: fields and their types, without `sequence`.
        places: counts the lines.

    Raises:
        SourceError: a line is not such an object; names file, line and field.
    """
    for path in files:
        before = places.lines
        for chunk in chunks(path, places):
            if len(chunk.line_R):
                table = _parse(path, chunk, schema)
                places.counts["rows"] += len(table)
                yield table.append_column("sequence", pa.array(before + chunk.line_R - 1))


def _parse(path: Path, chunk: Chunk, schema: pa.Schema) -> pa.Table:
    """One chunk."""
    read, parse = (
        pajson.ReadOptions(block_size=len(chunk.data) + 1),
        pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    try:
        table = pajson.read_json(pa.BufferReader(chunk.data), read, parse)
        whole = len(table) == len(chunk.line_R) and not any(_lacking(column) for column in table.columns)
        # Arrow accepts bytes that are not UTF-8; a check here keeps them out of the engine.
        table.validate(full=True)
    except pa.ArrowInvalid:
        whole = False
    if not whole:
        for line, found in objects(path, chunk, json.loads):
            _check(path, line, found, schema)
        raise SourceError(
            "cannot be parsed",
            file=str(path),
            line=int(chunk.line_R[0]),
            expected="one object a line",
            fix="correct the line",
        )
    return table.select(schema.names)


def _lacking(column: pa.ChunkedArray) -> bool:
    """Whether a value is missing."""
    return bool(column.null_count) or (pa.types.is_string(column.type) and pc.any(pc.equal(column, "")).as_py())


def _check(path: Path, line: int, found: Mapping[str, Any], schema: pa.Schema) -> None:
    """Check one object."""
    for field in schema:
        value, kinds = found.get(field.name), _PYTHON[field.type]
        if isinstance(value, kinds) and not isinstance(value, bool) and value != "":
            continue
        raise SourceError(
            "the field is missing" if value is None or value == "" else f"the field holds {value!r}",
            file=str(path),
            line=line,
            column=field.name,
            expected=f"a value of type {field.type}",
            fix="correct the line",
        )


def literal_rows(files: Sequence[Path], take: Take, schema: pa.Schema, places: Places) -> Iterator[pa.RecordBatch]:
    """Rows made from lines that are Python literals or JSON objects, and `sequence`.

    Args:
        files: the files.
        take: makes a row (without `sequence`) from an object.
        schema: fields of the rows, `sequence` included.
        places: counts the lines.

    Raises:
        SourceError: a line is neither, or lacks a field; names file and line.
    """
    for path in files:
        before = places.lines
        for chunk in chunks(path, places, chunk_bytes=1 << 22):
            made: list[dict[str, Any]] = []
            for line, found in objects(path, chunk, _literal):
                try:
                    made.append({**take(found), "sequence": before + line - 1})
                except KeyError as error:
                    column = str(error.args[0])
                    raise SourceError(
                        "the field is missing",
                        file=str(path),
                        line=line,
                        column=column,
                        fix="add the field to the line, or remove the line",
                    ) from error
                except ValueError as error:
                    raise SourceError(str(error), file=str(path), line=line, fix="correct the line") from error
            places.counts["rows"] += len(made)
            if made:
                yield pa.RecordBatch.from_pylist(made, schema=schema)


def _literal(text: str) -> Any:
    """A JSON object or Python literal."""
    if text.startswith('{"'):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return ast.literal_eval(text)


def objects(path: Path, chunk: Chunk, parse: Callable[[str], Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line of a chunk that is not blank."""
    kept = (row for row in chunk.data.split(b"\n") if row not in (b"", b"\r"))
    for line, row in zip(chunk.line_R.tolist(), kept, strict=True):
        try:
            found = parse(row.decode().strip())
        except UnicodeDecodeError as error:
            raise SourceError(
                f"byte {row[error.start]:#04x} is not utf-8",
                file=str(path),
                line=line,
                column=error.start + 1,
                fix="convert the file to UTF-8",
            ) from error
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            column = getattr(error, "colno", None) or getattr(error, "offset", None)
            raise SourceError(
                f"cannot be parsed: {getattr(error, 'msg', None) or error}",
                file=str(path),
                line=line,
                column=column,
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


def first_object(path: Path) -> dict[str, Any] | None:
    """The first object of a file, None if it is empty.

    Raises:
        SourceError: the first line is not an object.
    """
    for chunk in chunks(path, Places(), chunk_bytes=1 << 20):
        if len(chunk.line_R):
            first = next(row for row in chunk.data.split(b"\n") if row not in (b"", b"\r"))
            return next(objects(path, Chunk(first, np.asarray(chunk.line_R[:1])), _literal))[1]
    return None
