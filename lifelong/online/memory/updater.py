"""Applies events to the memories in a store: each once, in the order of arrival, many users at a time.

    events --known already?--> drop     --k-th events of different users together--> write graph --one commit--> store
             |  (source, partition, offset) at or below the watermark
             `  client's event id, remembered for a day

Memories, log, ids and watermarks of one `apply` are one commit: after a crash all of it is there or nothing (of each
user, if the store is a cluster of servers). While a new artifact takes over, the memories of both are in it. If another
process wrote one of the users in between, the store refuses what was made from the older memory, and it is made again
from the newer one.
"""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from operator import add
from typing import TypeVar

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.dtypes import IntArray
from lifelong.errors import RequestError, StoreBehindError, StoreUnavailableError, UsageError
from lifelong.online.memory.event import MAX_AHEAD, EventTable, UserEvent, ahead_problem, latest_time, places
from lifelong.online.memory.runtime import Runtime, identity_of
from lifelong.online.memory.writer import MemoryWriter, OpenArtifacts, Rounds, make_rounds
from lifelong.online.opening import AnyArtifact, check_word, checked_store, open_artifact
from lifelong.online.store.contract import ATTEMPTS, SOURCES, Commit, MemoryStore, filled_until, until_kept

T = TypeVar("T")

REMEMBER = 25 * 3600
"""Seconds for which client event ids are remembered: a day, and an hour because processes that share a server may be
half an hour apart in what they take for now (`lifelong.online.store.shared_clock`)."""


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
        backfilled: earlier than the moment until which a backfill has filled the store; changed nothing.
    """

    applied: int = 0
    duplicates: int = 0
    late: int = 0
    refused: int = 0
    no_dedup: int = 0
    unknown_types: int = 0
    bad: int = 0
    backfilled: int = 0

    def __add__(self, other: Applied) -> Applied:
        """The outcomes of two batches together."""
        return Applied(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


class Updater:
    """Folds events into the memories of a store. Threads may share it; they take turns.

    Args:
        artifact: of a memory model, or its folder; claims the store if it is new.
        store: open for writing; not closed here.
        late: what happens to an event that is older than the user's last one: "apply" folds it in now (the order of
            arrival is the order of the memory), "refuse" leaves it out.
        event_log: whether the store keeps the events, for explanations.
        codec: of a new store; see `lifelong.online.memory.codec`. None for the store's own.
        now: gives the current UTC second, for the bound of times and the expiry of event ids; by default the system's
            clock for the one, and the store's for the other.
        max_ahead: days that an event without a place in a source may be ahead of the clock; whoever reads a source
            checks its events.
        backfilled: what happens to an event from before the moment until which a backfill has filled the store: "skip"
            takes it as known, "apply" folds it in.

    Raises:
        ArtifactError: the model cannot be served, and why.
        StoreForeignError: another artifact wrote the store, or it has another codec.
        UsageError: an argument is something else than it should be.
    """

    artifact: Artifact
    store: MemoryStore
    runtime: Runtime

    def __init__(
        self,
        artifact: AnyArtifact,
        store: MemoryStore,
        *,
        late: str = "apply",
        event_log: bool = True,
        codec: str | None = None,
        now: Callable[[], int] | None = None,
        max_ahead: float = MAX_AHEAD,
        backfilled: str = "skip",
    ) -> None:
        before = "leaves out events from before the end of the backfill"
        check_word("backfilled", backfilled, skip=before, apply="folds them in")
        check_word("late", late, apply="folds late events in after the others", refuse="leaves them out")
        artifact, store = open_artifact(artifact), checked_store(store)
        identity = identity_of(artifact, store, codec)
        writer = MemoryWriter(artifact, identity.codec, store)
        self.artifact, self.store, self.runtime = artifact, store, writer.runtime
        self._refuse_late = late == "refuse"
        self._event_log, self._now = event_log, now or (lambda: int(clock.time()))
        # Event ids expire as time passes, and not when somebody sets a clock.
        self._id_clock = now or store.clock
        # One batch at a time: of two that read the same memories, one would be refused.
        self._lock, self._max_ahead = threading.Lock(), max_ahead
        self._identity = identity
        store.bind(identity)
        # A store is backfilled before events come in.
        self._filled = filled_until(store) if backfilled == "skip" else None
        self.artifacts: OpenArtifacts = OpenArtifacts(store, [writer])

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
            through: offset up to which the partition was read, if no event follows the last one; kept in the same
                write.
            after: offset that the store's watermark has reached, as far as the caller knows.

        Raises:
            RequestError: an event is not valid; says which and why. Nothing was kept.
            UsageError: `events` are no events, or another argument is something else than it should be.
            StoreBehindError: it has not, so that events in between would be left out. Nothing was kept.
            StoreUnavailableError: the error says what was kept, if anything; what was is a duplicate when it is sent
                again with offsets or event ids.
        """
        _check_place(source, partition=partition, through=through, after=after)
        table = EventTable.of(events, time_unit=self.artifacts.served.schema.time_unit)
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
        sources: Mapping[str, bytes] | None = None,
    ) -> Applied:
        """`apply` for events in columns, which were checked, but for the bound of times; `sources`: see `NewEvents`."""
        if offsets is None:
            self._check_times(table)
        batch = NewEvents.of(table, source, partition, offsets, through=through, after=after)
        batch = replace(batch, sources=sources or {})
        with self._lock:
            return self._finished(self._made(batch), 1)[0]

    def apply_parts(self, table: EventTable, sizes: Sequence[int]) -> list[Applied | Exception]:
        """Fold in events that came in several requests, with one commit for all of them.

        Args:
            table: the events of all requests, one request after another; they were checked.
            sizes: how many are of each request.

        Returns:
            Per request its outcome. A request that cannot be folded in has the error instead: nothing of it was kept,
            and the others are folded in without it.

        Raises:
            StoreUnavailableError: the error says what was kept, if anything, of any request.
        """
        batch = NewEvents.of(table, "http", 0, None)
        if len(sizes) > 1:
            batch = replace(batch, part_N=np.repeat(np.arange(len(sizes)), sizes))
        with self._lock:
            try:
                self._check_times(table)
                step = self._made(batch)
            except StoreUnavailableError:
                raise
            except Exception as error:
                if len(sizes) == 1:
                    return [error]
            else:
                return [*self._finished(step, len(sizes))]
        # Halves, in their order: the request with the error is soon alone.
        half, events = len(sizes) // 2, sum(sizes[: len(sizes) // 2])
        first = self.apply_parts(table.take(np.arange(events)), sizes[:half])
        return first + self.apply_parts(table.behind(events), sizes[half:])

    def _check_times(self, table: EventTable) -> None:
        """Refuse events that are too far ahead.

        Raises:
            RequestError: one is; nothing was kept.
        """
        latest = latest_time(self.artifacts.served.schema.time_unit, self._max_ahead, self._now())
        far = np.flatnonzero(table.time_N > latest)
        if len(far):
            column, found, expected = ahead_problem(int(table.time_N[far[0]]), latest)
            fix = "check the clock or the unit that gave it; nothing was kept"
            raise RequestError(f"event {far[0]}: {column} {found}", expected=expected, fix=fix)

    def _finished(self, step: Attempt, parts: int) -> list[Applied]:
        """Write what a batch has changed, again where another process was faster; the outcome of each of its parts.

        Raises:
            StoreUnavailableError: see `apply`.
        """
        applied = [Applied()] * parts

        def attempt(refused: frozenset[str] | None) -> list[Applied]:
            nonlocal applied, step
            if refused is not None:
                # All other users of the batch have been written: what is left is made again from what there is now.
                applied = list(map(add, applied, step.outcomes(parts, without=refused)))
                step = self._made(step.batch.only(refused))
            # A shared store acknowledges also what it had before: its replicas may lack that.
            if step.change.watermarks or step.change.users or self.store.shared:
                self.store.commit(step.change)
            return list(map(add, applied, step.outcomes(parts)))

        def left() -> str:
            number = len(step.batch.table)
            return f"{number} events were not kept: other processes wrote their users {ATTEMPTS} times in between"

        few = "few processes that write the same users at once"
        return until_kept(attempt, left, expected=few, fix="send them again")

    def _made(self, batch: NewEvents) -> Attempt:
        """Fold events into the memories that the store holds now."""
        self._check_reached(batch)
        second, now = self._id_clock(), self.artifacts.follow()
        artifact_list, writers = now
        table, served = batch.table, next(iter(writers.values()))
        # The memories first: what another process writes after this line makes the commit a conflict, and what it wrote
        # before is found in the positions and ids.
        everyone, user_N = places(table.user)
        read = {space: self.store.read_many(everyone, space=space) for space in writers}
        fresh_N, filled_N = self._split(table, self._fresh(batch, everyone, user_N, second))
        # Users without a new event stay as they are: from here on, places are among the others.
        used_U, user_N = _used(user_N[fresh_N], len(everyone))
        used = _chosen(everyone, used_U)
        before = served.runtime.decode(_chosen(next(iter(read.values())), used_U), used)
        plan = make_rounds(user_N, table.time_N[fresh_N], before.last_time_B, refuse=self._refuse_late)
        kept_N = fresh_N[plan.kept_N]
        kept = table.take(kept_N)
        # With late events refused, a user may have none that counts.
        touched_U, user_N = _used(plan.user_N, len(used))
        if len(touched_U) < len(used):
            before, used_U, plan = before.take(touched_U), used_U[touched_U], replace(plan, user_N=user_N)
        names = _chosen(everyone, used_U)
        bases = {space: dict(zip(names, _chosen(records, used_U), strict=True)) for space, records in read.items()}
        # A watermark only rises: another process may have moved it further.
        marks = {key: value for key, value in batch.marks.items() if value > self.store.watermark(*key)}
        sources = {SOURCES: batch.sources} if marks and batch.sources else {}
        change = Commit(
            records=self.artifacts.fold(now, bases, before, kept, plan) | sources,
            bases=bases,
            watermarks=marks,
            reached=batch.reached,
            event_ids=_expiries(kept, second + REMEMBER),
            events=self._logged(kept, plan, before.count_B) if self._event_log else {},
            epoch=artifact_list.epoch,
        )
        late_N, unknown_N = fresh_N[plan.late], kept_N[served.unknown_types(kept)]
        return Attempt(change, batch, fresh_N, kept_N, late_N, unknown_N, filled_N)

    def _split(self, table: EventTable, place_N: IntArray) -> tuple[IntArray, IntArray]:
        """Places of events that a backfill cannot have brought, and of those that it has."""
        time_N = table.time_N[place_N]
        if self._filled is None or not len(time_N) or time_N.min() >= self._filled:
            return place_N, place_N[:0]
        return place_N[time_N >= self._filled], place_N[time_N < self._filled]

    @staticmethod
    def _logged(events: EventTable, plan: Rounds, count_U: IntArray) -> dict[tuple[str, int], bytes]:
        """(user, count after the event) -> event for the log; `count_U` is what each user's memory held before."""
        count_N = count_U[plan.user_N] + plan.rank_N + 1
        # A user's events together: a store writes neighbouring keys faster.
        order_N = np.argsort(plan.user_N, kind="stable")
        table = events.take(order_N)
        return dict(zip(zip(table.user, count_N[order_N].tolist(), strict=True), table.logged(), strict=True))

    def _check_reached(self, batch: NewEvents) -> None:
        """Refuse a batch that does not follow what the store holds.

        Raises:
            StoreBehindError: it has lost what it had acknowledged.
        """
        for (source, partition), offset in batch.reached.items():
            found = self.store.watermark(source, partition)
            if found >= offset:
                continue
            # A server that came back empty does not know which artifact it belonged to.
            self.store.bind(self._identity)
            raise StoreBehindError(
                f"the store is at offset {found} of {source}, partition {partition}; it had acknowledged {offset}",
                expected="a server that keeps what it acknowledges: see `lifelong doctor --store`",
                fix="run again: the source is read on from the store's offset",
            )

    def _fresh(self, batch: NewEvents, everyone: Sequence[str], user_N: IntArray, now: int) -> IntArray:
        """Places of the events that were not applied before."""
        table, place_N = batch.table, np.arange(len(batch.table))
        if batch.offset_N is not None:
            position_U = np.array(self.store.positions(batch.source, batch.partition, everyone), np.int64)
            # By user: of several parts of a store each has a position of its own.
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
class NewEvents:
    """Events that are written together.

    Args:
        table: the events.
        source: where they come from.
        partition: of the source.
        offset_N: their places in it; None for a source without places.
        marks: (source, partition) -> offset of the last event, to be kept with them.
        reached: (source, partition) -> offset that the store has reached.
        sources: source -> what was applied of it with these events, to be kept with the marks.
        part_N: which of several requests each event came in; None where all are of one.
    """

    table: EventTable
    source: str
    partition: int
    offset_N: IntArray | None
    marks: Mapping[tuple[str, int], int]
    reached: Mapping[tuple[str, int], int] = field(default_factory=dict)
    sources: Mapping[str, bytes] = field(default_factory=dict)
    part_N: IntArray | None = None

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
    ) -> NewEvents:
        """Events with their places, checked.

        Raises:
            UsageError: the places do not increase, or are not as many as the events.
        """
        offset_N = None if offsets is None else _checked_offsets(table, offsets)
        last = -1 if through is None else through
        # The last event counts, too, where the partition was read no further.
        if offset_N is not None and len(offset_N):
            last = max(last, int(offset_N[-1]))
        key = source, partition
        ends, starts = {} if last < 0 else {key: last}, {} if after < 0 else {key: after}
        return cls(table, source, partition, offset_N, ends, starts)

    def only(self, users: frozenset[str]) -> NewEvents:
        """The events of some users; the mark stays, for with them all is written."""
        place_N = np.array([place for place, user in enumerate(self.table.user) if user in users], np.int64)
        offset_N = None if self.offset_N is None else self.offset_N[place_N]
        part_N = None if self.part_N is None else self.part_N[place_N]
        return replace(self, table=self.table.take(place_N), offset_N=offset_N, part_N=part_N)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a batch of events makes of the memories, and what became of each event.

    Args:
        change: what is to be written.
        batch: the events.
        fresh: places of those that were not applied before, be it by a backfill.
        kept: of those that are folded in.
        late: of those that are older than their user's last one.
        unknown: of those with a new type.
        filled: of those that a backfill has brought.
    """

    change: Commit
    batch: NewEvents
    fresh: IntArray
    kept: IntArray
    late: IntArray
    unknown: IntArray
    filled: IntArray

    def outcomes(self, parts: int, *, without: frozenset[str] = frozenset()) -> list[Applied]:
        """How many events of each part had which outcome, some users' left out."""
        users, names = self.batch.table.user, self.batch.table.event_id
        part_N = np.zeros(len(users), np.int64) if self.batch.part_N is None else self.batch.part_N

        def count(place_N: IntArray) -> IntArray:
            if without:
                place_N = np.array([place for place in place_N.tolist() if users[place] not in without], np.int64)
            return np.bincount(part_N[place_N], minlength=parts)

        kept, fresh, filled = count(self.kept), count(self.fresh), count(self.filled)
        nameless = np.zeros_like(kept)
        if self.batch.offset_N is None:
            nameless = kept
            if names is not None:
                nameless = count(self.kept[[names[place] is None for place in self.kept.tolist()]])
        columns = {
            "applied": kept,
            "duplicates": count(np.arange(len(users))) - fresh - filled,
            "late": count(self.late),
            "refused": fresh - kept,
            "no_dedup": nameless,
            "unknown_types": count(self.unknown),
            "backfilled": filled,
        }
        rows = np.stack(list(columns.values()), axis=1).tolist()
        return [Applied(**dict(zip(columns, row, strict=True))) for row in rows]


def _used(user_N: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """The places that occur among this many users, in order, and each occurrence's rank among these."""
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


def _check_place(source: str, **numbers: int | None) -> None:
    """Refuse what is no place of events."""
    if not isinstance(source, str):
        raise UsageError(f"source = {source!r}", expected="a name, a text", fix='source="orders"')
    for name, number in numbers.items():
        if not (number is None and name == "through") and not isinstance(number, Integral):
            raise UsageError(f"{name} = {number!r}", expected="a whole number", fix=f"{name}=0")


def _checked_offsets(table: EventTable, offsets: Sequence[int] | IntArray) -> IntArray:
    offset_N = np.asarray(offsets)
    if offset_N.ndim != 1 or (len(offset_N) and offset_N.dtype.kind not in "iu"):
        raise UsageError(
            f"offsets = {offsets!r}", expected="one whole number per event", fix="offsets=range(len(events))"
        )
    offset_N = offset_N.astype(np.int64)
    if len(offset_N) != len(table):
        raise UsageError(
            f"{len(offset_N)} offsets for {len(table)} events",
            expected="one offset per event",
            fix="give each event its place in the source, or leave out offsets",
        )
    if len(offset_N) and (offset_N[0] < 0 or (np.diff(offset_N) <= 0).any()):
        raise UsageError(
            "the offsets do not increase",
            expected="strictly increasing offsets from 0 on",
            fix="give events in the order of their source; another source, or partition, has offsets of its own",
        )
    return offset_N
