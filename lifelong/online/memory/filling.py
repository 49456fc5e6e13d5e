"""Every user's memory at once, by the batch path: the fast way to fill a store from a prepared dataset.

dataset --some users at a time--> fold, as every other writer of memories does --> records --commits--> store
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import IntArray
from lifelong.errors import StoreForeignError
from lifelong.online.memory.event import check_user
from lifelong.online.memory.filled import note_filled
from lifelong.online.memory.replaying import HistoryFold, counts_until
from lifelong.online.memory.runtime import Runtime, identity_of
from lifelong.online.memory.updater import LoggedEvent, encode_event
from lifelong.online.store.contract import Commit, MemoryStore

_EVENTS = 262_144
"""Events that are folded in together, and go into one commit: more are not faster."""
_BYTES = 256
"""As many bytes of a record take the place of one event."""


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What a backfill did.

    Args:
        users: memories written.
        events: folded into them.
        newer: users left alone, since the store holds more of their events.
        empty: users without an event before the time.
        bytes: of the memories written.
        seconds: wall time.
        until: UTC second before which the store has everything that DATA has; None for ordinals.
    """

    users: int
    events: int
    newer: int
    empty: int
    bytes: int
    seconds: float
    until: int | None = None


def backfill(
    artifact: Artifact,
    dataset: Dataset,
    store: MemoryStore,
    *,
    until: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    event_log: bool = False,
    codec: str | None = None,
) -> BackfillReport:
    """`lifelong.backfill`, for an opened artifact, dataset and store.

    A second run writes the same memories again. A user is left alone if the store holds more of her events than the
    dataset. When all are written, the store notes until when it is filled: see `lifelong.online.memory.filled`.
    Records have the same bytes as if the events had been ingested.
    """
    identity = identity_of(artifact, store, codec)
    check_fits(artifact, dataset)
    count_U = counts_until(dataset, until)
    users = np.flatnonzero(count_U)
    for user in users.tolist():
        check_user(dataset.users.id_at(user))
    space = store.bind(identity)
    if len(store.artifact_list().artifacts) > 1:
        raise StoreForeignError(
            "the store keeps memories of several artifacts, and this would fill one artifact's alone",
            expected="a new store, or one of a single artifact",
            fix="drop the others with `lifelong switch --drop`, or send the events with `lifelong ingest`",
        )
    started, done, newer, events, size = time.perf_counter(), 0, 0, 0, 0
    runtime = Runtime(artifact, codec=identity.codec)
    histories = HistoryFold(artifact, runtime, dataset)
    for user_B in _groups(count_U, runtime.codec.size):
        states = histories.fold(user_B, count_U[user_B])
        names = [dataset.users.id_at(user) for user in user_B.tolist()]
        stored = runtime.decode(store.read_many(names, space=space), names)
        chosen = np.flatnonzero(stored.count_B <= states.count_B)
        records = dict(zip([names[at] for at in chosen.tolist()], runtime.encode(states.take(chosen)), strict=True))
        log: dict[tuple[str, int], bytes] = {}
        for at in chosen.tolist() if event_log else ():
            log.update(_logged(dataset, names[at], int(user_B[at]), int(states.count_B[at])))
        store.commit(Commit(records={space: records}, events=log))
        done, newer = done + len(names), newer + len(names) - len(records)
        events, size = events + int(states.count_B[chosen].sum()), size + sum(map(len, records.values()))
        if progress is not None:
            progress(done, len(users))
    moment = _moment(dataset, until)
    if moment is not None:
        note_filled(store, moment)
    seconds = time.perf_counter() - started
    return BackfillReport(done - newer, events, newer, dataset.histories.num_users - len(users), size, seconds, moment)


def _moment(dataset: Dataset, until: int | None) -> int | None:
    """The second before which the store has everything: no later than the one after the last event of all."""
    offset_U = np.asarray(dataset.histories.offset_U, np.int64)
    end_U = offset_U[1:][np.diff(offset_U) > 0]
    if dataset.schema.time_unit != "seconds" or not len(end_U):
        return None
    last = int(dataset.histories.time_N[end_U - 1].max())
    return last + 1 if until is None else min(until, last + 1)


def _groups(count_U: IntArray, size: int) -> Iterator[IntArray]:
    """Users who have events, one after another, some at a time; `size` is that of a record in bytes."""
    users = np.flatnonzero(count_U)
    # A record counts, too: a thousand recent histories may be gigabytes.
    weight = count_U[users] + size // _BYTES
    group = (np.cumsum(weight) - weight) // _EVENTS
    yield from np.split(users, np.flatnonzero(np.diff(group)) + 1) if len(users) else ()


def _logged(dataset: Dataset, name: str, user: int, count: int) -> dict[tuple[str, int], bytes]:
    """The user's first events, as the updater would have logged them."""
    start = dataset.histories.of(user).start
    events = map(dataset.event, range(start, start + count))
    return {(name, position): encode_event(LoggedEvent(*event)) for position, event in enumerate(events, start=1)}
