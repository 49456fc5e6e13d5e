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
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifelong.errors import SourceError, UsageError
from lifelong.launch import cores
from lifelong.memory.dead_letters import DeadLetter, DeadLetters
from lifelong.memory.event_table import EventTable, IntArray
from lifelong.memory.file_reader import FileReader, Lines, unreadable
from lifelong.memory.overlapped import Overlapped
from lifelong.memory.patience import Patience
from lifelong.memory.rows import Problem
from lifelong.memory.sharded_store import ShardedStore
from lifelong.memory.updater import Applied, Updater, UserEvent

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.shards import Share
    from lifelong.memory.store import MemoryStore

BATCH = 32_768
"""Events of one commit at most. A user's events of a batch are written once, and the disk is waited for once."""
_SMALL_BATCH = 16_384
"""The same, where memories are large or other processes write the same users."""
_BATCH_BYTES = 64 * 2**20
"""Memories of one batch that are not large: it is several times in RAM."""
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
    workers: int | None = 1,
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
        workers: processes that share the shards of a store among them; None for one a shard, as far as there are cores.
            A program that starts some is a module with `if __name__ == "__main__"`.

    Returns:
        What became of the lines; those of an earlier run count as duplicates.

    Raises:
        SourceError: a line is not what it should be; names file, line and column. All lines before it are applied. Also
            with "skip" where what comes after it cannot be read.
        UsageError: the file's ending names no format, or `columns` names no column of ours; or there are more workers
            than shards.
        StoreUnavailableError: the store does not answer; a second run goes on where it stopped.
        LostProcessError: a worker was ended from outside; a second run goes on where it stopped.
    """
    if on_bad not in ("stop", "skip"):
        raise UsageError(f"on_bad = {on_bad!r}", expected='"stop" or "skip"')
    # What is wrong with the call is said before anything is done.
    FileReader(path, artifact.config.dataset_schema, columns or {}, size=BATCH)
    name = content_source(path) if source is None else source
    task = Task(path, name, columns or {}, late, event_log, codec, on_bad, BATCH)
    number = _processes(store, workers)
    if number > 1:
        from lifelong.memory.ingest_workers import ingest_in_workers

        assert isinstance(store, ShardedStore)
        return ingest_in_workers(artifact, store, task, number, progress=progress, dead_letters=dead_letters)
    return fold_file(artifact, store, task, progress=progress, dead_letters=dead_letters, patience=patience)


def _processes(store: MemoryStore, workers: int | None) -> int:
    """How many processes fold a file in.

    Raises:
        UsageError: more than there are shards.
    """
    shards = store.share.of if isinstance(store, ShardedStore) else 1
    if workers is not None and not 1 <= workers <= shards:
        raise UsageError(
            f"{workers} workers on a store of {shards} shard{'s' * (shards > 1)}",
            expected=f"1 to {shards}" if shards > 1 else "1",
            fix="" if shards > 1 else "make a new store with rocksdb:///path?shards=N",
        )
    if shards > 1 and len(store.roster().members) > 1:
        # A worker that leaves an artifact behind would have to tell the others at once.
        return 1
    return min(shards, cores()) if workers is None else workers


@dataclass(frozen=True, slots=True)
class Task:
    """What is read, and how; see `ingest`.

    Args:
        path: the file.
        source: its name as a source.
        columns: our name -> the file's name.
        late: see `Updater`.
        event_log: see `Updater`.
        codec: see `Updater`.
        on_bad: "stop" or "skip".
        size: events of one commit at most.
    """

    path: Path
    source: str
    columns: Mapping[str, str]
    late: str
    event_log: bool
    codec: str | None
    on_bad: str
    size: int


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
    """`ingest`, of the users of some shards or of all; lines that are no events are told and counted with the first.

    Args:
        artifact: of a memory model.
        store: of these users.
        task: what is read.
        share: whose events are folded in; everyone's if None.
        progress: see `ingest`.
        dead_letters: see `ingest`.
        patience: see `ingest`.

    Raises:
        SourceError: see `ingest`.
        StoreUnavailableError: see `ingest`.
    """
    updater = Updater(artifact, store, late=task.late, event_log=task.event_log, codec=task.codec)
    size = batch_size(task.size, updater.runtime.codec.size, shared=store.shared)
    size = size if share is None else size * share.of // len(share.numbers)
    reader = FileReader(task.path, artifact.config.dataset_schema, task.columns, size=size, share=share)
    waiting, told = Patience(patience if store.shared else 0), share is None or share.first
    mark, size, total = store.watermark(task.source, 0), reader.size(), Applied()
    found = _batches(reader, share, skip=task.on_bad == "skip")
    with closing(found) as batches, Overlapped(updater, task.source) as writer:
        for batch in batches:
            letters = [letter for letter in batch.bad if letter.offset > mark] if told else []
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


def batch_size(most: int, record: int, *, shared: bool) -> int:
    """Events of one commit.

    Args:
        most: not more.
        record: bytes of one memory.
        shared: whether other processes may write to the store.
    """
    return min(most, _SMALL_BATCH if shared else max(_SMALL_BATCH, _BATCH_BYTES // record))


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
    offsets: Sequence[int] | IntArray
    bad: Sequence[DeadLetter]
    through: int
    done: int

    def of(self, share: Share) -> _Batch:
        """The events of the users of some shards."""
        place_N = share.places(self.table.user)
        return replace(self, table=self.table.take(place_N), offsets=_array(self.offsets)[place_N])


def _array(offsets: Sequence[int] | IntArray) -> IntArray:
    # numpy asks a range for each of its numbers.
    return np.arange(offsets.start, offsets.stop) if isinstance(offsets, range) else np.asarray(offsets, np.int64)


def _batches(reader: FileReader, share: Share | None, *, skip: bool) -> Generator[_Batch]:
    """The events of a file and share; those before a bad line come first, then its error is raised."""
    with closing(reader.lines()) as parts:
        for lines in parts:
            table = None if lines.columns is None else reader.rows.table(lines.columns, plain=lines.plain)
            through = int(lines.number[-1]) if lines.through is None else lines.through
            batches: Iterable[_Batch] = (
                _one_by_one(reader, lines, skip=skip)
                if table is None
                else [_Batch(table, lines.number, (), through, lines.done)]
            )
            for batch in batches:
                yield batch if share is None or lines.through is not None else batch.of(share)


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
