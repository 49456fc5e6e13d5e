"""Applies events to the memories in a store: each once, in the order of arrival, many users at a time.

    events --known already?--> drop     --k-th events of different users together--> write graph --one commit--> store
             |  (source, partition, offset) at or below the watermark
             `  client's event id, remembered for a day

Memories, log, ids and watermarks of one `apply` are one commit: after a crash all of it is there or nothing (of a user,
where the store is a cluster of servers); while a new artifact takes over, the memories of both. Where another process
wrote one of the users in between, the store refuses what was made from the older memory, and it is made again from the
newer one.
"""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lifelong.errors import StoreBehindError, StoreConflictError, StoreUnavailableError, UsageError

# What others import from here, beside the updater itself.
from lifelong.memory.event import LAST_SECOND as LAST_SECOND
from lifelong.memory.event import LoggedEvent as LoggedEvent
from lifelong.memory.event import UserEvent as UserEvent
from lifelong.memory.event import decode_event as decode_event
from lifelong.memory.event import encode_event as encode_event
from lifelong.memory.event import event_problem as event_problem
from lifelong.memory.event_table import EventTable, places
from lifelong.memory.event_table import check_events as check_events
from lifelong.memory.folding import Folder
from lifelong.memory.item_memory import ITEMS, require_items
from lifelong.memory.members import Group, Members
from lifelong.memory.plan import Plan, make_plan
from lifelong.memory.runtime import identity_of
from lifelong.memory.store import Commit

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import MemoryStore

IntArray = npt.NDArray[np.int64]
T = TypeVar("T")

REMEMBER = 24 * 3600
"""Seconds for which client event ids are remembered."""
ATTEMPTS = 100
"""How often a batch is made again because other processes wrote its users."""


@dataclass(frozen=True, slots=True)
class Applied:
    """How many events had which outcome.

    Args:
        applied: folded into the memories.
        duplicates: applied before; changed nothing.
        late: older than the user's last event; applied too, or refused.
        refused: late and not applied.
        no_dedup: applied without offset or event id, so that a repetition would count twice.
        unknown_types: applied with an event type that training had not seen.
        bad: lines of a file or messages of a stream that are no events, and were left out.
    """

    applied: int = 0
    duplicates: int = 0
    late: int = 0
    refused: int = 0
    no_dedup: int = 0
    unknown_types: int = 0
    bad: int = 0

    def __add__(self, other: Applied) -> Applied:
        """Both together."""
        return Applied(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


class Updater:
    """Folds events into the memories of a store. Threads may share it; they take turns.

    Args:
        artifact: of a memory model; claims the store if it is new.
        store: open for writing; not closed here.
        late: what happens to an event that is older than the user's last one: "apply" folds it in now (the order of
            arrival is the order of the memory), "refuse" leaves it out.
        event_log: whether the store keeps the events, for explanations.
        codec: of a new store; see `lifelong.memory.codec`. None for the store's own.
        now: gives the current UTC second, for the expiry of event ids.

    Raises:
        ArtifactError: the model cannot be served, and why.
        StoreForeignError: another artifact wrote the store, or it has another codec.
    """

    def __init__(
        self,
        artifact: Artifact,
        store: MemoryStore,
        *,
        late: str = "apply",
        event_log: bool = True,
        codec: str | None = None,
        now: Callable[[], int] | None = None,
    ) -> None:
        if late not in ("apply", "refuse"):
            raise UsageError(f"late = {late!r}", expected='"apply" or "refuse"')
        identity = identity_of(artifact, store, codec)
        folder = Folder(artifact, identity.codec, store)
        self.artifact, self.store, self.runtime = artifact, store, folder.runtime
        self._late: Literal["apply", "refuse"] = "apply" if late == "apply" else "refuse"
        self._event_log, self._now = event_log, now or (lambda: int(clock.time()))
        self._lock = threading.Lock()
        self._identity = identity
        require_items(artifact, store)
        store.bind(identity)
        self.members = Members(store, [folder])

    def apply(
        self,
        events: Sequence[UserEvent],
        *,
        source: str = "http",
        partition: int = 0,
        offsets: Sequence[int] | None = None,
        through: int | None = None,
        after: int = -1,
    ) -> Applied:
        """Fold events in, in their order; all of it is written at once, or nothing.

        Args:
            events: of any users.
            source: where they come from.
            partition: of the source.
            offsets: strictly increasing place of each event in its partition; those at or below the stored watermark
                were applied before. None for sources without places.
            through: how far the partition was read, where what follows the last event is none; in the same write.
            after: offset that the store's watermark has reached, as far as the caller knows.

        Raises:
            RequestError: an event is not valid; says which and why. Nothing was kept.
            StoreBehindError: it has not, so that events in between would be left out. Nothing was kept.
            StoreUnavailableError: the error says what was kept, if anything; what was is a duplicate when it is sent
                again with offsets or event ids.
        """
        table = EventTable.of(events, time_unit=self.members.now.leader.schema.time_unit)
        return self.apply_table(
            table, source=source, partition=partition, offsets=offsets, through=through, after=after
        )

    def apply_table(
        self,
        table: EventTable,
        *,
        source: str = "http",
        partition: int = 0,
        offsets: Sequence[int] | IntArray | None = None,
        through: int | None = None,
        after: int = -1,
    ) -> Applied:
        """`apply` for events in columns, which were checked."""
        batch = Batch.of(table, source, partition, offsets, through=through, after=after)
        with self._lock:
            return self.finish(batch, self.make(batch))

    def finish(self, batch: Batch, step: Step) -> Applied:
        """Write what was made of a batch; what another process overtook is made again.

        Raises:
            StoreUnavailableError: see `apply`.
        """
        applied = Applied()
        for _ in range(ATTEMPTS):
            try:
                # A shared store acknowledges also what it had before: its replicas may lack that.
                if step.change.watermarks or step.change.users or self.store.shared:
                    self.store.commit(step.change)
            except StoreConflictError as conflict:
                applied += step.outcome(without=conflict.users)
                batch = batch.only(conflict.users)
                step = self.make(batch)
            else:
                return applied + step.outcome()
        raise StoreUnavailableError(
            f"{len(batch.table)} events were not kept: other processes wrote their users {ATTEMPTS} times in between",
            expected="few processes that write the same users at once",
            fix="send them again",
        )

    def make(self, batch: Batch, newer: Commit | None = None) -> Step:
        """Fold events into the memories that the store holds now.

        Args:
            batch: the events.
            newer: what the store is about to hold.
        """
        self._check_reached(batch)
        now, crew = self._now(), self.members.follow()
        table, leader = batch.table, crew.leader
        # The memories first: what another process writes after this line makes the commit a conflict, and what it wrote
        # before is found in the positions and ids.
        everyone, user_N = places(table.user)
        coming = {} if newer is None else newer.records
        records = self._records(everyone, crew.slot, coming)
        beside = [self._records(everyone, slot, coming) for slot in crew.slots]
        fresh_N = self._fresh(batch, everyone, user_N, now)
        # Users of whom nothing is new stay as they are.
        used_U, user_N = _used(user_N[fresh_N], len(everyone))
        used, read = _chosen(everyone, used_U), _chosen(records, used_U)
        before = leader.runtime.decode(read, used)
        plan = make_plan(user_N, table.time_N[fresh_N], before.last_time_B, refuse=self._late == "refuse")
        kept_N = fresh_N[plan.kept_N]
        kept = table.take(kept_N)
        number_NF, unknown_N = leader.numbers(kept, plan)
        states, count_N = leader.fold(before, plan, number_NF)
        # With late events refused, a user may have none that counts.
        touched = _used(plan.user_N, len(used))[0]
        names, bases = _chosen(used, touched), _chosen(read, touched)
        after = states if len(touched) == len(states) else states.take(touched)
        log = self._logged(kept, plan, count_N) if self._event_log else {}
        windows, windows_before = self._windows(leader, kept, number_NF, coming)
        followed = crew.fold(Group(used, before, kept, plan), [_chosen(records_, used_U) for records_ in beside])
        change = Commit(
            states=dict(zip(names, leader.runtime.encode(after), strict=True)),
            watermarks={key: value for key, value in batch.marks.items() if value > self.store.watermark(*key)},
            event_ids=_expiries(kept, now + REMEMBER),
            events=log,
            based_on=dict(zip(names, bases, strict=True)),
            slot=crew.slot,
            beside={**followed.records, **windows},
            beside_based_on={**followed.based_on, **windows_before},
            epoch=crew.roster.epoch,
            reached=batch.reached,
        )
        return Step(change, batch, fresh_N, kept_N, fresh_N[plan.late], kept_N[unknown_N])

    def _windows(
        self, leader: Folder, kept: EventTable, number_NF: IntArray, coming: Mapping[int, Mapping[str, bytes]]
    ) -> tuple[Mapping[tuple[int, str], bytes], Mapping[tuple[int, str], bytes | None]]:
        """The records of the events' items after them, and before; nothing of a model without a side of items."""
        of_items = leader.runtime.items
        if of_items is None or not len(kept):
            return {}, {}
        names, item_N = places(kept.item)
        read = self._records(names, ITEMS, coming)
        after = of_items.after(of_items.codec.decode(read), item_N, kept, number_NF)
        keys = [(ITEMS, name) for name in names]
        records = dict(zip(keys, of_items.codec.encode(after), strict=True))
        return records, dict(zip(keys, read, strict=True))

    @staticmethod
    def _logged(events: EventTable, plan: Plan, count_N: IntArray) -> dict[tuple[str, int], bytes]:
        """Events for the log, those of one user together: a store puts neighbours faster."""
        order_N = np.argsort(plan.user_N, kind="stable")
        table = events.take(order_N)
        return dict(zip(zip(table.user, count_N[order_N].tolist(), strict=True), table.logged(), strict=True))

    def _check_reached(self, batch: Batch) -> None:
        """Refuse a batch that does not follow what the store holds.

        Raises:
            StoreBehindError: it has lost what it had acknowledged.
        """
        for (source, partition), offset in batch.reached.items():
            found = self.store.watermark(source, partition)
            if found >= offset:
                continue
            # A server that came back empty knows nothing of its maker.
            self.store.bind(self._identity)
            raise StoreBehindError(
                f"the store stands at offset {found} of {source}, partition {partition}; it had acknowledged {offset}",
                expected="a server that keeps what it acknowledges: see `lifelong doctor --store`",
                fix="run again: the source is read from where the store stands",
            )

    def _records(
        self, users: Sequence[str], slot: int, coming: Mapping[int, Mapping[str, bytes]]
    ) -> list[bytes | None]:
        """Encoded memories of an artifact; those that come are not read."""
        newer = coming.get(slot)
        if not newer:
            return self.store.read_many(users, slot=slot)
        found: list[bytes | None] = list(map(newer.get, users))
        missing = [place for place, record in enumerate(found) if record is None]
        read = self.store.read_many([users[place] for place in missing], slot=slot)
        for place, record in zip(missing, read, strict=True):
            found[place] = record
        return found

    def _fresh(self, batch: Batch, everyone: Sequence[str], user_N: IntArray, now: int) -> IntArray:
        """Places of the events that were not applied before."""
        table, place_N = batch.table, np.arange(len(batch.table))
        if batch.offset_N is not None:
            position_U = np.array(self.store.positions(batch.source, batch.partition, everyone), np.int64)
            place_N = np.flatnonzero(batch.offset_N > position_U[user_N])
        if table.event_id is None:
            return place_N
        keys = [_identity(table, place) for place in place_N.tolist()]
        named = list(dict.fromkeys(key for key in keys if key is not None))
        known = {key for key, seen in zip(named, self.store.seen(named, now=now), strict=True) if seen}
        fresh = []
        for place, key in zip(place_N.tolist(), keys, strict=True):
            if key in known:
                continue
            if key is not None:
                known.add(key)
            fresh.append(place)
        return np.array(fresh, np.int64)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that are written together.

    Args:
        table: the events.
        source: where they come from.
        partition: of the source.
        offset_N: their places in it; None for a source without places.
        marks: (source, partition) -> offset of the last event, to be kept with them.
        reached: (source, partition) -> offset that the store has reached.
    """

    table: EventTable
    source: str
    partition: int
    offset_N: IntArray | None
    marks: Mapping[tuple[str, int], int]
    reached: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        table: EventTable,
        source: str,
        partition: int,
        offsets: Sequence[int] | IntArray | None,
        *,
        through: int | None = None,
        after: int = -1,
    ) -> Batch:
        """Events with their places, checked.

        Raises:
            UsageError: the places do not increase, or are not as many as the events.
        """
        offset_N = None if offsets is None else _checked_offsets(table, offsets)
        last = -1 if through is None else through
        if offset_N is not None and len(offset_N):
            last = max(last, int(offset_N[-1]))
        key = source, partition
        return cls(
            table, source, partition, offset_N, {} if last < 0 else {key: last}, {} if after < 0 else {key: after}
        )

    def only(self, users: frozenset[str]) -> Batch:
        """The events of some users; the mark stays, for with them all is written."""
        place_N = np.array([place for place, user in enumerate(self.table.user) if user in users], np.int64)
        offset_N = None if self.offset_N is None else self.offset_N[place_N]
        return replace(self, table=self.table.take(place_N), offset_N=offset_N)


@dataclass(frozen=True, slots=True)
class Step:
    """What a batch of events makes of the memories, and what became of each event.

    Args:
        change: what is to be written.
        batch: the events.
        fresh: places of those that were not applied before.
        kept: of those that are folded in.
        late: of those that are older than their user's last one.
        unknown: of those whose type is new.
    """

    change: Commit
    batch: Batch
    fresh: IntArray
    kept: IntArray
    late: IntArray
    unknown: IntArray

    def outcome(self, *, without: frozenset[str] = frozenset()) -> Applied:
        """How many events had which outcome, some users' left out."""
        users = self.batch.table.user

        def count(places: IntArray) -> int:
            return sum(users[place] not in without for place in places.tolist()) if without else len(places)

        kept, fresh, names = count(self.kept), count(self.fresh), self.batch.table.event_id
        nameless = 0
        if self.batch.offset_N is None:
            nameless = kept
            if names is not None:
                nameless = count(self.kept[[names[place] is None for place in self.kept.tolist()]])
        return Applied(
            applied=kept,
            duplicates=count(np.arange(len(users))) - fresh,
            late=count(self.late),
            refused=fresh - kept,
            no_dedup=nameless,
            unknown_types=count(self.unknown),
        )


def _used(user_N: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """Which of so many users stand there, in their order, and each one's place among these."""
    used_U = np.flatnonzero(np.bincount(user_N, minlength=size))
    if len(used_U) == size:
        return used_U, user_N
    place_U = np.zeros(size, np.int64)
    place_U[used_U] = np.arange(len(used_U))
    return used_U, place_U[user_N]


def _chosen(values: list[T], place_N: IntArray) -> list[T]:
    """The values at strictly increasing places."""
    return values if len(place_N) == len(values) else [values[place] for place in place_N.tolist()]


def _identity(table: EventTable, place: int) -> tuple[str, str] | None:
    """The name under which an event is known again, None if it has none."""
    name = None if table.event_id is None else table.event_id[place]
    return None if name is None else (table.user[place], name)


def _expiries(table: EventTable, second: int) -> dict[tuple[str, str], int]:
    """(user, event id) of the events that have one -> when it is forgotten."""
    if table.event_id is None:
        return {}
    pairs = zip(table.user, table.event_id, strict=True)
    return {(user, name): second for user, name in pairs if name is not None}


def _checked_offsets(table: EventTable, offsets: Sequence[int] | IntArray) -> IntArray:
    offset_N = np.asarray(offsets, np.int64)
    if len(offset_N) != len(table):
        raise UsageError(f"{len(offset_N)} offsets for {len(table)} events", expected="one offset per event")
    if len(offset_N) and (offset_N[0] < 0 or (np.diff(offset_N) <= 0).any()):
        raise UsageError("the offsets do not increase", expected="strictly increasing offsets from 0 on")
    return offset_N
