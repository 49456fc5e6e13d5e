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

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.errors import SourceError, UsageError
from lifelong.memory.dead_letters import DeadLetter, DeadLetters
from lifelong.memory.event_table import EventTable
from lifelong.memory.file_reader import FileReader, Lines, unreadable
from lifelong.memory.overlapped import Overlapped
from lifelong.memory.patience import Patience
from lifelong.memory.rows import Problem
from lifelong.memory.updater import Applied, Updater, UserEvent

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import MemoryStore

BATCH = 16_384
"""Events of one commit. A user's events of a batch are written once, and the disk is waited for once."""
PATIENCE = 60.0
"""Seconds for which a shared store that does not answer is waited for."""


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
    reader = FileReader(path, artifact.config.dataset_schema, columns or {}, size=BATCH)
    updater = Updater(artifact, store, late=late, event_log=event_log, codec=codec)
    name = content_source(path) if source is None else source
    waiting = Patience(patience if store.shared else 0)
    mark, size, total = store.watermark(name, 0), reader.size(), Applied()
    with closing(_batches(reader, skip=on_bad == "skip")) as batches, Overlapped(updater, name) as writer:
        for batch in batches:
            letters = [letter for letter in batch.bad if letter.offset > mark]
            if dead_letters is not None:
                for letter in letters:
                    dead_letters.put(letter)
                dead_letters.flush()
            known = bisect_right(batch.offsets, mark)
            apply = partial(writer.apply, batch.table.behind(known), batch.offsets[known:], through=batch.through)
            total += waiting(apply) + Applied(duplicates=known, bad=len(letters))
            if progress is not None:
                progress(batch.done, size)
        return total + waiting(writer.settle)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Events, their line numbers, and how far the file was read with them.

    Args:
        table: of the lines that are such.
        offsets: their line numbers.
        bad: the other lines.
        through: number of the last line.
        done: how far the file was read.
    """

    table: EventTable
    offsets: Sequence[int]
    bad: Sequence[DeadLetter]
    through: int
    done: int


def _batches(reader: FileReader, *, skip: bool) -> Generator[_Batch]:
    """The events of a file; those before a bad line come first, then its error is raised."""
    with closing(reader.lines()) as parts:
        for lines in parts:
            table = None if lines.columns is None else reader.rows.table(lines.columns, plain=lines.plain)
            if table is not None:
                yield _Batch(table, lines.number, (), lines.number[-1], lines.done)
            else:
                yield from _one_by_one(reader, lines, skip=skip)


def _one_by_one(reader: FileReader, lines: Lines, *, skip: bool) -> Generator[_Batch]:
    """The same of lines among which there may be a bad one."""
    events: list[UserEvent] = []
    offsets: list[int] = []
    bad: list[DeadLetter] = []
    error: SourceError | None = None
    through = -1
    for place, number in enumerate(lines.number):
        row = lines.row(place)
        event = row if isinstance(row, Problem) else reader.rows.event(row)
        if not isinstance(event, Problem):
            events.append(event)
            offsets.append(number)
        elif skip:
            values = None if isinstance(row, Problem) else row
            bad.append(DeadLetter(str(reader.path), 0, number, str(event), value=values))
        else:
            error = reader.bad(number, event.found, column=event.column, expected=event.expected)
            break
        through = number
    if through >= 0:
        table = EventTable.of(events, time_unit=reader.rows.time_unit)
        yield _Batch(table, offsets, bad, through, lines.done)
    if error is not None:
        raise error


def content_source(path: Path) -> str:
    """The name of a file as a source, made of its content.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return f"file:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise unreadable(path, error) from error
