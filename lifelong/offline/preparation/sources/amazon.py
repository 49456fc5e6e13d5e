"""Amazon 2014: reviews (`reviews_*_5.json`, JSON lines) and optionally meta (`meta_*.json`, Python-literal lines).

The role of a file follows from its first line: reviews have `reviewerID`, meta lines do not. The category is the last
element of the last path of `categories`. Times are days (many ties); the order within a day is the order of the lines.

Items without a meta line have no fields, and are counted; of several meta lines of one item the last wins.

Options:
    brand: `keep` (default) or `drop`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lifelong.errors import SourceError
from lifelong.offline.preparation.engine import stage
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.rawlog import RawLog
from lifelong.offline.preparation.sources.text import open_text

OPTIONS: dict[str, str | tuple[str, ...]] = {"brand": ("keep", "drop")}
FIELDS = ("category", "brand")
_REVIEW = {"reviewerID": pa.string(), "asin": pa.string(), "overall": pa.float64(), "unixReviewTime": pa.int64()}
_SEQUENCE = pa.field("sequence", pa.int64())
REVIEWS = pa.schema([*(pa.field(name, kind, nullable=False) for name, kind in _REVIEW.items()), _SEQUENCE])
META = pa.schema([pa.field("asin", pa.string(), nullable=False), *((name, pa.string()) for name in FIELDS), _SEQUENCE])


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open reviews and meta files."""
    roles = staging.by_marker(
        # An empty file has no role that matters.
        ((path, list(next(objects(path), (1, {"reviewerID": ""}))[1])) for path in paths),
        {"reviews": "reviewerID", "meta": "asin"},
        {"reviews": "name reviews_*.json"},
        expected="reviews (reviewerID, asin, overall, unixReviewTime) or meta (asin, categories)",
    )
    reviews, meta = roles["reviews"], roles["meta"]
    record: dict[str, Any] = {}
    table = stage(connection, object_rows(reviews, REVIEWS, record, make=_review), REVIEWS)
    log = table.select(
        user=table["reviewerID"],
        item=table["asin"],
        time=table["unixReviewTime"],
        rating=table["overall"],
        sequence=table["sequence"],
    )
    events = log.drop("rating")
    raw = RawLog(name="Amazon reviews", events=events, ratings=log, record=record)
    if meta:
        _add_meta(connection, raw, meta, with_brand=options["brand"] == "keep")
    return raw


def _add_meta(connection: Any, raw: RawLog, files: Sequence[Path], *, with_brand: bool) -> None:
    """Add category and brand."""
    record: dict[str, Any] = {}
    table = stage(connection, object_rows(files, META, record, make=_meta_row), META).rename(item="asin")
    raw.record["meta_files"] = record
    raw.record["items_without_meta"] = staging.without_meta(raw.events, table)
    staging.add_fields(raw, table, [name for name in FIELDS if with_brand or name != "brand"])


def _review(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found.get(name) for name in _REVIEW}


def _meta_row(found: Mapping[str, Any]) -> dict[str, str | None]:
    """Item, category and brand of a meta line."""
    paths = found.get("categories")
    last = paths[-1] if isinstance(paths, list) and paths else None
    category = last[-1] if isinstance(last, list) and last else last if isinstance(last, str) else None
    brand = found.get("brand")
    return {
        "asin": None if (item := found.get("asin")) is None else str(item),
        "category": str(category) if category else None,
        "brand": str(brand) if brand else None,
    }


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
        for line, parsed in objects(path):
            row = make(parsed)
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
                parsed = _parsed(data.decode().strip())
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
            if not isinstance(parsed, dict):
                raise SourceError(
                    f"a {type(parsed).__name__}",
                    file=str(path),
                    line=line,
                    expected="one object on each line",
                    fix="write each event as one object on a line of its own (JSON Lines)",
                )
            yield line, parsed


def _parsed(text: str) -> Any:
    """A JSON object or Python literal."""
    # Reviews are JSON and meta lines Python literals; a literal may begin like JSON, and is then read as one after all.
    if text.startswith('{"'):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return ast.literal_eval(text)
