"""Events of files and tables -> memories; each line once, however often it is given and wherever a run stopped.

A file is a source, a line's number is its offset, and the watermark moves with the memories in one commit, as does a
digest of the lines that were applied. The source is named after the path of the file, or has a name of its own. If its
first lines are those that were applied, a run continues after them, whatever has become of the later lines; else it
is refused: see `lifelong.online.ingestion.sources`. In parquet the offset is the number of the row.

A file is opened once, and read up to the end that it had then. A last line without its end may be one that is still
being written: it is left for the next run.

Several files are read one after another, each as its own source: in the order in which they are named, those of a glob
by name. All of them are opened before the first is applied. Where a run stops in one of them, those before it are
applied, those after it are not begun, and the same call continues there.

A table of another library is written to a temporary parquet file; its name as a source is a digest of its values, so
the same rows are applied once, whichever library they come from.

csv and jsonl are read with the standard library, also as `.gz`; parquet needs pyarrow, and may have timestamps (of any
unit and zone) or dates as times. A mapping with a query needs DuckDB, which runs it on the lines of a batch.

A line that is not an event stops the run, or is left out and kept as a dead letter; the position moves past it in the
commit of the memories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lifelong.artifact.folder import Artifact
from lifelong.dataset.mapping import mapping_from
from lifelong.errors import UsageError
from lifelong.online.ingestion.dead_letters import DeadLetters
from lifelong.online.ingestion.file_reader import FileReader, format_of
from lifelong.online.ingestion.opened_file import OpenedFile, opened
from lifelong.online.ingestion.sources import find_source, table_source
from lifelong.online.ingestion.task import Task, fold_file
from lifelong.online.ingestion.workers import ingest_in_workers, number_of_workers
from lifelong.online.memory.event import MAX_AHEAD
from lifelong.online.memory.updater import Applied
from lifelong.online.opening import check_word
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.sharded import ShardedStore
from lifelong.tables import TABLES, expand, is_path, named_columns, table_file

BATCH = 32_768
"""Events of one commit at most. A commit writes each user once, and waits for the disk once."""
_FOLDING = ("late", "event_log", "codec", "backfilled")
"""Options that are the updater's."""
PATIENCE = 60.0
"""Seconds to wait for a shared store that does not answer."""


def ingest(
    artifact: Artifact,
    store: MemoryStore,
    log: Any,
    *,
    progress: Callable[[int, int], None] | None = None,
    source: str | None = None,
    mapping: Path | str | Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: str = "stop",
    dead_letters: DeadLetters | None = None,
    patience: float = PATIENCE,
    workers: int | None = 1,
    last_line: str = "leave",
    **named: Any,
) -> Applied:
    """Fold the events of files or of a table into the memories of a store.

    Args:
        artifact: of a memory model.
        store: open for writing.
        log: a path, a glob or a list of them: `.csv` (with a header), `.jsonl`, both also `.gz`, or `.parquet`; or a
            table of another library (see `lifelong.tables`). It is read as the log was that the artifact's dataset was
            prepared from; where no mapping said how, columns are `user`, `item`, `time` (UTC seconds; of parquet and
            tables also timestamps and dates), and optionally `event_type` and item fields. Other columns are left out.
            A file that is named twice is read once.
        progress: called with (done, total): bytes of all files; of a single one bytes, or rows of parquet or a table.
        source: name of the source, of a single file or table; by default made from the path of the file, or from the
            values of the table.
        mapping: mapping file, or its settings, in place of that with which the artifact's dataset was prepared: which
            column is what, how text is written, which rows are left out.
        columns: our name -> the file's name, and settings of a mapping that win over it; see `EventRows`.
        on_bad: what to do at a line that is not an event: "stop", or "skip", which leaves it out.
        dead_letters: where lines that were left out are kept; flushed here, not closed.
        patience: seconds to wait for a shared store that does not answer.
        workers: processes that divide the shards of a store among them; None for one per shard, up to the number of
            cores.
        last_line: what to do with a last line without its end: "leave" it for the next run; "complete" takes it as it
            is.
        named: `late`, `event_log`, `codec`, `backfilled` and `max_ahead` of `Updater`; a line with a later time is no
            event. And columns with other names, by ours: `user="customer"`. These win over `columns`.

    Returns:
        What became of the lines; lines that an earlier run applied count as duplicates.

    Raises:
        SourceError: a line is not what it should be; names file, line and column. All lines before it are applied, and
            all files before it. With "skip" too, if the rest of the file cannot be read. Or lines that were applied are
            other ones now; then nothing of this file is applied. Or a file is not there, or lacks a column; then
            nothing is applied.
        UsageError: the file's ending is not that of a format, `columns` names a column that does not exist, or there
            are more workers than shards.
        StoreUnavailableError: the store does not answer; another run continues where this one stopped.
        LostProcessError: a worker was killed; another run continues where this one stopped.
    """
    check_word("on_bad", on_bad, stop="ends at the first bad line", skip="leaves bad lines out and counts them")
    left = "leaves a last line without its end for the next run"
    check_word("last_line", last_line, leave=left, complete="takes it as it is")
    max_ahead = named.pop("max_ahead", MAX_AHEAD)
    for name, number in (("patience", patience), ("max_ahead", max_ahead)):
        if not isinstance(number, int | float):
            raise UsageError(f"{name} = {number!r}", expected="a number", fix="leave it out for the default")
    if dead_letters is not None and not hasattr(dead_letters, "flush"):
        found, fix = f"dead_letters = {dead_letters!r}", "give an object with them, or leave it out"
        raise UsageError(found, expected="something with put, flush and close", fix=fix)
    given = artifact.config.mapping if mapping is None else mapping_from(mapping)

    folding = {name: named.pop(name) for name in _FOLDING if name in named}
    chosen = named_columns(columns, named)

    def task(file: OpenedFile) -> Task:
        return Task(file, "", chosen, folding, on_bad, BATCH, last_line=last_line, max_ahead=max_ahead, mapping=given)

    if isinstance(store, ShardedStore) and store.share.partitioner:
        raise UsageError(
            f"events of files for {store.path}, whose shards are partitions of a topic",
            expected="its topic, which a standby follows, too",
            fix="send them there; or fill new shards: lifelong backfill ARTIFACT LOG --part K/N",
        )
    run = _Ingest(artifact, store, task, source, progress, dead_letters, patience, workers)
    if not is_path(log):
        with table_file(log, what="events", expected=f"a path, a glob, or {TABLES}") as path:
            return run.table(path)
    paths = _distinct(expand(log if isinstance(log, list | tuple) else [log]))
    if source is not None and len(paths) > 1:
        raise UsageError(
            f"one name for {len(paths)} files: source={source!r}",
            expected="a name for a single file",
            fix="give the files one by one, each with a name of its own",
        )
    return run.files(paths)


@dataclass(frozen=True, slots=True)
class _Ingest:
    """Where events go; see `ingest`."""

    artifact: Artifact
    store: MemoryStore
    task: Callable[[OpenedFile], Task]
    source: str | None
    progress: Callable[[int, int], None] | None
    dead_letters: DeadLetters | None
    patience: float
    workers: int | None

    def table(self, path: Path) -> Applied:
        """Fold a table in, which lies in a temporary file."""
        with opened(path) as file:
            task = self.task(file)
            return self._fold(task, usual=table_source(self._reader(task)()))

    def files(self, paths: Sequence[Path]) -> Applied:
        """Fold files in, one after another."""
        for path in paths:
            format_of(path)
        if len(paths) == 1:
            return self._file(paths[0])
        total, before, sizes = Applied(), 0, list(map(self._size, paths))
        for path, size in zip(paths, sizes, strict=True):
            total += replace(self, progress=_part(self.progress, before, size, sum(sizes)))._file(path)
            before += size
        return total

    def _size(self, path: Path) -> int:
        """Bytes of a file that can be read and has the columns."""
        with opened(path) as file:
            self._reader(self.task(file))().check()
            return file.end

    def _file(self, path: Path) -> Applied:
        # Opened once: what is compared with the applied lines, and what is folded in, here or by workers, is one file.
        with opened(path) as file:
            task = self.task(file)
            self._reader(task)().check()
            return self._fold(task)

    def _reader(self, task: Task) -> Callable[[], FileReader]:
        return partial(task.reader, self.artifact.config.dataset_schema, size=BATCH)

    def _fold(self, task: Task, *, usual: str | None = None) -> Applied:
        """Fold a file in; its usual name is its path."""
        artifact, store, reader = self.artifact, self.store, self._reader(task)
        number = number_of_workers(store, self.workers)
        found = find_source(store, reader, self.source, usual=usual)
        task = replace(task, source=found.name, record=found.record, known=found.known)
        options: dict[str, Any] = {"progress": self.progress, "dead_letters": self.dead_letters}
        if number > 1:
            assert isinstance(store, ShardedStore)
            return ingest_in_workers(artifact, store, task, number, **options)
        return fold_file(artifact, store, task, patience=self.patience, **options)


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that lead to a file that is there already."""
    found: dict[Path, Path] = {}
    for path in paths:
        # Two names may lead to one file, of which each line would come twice.
        found.setdefault(path.resolve(), path)
    return list(found.values())


def _part(
    progress: Callable[[int, int], None] | None, before: int, size: int, whole: int
) -> Callable[[int, int], None] | None:
    """The progress of one file as a part of all of them, in bytes."""
    if progress is None:
        return None
    # `total` may be rows: only the share of it counts. 1: an empty file is done at once.
    return lambda done, total: progress(before + size * done // max(total, 1), whole)
