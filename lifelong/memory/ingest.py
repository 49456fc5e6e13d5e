"""A file of events -> memories. Each line is applied once, however often the file is given and wherever a run stopped.

A file is a source, a line's number is its offset, and the watermark moves with the memories in one commit. By default
the source is named after the content of the file: the same bytes are the same source under any path, and a file that
grew is another one. A file that grows at its end is given a name of its own (`source`), and then only its new lines are
applied. In parquet the offset is the number of the row.

csv and jsonl are read with the standard library, also as `.gz`; parquet needs pyarrow.

A line that is no event stops the run, or is left out and kept as a dead letter; the position moves past it together
with the memories.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.errors import SourceError, UsageError, require
from lifelong.memory.dead_letters import DeadLetter, DeadLetters
from lifelong.memory.patience import Patience
from lifelong.memory.rows import EventRows, Problem, json_row
from lifelong.memory.updater import Applied, Updater, UserEvent

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.data.events import Schema
    from lifelong.memory.store import MemoryStore

BATCH = 4_096
PATIENCE = 60.0
"""Seconds for which a shared store that does not answer is waited for."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One line, as it stands in the file or what is wrong with it, and how far the file was read with it."""

    number: int
    values: Mapping[str, Any] | Problem
    done: int


def ingest(
    artifact: Artifact,
    store: MemoryStore,
    path: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    source: str | None = None,
    columns: Mapping[str, str] | None = None,
    late: str = "apply",
    event_log: bool = True,
    codec: str | None = None,
    on_bad: str = "stop",
    dead_letters: DeadLetters | None = None,
    patience: float = PATIENCE,
) -> Applied:
    """Fold the events of a file into the memories of a store.

    Args:
        artifact: of a memory model.
        store: open for writing.
        path: `.csv` (with a head), `.jsonl`, both also `.gz`, or `.parquet`; columns `user`, `item`, `time`, and where
            there are such `event_type` and item fields. Other columns are left out.
        progress: called with (done, total): bytes of the file, or rows of parquet.
        source: name of the source; after the content of the file by default.
        columns: our name -> the file's name, for columns that are called otherwise; see `EventRows`.
        late: see `Updater`.
        event_log: see `Updater`.
        codec: see `Updater`.
        on_bad: what happens at a line that is no event: "stop", or "skip" leaves it out.
        dead_letters: where those that were left out are kept; flushed here, not closed.
        patience: seconds for which a shared store that does not answer is waited for.

    Returns:
        What became of the lines; those of an earlier run count as duplicates.

    Raises:
        SourceError: a line is not what it should be; names file, line and column. All lines before it are applied. Also
            with "skip" where what comes after it cannot be read.
        UsageError: the file's ending names no format, or `columns` names no column of ours.
        StoreUnavailableError: the store does not answer; a second run goes on where it stopped.
    """
    if on_bad not in ("stop", "skip"):
        raise UsageError(f"on_bad = {on_bad!r}", expected='"stop" or "skip"')
    reader = _Reader(path, artifact.config.dataset_schema, columns or {})
    updater = Updater(artifact, store, late=late, event_log=event_log, codec=codec)
    name = content_source(path) if source is None else source
    waiting = Patience(patience if store.shared else 0)
    mark, size, total = store.watermark(name, 0), reader.size(), Applied()
    with closing(_batches(reader, skip=on_bad == "skip")) as batches:
        for batch in batches:
            letters = [letter for letter in batch.bad if letter.offset > mark]
            if dead_letters is not None:
                for letter in letters:
                    dead_letters.put(letter)
                dead_letters.flush()
            known = bisect_right(batch.offsets, mark)
            apply = partial(
                updater.apply,
                batch.events[known:],
                source=name,
                offsets=batch.offsets[known:],
                through=batch.through,
            )
            total += waiting(apply) + Applied(duplicates=known, bad=len(letters))
            if progress is not None:
                progress(batch.done, size)
    return total


@dataclass(slots=True)
class _Batch:
    """Events, their line numbers, and how far the file was read with them.

    Args:
        events: of the lines that are such.
        offsets: their line numbers.
        bad: the other lines.
        through: number of the last line.
        done: how far the file was read.
    """

    events: list[UserEvent] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    bad: list[DeadLetter] = field(default_factory=list)
    through: int = -1
    done: int = 0


def _batches(reader: _Reader, *, skip: bool) -> Generator[_Batch]:
    """The events of a file; those before a bad line come first, then its error is raised."""
    batch = _Batch()
    with closing(reader.lines()) as lines:
        try:
            for line in lines:
                event = line.values if isinstance(line.values, Problem) else reader.rows.event(line.values)
                if not isinstance(event, Problem):
                    batch.events.append(event)
                    batch.offsets.append(line.number)
                elif skip:
                    batch.bad.append(reader.letter(line, event))
                else:
                    raise reader.bad(line.number, event)
                batch.through, batch.done = line.number, line.done
                if len(batch.events) + len(batch.bad) >= BATCH:
                    yield batch
                    batch = _Batch()
        except SourceError:
            if batch.through >= 0:
                yield batch
            raise
    if batch.through >= 0:
        yield batch


def content_source(path: Path) -> str:
    """The name of a file as a source, made of its content.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return f"file:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise _unreadable(path, error) from error


class _Reader:
    """Reads one file.

    Args:
        path: the file.
        schema: of the artifact; its item fields may stand in the file.
        columns: our name -> the file's.
    """

    def __init__(self, path: Path, schema: Schema, columns: Mapping[str, str]) -> None:
        self.path, self.rows = path, EventRows(schema, columns)
        self._format, self._zipped = _format_of(path)

    def size(self) -> int:
        """What `done` of the lines counts up to."""
        if self._format == "parquet":
            with self._open_parquet() as table:
                return int(table.metadata.num_rows)
        return self.path.stat().st_size

    def lines(self) -> Generator[_Line]:
        """All lines.

        Raises:
            SourceError: the file cannot be read, or a line of it.
        """
        return self._parquet_lines() if self._format == "parquet" else self._text_lines()

    def letter(self, line: _Line, problem: Problem) -> DeadLetter:
        """A line that is left out."""
        values = None if isinstance(line.values, Problem) else line.values
        return DeadLetter(str(self.path), 0, line.number, str(problem), value=values)

    def bad(self, line: int, problem: Problem) -> SourceError:
        """The error of a line."""
        return self._bad(line, problem.found, column=problem.column, expected=problem.expected)

    def _text_lines(self) -> Generator[_Line]:
        number = 0
        try:
            with self.path.open("rb") as file:
                stream: Any = gzip.GzipFile(fileobj=file) if self._zipped else file
                with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
                    for number, values in self._csv(text) if self._format == "csv" else self._jsonl(text):
                        yield _Line(number, values, file.tell())
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
            raise self._bad(number + 1, str(error)) from error

    def _csv(self, text: io.TextIOWrapper) -> Iterator[tuple[int, Mapping[str, Any] | Problem]]:
        reader = csv.DictReader(text, strict=True)
        needed = self.rows.needed
        missing = [name for name in needed if name not in (reader.fieldnames or ())]
        if missing:
            raise self._bad(1, f"there is no column {missing[0]!r}", expected=f"a head with {', '.join(needed)}")
        for values in reader:
            uneven = None in values or None in values.values()
            yield reader.line_num, Problem("not as many columns as the head") if uneven else values

    def _jsonl(self, text: io.TextIOWrapper) -> Iterator[tuple[int, Mapping[str, Any] | Problem]]:
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield number, json_row(line)

    def _parquet_lines(self) -> Generator[_Line]:
        with self._open_parquet() as table:
            rows = chain.from_iterable(batch.to_pylist() for batch in table.iter_batches(batch_size=BATCH))
            for number, values in enumerate(rows, start=1):
                yield _Line(number, values, number)

    def _open_parquet(self) -> Any:
        parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet")
        try:
            return parquet.ParquetFile(self.path)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        except ValueError as error:
            raise SourceError(f"not a parquet file: {error}", file=str(self.path)) from error

    def _bad(self, line: int, found: str, *, column: str | None = None, expected: str = "") -> SourceError:
        fix = "mend the file and run again; the lines before it are applied"
        return SourceError(found, file=str(self.path), line=line, column=column, expected=expected, fix=fix)


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


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"cannot be read: {error.strerror or error}", file=str(path), fix="check the path")
