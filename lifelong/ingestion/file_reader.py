"""Reads a file of events as columns, some lines at a time: csv, jsonl (both also `.gz`) or parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import logging
import os
import time as clock
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.dtypes import BoolArray, IntArray
from lifelong.errors import SourceError, UsageError
from lifelong.ingestion.parquet import ParquetRows
from lifelong.ingestion.plain_lines import PlainLines
from lifelong.ingestion.prefix import Digest, RowDigest, TextDigest
from lifelong.ingestion.rows import EventRows, Problem, check_columns, json_row
from lifelong.memory.event import MAX_ID

if TYPE_CHECKING:
    from lifelong.data.events import Schema
    from lifelong.store.shards import Share

logger: logging.Logger = logging.getLogger(__name__)

Row = Mapping[str, Any] | Problem

_BUFFER = 2**17
_STILL, _LOOK = 1.0, 0.02
"""Seconds without a change after which a last line without its end is taken as it is, and between two looks."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines of a file.

    Args:
        number: number of each line.
        columns: values by column, one per line; None if a line is not a row of values.
        row: gives one line by its place, or what is wrong with it.
        done: how far the file was read with these lines.
        plain: whether all values are text, and short enough for ids.
        through: number of the last line that was read, if lines of other shares, which are all events, were left out;
            else None.
    """

    number: Sequence[int] | IntArray
    columns: Mapping[str, Sequence[Any]] | None
    row: Callable[[int], Row]
    done: int = 0
    plain: bool = False
    through: int | None = None


class FileReader:
    """Reads one file.

    Args:
        path: the file.
        schema: of the artifact; the file may have its item fields.
        columns: our name -> the file's name.
        size: lines that come at once.
        share: the users to read events of; events of others may come too. All users if None.
        end: byte at which the file ends for this reader, see `settled_end`; None for where it ends.
        latest: see `EventRows`.

    Attributes:
        digest: of the lines that came; whoever takes lines counts them in.
    """

    path: Path
    rows: EventRows

    def __init__(
        self,
        path: Path,
        schema: Schema,
        columns: Mapping[str, str],
        *,
        size: int,
        share: Share | None = None,
        end: int | None = None,
        latest: Callable[[], int] | None = None,
    ) -> None:
        self.path, self.rows, self._size, self._share = path, EventRows(schema, columns, latest), size, share
        self._format, self._zipped = _format_of(path)
        self._end = None if self._zipped or self._format == "parquet" else end
        self._parquet = ParquetRows(path, self.rows.column["time"])
        self._text, self._table = TextDigest(), RowDigest()
        self.digest: Digest = self._table if self._format == "parquet" else self._text

    def size(self) -> int:
        """The value of `Lines.done` at the end: bytes of the file, or rows of parquet."""
        if self._format == "parquet":
            return self._parquet.count()
        return self.path.stat().st_size if self._end is None else self._end

    def settled_end(self) -> int | None:
        """Byte at which the lines end that are complete now; None where the format says itself if it is complete.

        A last line without its end may be one that is still being written: it counts if the file does not change for a
        moment.

        Raises:
            SourceError: the file cannot be read.
        """
        if self._zipped or self._format == "parquet" or not self.regular:
            return None
        try:
            return _settled_end(self.path)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def check(self) -> None:
        """Check that the file can be opened and has the columns; one that can be read only once is not looked at.

        Raises:
            SourceError: says which is not so.
        """
        if not self.regular:
            return
        if self._format == "parquet":
            self._check_parquet()
            return
        with self._opened() as (_, text):
            if self._format == "csv":
                self._head(text)

    @property
    def regular(self) -> bool:
        """Whether it can be read twice, which a pipe cannot; a file that is not there counts as one that can."""
        return self.path.is_file() or not self.path.exists()

    def digests(self, numbers: Iterable[int]) -> Generator[tuple[int, str]]:
        """The digest of the first lines, for rising numbers of lines; where the file ends earlier, of all lines, last.

        Raises:
            SourceError: the file cannot be read.
        """
        with closing(self._parquet_batches() if self._format == "parquet" else self._text_parts()) as parts:
            there = 0
            for number in numbers:
                while there < number and (found := next(parts, None)) is not None:
                    there += found
                self.digest.advance(min(there, number))
                yield self.digest.lines, self.digest.hex()
                if there < number:
                    return

    def _text_parts(self) -> Generator[int]:
        """Feed the digest, some lines at a time; how many."""
        with self._opened() as (_, text):
            while True:
                lines, error = text.some(self._size)
                self._text.feed(lines)
                yield len(lines)
                if error is not None:
                    raise error
                if not lines:
                    return

    def _parquet_batches(self) -> Generator[int]:
        for batch in self._parquet.batches(self._size):
            self._table.feed(batch)
            yield len(batch)

    def lines(self) -> Generator[Lines]:
        """All lines; if one cannot be read, the lines before it come first, then its error is raised.

        Raises:
            SourceError: the file, or a line of it, cannot be read.
        """
        return self._parquet_lines() if self._format == "parquet" else self._text_lines()

    def bad(self, line: int, found: str, *, column: str | None = None, expected: str = "") -> SourceError:
        """The error of a line."""
        fix = "fix the line and run again with the same file; the lines before it are applied, and not applied again"
        if column is not None and column == self.rows.column["time"] and self.rows.plain_times:
            fix += "; or say how times are written by --column time_unit=ms (us, ns, iso) or time_format=PATTERN"
        return SourceError(found, file=str(self.path), line=line, column=column, expected=expected, fix=fix)

    def _text_lines(self) -> Generator[Lines]:
        with self._opened() as (file, text):
            for lines in self._csv_lines(text) if self._format == "csv" else self._json_lines(text):
                yield replace(lines, done=file.tell())

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[io.BufferedReader, _Counted]]:
        """The file, and its text.

        Raises:
            SourceError: it cannot be read; names the line.
        """
        text = None
        try:
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(self.path.open("rb"))
                stream: Any = gzip.GzipFile(fileobj=file) if self._zipped else file
                if self._end is not None:
                    stream = io.BufferedReader(_Upto(file, self._end), _BUFFER)
                wrapper = stack.enter_context(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
                text = _Counted(wrapper, self._text)
                yield file, text
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
            raise self._unread(1 if text is None else text.number + 1, error) from error

    def _unread(self, line: int, error: Exception) -> SourceError:
        """The error of a file that cannot be read from a line on."""
        if isinstance(error, gzip.BadGzipFile):
            return SourceError(
                f"not compressed by gzip: {error}", file=str(self.path), fix="leave .gz out of its name, or compress it"
            )
        if isinstance(error, FileNotFoundError | PermissionError):
            return unreadable(self.path, error)
        if isinstance(error, UnicodeDecodeError):
            # It came while a part of the file was read, of which no line has been taken.
            line += bytes(error.object[: error.start]).count(b"\n")
            wrong = f"not UTF-8: the byte 0x{error.object[error.start]:02x}"
            return SourceError(wrong, file=str(self.path), line=line, expected="text in UTF-8", fix="save it as UTF-8")
        return self.bad(line, str(error))

    def _csv_lines(self, text: _Counted) -> Iterator[Lines]:
        head = self._head(text)
        while True:
            first, (lines, error) = text.number, text.some(self._size)
            if not lines and error is None:
                return
            plain = None if error or self.rows.delimiter != "," else PlainLines.of(lines, len(head))
            if plain is None:
                # A quote, an empty line, another delimiter: the rest goes through the csv reader, three times as slow.
                text.give_back(lines, error)
                yield from self._grouped(self._csv_rows(text, head), head)
                return
            self._text.feed(lines)
            yield self._cut(plain, head, first + 1)

    def _head(self, text: _Counted) -> list[str]:
        """The header.

        Raises:
            SourceError: it lacks a column.
        """
        head = next(csv.reader(text, strict=True, delimiter=self.rows.delimiter), [])
        wanted = f"a header with {', '.join(self.rows.needed)}"
        if not head:
            raise SourceError(
                "the file is empty",
                file=str(self.path),
                expected=wanted,
                fix="check how the file was made, or leave it out",
            )
        check_columns(head, self.rows.needed, file=self.path, expected=wanted, line=1)
        twice = [name for name in self.rows.read if head.count(name) > 1]
        if twice:
            raise SourceError(
                f"there are several columns {twice[0]!r}",
                file=str(self.path),
                line=1,
                expected="one",
                fix="rename or remove all but one in the header",
            )
        return head

    def _cut(self, lines: PlainLines, head: Sequence[str], first: int) -> Lines:
        """The lines of the share, or all of them; the first line has the number `first`."""
        chosen_N = self._chosen(lines, head)
        cells = lines.cells(chosen_N)
        columns = {name: cells[place :: len(head)] for place, name in enumerate(head)}
        number = range(first, first + len(lines))
        some = Lines(number, columns, _row_of(columns), plain=lines.longest <= MAX_ID)
        if chosen_N is None:
            return some
        return replace(some, number=first + np.flatnonzero(chosen_N), through=number[-1])

    def _chosen(self, lines: PlainLines, head: Sequence[str]) -> BoolArray | None:
        """Which lines are the share's; None to cut all, as one may not be an event or none is the share's."""
        if self._share is None or not self.rows.hold(lines, head):
            return None
        chosen_N = self._share.chosen(lines.crc32(self.rows.place("user", head)))
        return chosen_N if chosen_N.any() else None

    def _csv_rows(self, text: _Counted, head: Sequence[str]) -> Iterator[tuple[int, Row]]:
        good, rows = text.number, csv.reader(text, strict=True, delimiter=self.rows.delimiter)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                # A quote that is not closed swallows all lines after it; the line in which it opens is the bad one.
                raise self.bad(good + 1, str(error)) from error
            if row is None:
                return
            if row:
                uneven = len(row) != len(head)
                problem = Problem("not as many columns as the header") if uneven else None
                yield text.number, problem or dict(zip(head, row, strict=True))
            good = text.number

    def _json_lines(self, text: _Counted) -> Iterator[Lines]:
        rows = ((text.number, json_row(line)) for line in text if line.strip())
        return self._grouped(rows, self.rows.read)

    def _grouped(self, rows: Iterator[tuple[int, Row]], names: Sequence[str]) -> Iterator[Lines]:
        """Rows as columns, some at a time; if one cannot be read, the rows before it come first, then its error."""
        error: Exception | None = None
        while error is None:
            some: list[tuple[int, Row]] = []
            try:
                some.extend(islice(rows, self._size))
            except (SourceError, OSError, EOFError, UnicodeDecodeError, zlib.error) as found:
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
        done = 0
        for batch in self._parquet.batches(self._size):
            there = [name for name in self.rows.read if name in batch.schema.names]
            columns = {name: batch.column(name).to_pylist() for name in there}
            self._table.feed(batch)
            number, done = range(done + 1, done + 1 + len(batch)), done + len(batch)
            yield Lines(number, columns, partial(_row_at, batch), done)

    def _check_parquet(self) -> None:
        """Check columns and the kind of times; what a column of timestamps says of their unit counts.

        Raises:
            SourceError: a column is missing, or times are of another kind than the artifact's.
        """
        if self._parquet.check(self.rows.needed, self.rows.kinds):
            try:
                self.rows = self.rows.in_seconds()
            except UsageError as error:
                file, column = str(self.path), self.rows.column["time"]
                raise SourceError(
                    error.found, file=file, column=column, expected=error.expected, fix=error.fix
                ) from error


class _Upto(io.RawIOBase):
    """The first bytes of a file."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what fits."""
        number = self._file.readinto1(memoryview(buffer)[: self._left])
        self._left -= number
        return number


class _Counted:
    """The lines of a text, and how many of them were read; those that come one by one are fed to a digest."""

    def __init__(self, text: io.TextIOWrapper, digest: TextDigest) -> None:
        self.number, self._text, self._back, self._feed = 0, text, iter(()), digest.feed_one
        self._error: Exception | None = None

    _back: Iterator[str]

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        line = next(self._back, None)
        if line is None:
            if self._error is not None:
                raise self._error
            line = next(self._text)
        self.number += 1
        self._feed(line)
        return line

    def some(self, most: int) -> tuple[list[str], Exception | None]:
        """The next lines, and the error that follows them, if any."""
        lines: list[str] = []
        try:
            lines.extend(islice(self._text, most))
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            return lines, error
        finally:
            self.number += len(lines)
        return lines, None

    def give_back(self, lines: list[str], error: Exception | None) -> None:
        """Return lines and the error that follows them, to be read again."""
        self.number -= len(lines)
        self._back, self._error = iter(lines), error


def _settled_end(path: Path) -> int:
    """See `FileReader.settled_end`."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        end = file.seek(0, os.SEEK_END)
        if end == 0 or _at(file, end - 1, 1) in (b"\n", b"\r"):
            return end
        stop = clock.monotonic() + min(_STILL, before.st_mtime + _STILL - clock.time())
        while clock.monotonic() < stop:
            clock.sleep(_LOOK)
            if os.fstat(file.fileno()).st_size != before.st_size:
                logger.warning("the last line of %s is being written; it is left for the next run", path)
                return _behind_last_line(file, end)
        return end


def _behind_last_line(file: io.BufferedReader, end: int) -> int:
    """Byte after the last line end before one."""
    while end > 0:
        begin = max(0, end - _BUFFER)
        found = _at(file, begin, end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _at(file: io.BufferedReader, begin: int, size: int) -> bytes:
    file.seek(begin)
    return file.read(size)


def _row_at(batch: Any, place: int) -> Row:
    row: Row = batch.slice(place, 1).to_pylist()[0]
    return row


def _row_of(columns: Mapping[str, Sequence[Any]]) -> Callable[[int], Row]:
    return lambda place: {name: values[place] for name, values in columns.items()}


def _format_of(path: Path) -> tuple[str, bool]:
    """Format by the ending, and whether the file is compressed.

    Raises:
        UsageError: the ending is not that of a known format.

    >>> _format_of(Path("events.csv.gz"))
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


def unreadable(path: Path, error: OSError) -> SourceError:
    """The error of a file that the operating system cannot open or read."""
    return SourceError(f"cannot be read: {error.strerror or error}", file=str(path), fix="check the path")
