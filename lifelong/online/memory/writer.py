"""Folds events, given by ids, into the memories of one artifact; and of all artifacts of a store.

    events --numbers of the artifact's vocabularies--> write graph, the k-th events of all users together

Events of a batch are folded in by rounds: the first ones of all users together, then the second ones ...

    user       a a b a c b        events of one user must be folded in one after another,
    rank       0 1 0 2 0 1        and a graph call folds one event of each of many users:
    rounds     {a b c} {a b} {a}  so round k has the events of rank k

A round has each user at most once, and no user who was not in the round before.

A store may hold memories of several artifacts. The one that is served comes first: its memories decide which events are
new and which are late, and give each event its place in the log. The others follow in the same commit; those in phase
"behind" are left to whoever builds them.

Shapes: N events, U users, F fields of an event.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.dataset.catalogue import FIRST_ROW, with_columns
from lifelong.dataset.events import Schema, gap_numbers
from lifelong.dtypes import IntArray
from lifelong.errors import StoreConflictError
from lifelong.online.memory.compiling import begin_to_compile_writes
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.state import States
from lifelong.online.opening import open_stored
from lifelong.online.store.artifact_list import ArtifactList, StoredArtifact
from lifelong.online.store.contract import ITEMS, MemoryStore
from lifelong.online.store.remote import RemoteStore

T = TypeVar("T")
logger: logging.Logger = logging.getLogger(__name__)
_GIVEN = 65_536
"""How many items with fields of their own are kept in RAM with their numbers."""
_FEW = 2
"""With this few users left, each user's events are folded in alone, instead of the k-th events of all together."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """N events that will be folded in, in their order.

    Args:
        kept_N: their places among the events given.
        user_N: place of the user.
        rank_N: how many events of the user come before, in this batch.
        time_N: times.
        previous_N: latest time of the user's events before, `NO_TIME` if none.
        late: places among the events given of those that are older than that, refused ones too.

    Example:
        >>> times, last = np.array([5, 6, 7]), np.array([0, 0])
        >>> made = make_rounds(np.array([0, 1, 0]), times, last, refuse=False)
        >>> made.rank_N, made.rounds()
        (array([0, 0, 1]), [array([0, 1]), array([2])])
    """

    kept_N: IntArray
    user_N: IntArray
    rank_N: IntArray
    time_N: IntArray
    previous_N: IntArray
    late: IntArray

    def take(self, place_N: IntArray) -> Rounds:
        """The events at some places alone, of each user all or none; the places are then among these."""
        user_N, rank_N, time_N = self.user_N[place_N], self.rank_N[place_N], self.time_N[place_N]
        return Rounds(self.kept_N[place_N], user_N, rank_N, time_N, self.previous_N[place_N], self.late[:0])

    def rounds(self) -> list[IntArray]:
        """Places of the first events of all users, then of the second ones ..., each by the place of the user."""
        # Sorted by rank, and within a rank by user: the rounds are then one after another.
        order_N = np.lexsort((self.user_N, self.rank_N))
        bounds = np.cumsum(np.bincount(self.rank_N)) if len(order_N) else ()
        return np.split(order_N, bounds)[:-1] if len(order_N) else []


def make_rounds(user_N: IntArray, time_N: IntArray, last_time_U: IntArray, *, refuse: bool) -> Rounds:
    """The order of N events of users.

    Args:
        user_N: place of each event's user.
        time_N: times.
        last_time_U: of each user's last event so far, `NO_TIME` if none.
        refuse: whether events older than their user's last one are left out.
    """
    # Events of a user side by side, in their order. `first` marks where each user begins: there the time before comes
    # from the memory, everywhere else it is the time of the event before.
    order_N = np.argsort(user_N, kind="stable")
    user, time = user_N[order_N], time_N[order_N]
    first = np.flatnonzero(np.diff(user, prepend=-1))
    previous = np.empty_like(time)
    previous[1:] = time[:-1]
    previous[first] = last_time_U[user[first]]
    if (time < previous).any():
        return _with_late(user_N, time_N, last_time_U, refuse=refuse)
    # Distance from the user's first event.
    rank = np.arange(len(user)) - np.repeat(first, np.diff(first, append=len(user)))
    rank_N, previous_N = np.empty_like(user_N), np.empty_like(time_N)
    rank_N[order_N], previous_N[order_N] = rank, previous
    return Rounds(np.arange(len(user_N)), user_N, rank_N, time_N, previous_N, np.zeros(0, np.int64))


def _with_late(user_N: IntArray, time_N: IntArray, last_time_U: IntArray, *, refuse: bool) -> Rounds:
    """`make_rounds` with late events: one after another, since a refused event changes which later ones are late."""
    latest, seen = last_time_U.tolist(), [0] * len(last_time_U)
    kept, late = [], []
    for place, (user, time) in enumerate(zip(user_N.tolist(), time_N.tolist(), strict=True)):
        before = latest[user]
        is_late = time < before
        if is_late:
            late.append(place)
        if is_late and refuse:
            continue
        kept.append((place, user, seen[user], time, before))
        latest[user] = max(before, time)
        seen[user] += 1
    columns = np.array(kept, np.int64).reshape(-1, 5).T
    return Rounds(columns[0], columns[1], columns[2], columns[3], columns[4], np.array(late, np.int64))


class MemoryWriter:
    """Folds events into memories of an artifact.

    Args:
        artifact: of a model that is served.
        codec: of its memories.
        store: looked up for items that were put online.

    Raises:
        ArtifactError: the model cannot be served, and why.
    """

    artifact: Artifact
    store: MemoryStore
    runtime: Runtime

    def __init__(self, artifact: Artifact, codec: str, store: MemoryStore) -> None:
        self.artifact, self.store, self.runtime = artifact, store, Runtime(artifact, codec=codec)
        # Where another process writes, this one folds nothing.
        if self.runtime.counting is not None and not isinstance(store, RemoteStore):
            begin_to_compile_writes()
        self.schema: Schema = artifact.config.dataset_schema
        self._given: dict[tuple[object, ...], IntArray] = {}

    def only_known(self, events: EventTable) -> EventTable:
        """The events without those item fields that the artifact does not have."""
        if events.fields is None:
            return events
        only_known = self.artifact.catalogue.only_known
        return replace(events, fields=[fields and only_known(fields) for fields in events.fields])

    def advance(
        self, names: Sequence[str], states: States, events: EventTable, plan: Rounds, count_U: IntArray
    ) -> dict[str, bytes]:
        """Encoded memories after new events, of those users with all earlier events in their memory here.

        A memory that has fewer is still being built: whoever builds it will find these events in the log.

        Args:
            names: ids of U users, each with at least one of the events.
            states: their memories; cells may be changed in place.
            events: N of them.
            plan: their order.
            count_U: events that came before, of each user.
        """
        even_U = states.count_B == count_U
        if not even_U.all():
            place_N = np.flatnonzero(even_U[plan.user_N])
            events, plan = events.take(place_N), plan.take(place_N)
        if not len(events):
            return {}
        after = fold(self.runtime, states, plan, self.numbers(events, plan))
        if even_U.all():
            return dict(zip(names, self.runtime.encode(after), strict=True))
        row_U = np.flatnonzero(even_U)
        return dict(zip([names[row] for row in row_U.tolist()], self.runtime.encode(after.take(row_U)), strict=True))

    def unknown_types(self, events: EventTable) -> IntArray:
        """Places of the events of a type that was not in the training."""
        types, kinds = self.artifact.event_types, events.event_type
        if types is None or kinds is None:
            return np.zeros(0, np.int64)
        named = [kind for kind in dict.fromkeys(kinds) if kind is not None]
        number_K = types.numbers(named)
        new = {kind for kind, number in zip(named, number_K.tolist(), strict=True) if number < types.first_known}
        return np.array([place for place, kind in enumerate(kinds) if kind in new] if new else [], np.int64)

    def numbers(self, events: EventTable, plan: Rounds) -> IntArray:
        """Numbers of `schema.history_fields`, followed by the items' keys: `[N, X]`."""
        columns = list[IntArray]()
        if self.artifact.event_types is not None:
            columns.append(self._type_numbers(events)[:, None])
        if "gap" in self.schema.event_fields:
            columns.append(gap_numbers(plan.time_N, plan.previous_N)[:, None])
        return with_columns(self.item_numbers(events), *columns)

    def _type_numbers(self, events: EventTable) -> IntArray:
        """Numbers `[N]` of the event types; each distinct type is looked up once."""
        types, kinds = self.artifact.event_types, events.event_type or [None] * len(events)
        assert types is not None
        distinct, place_N = _distinct(kinds)
        number_N: IntArray = types.numbers(distinct)[place_N]
        return number_N

    def item_numbers(self, events: EventTable) -> IntArray:
        """Numbers of the item fields, followed by their keys: `[N, 2 F]`.

        Raises:
            RequestError: an event has a field that items do not have.
        """
        distinct, place_N = _distinct(events.item)
        online = self.put_online(distinct)
        given = [online.get(item) for item in distinct] if online else None
        number_NF = self.artifact.catalogue.coded(distinct, given)[place_N]
        some = self._with_fields(events, distinct)
        if some:
            rows = [self._given_numbers(events, place, online.get(events.item[place])) for place in some]
            number_NF[some] = np.reshape(rows, (-1, number_NF.shape[1]))
        return number_NF

    def _with_fields(self, events: EventTable, items: Sequence[str]) -> list[int]:
        """Places of the events with fields of their own that count; `items` are those of the events, each once.

        Raises:
            RequestError: an event has a field that items do not have.
        """
        if events.fields is None:
            return []
        # Rows of a file with equal fields share one object, whose names are looked at once.
        given = {id(fields): fields for fields in events.fields if fields}
        self.artifact.catalogue.check_fields({name for fields in given.values() for name in fields})
        # Training and backfill have one value of each field for an item; a memory that is continued has the same.
        new = self.new_items(items)
        if not new:
            return []
        pairs = enumerate(zip(events.item, events.fields, strict=True))
        return [place for place, (item, fields) in pairs if fields and item in new]

    def new_items(self, items: Sequence[str]) -> set[str]:
        """Those that the catalogue does not have: fields of their events count."""
        rows = self.artifact.catalogue.rows(items).tolist()
        return {item for item, row in zip(items, rows, strict=True) if row < FIRST_ROW}

    def put_online(self, items: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """Fields of those items that were put online, without fields that this artifact does not have."""
        distinct = list(dict.fromkeys(items))
        values = self.store.read_many(distinct, space=ITEMS)
        if not any(values):
            return {}
        only_known = self.artifact.catalogue.only_known
        return {item: only_known(json.loads(value)) for item, value in zip(distinct, values, strict=True) if value}

    def _given_numbers(self, events: EventTable, place: int, online: Mapping[str, str | None] | None) -> IntArray:
        """Numbers and keys `[2 F]` of an item by the fields of its event, which win over those put online."""
        assert events.fields is not None
        item, fields = events.item[place], {**(online or {}), **(events.fields[place] or {})}
        key = (item, *fields.items())
        row = self._given.get(key)
        if row is None:
            row = self.artifact.catalogue.coded([item], [fields])[0]
            if len(self._given) >= _GIVEN:
                self._given.clear()
            self._given[key] = row
        return row


def fold(runtime: Runtime, states: States, plan: Rounds, number_NF: IntArray) -> States:
    """Memories after all events: the same bytes however the events are cut into batches.

    Args:
        runtime: of the artifact.
        states: before; cells may be changed in place, for a copy of them takes longer than a write.
        plan: the order of the events.
        number_NF: their numbers of `schema.history_fields`, followed by the keys of their items.

    Raises:
        StoreError: the codec cannot keep a number.
    """
    if not runtime.steady:
        return runtime.append(states, plan.user_N, plan.rank_N, number_NF, plan.time_N)
    counting = runtime.counting
    if counting is None:
        return _in_rounds(runtime, states, plan, number_NF)
    # Counts need no rounds: a user's events are taken one after another while her cells are near.
    order_N = np.argsort(plan.user_N, kind="stable")
    user_N = plan.user_N[order_N]
    # An event's number among all of its user's: those before the batch, those in it, and itself.
    count_N = states.count_B[user_N] + plan.rank_N[order_N] + 1
    counted = counting.write(states, user_N, number_NF[order_N], count_N)
    others = {name: value for name, value in states.fields.items() if name not in counted}
    after = _in_rounds(runtime, replace(states, fields=others), plan, number_NF)
    return replace(after, fields={**after.fields, **counted})


def _in_rounds(runtime: Runtime, states: States, plan: Rounds, number_NF: IntArray) -> States:
    """What graphs write: the first events of all users together, then the second ones ..."""
    rounds = plan.rounds()
    # Rounds only get smaller. The first small one ends the part where a graph call for all users pays.
    wide = next((at for at, place_N in enumerate(rounds) if len(place_N) <= _FEW), len(rounds))
    # Where every user is in the first round, its order is that of the states: nothing is copied.
    everyone = wide > 0 and np.array_equal(plan.user_N[rounds[0]], np.arange(len(states)))
    if everyone:
        states = runtime.write(states, number_NF[rounds[0]], plan.time_N[rounds[0]])
    else:
        states = states.take(np.arange(len(states)))
    for place_N in rounds[1 if everyone else 0 : wide]:
        user_B = plan.user_N[place_N]
        states.put(user_B, runtime.write(states.take(user_B), number_NF[place_N], plan.time_N[place_N]))
    # What is left are runs of a few users, each folded in by itself.
    left_N = np.flatnonzero(plan.rank_N >= wide)
    for user in np.unique(plan.user_N[left_N]).tolist():
        place_N, user_B = left_N[plan.user_N[left_N] == user], np.array([user])
        states.put(user_B, runtime.write_run(states.take(user_B), number_NF[place_N], plan.time_N[place_N]))
    return states


def _distinct(values: Sequence[T]) -> tuple[list[T], IntArray]:
    """The distinct values, and the place of each value among them: values come again and again, and are found once."""
    distinct = list(dict.fromkeys(values))
    place_of = dict(zip(distinct, range(len(distinct)), strict=True))
    return distinct, np.fromiter(map(place_of.__getitem__, values), np.int64, len(values))


Opened = tuple[ArtifactList, Mapping[int, MemoryWriter]]
"""A store's list, and space -> writer of the memories in it; the served artifact's is the first."""


class OpenArtifacts:
    """Opens the artifacts of a store's list, and follows that list. Threads may share it.

    Args:
        store: bound to an artifact.
        given: artifacts that are open already; others are opened from where the list says they are.

    Raises:
        StoreForeignError: an artifact of the list cannot be opened.
    """

    store: MemoryStore

    def __init__(self, store: MemoryStore, given: Sequence[MemoryWriter]) -> None:
        self.store, self._lock = store, threading.Lock()
        self._open = {writer.artifact.id: writer for writer in given}
        self._now = self._writers(store.artifact_list())

    @property
    def served(self) -> MemoryWriter:
        """The writer of the artifact that is served, as the list was when it was last followed."""
        return next(iter(self._now[1].values()))

    def follow(self) -> Opened:
        """The artifacts as the store lists them now.

        Raises:
            StoreForeignError: an artifact of the list cannot be opened.
        """
        artifact_list = self.store.artifact_list()
        # One thread opens what is new, others wait for it; the store is asked without the lock.
        with self._lock:
            if artifact_list.epoch > self._now[0].epoch:
                self._now = self._writers(artifact_list)
            return self._now

    @property
    def epoch(self) -> int:
        """Epoch of the list that this process saw last; the store is not asked."""
        return self._now[0].epoch

    def give(self, writer: MemoryWriter) -> None:
        """Take an artifact that is open already, so that no write waits for it when the list names it."""
        self._open[writer.artifact.id] = writer

    def writer(self, artifact_id: str) -> MemoryWriter | None:
        """An artifact that is open, None if it is not."""
        return self._open.get(artifact_id)

    def fold(
        self,
        opened: Opened,
        bases: Mapping[int, Mapping[str, bytes | None]],
        before: States,
        events: EventTable,
        plan: Rounds,
    ) -> dict[int, Mapping[str, bytes]]:
        """Space -> user -> memory after new events.

        Args:
            opened: what `follow` gave.
            bases: space -> user -> encoded memory; every user has an event.
            before: the memories of the served artifact, decoded.
            events: events that count.
            plan: their order.
        """
        artifact_list, writers = opened
        served, records = next(iter(writers.values())), dict[int, Mapping[str, bytes]]()
        for space, writer in writers.items():
            names, records_before = list(bases[space]), list(bases[space].values())
            if writer is served:
                records[space] = served.advance(names, before, events, plan, before.count_B)
                continue
            try:
                states, its_events = writer.runtime.decode(records_before), writer.only_known(events)
                records[space] = writer.advance(names, states, its_events, plan, before.count_B)
            except Exception as error:
                # Whatever is wrong with another artifact, the served one continues.
                self._leave_behind(artifact_list, space, error)
        return records

    def _leave_behind(self, artifact_list: ArtifactList, space: int, error: Exception) -> None:
        """Let an artifact that failed on an event take no more of them: it has to be built again."""
        (stored,) = (listed for listed in artifact_list.artifacts if listed.space == space)
        logger.error("artifact %s cannot keep up, and is left behind: %s", stored.id[:12], error)
        # If the list has changed meanwhile, the commit that follows is refused too, and both are made again.
        with contextlib.suppress(StoreConflictError):
            self.store.change_artifact_list(artifact_list, artifact_list.turn(stored.id, "behind"))

    def _writers(self, artifact_list: ArtifactList) -> Opened:
        served = artifact_list.require_served()
        others = [stored for stored in artifact_list.artifacts if stored != served and stored.phase != "behind"]
        return artifact_list, {stored.space: self._opened(stored) for stored in (served, *others)}

    def _opened(self, stored: StoredArtifact) -> MemoryWriter:
        writer = self._open.get(stored.id)
        if writer is None or writer.runtime.codec.name != stored.identity.codec:
            writer = self._open[stored.id] = MemoryWriter(open_stored(stored), stored.identity.codec, self.store)
        return writer
