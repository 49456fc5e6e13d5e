"""Text files, read by Arrow in bounded memory; where that fails, a slower reader finds the first wrong line.

    file (plain or gz) --pyarrow.csv--> the wanted columns + sequence
                       `-- on failure: csv, row by row --> the first wrong line and column

`sequence` is the running number of a row over all files in the order given: a total order that no engine can change.
Blank lines are no rows; a quoted line break is part of its row.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from lifelong.dataset.mapping import rows_of
from lifelong.errors import SourceError
from lifelong.offline.preparation.engine import stage
from lifelong.tables import naming_delimiter

BLOCK_BYTES = 1 << 24
_ROWS = 65_536
_INTEGER = re.compile(r"\s*-?\d{1,19}\s*")
_ARROW = {"string": pa.string(), "id": pa.string(), "integer": pa.int64(), "number": pa.float64()}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a text file.

    Args:
        name: its name in the staged table.
        kind: what its values must be; an `id` is a text that is not empty.
        choices: the only allowed values, if not empty.
        header: its name in the file, if it differs.
    """

    name: str
    kind: Literal["string", "id", "integer", "number"] = "string"
    choices: tuple[str, ...] = ()
    header: str = ""

    @property
    def named(self) -> str:
        """Its name in the file."""
        return self.header or self.name

    @property
    def arrow(self) -> pa.DataType:
        """Type of the staged column."""
        return _ARROW[self.kind]

    def problem(self, value: str) -> str | None:
        """What is wrong with a value, None if nothing is."""
        if self.choices and value not in self.choices:
            return f"{value!r} is not one of the known values"
        if self.kind == "id" and not value:
            return "there is no value"
        if self.kind == "integer" and not (_INTEGER.fullmatch(value) and -(2**63) <= int(value) < 2**63):
            return f"{value!r} is not a whole number"
        if self.kind == "number":
            try:
                fine = math.isfinite(float(value))
            except ValueError:
                fine = False
            return None if fine else f"{value!r} is not a number"
        return None

    def holds(self, column: pa.ChunkedArray) -> bool:
        """Whether no id is empty, all numbers are finite, and there is no value but the choices."""
        if self.choices and not set(column.unique().to_pylist()) <= set(self.choices):
            return False
        if self.kind == "number":
            return pc.all(pc.is_finite(column)).as_py() is not False
        return self.kind != "id" or not pc.any(pc.equal(column, "")).as_py()

    @property
    def expected(self) -> str:
        """What a value should be, in words."""
        words = {"string": "text", "id": "an id", "integer": "a whole number", "number": "a number"}
        return ", ".join(self.choices) if self.choices else words[self.kind]


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are written.

    Args:
        columns: the wanted columns; without a header and `names` they are all columns, in order.
        header: whether the first line names the columns; columns that are not wanted are skipped.
        names: all column names of a file without a header, if it has more than the wanted ones.
        delimiter: between values; `::` is allowed.
        quoted: whether values may be in double quotes.
        encoding: encoding of the text.
        naming: how to say which column is what, where the user can say it.
    """

    columns: tuple[Column, ...]
    header: bool = False
    names: tuple[str, ...] = ()
    delimiter: str = ","
    quoted: bool = False
    encoding: str = "utf-8"
    naming: str = ""

    def schema(self) -> pa.Schema:
        """Columns of the staged table."""
        return pa.schema([*((column.name, column.arrow) for column in self.columns), ("sequence", pa.int64())])


@dataclass(slots=True)
class Places:
    """Which files were read so far, and how many rows of each: turns a `sequence` back into file and line.

    Args:
        layout: of the files.
        files: the files so far.
        first: sequence of the first row of each file.
        rows: number of rows so far.
    """

    layout: Layout
    files: list[Path] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    rows: int = 0

    def locate(self, sequence: int) -> tuple[str, int]:
        """File and line (from 1) of a sequence; the file is read again up to there."""
        at = int(np.searchsorted(self.first, sequence, side="right")) - 1
        row = sequence - self.first[at] + self.layout.header
        return str(self.files[at]), next(islice(_numbered(self.files[at], self.layout), row, None))[0]

    def record(self) -> dict[str, int]:
        """Counts of files and rows."""
        return {"files": len(self.files), "rows": self.rows}


@contextmanager
def open_text(path: Path) -> Iterator[BinaryIO]:
    """A binary stream of the text, gunzipped if the content is gzip, whatever the file's name.

    Raises:
        SourceError: the file cannot be read to its end, or is a zip archive or parquet.
    """
    try:
        with path.open("rb") as file:
            # By content: files are often gzip without saying so in their names, or say so and are plain.
            magic = file.read(4)
        if magic == b"PK\x03\x04" or magic == b"PAR1":
            kind = "a zip archive" if magic[:2] == b"PK" else "a parquet file"
            fix = "unpack the file, or convert it to text"
            raise SourceError(f"this is {kind}", file=str(path), expected="text, plain or gzip", fix=fix)
        with gzip.open(path) if magic[:2] == b"\x1f\x8b" else path.open("rb") as stream:
            yield cast(BinaryIO, stream)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"cannot be read to its end: {error}",
            file=str(path),
            expected="a whole file that this user may read",
            fix="check the path and its rights, or fetch the file again",
        ) from error


def rows(files: Sequence[Path], layout: Layout, places: Places) -> Iterator[pa.Table]:
    """Checked rows of several files: the wanted columns and `sequence`.

    Raises:
        SourceError: a line is not what the layout says; names file, line and column.
    """
    for path in files:
        places.files.append(path)
        places.first.append(places.rows)
        head = list(islice(_numbered(path, layout), 1 + layout.header))
        if layout.header and head:
            _check_header(path, layout, head[0][0], _names(head[0]))
        # A file without rows is no error: logs that are cut by day have empty days.
        if len(head) <= layout.header:
            continue
        names = _names(head[0]) if layout.header else layout.names or tuple(each.named for each in layout.columns)
        # What is skipped are lines: blank ones before the header, and those of a header with line breaks.
        skipped = head[0][2] if layout.header else 0
        several = len(layout.delimiter) > 1
        for table in _in_python(path, layout, names) if several else _by_arrow(path, layout, names, skipped):
            # Numbered here and not by the engine, which reads batches in parallel.
            sequence = pa.array(np.arange(places.rows, places.rows + len(table)))
            places.rows += len(table)
            yield table.append_column("sequence", sequence)


def staged(connection: Any, files: Sequence[Path], layout: Layout) -> tuple[Any, Places]:
    """All rows of several files as a table of the engine, and the places of their lines.

    Raises:
        SourceError: see `rows`.
    """
    places = Places(layout)
    return stage(connection, rows(files, layout, places), layout.schema()), places


def header_names(path: Path, layout: Layout) -> tuple[str, ...]:
    """Values of the first line that is not blank, which may be a header; none if the file is empty."""
    return next(map(_names, _numbered(path, layout)), ())


_Row = tuple[int, list[str], int]
"""Its first line, from 1; its values; its last line."""


def _names(row: _Row) -> tuple[str, ...]:
    return tuple(name.strip() for name in row[1])


def _numbered(path: Path, layout: Layout) -> Iterator[_Row]:
    """All rows that are not blank, the header among them, row by row.

    Raises:
        SourceError: bytes are not in the layout's encoding, or a row does not end.
    """
    # The reader refuses values above 128 KiB by default; a history of thousands of items in one cell is longer.
    csv.field_size_limit(sys.maxsize)
    reader = rows_of(_decoded(path, layout), layout.delimiter, quoted=layout.quoted)
    before = 0
    try:
        for values in reader:
            if values:
                yield before + 1, values, reader.line_num
            before = reader.line_num
    except csv.Error as error:
        fix = "close the quote that the row begins, or say that this file has no quoted values"
        raise SourceError(f"cannot be parsed: {error}", file=str(path), line=before + 1, fix=fix) from error


def _decoded(path: Path, layout: Layout) -> Iterator[str]:
    """The lines of a file as text."""
    with open_text(path) as stream:
        for number, data in enumerate(stream, start=1):
            data = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
            try:
                yield data.decode(layout.encoding)
            except UnicodeDecodeError as error:
                raise SourceError(
                    f"byte {data[error.start]:#04x} is not {layout.encoding}",
                    file=str(path),
                    line=number,
                    column=data.count(layout.delimiter.encode(), 0, error.start) + 1,
                    expected=f"text in {layout.encoding}",
                    fix="convert the file to UTF-8; the source table reads others by --column encoding=NAME "
                    "(encoding=NAME), such as latin-1",
                ) from error


def _check_header(path: Path, layout: Layout, line: int, names: Sequence[str]) -> None:
    for column in layout.columns:
        if names.count(column.named) != 1:
            raise SourceError(
                f"the header {'has no such column' if column.named not in names else 'names this column twice'}"
                f" (it has {', '.join(names)})",
                file=str(path),
                line=line,
                column=column.named,
                expected=f"the columns {', '.join(each.named for each in layout.columns)}",
                fix=(naming_delimiter(names[0]) if layout.naming and len(names) == 1 else "") or layout.naming,
            )


def _by_arrow(path: Path, layout: Layout, names: Sequence[str], skipped: int) -> Iterator[pa.Table]:
    """The wanted columns of one file, block by block."""
    wanted = {column.named: column for column in layout.columns}
    # Columns that are not wanted may have any name, and several may have the same one.
    unique = [name if name in wanted else f"\x1f{at}" for at, name in enumerate(names)]
    read = pacsv.ReadOptions(column_names=unique, skip_rows=skipped, block_size=BLOCK_BYTES, encoding=layout.encoding)
    quote = '"' if layout.quoted else False
    parse = pacsv.ParseOptions(delimiter=layout.delimiter, quote_char=quote, newlines_in_values=layout.quoted)
    types = {name: column.arrow for name, column in wanted.items()}
    convert = pacsv.ConvertOptions(include_columns=list(wanted), column_types=types, null_values=[])
    done = 0
    try:
        with open_text(path) as stream:
            for batch in pacsv.open_csv(stream, read, parse, convert):
                table = pa.table(batch).rename_columns([column.name for column in layout.columns])
                if not all(column.holds(table[column.name]) for column in layout.columns):
                    raise pa.ArrowInvalid("a value is not what it should be")
                done += len(table)
                yield table
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        # The rows that were given are right.
        for _ in _checked(path, layout, names, start=done):
            pass
        raise SourceError(f"cannot be parsed: {error}", file=str(path), fix="correct the file") from error


def _in_python(path: Path, layout: Layout, names: Sequence[str]) -> Iterator[pa.Table]:
    """The same, of a file that Arrow does not read: its values are separated by several characters."""
    checked = _checked(path, layout, names)
    while part := list(islice(checked, _ROWS)):
        columns = zip(zip(*part, strict=True), layout.columns, strict=True)
        yield pa.table({each.name: pa.array(values).cast(each.arrow) for values, each in columns})


def _checked(path: Path, layout: Layout, names: Sequence[str], *, start: int = 0) -> Iterator[list[str]]:
    """The wanted values of each row, from one on.

    Raises:
        SourceError: a row is wrong.
    """
    columns = [(names.index(column.named), column) for column in layout.columns]
    for line, values, _ in islice(_numbered(path, layout), layout.header + start, None):
        if len(values) != len(names):
            raise SourceError(
                f"{len(values)} values",
                file=str(path),
                line=line,
                column=min(len(values), len(names)) + 1 if len(values) != 1 else 1,
                expected=f"{len(names)} values, separated by {layout.delimiter!r}: {', '.join(names)}",
                fix="correct the line; if all lines are like it, check the delimiter",
            )
        for at, column in columns:
            if problem := column.problem(values[at]):
                raise SourceError(
                    problem,
                    file=str(path),
                    line=line,
                    column=f"{at + 1} ({column.named})",
                    expected=column.expected,
                    fix="correct the value, or remove the line",
                )
        yield [values[at] for at, _ in columns]
