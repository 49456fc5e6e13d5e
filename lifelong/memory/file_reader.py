"""Reads a file of events some lines at a time, as columns; csv, jsonl (both also `.gz`) or parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lifelong.errors import SourceError, UsageError, require
from lifelong.memory.event import MAX_ID
from lifelong.memory.plain_lines import PlainLines
from lifelong.memory.rows import EventRows, Problem, json_row

if TYPE_CHECKING:
    from lifelong.data.events import Schema
    from lifelong.memory.shards import Share

Row = Mapping[str, Any] | Problem


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines of a file.

    Args:
        number: of each line.
        columns: values by column, as many as lines; None where a line is none.
        row: one line by its place, or what is wrong with it.
        done: how far the file was read with them.
        plain: whether all values are text, and short enough for ids.
        through: number of the last line that was looked at, where those of other shares, all of them events, were left
            out; else None.
    """

    number: Sequence[int] | npt.NDArray[np.int64]
    columns: Mapping[str, Sequence[Any]] | None
    row: Callable[[int], Row]
    done: int = 0
    plain: bool = False
    through: int | None = None


class FileReader:
    """Reads one file.

    Args:
        path: the file.
        schema: of the artifact; its item fields may stand in the file.
        columns: our name -> the file's.
        size: lines that come at once.
        share: whose events are wanted; others may come, too. Everyone's if None.
    """

    def __init__(
        self, path: Path, schema: Schema, columns: Mapping[str, str], *, size: int, share: Share | None = None
    ) -> None:
        self.path, self.rows, self._size, self._share = path, EventRows(schema, columns), size, share
        self._format, self._zipped = _format_of(path)

    def size(self) -> int:
        """What `done` of the lines counts up to."""
        if self._format == "parquet":
            with self._open_parquet() as table:
                return int(table.metadata.num_rows)
        return self.path.stat().st_size

    def lines(self) -> Generator[Lines]:
        """All lines; those before one that cannot be read come first, then its error is raised.

        Raises:
            SourceError: the file cannot be read, or a line of it.
        """
        return self._parquet_lines() if self._format == "parquet" else self._text_lines()

    def bad(self, line: int, found: str, *, column: str | None = None, expected: str = "") -> SourceError:
        """The error of a line."""
        fix = "mend the file and run again; the lines before it are applied"
        return SourceError(found, file=str(self.path), line=line, column=column, expected=expected, fix=fix)

    def _text_lines(self) -> Generator[Lines]:
        text = None
        try:
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(self.path.open("rb"))
                stream: Any = gzip.GzipFile(fileobj=file) if self._zipped else file
                text = _Counted(stack.enter_context(io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")))
                for lines in self._csv_lines(text) if self._format == "csv" else self._json_lines(text):
                    yield replace(lines, done=file.tell())
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
            raise self.bad(1 if text is None else text.number + 1, str(error)) from error

    def _csv_lines(self, text: _Counted) -> Iterator[Lines]:
        head = next(csv.reader(text, strict=True), [])
        missing = [name for name in self.rows.needed if name not in head]
        if missing:
            expected = f"a head with {', '.join(self.rows.needed)}"
            raise self.bad(1, f"there is no column {missing[0]!r}", expected=expected)
        while True:
            first, (lines, error) = text.number, text.some(self._size)
            if not lines and error is None:
                return
            plain = None if error else PlainLines.of(lines, len(head))
            if plain is None:
                # A quote, an empty line, something odd: from here on by the rules, at a third of the speed.
                text.give_back(lines, error)
                yield from self._grouped(self._csv_rows(text, head), head)
                return
            yield self._cut(plain, head, first + 1)

    def _cut(self, lines: PlainLines, head: Sequence[str], first: int) -> Lines:
        """Lines, the first of which has that number, or those of the share."""
        chosen_N = self._chosen(lines, head)
        cells = lines.cells(chosen_N)
        columns = {name: cells[place :: len(head)] for place, name in enumerate(head)}
        number = range(first, first + len(lines))
        some = Lines(number, columns, _row_of(columns), plain=lines.longest <= MAX_ID)
        if chosen_N is None:
            return some
        return replace(some, number=first + np.flatnonzero(chosen_N), through=number[-1])

    def _chosen(self, lines: PlainLines, head: Sequence[str]) -> npt.NDArray[np.bool_] | None:
        """Which lines are the share's; None where all are to be cut, since any may be no event, or none is its own."""
        if self._share is None or not self.rows.hold(lines, head):
            return None
        chosen_N = self._share.chosen(lines.crc32(self.rows.place("user", head)))
        return chosen_N if chosen_N.any() else None

    def _csv_rows(self, text: _Counted, head: Sequence[str]) -> Iterator[tuple[int, Row]]:
        good, rows = text.number, csv.reader(text, strict=True)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                # A quote that is not closed takes all lines behind it; the first of them is the bad one.
                raise self.bad(good + 1, str(error)) from error
            if row is None:
                return
            if row:
                uneven = len(row) != len(head)
                problem = Problem("not as many columns as the head") if uneven else None
                yield text.number, problem or dict(zip(head, row, strict=True))
            good = text.number

    def _json_lines(self, text: _Counted) -> Iterator[Lines]:
        rows = ((text.number, json_row(line)) for line in text if line.strip())
        return self._grouped(rows, self.rows.read)

    def _grouped(self, rows: Iterator[tuple[int, Row]], names: Sequence[str]) -> Iterator[Lines]:
        """Rows as columns, some at a time; where one cannot be read, those before it come first."""
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
        done = 0
        with self._open_parquet() as table:
            for batch in table.iter_batches(batch_size=self._size):
                there = [name for name in self.rows.read if name in batch.schema.names]
                columns = {name: batch.column(name).to_pylist() for name in there}
                number, done = range(done + 1, done + 1 + len(batch)), done + len(batch)
                yield Lines(number, columns, partial(_row_at, batch), done)

    def _open_parquet(self) -> Any:
        parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet")
        try:
            return parquet.ParquetFile(self.path)
        except OSError as error:
            raise unreadable(self.path, error) from error
        except ValueError as error:
            raise SourceError(f"not a parquet file: {error}", file=str(self.path)) from error


class _Counted:
    """The lines of a text, and how many of them were taken."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number, self._text, self._back = 0, text, iter(())
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
        return line

    def some(self, most: int) -> tuple[list[str], Exception | None]:
        """The next lines, and the error that stands behind them if one does."""
        lines: list[str] = []
        try:
            lines.extend(islice(self._text, most))
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            return lines, error
        finally:
            self.number += len(lines)
        return lines, None

    def give_back(self, lines: list[str], error: Exception | None) -> None:
        """Have the lines, and the error behind them, come again."""
        self.number -= len(lines)
        self._back, self._error = iter(lines), error


def _row_at(batch: Any, place: int) -> Row:
    row: Row = batch.slice(place, 1).to_pylist()[0]
    return row


def _row_of(columns: Mapping[str, Sequence[Any]]) -> Callable[[int], Row]:
    return lambda place: {name: values[place] for name, values in columns.items()}


def _format_of(path: Path) -> tuple[str, bool]:
    """Format by the ending, and whether it is compressed.

    Raises:
        UsageError: no known format.
    """
    ending, zipped = path.suffix.lower(), False
    if ending == ".gz":
        ending, zipped = path.with_suffix("").suffix.lower(), True
    if ending not in (".csv", ".jsonl", ".parquet") or (zipped and ending == ".parquet"):
        raise UsageError(
            f"{path}: the ending names no known format",
            expected=".csv, .jsonl, .csv.gz, .jsonl.gz or .parquet",
            fix="rename the file",
        )
    return ending.removeprefix("."), zipped


def unreadable(path: Path, error: OSError) -> SourceError:
    """The error of a file that the system does not give."""
    return SourceError(f"cannot be read: {error.strerror or error}", file=str(path), fix="check the path")
