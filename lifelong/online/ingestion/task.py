"""One file of events into one store, in one process."""

from __future__ import annotations

import logging
import time as clock
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.dataset.events import Schema
from lifelong.dataset.mapping import TableMapping
from lifelong.dtypes import IntArray
from lifelong.errors import SourceError
from lifelong.online.background import Patience
from lifelong.online.ingestion.dead_letters import DeadLetter, DeadLetters
from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.opened_file import OpenedFile
from lifelong.online.ingestion.rows import Problem
from lifelong.online.ingestion.selection import Lines
from lifelong.online.ingestion.text_lines import EVERY
from lifelong.online.memory.event import MAX_AHEAD, EventTable, UserEvent, latest_time
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.part import Share

logger: logging.Logger = logging.getLogger(__name__)

_SMALL_BATCH = 16_384
"""Events of one commit where memories are large or other processes write the same users."""
_BATCH_BYTES = 64 * 2**20
"""Bytes of one batch's memories at most, if it is not a small one: they are in RAM several times."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is read, and how; see `lifelong.online.ingestion.files.ingest`.

    Args:
        file: the file; every reader reads this one, whatever becomes of its path.
        source: its name as a source.
        columns: our name -> the file's name.
        folding: options of `Updater`.
        on_bad: "stop" or "skip".
        size: events of one commit at most.
        record: name under which the store keeps what was applied of it; None keeps nothing.
        known: digests of the lines that were applied, see `FileReader`.
        last_line: "leave" or "complete"; see `FileReader`.
        max_ahead: days that an event may be ahead of the clock.
        mapping: see `FileReader`.
    """

    file: OpenedFile
    source: str
    columns: Mapping[str, str]
    folding: Mapping[str, Any]
    on_bad: str
    size: int
    record: str | None = None
    known: Mapping[int, str] = field(default_factory=dict)
    last_line: str = "leave"
    max_ahead: float = MAX_AHEAD
    mapping: TableMapping | None = None

    def reader(self, schema: Schema, *, size: int) -> FileReader:
        """Reads the file, from its beginning."""

        def latest() -> int:
            return latest_time(schema.time_unit, self.max_ahead, clock.time())

        return FileReader(
            self.file, schema, self.columns, size=size, known=self.known, last_line=self.last_line,
            latest=latest, mapping=self.mapping,
        )  # fmt: skip


def fold_file(
    artifact: Artifact,
    store: MemoryStore,
    task: Task,
    *,
    share: Share | None = None,
    progress: Callable[[int, int], None] | None = None,
    dead_letters: DeadLetters | None = None,
    patience: float = 0,
) -> Applied:
    """`ingest` in this process, for the users of some shards or for all users.

    Args:
        artifact: of a memory model.
        store: holds the memories of these users.
        task: what is read.
        share: the shards; the first also reports and counts bad lines; None for all users.
        progress: see `ingest`.
        dead_letters: see `ingest`.
        patience: see `ingest`.

    Raises:
        SourceError: see `ingest`.
        StoreUnavailableError: see `ingest`.
    """
    updater = Updater(artifact, store, **task.folding)
    size = batch_size(task.size, updater.runtime.codec.size, shared=store.shared)
    # Only a part of the lines are of these users: of more lines a commit has as many events.
    size = size if share is None else size * share.of // len(share.numbers)
    reader = task.reader(artifact.config.dataset_schema, size=size)
    # Every worker sees each bad line, and one alone says so.
    waiting, reports = Patience(patience if store.shared else 0), share is None or share.first
    mark, size, total, reached = store.watermark(task.source, 0), reader.size(), Applied(), -1
    # What an earlier run has passed is not looked at again.
    found = batches_of(reader, share, skip=EVERY if task.on_bad == "skip" else mark)
    with closing(found) as batches:
        for batch in batches:
            letters = [letter for letter in batch.bad if letter.offset > mark] if reports else []
            if dead_letters is not None:
                for letter in letters:
                    dead_letters.put(letter)
                dead_letters.flush()
            # Offsets ascend, so the lines that are already applied come first.
            known = bisect_right(batch.offsets, mark)
            sources = {} if task.record is None else {task.record: reader.prefix(task.source).to_json()}
            new, offsets = batch.table.behind(known), _array(batch.offsets[known:])
            place: dict[str, Any] = {"source": task.source, "offsets": offsets, "through": batch.through}
            apply = partial(updater.apply_table, new, **place, after=reached, sources=sources)
            total += waiting(apply) + Applied(duplicates=known, bad=len(letters))
            # A server may come back without its last commits: the next batch says what must be there.
            reached = max(reached, batch.through) if store.shared else -1
            if progress is not None:
                progress(batch.done, size)
    if reports and reader.absent:
        logger.warning(
            "%s has no column %s, which the mapping names: events of new items came without this field",
            reader.path,
            ", ".join(map(repr, reader.absent)),
        )
    if reports and reader.held is not None:
        logger.warning(
            "%s, line %d: the last line has no line end yet, and was left for the next run; if it is complete, take it"
            ' with --last-line complete (in Python last_line="complete")',
            reader.path,
            reader.held,
        )
    return total


def batch_size(most: int, record: int, *, shared: bool) -> int:
    """Events of one commit.

    Args:
        most: upper limit.
        record: bytes of one memory.
        shared: whether other processes may write to the store.

    >>> batch_size(32_768, 1_000, shared=False), batch_size(32_768, 1_000, shared=True)
    (32768, 16384)
    """
    return min(most, _SMALL_BATCH if shared else max(_SMALL_BATCH, _BATCH_BYTES // record))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some lines of a file.

    Args:
        table: the events.
        offsets: line numbers of the events.
        bad: lines that are not events.
        through: number of the last line.
        done: how far the file was read with these lines.
    """

    table: EventTable
    offsets: Sequence[int] | IntArray
    bad: Sequence[DeadLetter]
    through: int
    done: int

    def of(self, share: Share) -> Batch:
        """Only the events of the users of some shards."""
        place_N = share.places(self.table.user)
        return replace(self, table=self.table.take(place_N), offsets=_array(self.offsets)[place_N])


def _array(offsets: Sequence[int] | IntArray) -> IntArray:
    # Of a range, numpy would ask for every number one by one.
    return np.arange(offsets.start, offsets.stop) if isinstance(offsets, range) else np.asarray(offsets, np.int64)


def batches_of(reader: FileReader, share: Share | None, *, skip: int) -> Generator[Batch]:
    """The events of a file for a share, batch by batch; at a bad line, the events before it and then its error.

    Args:
        reader: of the file.
        share: the users; None for all.
        skip: bad lines up to this number are left out.
    """
    with closing(reader.lines()) as parts:
        for lines in parts:
            table = None if lines.columns is None else reader.rows.table(lines.columns)
            batches: Iterable[Batch] = (
                _one_by_one(reader, lines, skip=skip)
                if table is None
                else [Batch(table, lines.number, (), lines.last, lines.done)]
            )
            for batch in batches:
                if reader.noted:
                    reader.count_in(batch.through)
                    reader.traces.add(batch.table)
                yield batch if share is None else batch.of(share)


def _one_by_one(reader: FileReader, lines: Lines, *, skip: int) -> Generator[Batch]:
    """The batch of lines among which there may be bad ones: up to the first one that is not to be skipped."""
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
        elif (number <= skip or reader.rows.skips(event)) and number != reader.unended:
            values = None if isinstance(row, Problem) else row
            bad.append(DeadLetter(str(reader.path), 0, number, str(event), value=values))
        else:
            error = reader.bad(number, event.found, column=event.column, expected=event.expected)
            break
        through = number
    if error is None:
        through = lines.last
    if through >= 0:
        table = EventTable.of(events, time_unit=reader.rows.time_unit)
        yield Batch(table, offsets, bad, through, lines.done)
    if error is not None:
        raise error
