"""Tables of other libraries in, Arrow tables out; and paths that name several files.

anything with                 pandas (2.2 and later), Polars, DuckDB relations, Ibis expressions, Arrow tables and
`__arrow_c_stream__`          readers
a Hugging Face dataset        exports no Arrow stream, but gives its rows as Arrow
"""

from __future__ import annotations

import glob
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
from pydantic_core import from_json

from lifelong.errors import SourceError, UsageError, require

TABLE_FILE = "table.parquet"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Unit of a time -> how many make a second."""
_ROWS = 65_536
_MAKE = (
    "pyarrow.table(...) makes one of columns, pyarrow.Table.from_pylist(...) of rows, "
    "pyarrow.RecordBatchReader.from_batches(schema, ...) of record batches"
)
ColumnKind = Literal["id", "value", "moment"]
"""Of a column: the id of a user, an item or an event, or a type of events; an item field; a time."""
TYPES: Mapping[ColumnKind, str] = {
    "id": "text or whole numbers",
    "value": "text, numbers, true or false, or dates",
    "moment": "numbers, text, timestamps or dates",
}
"""The types of a kind, in words."""
_TEXTS = ("string", "large_string", "string_view")
_TYPES: Mapping[ColumnKind, tuple[str, ...]] = {
    "id": ("integer", *_TEXTS),
    "value": ("integer", "floating", "decimal", "boolean", "date", "null", *_TEXTS),
    "moment": ("integer", "floating", "decimal", "timestamp", "date", "null", *_TEXTS),
}
_FLOATS = 'write whole numbers as such; pandas makes floats of them where a value is missing, .astype("Int64") does not'
TABLES = "a table that exports Arrow: of pandas (2.2 and later), Polars, DuckDB, Ibis, Arrow or Hugging Face"


def is_path(value: object) -> bool:
    """Whether a value is a path or a glob, or a list of them.

    >>> is_path("events.csv"), is_path(["a.csv", "b.csv"]), is_path([]), is_path(3)
    (True, True, False, False)
    """
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(entry, str | Path) for entry in value)
    return isinstance(value, str | Path)


def named_columns(columns: Mapping[str, str] | None, named: Mapping[str, str]) -> dict[str, str]:
    """Our name of a column -> the table's, given as a mapping or by names, which win.

    Raises:
        UsageError: it is no mapping.

    >>> named_columns({"user": "visitor"}, {"item": "article"})
    {'user': 'visitor', 'item': 'article'}
    """
    if columns is not None and not isinstance(columns, Mapping):
        raise UsageError(
            f"columns = {columns!r}", expected="our name -> the table's name", fix='columns={"user": "visitor"}'
        )
    return {**(columns or {}), **named}


def text_of(value: Any) -> str | None:
    """A value as `prepare` reads it; None where there is none.

    >>> text_of(5.0), text_of(True), text_of("")
    ('5.0', 'true', None)
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None or value == "" else str(value)


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object of a line of JSON.

    Raises:
        ValueError: it is none.

    >>> json_object('{"user": "ada", "time": 1.0}')
    {'user': 'ada', 'time': 1.0}
    """
    try:
        values = from_json(text)
    except ValueError:
        try:
            # It takes a few texts more, such as UTF-16.
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    return values


def folder_columns(path: Path) -> dict[str, str]:
    """Columns whose text in every row the folders of a file give, by Hive's convention.

    >>> folder_columns(Path("log/year=2026/month=05/city=K%C3%B6ln/part-0.parquet"))
    {'year': '2026', 'month': '05', 'city': 'Köln'}
    """
    pairs = (name.partition("=") for name in path.parts[:-1] if "=" in name)
    # Texts, as another folder of the same column may hold what is no number, or has zeros in front.
    return {name: unquote(value) for name, _, value in pairs if name}


def with_folder_columns(rows: Any, path: Path) -> Any:
    """A table or batch of Arrow with the columns of the folders of its file, but those that it has itself."""
    from pyarrow import repeat

    for name, value in folder_columns(path).items():
        if name not in rows.schema.names:
            rows = rows.append_column(name, repeat(value, rows.num_rows))
    return rows


def quoted(name: str) -> str:
    """A name in SQL.

    >>> quoted("first name")
    '"first name"'
    """
    return '"' + name.replace('"', '""') + '"'


def is_table(value: object) -> bool:
    """Whether a value is a table that `reader_of` reads."""
    return hasattr(value, "__arrow_c_stream__") or _of_hugging_face(value)


def _of_hugging_face(value: object) -> bool:
    return all(hasattr(value, name) for name in ("with_format", "features", "iter"))


def naming_delimiter(header: str) -> str:
    r"""How to say what separates columns, for a header without commas; "" where nothing seems to separate it.

    >>> naming_delimiter("user;item;time")
    'say what separates columns: --column "delimiter=;", in Python delimiter=\';\''
    """
    separator = max(";\t|", key=header.count)
    if separator not in header:
        return ""
    word = f'"delimiter={separator}"' if separator != "\t" else r"$'delimiter=\t'"
    return f"say what separates columns: --column {word}, in Python delimiter={separator!r}"


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """The files that paths and globs name, in the user's order; those of a glob are sorted.

    Raises:
        SourceError: a glob matches nothing.
        UsageError: an address, such as that of an object store.
    """
    files: list[Path] = []
    for path in paths:
        _check_local(str(path))
        whole = Path(path).expanduser()
        if whole.exists() or not glob.has_magic(str(whole)):
            files.append(whole)
            continue
        # `glob` takes relative patterns alone; without an anchor the root is this folder.
        root = Path(whole.anchor)
        matches = sorted(root.glob(str(whole.relative_to(root))))
        if not matches:
            raise SourceError("no file matches", file=str(path), expected="at least one file", fix="check the pattern")
        files.extend(matches)
    return files


def _check_local(path: str) -> None:
    """Refuse an address, which `Path` would make a path of.

    Raises:
        UsageError: it is one.
    """
    scheme, separator, _ = path.partition("://")
    if separator and scheme.replace("+", "").isalnum() and not Path(path).exists():
        raise UsageError(
            f"{path} is an address",
            expected="files on a disk of this machine",
            fix="copy the files here, or read them from Python as a table, such as of DuckDB or Arrow",
        )


def reader_of(table: Any, *, what: str = "a table", expected: str = TABLES) -> Any:
    """A `pyarrow.RecordBatchReader` of a table of any library.

    Args:
        table: see the top of this file.
        what: it is for, in words.
        expected: what may be given, in words.

    Raises:
        UsageError: it is no such table, or its library cannot export it, as two columns of one name.
        MissingExtraError: pyarrow is not installed.
    """
    if not is_table(table):
        raise UsageError(
            f"{what} of type {type(table).__name__}",
            expected=expected,
            fix="call its .collect() first" if hasattr(table, "collect") else _MAKE,
        )
    arrow = require("pyarrow", extra="train", purpose="reading tables")
    if hasattr(table, "__arrow_c_stream__"):
        try:
            return arrow.RecordBatchReader.from_stream(table)
        # Whatever its library raises: of one that has values of several types in a column, or columns of one name.
        except Exception as error:
            raise _not_exported(table, error, what=what, expected=expected) from error
    schema = table.features.arrow_schema
    parts = table.with_format("arrow").iter(_ROWS)
    return arrow.RecordBatchReader.from_batches(schema, (batch for batches in parts for batch in batches.to_batches()))


def _not_exported(table: object, error: Exception, *, what: str, expected: str) -> UsageError:
    problem = f"{what} of type {type(table).__name__}, which"
    if "non-struct type" in str(error):
        return UsageError(f"{problem} is a single column", expected=expected, fix="give the whole table")
    why = "; ".join(map(str, error.args)) or type(error).__name__
    fix = "give each column a name of its own, and values of one type"
    return UsageError(f"{problem} cannot be exported: {why}", expected=expected, fix=fix)


@contextmanager
def table_file(table: Any, *, what: str = "a table", expected: str = TABLES) -> Iterator[Path]:
    """A table as a parquet file, written batch by batch and removed at the end.

    Args:
        table: see `reader_of`.
        what: see `reader_of`.
        expected: see `reader_of`.

    Raises:
        SourceError: of the caller's, who reads the file; it names the table in place of the file.
    """
    reader = reader_of(table, what=what, expected=expected)
    parquet = require("pyarrow.parquet", extra="train", purpose="reading tables")
    with tempfile.TemporaryDirectory(prefix="lifelong-") as folder:
        path = Path(folder) / TABLE_FILE
        with parquet.ParquetWriter(path, _of_plain_texts(reader.schema)) as writer:
            for batch in reader:
                writer.write_batch(_plain_texts(batch))
        try:
            yield path
        except SourceError as error:
            raise _about_table(error, path) from error


def _of_plain_texts(schema: Any) -> Any:
    """A schema with texts where categories of Polars are, which Arrow cannot write to parquet."""
    arrow = require("pyarrow", extra="train", purpose="reading tables")
    types = ((field.name, arrow.large_string() if _is_category(field.type) else field.type) for field in schema)
    return arrow.schema(list(types))


def _plain_texts(batch: Any) -> Any:
    arrow = require("pyarrow", extra="train", purpose="reading tables")
    columns = [
        column.dictionary.cast(arrow.large_string()).take(column.indices) if _is_category(column.type) else column
        for column in batch.columns
    ]
    return arrow.record_batch(columns, schema=_of_plain_texts(batch.schema))


def _is_category(kind: Any) -> bool:
    types = require("pyarrow", extra="train", purpose="reading tables").types
    return bool(types.is_dictionary(kind) and types.is_string_view(kind.value_type))


def _about_table(error: SourceError, path: Path) -> SourceError:
    """An error without the temporary file, which the caller has never seen."""
    problem = error.found.replace(str(path), "the table")
    said = SourceError(problem, expected=error.expected, fix=error.fix)
    said.file, said.line, said.column = "the table", error.line, error.column
    return said


def check_types(schema: Any, columns: Mapping[str, ColumnKind], *, file: str) -> None:
    """Check the types of columns that a log, events and requests have in common.

    Args:
        schema: of Arrow; columns that it lacks are not looked at.
        columns: name -> what it holds.
        file: where it comes from, for the error.

    Raises:
        SourceError: a type has no text or no time that is the same wherever the column is read.

    >>> import pyarrow
    >>> check_types(pyarrow.schema({"user": pyarrow.float64()}), {"user": "id"}, file="the table")
    Traceback (most recent call last):
    lifelong.errors.SourceError: the table, column user: its type is double. Expected: text or whole numbers. \
To do: write whole numbers as such; pandas makes floats of them where a value is missing, .astype("Int64") does not.
    """
    types = require("pyarrow", extra="train", purpose="reading tables").types
    for name, kind in columns.items():
        type_ = schema.field(name).type if name in schema.names else None
        if type_ is None or is_of(type_, kind):
            continue
        fix = _FLOATS if kind == "id" and types.is_floating(type_) else "write the column as one of these"
        raise SourceError(f"its type is {type_}", file=file, column=name, expected=TYPES[kind], fix=fix)


def is_of(found: Any, kind: ColumnKind) -> bool:
    """Whether an Arrow type is one of a kind of column; of categories their values count."""
    types = require("pyarrow", extra="train", purpose="reading tables").types
    # A file has plain values where pandas had categories.
    plain = found.value_type if types.is_dictionary(found) else found
    return any(getattr(types, f"is_{test}")(plain) for test in _TYPES[kind])


def time_in_seconds(batch: Any, name: str) -> Any:
    """A record batch with one column of timestamps or dates as UTC seconds; with another one as it is."""
    column = batch.schema.get_field_index(name)
    if column < 0 or not is_clock(batch.schema.field(column).type):
        return batch
    return batch.set_column(column, name, utc_seconds(batch.column(column)))


def is_clock(kind: Any) -> bool:
    """Whether an Arrow type is one of timestamps or dates."""
    types = require("pyarrow", extra="train", purpose="reading tables").types
    return bool(types.is_timestamp(kind) or types.is_date(kind))


def utc_seconds(column: Any) -> Any:
    """An Arrow column of timestamps (any unit and zone) or dates as UTC seconds, rounded down.

    Times without a zone are taken for UTC; a date is its midnight in UTC.

    >>> from datetime import date, datetime
    >>> import pyarrow
    >>> times = [datetime(1970, 1, 1, 0, 0, 1, 900_000), None]
    >>> utc_seconds(pyarrow.array(times)).to_pylist(), utc_seconds(pyarrow.array([date(1970, 1, 2)])).to_pylist()
    ([1, None], [86400])
    """
    arrow = require("pyarrow", extra="train", purpose="reading tables")
    days = arrow.types.is_date32(column.type)
    unit = "s" if days else "ms" if arrow.types.is_date64(column.type) else column.type.unit
    # Whole numbers are divided here: Arrow would want the zone's rules, which not every machine has.
    count_N = column.cast(arrow.int32() if days else arrow.int64()).fill_null(0).to_numpy().astype(np.int64)
    # `//` rounds down before 1970, too. The mask takes out again what was filled in for NumPy.
    return arrow.array(count_N * 86_400 if days else count_N // PER_SECOND[unit], mask=np.asarray(column.is_null()))


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str) -> str:
    """A small table as notebooks show it.

    >>> html_table(["split", "examples"], [["train", "1,000"]], caption="<data>")[:48]
    '<table><caption>&lt;data&gt;</caption><thead><tr'
    """
    first = "".join(f"<th>{escape(str(name))}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    caption = f"<caption>{escape(caption)}</caption>"
    return f"<table>{caption}<thead><tr>{first}</tr></thead><tbody>{body}</tbody></table>"


def table_of(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> Any:
    """A `pyarrow.Table` of rows, which pandas, Polars and DuckDB take as it is.

    Args:
        rows: may lack columns.
        columns: column -> the Arrow name of its type.

    Raises:
        MissingExtraError: pyarrow is not installed.

    >>> table_of([{"item": "i1", "score": 0.5}], {"item": "string", "score": "double"}).to_pydict()
    {'item': ['i1'], 'score': [0.5]}
    """
    arrow = require("pyarrow", extra="train", purpose="tables")
    schema = arrow.schema([(name, arrow.type_for_alias(alias)) for name, alias in columns.items()])
    return arrow.Table.from_pylist(list(rows), schema=schema)


def frame_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """A `pandas.DataFrame` of rows.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    pandas = require("pandas", extra="train", purpose="data frames")
    return pandas.DataFrame.from_records(list(rows), columns=list(columns))
