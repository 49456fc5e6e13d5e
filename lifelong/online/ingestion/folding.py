"""Whole histories of users, one user after another -> their memories. No store, no torch.

    files or a table, ordered by user --batch by batch--> the fold of every writer of memories --> users and records

The last user of a batch may go on in the next one: this memory is kept, and comes with the batch that ends it. So what
is held at a time is one batch, whatever the size of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.dataset.events import NO_TIME
from lifelong.dataset.mapping import mapping_from
from lifelong.errors import UsageError
from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.opened_file import opened
from lifelong.online.ingestion.task import batches_of
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.filling import BackfillReport, Folded, fill
from lifelong.online.memory.replaying import check_until
from lifelong.online.memory.runtime import identity_of
from lifelong.online.memory.state import States
from lifelong.online.memory.writer import MemoryWriter, fold, make_rounds
from lifelong.online.store.contract import MemoryStore, note_filled
from lifelong.online.store.part import Share
from lifelong.online.store.ram import InMemoryStore
from lifelong.tables import TABLES, expand, is_path, table_file

EVENTS = 524_288
"""Events of a batch, if nothing else is said: with fewer, the graphs are called for few users at once."""


def fold_log(
    artifact: Artifact,
    log: Any,
    *,
    codec: str | None = None,
    mapping: Path | str | Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    batch: int = EVENTS,
) -> Iterator[Folded]:
    """`lifelong.fold`, for an opened artifact."""
    writer = MemoryWriter(artifact, codec or artifact.config.codec, InMemoryStore())
    return _folded(_Folder(writer, None, None, event_log=False), log, mapping, columns or {}, batch)


def fill_log(
    artifact: Artifact,
    log: Any,
    store: MemoryStore,
    *,
    until: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    event_log: bool = False,
    codec: str | None = None,
    mapping: Path | str | Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    share: Share | None = None,
    noted: bool = True,
) -> BackfillReport:
    """`lifelong.backfill` of a log instead of a dataset, for an opened artifact and store.

    Args:
        share: only the users of these parts; None for all.
        noted: whether the store notes until when it is filled; not where other processes fill it, too.
    """
    check_until(artifact.config.dataset_schema.time_unit, until)
    identity = identity_of(artifact, store, codec)
    folder = _Folder(MemoryWriter(artifact, identity.codec, store), until, share, event_log=event_log)

    def done(number: int) -> None:
        if progress is not None:
            # How many users there are, only the end of the log tells.
            progress(number, number)

    histories = _folded(folder, log, mapping, columns or {}, EVENTS)
    report = fill(store, folder.writer.runtime, identity, histories, progress=done)
    if folder.last == NO_TIME or artifact.config.dataset_schema.time_unit != "seconds":
        return report
    moment = folder.last + 1 if until is None else min(until, folder.last + 1)
    if noted:
        note_filled(store, moment)
    return replace(report, until=moment)


def _folded(
    folder: _Folder,
    log: Any,
    mapping: Path | str | Mapping[str, Any] | None,
    columns: Mapping[str, str],
    batch: int,
) -> Iterator[Folded]:
    artifact = folder.writer.artifact
    given = artifact.config.mapping if mapping is None else mapping_from(mapping)

    def folded(path: Path) -> Generator[Folded]:
        with opened(path) as file:
            schema = artifact.config.dataset_schema
            reader = FileReader(file, schema, columns, size=batch, mapping=given, noted=False, last_line="complete")
            reader.check()
            with closing(batches_of(reader, None, skip=0)) as batches:
                for some in batches:
                    yield from folder.take(some.table, path)

    if is_path(log) or isinstance(log, list | tuple):
        for path in expand(log if isinstance(log, list | tuple) else [log]):
            yield from folded(path)
    else:
        with table_file(log, what="events", expected=f"a path, a glob, or {TABLES}") as path:
            yield from folded(path)
    yield from folder.rest()


class _Folder:
    """Folds batches of events that are ordered by user."""

    last: int
    """Latest time of all events that came, `NO_TIME` before the first."""

    def __init__(self, writer: MemoryWriter, until: int | None, share: Share | None, *, event_log: bool) -> None:
        self.writer, self.last, self._event_log = writer, NO_TIME, event_log
        self._until, self._share = until, share
        self._user: str | None = None
        self._open: States = writer.runtime.empty(0)
        self._log: dict[tuple[str, int], bytes] = {}

    def take(self, events: EventTable, path: Path) -> Iterator[Folded]:
        """The users who end in a batch.

        Raises:
            UsageError: a user comes after one whose id is greater.
        """
        self.last = max(self.last, int(events.time_N.max(initial=NO_TIME)))
        if self._share is not None:
            events = events.take(self._share.places(events.user))
        if self._until is not None:
            events = events.take(np.flatnonzero(events.time_N < self._until))
        if not len(events):
            return
        runtime, names, first_U = self.writer.runtime, *_runs(events.user)
        self._check_order(names, path)
        states = runtime.empty(len(names))
        # The first user of a batch may be the last one of the batch before, whose memory is kept here.
        if names[0] == self._user:
            states.put(np.zeros(1, np.int64), self._open)
        else:
            yield from self.rest()
        user_N = np.repeat(np.arange(len(names)), np.diff(first_U, append=len(events)))
        # Folding may change the states in place.
        before_U = states.count_B.copy()
        plan = make_rounds(user_N, events.time_N, states.last_time_B, refuse=False)
        after = fold(runtime, states, plan, self.writer.numbers(events, plan))
        if self._event_log:
            # The first event of a batch is one more than those of earlier batches.
            count_N = (before_U[user_N] + plan.rank_N + 1).tolist()
            self._log.update(zip(zip(events.user, count_N, strict=True), events.logged(), strict=True))
        self._user, self._open = names[-1], after.take(np.array([len(names) - 1]))
        if len(names) > 1:
            yield self._ended(names[:-1], after.take(np.arange(len(names) - 1)))

    def rest(self) -> Iterator[Folded]:
        """The user who came last, whose history ends with the log."""
        if self._user is not None:
            user, self._user = self._user, None
            yield self._ended([user], self._open)

    def _ended(self, names: Sequence[str], states: States) -> Folded:
        # Of the user who goes on in the next batch the log stays here.
        ended, runtime = set(names), self.writer.runtime
        log = {key: event for key, event in self._log.items() if key[0] in ended}
        self._log = {key: event for key, event in self._log.items() if key[0] not in ended}
        records = runtime.encode(states)
        return Folded(names, records, states.count_B.tolist(), log)

    def _check_order(self, names: Sequence[str], path: Path) -> None:
        before = [self._user or "", *names]
        for earlier, user in zip(before, names, strict=False):
            if user < earlier:
                raise UsageError(
                    f"{path}: user {user!r} comes after {earlier!r}",
                    expected="all events of one user after another, users in the order of their ids (as bytes)",
                    fix="order the log by user and time, or use `lifelong ingest`, which takes events in any order",
                )


def _runs(users: Sequence[str]) -> tuple[list[str], np.ndarray[Any, np.dtype[np.int64]]]:
    """The users of a batch, each once for each run of events, and the place of each run's first event."""
    first = [0, *(place for place in range(1, len(users)) if users[place] != users[place - 1])]
    return [users[place] for place in first], np.array(first, np.int64)
