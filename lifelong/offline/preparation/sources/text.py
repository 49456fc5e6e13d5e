"""Text files, checked line by line in bounded memory.

    file (plain or gz) --chunks--> whole rows + their line numbers --parse--> columns + sequence
                                                                    `-- on failure: the first wrong line and column

`sequence` is the running line number over all files in the order given: a total order that no engine can change. Lines
are counted in the text (after gunzip), blank ones included; a quoted line break is part of its row.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from lifelong.dtypes import IntArray
from lifelong.errors import SourceError
from lifelong.offline.preparation.engine import stage
from lifelong.tables import naming_delimiter

CHUNK_BYTES = 1 << 24
LONGEST_ROW = 1 << 28
NEWLINE, QUOTE, RETURN = 10, 34, 13
COUNTED = ("files", "empty_files", "rows", "header_lines", "blank_lines", "cut_lines")
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
        fix: what to do about a value that is not of its kind.
    """

    name: str
    kind: Literal["string", "id", "integer", "number"] = "string"
    choices: tuple[str, ...] = ()
    header: str = ""
    fix: str = ""

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
        may_be_cut: whether the last line, if it has no line end, may be incomplete.
        naming: how to say which column is what, where the user can say it.
    """

    columns: tuple[Column, ...]
    header: bool = False
    names: tuple[str, ...] = ()
    delimiter: str = ","
    quoted: bool = False
    encoding: str = "utf-8"
    may_be_cut: bool = False
    naming: str = ""

    def schema(self) -> pa.Schema:
        """Columns of the staged table."""
        return pa.schema([*((column.name, column.arrow) for column in self.columns), ("sequence", pa.int64())])


@dataclass(slots=True)
class Places:
    """Which lines were read so far: turns a `sequence` back into file and line, and counts what is unusual.

    Args:
        files: the files so far.
        first: sequence of the first line of each file.
        lines: number of lines so far.
        counts: see `COUNTED`.

    >>> places = Places([Path("a.csv"), Path("b.csv")], first=[0, 10])
    >>> places.locate(12)
    ('b.csv', 3)
    """

    files: list[Path] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def begin(self, path: Path) -> None:
        """Begin a new file."""
        self.files.append(path)
        self.first.append(self.lines)
        self.counts["files"] += 1

    def locate(self, sequence: int) -> tuple[str, int]:
        """File and line (from 1) of a sequence."""
        at = int(np.searchsorted(self.first, sequence, side="right")) - 1
        return str(self.files[at]), sequence - self.first[at] + 1

    def record(self) -> dict[str, int]:
        """The counts, zeros included."""
        return {name: self.counts[name] for name in COUNTED}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole rows of one file.

    Args:
        data: the bytes, line ends included.
        line_R: line number, from 1, of each row that is not blank.
        ended: False if the last row has no line end.
    """

    data: bytes
    line_R: IntArray
    ended: bool = True


def open_text(path: Path) -> Any:
    """A binary stream of the text, gunzipped if the content is gzip, whatever the file's name.

    Raises:
        SourceError: the file cannot be opened, or is a zip archive or parquet.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"PK\x03\x04" or magic == b"PAR1":
            kind = "a zip archive" if magic[:2] == b"PK" else "a parquet file"
            raise SourceError(
                f"this is {kind}",
                file=str(path),
                expected="text, plain or gzip",
                fix="unpack the file, or convert it to text",
            )
        return pa.input_stream(str(path), compression="gzip" if magic[:2] == b"\x1f\x8b" else None)
    except OSError as error:
        raise SourceError(
            f"cannot be opened: {error}",
            file=str(path),
            expected="a readable file",
            fix="check the path and its rights",
        ) from error


def chunks(path: Path, places: Places, *, quoted: bool = False, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Cut a file into whole rows, and count its lines in `places`.

    Raises:
        SourceError: the file cannot be read, or a row does not end.
    """
    places.begin(path)
    rest, lines, empty = b"", 0, True
    with open_text(path) as stream:
        while True:
            block = _read(stream, chunk_bytes, path)
            data, rest = rest + block, b""
            if empty and data.startswith(b"\xef\xbb\xbf"):
                data = data[3:]
            empty = empty and not data
            end_R = _row_ends(data, quoted)
            if block:
                # What follows the last whole row is read again with the next block.
                whole = int(end_R[-1]) + 1 if len(end_R) else 0
                data, rest = data[:whole], data[whole:]
                if len(rest) > LONGEST_ROW:
                    raise SourceError(
                        f"a row longer than {LONGEST_ROW >> 20} MiB starts here",
                        file=str(path),
                        line=lines + data.count(b"\n") + 1,
                        expected="text with line ends" + (" and closed quotes" if quoted else ""),
                        fix="close the quote that the row begins, or break the row into lines",
                    )
            ended = not data or (len(end_R) > 0 and end_R[-1] == len(data) - 1)
            if not ended:
                end_R = np.append(end_R, len(data))
            if data:
                line_R, blank = _lines(data, end_R, quoted)
                places.counts["blank_lines"] += blank
                yield Chunk(data, line_R + lines, ended)
                lines += data.count(b"\n") + (not ended)
            if not block:
                break
    places.counts["empty_files"] += empty
    places.lines += lines


def _read(stream: Any, size: int, path: Path) -> bytes:
    """The next bytes."""
    try:
        return bytes(stream.read(size))
    except (OSError, EOFError) as error:
        raise SourceError(
            f"cannot be read to its end: {error}", file=str(path), expected="a whole file", fix="fetch the file again"
        ) from error


def _row_ends(data: bytes, quoted: bool) -> IntArray:
    """Offsets of the line ends that end rows: those outside quotes."""
    byte_N = np.frombuffer(data, np.uint8)
    end_R = np.flatnonzero(byte_N == NEWLINE)
    if quoted and b'"' in data:
        # Every quote toggles; a doubled quote inside a value toggles twice and changes nothing.
        inside_N = np.bitwise_xor.accumulate(byte_N == QUOTE)
        end_R = end_R[~inside_N[end_R]]
    return end_R


def _lines(data: bytes, end_R: IntArray, quoted: bool) -> tuple[IntArray, int]:
    """Line numbers (from 1) of the rows that are not blank, and the number of blank ones."""
    byte_N = np.frombuffer(data, np.uint8)
    start_R = np.concatenate([[0], end_R[:-1] + 1])
    length_R = end_R - start_R
    # A lone carriage return is the blank line of a file with CRLF line ends.
    blank_R = (length_R == 0) | ((length_R == 1) & (byte_N[np.minimum(start_R, len(data) - 1)] == RETURN))
    if quoted and b'"' in data:
        # A row begins on the line after as many line ends, in quotes or not, as are before it.
        line_R = np.searchsorted(np.flatnonzero(byte_N == NEWLINE), start_R) + 1
    else:
        line_R = np.arange(1, len(end_R) + 1)
    return line_R[~blank_R].astype(np.int64), int(blank_R.sum())


def rows(
    files: Sequence[Path], layout: Layout, places: Places, *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[pa.Table]:
    """Checked rows of several files: the wanted columns and `sequence`.

    Raises:
        SourceError: a line is not what the layout says; names file, line and column.
    """
    for path in files:
        before, names, reader = places.lines, layout.names or tuple(column.named for column in layout.columns), None
        for chunk in chunks(path, places, quoted=layout.quoted, chunk_bytes=chunk_bytes):
            if not len(chunk.line_R):
                continue
            if reader is None:
                chunk, names = _take_header(chunk, layout, path, names)
                places.counts["header_lines"] += layout.header
                reader = _Rows(path, layout, names)
            chunk = _drop_cut(chunk, layout, len(names), places)
            if not len(chunk.line_R):
                continue
            table = reader.parse(chunk)
            places.counts["rows"] += len(table)
            yield table.append_column("sequence", pa.array(before + chunk.line_R - 1))


def staged(connection: Any, files: Sequence[Path], layout: Layout) -> tuple[Any, Places]:
    """All rows of several files as a table of the engine, and the places of their lines.

    Raises:
        SourceError: see `rows`.
    """
    places = Places()
    return stage(connection, rows(files, layout, places), layout.schema()), places


def header_names(path: Path, layout: Layout) -> list[str]:
    """Values of the first line that is not blank, which may be a header; none if the file is empty."""
    for chunk in chunks(path, Places(), quoted=layout.quoted, chunk_bytes=1 << 16):
        if len(chunk.line_R):
            first = chunk.data.lstrip(b"\r\n").split(b"\n", 1)[0]
            text = _decode(first, layout, path, int(chunk.line_R[0]))
            return [name.strip() for name in _fields(text, layout)]
    return []


def _take_header(chunk: Chunk, layout: Layout, path: Path, names: tuple[str, ...]) -> tuple[Chunk, tuple[str, ...]]:
    """Split the header off the first chunk."""
    if not layout.header:
        return chunk, names
    line = int(chunk.line_R[0])
    first, _, rest = chunk.data.lstrip(b"\r\n").partition(b"\n")
    names = tuple(name.strip() for name in _fields(_decode(first, layout, path, line), layout))
    for column in layout.columns:
        if names.count(column.named) != 1:
            raise SourceError(
                f"the header {'has no such column' if column.named not in names else 'names this column twice'}"
                f" (it has {', '.join(names)})",
                file=str(path),
                line=line,
                column=column.named,
                expected=f"the columns {', '.join(each.named for each in layout.columns)}",
                fix=(naming_delimiter(names[0], "--option") if layout.naming and len(names) == 1 else "")
                or layout.naming,
            )
    return Chunk(rest, chunk.line_R[1:], chunk.ended or not rest), names


def _drop_cut(chunk: Chunk, layout: Layout, width: int, places: Places) -> Chunk:
    """Drop the last row of a file if it breaks off: no line end, and too few values or an empty last value."""
    if chunk.ended or not layout.may_be_cut or not len(chunk.line_R):
        return chunk
    start = chunk.data.rfind(b"\n") + 1
    values = chunk.data[start:].split(layout.delimiter.encode())
    if len(values) > width or (len(values) == width and values[-1]):
        return chunk
    places.counts["cut_lines"] += 1
    return Chunk(chunk.data[:start], chunk.line_R[:-1])


def _fields(text: str, layout: Layout) -> list[str]:
    """The values of one row."""
    return next(_reader(text, layout), [])


def _reader(text: str, layout: Layout) -> Iterator[list[str]]:
    """Rows of a text, blank ones as empty lists."""
    csv.field_size_limit(sys.maxsize)
    delimiter = layout.delimiter
    if len(delimiter) > 1:
        text, delimiter = text.replace(delimiter, "\x1f"), "\x1f"
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)


def _decode(data: bytes, layout: Layout, path: Path, line: int) -> str:
    """The text of some bytes.

    Args:
        data: the bytes.
        layout: says the encoding.
        path: file that they are from, for the error.
        line: number of the line on which they start.

    Raises:
        SourceError: they are not in the layout's encoding.
    """
    try:
        return data.decode(layout.encoding)
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        raise SourceError(
            f"byte {data[error.start]:#04x} is not {layout.encoding}",
            file=str(path),
            line=line + data.count(b"\n", 0, error.start),
            column=data.count(layout.delimiter.encode(), start, error.start) + 1,
            expected=f"text in {layout.encoding}",
            fix="convert the file to UTF-8; the source table reads others by --option encoding=NAME, such as latin-1",
        ) from error


@dataclass(frozen=True, slots=True)
class _Rows:
    """Parses the chunks of one file.

    Args:
        path: the file.
        layout: how its rows are written.
        names: names of all its columns, in its order.
    """

    path: Path
    layout: Layout
    names: tuple[str, ...]

    def parse(self, chunk: Chunk) -> pa.Table:
        """The wanted columns of a chunk.

        Raises:
            SourceError: a line is wrong.
        """
        layout = self.layout
        wrong: list[pacsv.InvalidRow] = []

        def skip(row: pacsv.InvalidRow) -> str:
            wrong.append(row)
            return "skip"

        # Columns that are not wanted may have any name, and several may have the same one.
        wanted = {column.named for column in layout.columns}
        names = [name if name in wanted else f"\x1f{at}" for at, name in enumerate(self.names)]
        try:
            table = pacsv.read_csv(
                pa.BufferReader(self._plain(chunk)),
                pacsv.ReadOptions(column_names=names, block_size=len(chunk.data) + 1),
                pacsv.ParseOptions(
                    delimiter=layout.delimiter if len(layout.delimiter) == 1 else "\x1f",
                    quote_char='"' if layout.quoted else False,
                    newlines_in_values=layout.quoted,
                    invalid_row_handler=skip,
                ),
                pacsv.ConvertOptions(
                    include_columns=[column.named for column in layout.columns],
                    column_types={column.named: column.arrow for column in layout.columns},
                    null_values=[],
                ),
            )
        except pa.ArrowInvalid as error:
            self._blame(chunk)
            raise SourceError(
                f"cannot be parsed: {error}", file=str(self.path), line=int(chunk.line_R[0]), fix="correct the line"
            ) from error
        table = table.rename_columns([column.name for column in layout.columns])
        if wrong or len(table) != len(chunk.line_R) or not self._values_hold(table):
            self._blame(chunk)
            raise SourceError(
                f"the {len(chunk.line_R)} rows from this line on read as {len(table)}",
                file=str(self.path),
                line=int(chunk.line_R[0]),
                expected="quotes only around whole values",
                fix="say that this file has no quoted values, or fix its quotes",
            )
        return table

    def _plain(self, chunk: Chunk) -> bytes:
        """The bytes as the parser needs them: UTF-8, with a delimiter of one byte."""
        data = chunk.data
        if self.layout.encoding != "utf-8":
            data = _decode(data, self.layout, self.path, int(chunk.line_R[0])).encode()
        return data.replace(self.layout.delimiter.encode(), b"\x1f") if len(self.layout.delimiter) > 1 else data

    def _values_hold(self, table: pa.Table) -> bool:
        """Whether no id is empty, all numbers are finite, and columns with choices have no other value."""
        for column in self.layout.columns:
            if column.choices and not set(table[column.name].unique().to_pylist()) <= set(column.choices):
                return False
            if column.kind == "number" and not pc.all(pc.is_finite(table[column.name])).as_py():
                return False
            if column.kind == "id" and pc.any(pc.equal(table[column.name], "")).as_py():
                return False
        return True

    def _blame(self, chunk: Chunk) -> None:
        """Find the first wrong line of a chunk that did not parse."""
        first = int(chunk.line_R[0])
        text = _decode(chunk.data.lstrip(b"\r\n"), self.layout, self.path, first)
        kept = (row for row in _reader(text, self.layout) if row)
        columns = [(self.names.index(column.named), column) for column in self.layout.columns]
        for line, row in zip(chunk.line_R.tolist(), kept, strict=False):
            if len(row) != len(self.names):
                raise SourceError(
                    f"{len(row)} values",
                    file=str(self.path),
                    line=line,
                    column=min(len(row), len(self.names)) + 1 if len(row) != 1 else 1,
                    expected=f"{len(self.names)} values, separated by {self.layout.delimiter!r}:"
                    f" {', '.join(self.names)}",
                    fix="correct the line; if all lines are like it, check the delimiter",
                )
            for at, column in columns:
                value = row[at]
                found = column.problem(value)
                if found:
                    place = f"{at + 1} ({column.named})"
                    raise SourceError(
                        found,
                        file=str(self.path),
                        line=line,
                        column=place,
                        expected=column.expected,
                        fix=column.fix if value else "",
                    )
