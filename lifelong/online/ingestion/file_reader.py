"""Reads a file of events as columns, some lines at a time: csv, jsonl (both also `.gz`) or parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.dataset.mapping import JSON, TableMapping, Text
from lifelong.errors import ConfigError, SourceError, UsageError, require
from lifelong.online.ingestion.opened_file import OpenedFile, OverwrittenError, overwritten
from lifelong.online.ingestion.parquet import ParquetRows, values_of
from lifelong.online.ingestion.prefix import Digest, Prefix, Traces, row_lines
from lifelong.online.ingestion.rows import EventRows, Problem, check_columns, json_row
from lifelong.online.ingestion.selection import Lines, Row, Selection, row_of
from lifelong.online.ingestion.text_lines import EVERY, UNREADABLE, TextLines

if TYPE_CHECKING:
    from lifelong.dataset.events import Schema


_LINE_ENDS = re.compile(r"\r\n|\r|\n")


class FileReader:
    """Reads one file.

    Args:
        file: the file.
        schema: of the artifact; the file may have its item fields.
        columns: our name -> the file's name, and settings of a mapping; see `EventRows`.
        size: lines that come at once.
        known: digests of its first lines when they were applied, by how many they are.
        last_line: "leave" or "complete"; see `lifelong.online.ingestion.files.ingest`.
        latest: see `EventRows`.
        mapping: see `EventRows`.
        noted: whether what comes is counted in, so that another run can continue after it.

    Attributes:
        digest: of the lines that came; whoever takes lines counts them in.
        traces: of the events among them.
        absent: columns of item fields that the file lacks.
    """

    path: Path
    rows: EventRows
    digest: Digest
    absent: Sequence[str] = ()

    def __init__(
        self,
        file: OpenedFile,
        schema: Schema,
        columns: Mapping[str, str],
        *,
        size: int,
        known: Mapping[int, str] | None = None,
        last_line: str = "leave",
        latest: Callable[[], int] | None = None,
        mapping: TableMapping | None = None,
        noted: bool = True,
    ) -> None:
        self.path, self._size = file.path, size
        self.rows = EventRows(schema, columns, latest, mapping)
        self._file, self._known = file, dict(sorted((known or {}).items()))
        self._text: TextLines | None = None
        self._format, self._zipped = format_of(file.path)
        self._asks = self.rows.mapping.query is not None
        self._parquet = ParquetRows(file, None if self._asks else self.rows.column["time"])
        self._written: Text = self.rows.mapping.of_log if self._format == "csv" else Text()
        self._selection = Selection(self.rows.mapping, file.path)
        self.traces: Traces = Traces()
        self._header = 1 if self._format == "csv" and self._written.header else 0
        self.digest = Digest(header=self._header, noted=noted)
        self.noted: bool = noted
        # What was applied once without its end is not left out now.
        self._upto = EVERY if last_line == "complete" else max(self._known, default=0)

    @property
    def held(self) -> int | None:
        """Number of a last line that has no end and was left, once all others came."""
        return None if self._text is None else self._text.held

    @property
    def unended(self) -> int | None:
        """Number of a last line that has no end and was taken."""
        return None if self._text is None else self._text.unended

    def size(self) -> int:
        """The value of `Lines.done` at the end: bytes of the file, or rows of parquet."""
        return self._parquet.count() if self._format == "parquet" else self._file.end

    def check(self) -> None:
        """Check that the file can be read and has the columns.

        Raises:
            SourceError: says which is not so.
        """
        if self._format == "parquet":
            self._check_parquet()
            return
        with self._opened() as (_, text):
            names = self._head(text) if self._format == "csv" else [JSON]
        if self._asks:
            arrow = require("pyarrow", extra="train", purpose="a mapping with a query")
            self._selection.check(arrow.table({name: arrow.array([], arrow.string()) for name in names}))

    def count_in(self, through: int) -> None:
        """Count lines up to one into the digest.

        Raises:
            SourceError: they are not the lines that were applied, though they were when the file was opened.
        """
        for number, digest in self._known.items():
            if self.digest.lines < number <= through:
                # A digest only goes forward: each number that an earlier run noted is compared on the way.
                self.digest.advance(number)
                if not self.digest.hex().startswith(digest):
                    raise overwritten(self.path)
        self.digest.advance(through)

    def digests(self, numbers: Sequence[int]) -> Generator[tuple[int, str]]:
        """The digest of the first lines, for rising numbers of lines; where the file ends earlier, of all lines, last.

        Raises:
            SourceError: the file cannot be read.
        """
        self._upto = max(numbers, default=0)
        with closing(self.parts()) as parts:
            there = 0
            for number in numbers:
                while there < number and (found := next(parts, None)) is not None:
                    there += len(found)
                self.digest.advance(min(there, number))
                yield self.digest.lines, self.digest.hex()
                if there < number:
                    return

    def parts(self) -> Generator[list[str]]:
        """The lines as text, some at a time, fed to the digest; rows of parquet as `row_lines` gives them.

        Raises:
            SourceError: the file cannot be read from a line on; the lines before it came.
        """
        if self._format == "parquet":
            for batch in self._parquet.batches(self._size):
                lines = self._row_lines(batch)
                self.digest.feed(lines)
                yield lines
            return
        with self._opened() as (_, text):
            yield from text.parts()

    def prefix(self, source: str) -> Prefix:
        """What was counted in of the digest, for the watermark of a source."""
        return self.digest.prefix(source, self.rows.reading, self.traces.found())

    def _row_lines(self, batch: Any) -> list[str]:
        self.digest.name(batch.schema.names)
        return row_lines(batch)

    def lines(self) -> Generator[Lines]:
        """All lines; if one cannot be read, the lines before it come first, then its error is raised.

        Raises:
            SourceError: the file, or a line of it, cannot be read.
        """
        return self._parquet_lines() if self._format == "parquet" else self._text_lines()

    def bad(self, line: int, found: str, *, column: str | None = None, expected: str = "") -> SourceError:
        """The error of a line."""
        fix = "fix the line and run again with the same file; the lines before it are applied, and not applied again"
        # Further down, lines were applied by now with times as they are.
        first = line <= 1 + self._header
        if first and column is not None and column == self.rows.column["time"] and self.rows.plain_times:
            fix += "; or say how times are written by --column time_unit=ms (us, ns, iso) or time_format=PATTERN"
        return SourceError(found, file=str(self.path), line=line, column=column, expected=expected, fix=fix)

    def _text_lines(self) -> Generator[Lines]:
        with self._opened() as (file, text):
            for lines in self._csv_lines(text) if self._format == "csv" else self._json_lines(text):
                # The place in the file itself, which may be compressed: progress is in its bytes.
                yield self._selection.of_rows(replace(lines, done=file.tell()))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[io.BufferedReader, TextLines]]:
        """The file, and its text.

        Raises:
            SourceError: it cannot be read; names the line.
        """
        text = None
        try:
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(self._file.stream())
                stream: Any = gzip.GzipFile(fileobj=file, mode="rb") if self._zipped else file
                wrapper = stack.enter_context(self._written.opened(stream))
                text = self._text = TextLines(wrapper, self.digest, upto=self._upto)
                yield file, text
        except (*UNREADABLE, csv.Error) as error:
            raise self._unread(1 if text is None else text.number + 1, error) from error

    def _unread(self, line: int, error: Exception) -> SourceError:
        """The error of a file that cannot be read from a line on."""
        if isinstance(error, gzip.BadGzipFile) and line == 1:
            return SourceError(
                f"not compressed by gzip: {error}", file=str(self.path), fix="leave .gz out of its name, or compress it"
            )
        if isinstance(error, OverwrittenError):
            return overwritten(self.path)
        if isinstance(error, UnicodeDecodeError):
            # It came while a part of the file was read, of which no line has been taken.
            line += bytes(error.object[: error.start]).count(b"\n")
            name = self._written.encoding.upper()
            wrong = f"not {name}: the byte 0x{error.object[error.start]:02x}"
            fix = "save it as UTF-8, or say how it is written, as by --column encoding=latin-1"
            return SourceError(wrong, file=str(self.path), line=line, expected=f"text in {name}", fix=fix)
        return self.bad(line, str(error))

    def _csv_lines(self, text: TextLines) -> Iterator[Lines]:
        head = self._head(text)
        parts = text.parts(self._size)
        for lines in parts:
            # `number` is already that of the last of these lines.
            first = text.number - len(lines) + 1
            cells = _plain_cells(lines, len(head), self._written.delimiter)
            if cells is None:
                # A quoted cell may go on in the next part: from here on, the csv reader has to look at each character.
                yield from self._quoted_lines(chain(lines, chain.from_iterable(parts)), head, first - 1)
                return
            # Cells lie row by row, so a column is one of every so many.
            columns = {name: cells[place :: len(head)] for place, name in enumerate(head)}
            yield Lines(range(first, first + len(lines)), columns, row_of(columns))

    def _quoted_lines(self, lines: Iterator[str], head: Sequence[str], before: int) -> Iterator[Lines]:
        """Rows of cells, some at a time, after some lines."""
        reader = self._written.rows(lines)
        error: Exception | None = None
        while error is None:
            rows: list[list[str]] = []
            first = before + reader.line_num + 1
            try:
                # What came before an error stays in the list.
                rows.extend(islice(reader, self._size))
            except (csv.Error, *UNREADABLE) as found:
                error = found
            # A cell may hold line ends; the number of a row is that of its last line.
            ends = (1 + sum(len(_LINE_ENDS.findall(cell)) for cell in row) for row in rows)
            number = list(accumulate(ends, initial=first - 1))
            if isinstance(error, csv.Error):
                # A quote that is not closed swallows all lines after it; the line in which it opens is the bad one.
                error = self.bad(number[-1] + 1, f"{error}: a quote that opens here is not closed, or not yet")
            # The first number is that of the line before these rows.
            filled = [(place, row) for place, row in zip(number[1:], rows, strict=True) if row]
            if filled:
                yield _of_cells([row for _, row in filled], head, [place for place, _ in filled])
            elif not rows and error is None:
                return
        raise error

    def _head(self, text: TextLines) -> list[str]:
        """The header.

        Raises:
            SourceError: it lacks a column.
        """
        if not self._written.header:
            return self._without_header()
        head = [name.strip() for name in next(filter(None, self._written.rows(chain.from_iterable(text.parts(1)))), [])]
        wanted = f"a header with {', '.join(self.rows.needed)}"
        if not head and text.held:
            raise SourceError(
                "the header has no line end",
                file=str(self.path),
                line=text.held,
                expected=wanted,
                fix='run again when it is written; --last-line complete (last_line="complete") takes it as it is',
            )
        if not head:
            raise SourceError(
                "the file is empty",
                file=str(self.path),
                expected=wanted,
                fix="check how the file was made, or leave it out",
            )
        if not self._asks:
            check_columns(head, [*self.rows.named, *self._selection.labels], file=self.path, expected=wanted, line=1)
            self.absent = self.rows.absent(head)
        twice = [name for name in (head if self._asks else self.rows.read) if head.count(name) > 1]
        if twice:
            raise SourceError(
                f"there are several columns {twice[0]!r}",
                file=str(self.path),
                line=1,
                expected="one",
                fix="rename or remove all but one in the header",
            )
        return head

    def _without_header(self) -> list[str]:
        """The names that the mapping gives.

        Raises:
            ConfigError: one that it uses is not among them.
        """
        absent = [] if self._asks else [name for name in self.rows.named if name not in self._written.columns]
        if absent:
            fix = "add it to columns: they are all columns of the file, in their order"
            raise ConfigError([f"columns does not hold {name!r}" for name in absent], fix=fix)
        return list(self._written.columns)

    def _json_lines(self, text: TextLines) -> Iterator[Lines]:
        rows: Iterator[tuple[int, Row]] = (
            (number, {JSON: line.rstrip("\r\n")} if self._asks else json_row(line))
            for number, line in enumerate(text, 1)
            if line.strip()
        )
        return self._grouped(rows, [JSON] if self._asks else [*self.rows.read, *self._selection.labels])

    def _grouped(self, rows: Iterator[tuple[int, Row]], names: Sequence[str]) -> Iterator[Lines]:
        """Rows as columns, some at a time; if one cannot be read, the rows before it come first, then its error."""
        error: Exception | None = None
        while error is None:
            some: list[tuple[int, Row]] = []
            try:
                some.extend(islice(rows, self._size))
            except (SourceError, *UNREADABLE) as found:
                error = found
            if some:
                number, values = zip(*some, strict=True)
                good = [row for row in values if not isinstance(row, Problem)]
                columns = {name: [row.get(name) for row in good] for name in names}
                yield Lines(number, columns if len(good) == len(values) else None, values.__getitem__)
            elif error is None:
                return
        raise error

    def _parquet_lines(self) -> Generator[Lines]:
        self._check_parquet()
        done, selection = 0, self._selection
        for batch in self._parquet.batches(self._size):
            if self.noted:
                self.digest.feed(self._row_lines(batch))
            # Rows are counted from 1, as lines are.
            number, done = range(done + 1, done + 1 + len(batch)), done + len(batch)
            if self._asks:
                yield selection.of_table(batch, number, done)
                continue
            there = [name for name in (*self.rows.read, *selection.labels) if name in batch.schema.names]
            columns = {name: values_of(batch.column(name)) for name in there}
            yield selection.of_rows(Lines(number, columns, partial(_row_at, batch), done))

    def _check_parquet(self) -> None:
        """Check columns and the kind of times; what a column of timestamps says of their unit counts.

        Raises:
            SourceError: a column is missing, or times are of another kind than the artifact's.
        """
        empty = self._parquet.empty()
        if self._asks:
            self._selection.check(empty)
            return
        self.absent = self.rows.absent(empty.schema.names)
        if self._parquet.check([*self.rows.named, *self._selection.labels], self.rows.kinds):
            try:
                # Timestamps come as seconds, whatever the mapping says of times.
                self.rows = self.rows.in_seconds()
            except UsageError as error:
                file, column = str(self.path), self.rows.column["time"]
                raise SourceError(
                    error.found, file=file, column=column, expected=error.expected, fix=error.fix
                ) from error


def _plain_cells(lines: Sequence[str], size: int, delimiter: str) -> list[str] | None:
    r"""The cells of lines without quotes, of which each has `size`, one after another; None if there are other lines.

    >>> _plain_cells(["ada,tea\n", "bob,milk\n"], 2, ",")
    ['ada', 'tea', 'bob', 'milk']
    """
    text = "".join(lines).replace("\r\n", "\n").removesuffix("\n")
    # Empty lines are no rows; a line of one cell may be one.
    if '"' in text or "\r" in text or size == 1 or {line.count(delimiter) for line in lines} != {size - 1}:
        return None
    # All lines have as many cells: their ends can be taken for one more delimiter.
    return text.replace("\n", delimiter).split(delimiter)


def _of_cells(rows: Sequence[list[str]], head: Sequence[str], number: Sequence[int]) -> Lines:
    """Rows of cells as columns; each by itself if one has not as many as the header."""
    if set(map(len, rows)) == {len(head)}:
        columns = dict(zip(head, zip(*rows, strict=True), strict=True))
        return Lines(number, columns, row_of(columns))

    def row_at(place: int) -> Row:
        row = rows[place]
        problem = Problem("not as many columns as the header")
        return dict(zip(head, row, strict=True)) if len(row) == len(head) else problem

    return Lines(number, None, row_at)


def _row_at(batch: Any, place: int) -> Row:
    row: Row = batch.slice(place, 1).to_pylist()[0]
    return row


def format_of(path: Path) -> tuple[str, bool]:
    """Format by the ending, and whether the file is compressed.

    Raises:
        UsageError: the ending is not that of a known format.

    >>> format_of(Path("events.csv.gz"))
    ('csv', True)
    """
    ending, zipped = path.suffix.lower(), False
    if ending == ".gz":
        ending, zipped = path.with_suffix("").suffix.lower(), True
    if path.is_dir():
        raise UsageError(f"{path} is a folder", expected="files", fix=f"give its files, such as '{path}/*.csv'")
    if ending not in (".csv", ".jsonl", ".parquet") or (zipped and ending == ".parquet"):
        raise UsageError(
            f"{path}: the ending names no known format",
            expected=".csv, .jsonl, .csv.gz, .jsonl.gz or .parquet",
            fix="name the file by its format, or write its rows in one of these",
        )
    return ending.removeprefix("."), zipped
