"""Every user's memory at once, by the batch path: the fast way to fill a store from a prepared dataset.

dataset --some users at a time--> fold, as every other writer of memories does --> records --commits--> store
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import IntArray
from lifelong.errors import StoreForeignError
from lifelong.online.memory.event import LoggedEvent, check_user, encode_event
from lifelong.online.memory.replaying import HistoryFold, counts_until
from lifelong.online.memory.runtime import Runtime, identity_of
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import Commit, MemoryStore, note_filled

_EVENTS = 262_144
"""Events that are folded in together, and go into one commit: more are not faster."""
_BYTES = 256
"""As many bytes of a record take the place of one event."""


@dataclass(frozen=True, slots=True)
class Folded:
    """Memories of some users after all their events.

    Args:
        users: their ids.
        records: the memories as a store keeps them.
        events: how many events were folded into each.
        log: (user, number of the event from 1) -> the event as a store's log keeps it; empty if not asked for.
    """

    users: Sequence[str]
    records: Sequence[bytes]
    events: Sequence[int]
    log: Mapping[tuple[str, int], bytes]


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
    dataset. When all are written, the store notes until when it is filled: see `lifelong.online.store.contract`.
    Records have the same bytes as if the events had been ingested.
    """
    identity = identity_of(artifact, store, codec)
    check_fits(artifact, dataset)
    count_U = counts_until(dataset, until)
    users = np.flatnonzero(count_U)
    for user in users.tolist():
        check_user(dataset.users.id_at(user))
    runtime = Runtime(artifact, codec=identity.codec)

    def done(number: int) -> None:
        if progress is not None:
            progress(number, len(users))

    report = fill(
        store, runtime, identity, _histories(artifact, runtime, dataset, count_U, event_log=event_log), progress=done
    )
    moment = _moment(dataset, until)
    if moment is not None:
        note_filled(store, moment)
    return replace(report, empty=dataset.histories.num_users - len(users), until=moment)


def fill(
    store: MemoryStore,
    runtime: Runtime,
    identity: StoreIdentity,
    histories: Iterable[Folded],
    *,
    progress: Callable[[int], None],
) -> BackfillReport:
    """Write memories into a store of this artifact alone; a user who has more events there is left alone.

    Args:
        store: open for writing.
        runtime: of the artifact, with the store's codec.
        identity: by which the store knows the artifact.
        histories: memories of users, each user once; what they begin with is made after the store is bound.
        progress: called with the number of users that are done.

    Raises:
        StoreForeignError: it keeps memories of several artifacts, or of another one.
    """
    space = store.bind(identity)
    if len(store.artifact_list().artifacts) > 1:
        raise StoreForeignError(
            "the store keeps memories of several artifacts, and this would fill one artifact's alone",
            expected="a new store, or one of a single artifact",
            fix="drop the others with `lifelong switch --drop`, or send the events with `lifelong ingest`",
        )
    started, done, newer, events, size = time.perf_counter(), 0, 0, 0, 0
    for folded in histories:
        # What came by other ways since DATA was prepared must not be lost.
        stored_B = runtime.decode(store.read_many(folded.users, space=space), folded.users).count_B
        chosen = np.flatnonzero(stored_B <= np.array(folded.events)).tolist()
        records = {folded.users[at]: folded.records[at] for at in chosen}
        log = {key: event for key, event in folded.log.items() if key[0] in records}
        store.commit(Commit(records={space: records}, events=log))
        done, newer = done + len(folded.users), newer + len(folded.users) - len(records)
        events, size = events + sum(folded.events[at] for at in chosen), size + sum(map(len, records.values()))
        progress(done)
    return BackfillReport(done - newer, events, newer, 0, size, time.perf_counter() - started)


def _histories(
    artifact: Artifact, runtime: Runtime, dataset: Dataset, count_U: IntArray, *, event_log: bool
) -> Iterator[Folded]:
    """Memories of the users of a dataset after the first `count` events of each."""
    histories = HistoryFold(artifact, runtime, dataset)
    for user_B in _groups(count_U, runtime.codec.size):
        count_B, names = count_U[user_B], [dataset.users.id_at(user) for user in user_B.tolist()]
        log: dict[tuple[str, int], bytes] = {}
        for name, user, count in zip(names, user_B.tolist(), count_B.tolist(), strict=True) if event_log else ():
            log.update(_logged(dataset, name, user, count))
        yield Folded(names, runtime.encode(histories.fold(user_B, count_B)), count_B.tolist(), log)


def _moment(dataset: Dataset, until: int | None) -> int | None:
    """The second before which the store has everything: no later than the one after the last event of all."""
    offset_U = np.asarray(dataset.histories.offset_U, np.int64)
    # Of users without events the end is another user's.
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
    # A group ends at the user before whom another `_EVENTS` have come: no user is divided.
    group = (np.cumsum(weight) - weight) // _EVENTS
    yield from np.split(users, np.flatnonzero(np.diff(group)) + 1) if len(users) else ()


def _logged(dataset: Dataset, name: str, user: int, count: int) -> dict[tuple[str, int], bytes]:
    """The user's first events, as the updater would have logged them."""
    start = dataset.histories.of(user).start
    events = map(dataset.event, range(start, start + count))
    return {(name, position): encode_event(LoggedEvent(*event)) for position, event in enumerate(events, start=1)}
