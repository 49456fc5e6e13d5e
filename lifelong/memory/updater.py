"""Applies events to the memories in a store: each once, in the order of arrival, many users at a time.

    events --known already?--> drop     --k-th events of different users together--> write graph --one commit--> store
             |  (source, partition, offset) at or below the watermark
             `  client's event id, remembered for a day

Memories, log, ids and watermarks of one `apply` are one commit: after a crash all of it is there or nothing (of a user,
where the store is a cluster of servers). Where another process wrote one of the users in between, the store refuses
what was made from the older memory, and it is made again from the newer one.
"""

from __future__ import annotations

import itertools
import json
import threading
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from lifelong.data.events import gap_numbers
from lifelong.errors import RequestError, StoreConflictError, StoreUnavailableError, UsageError
from lifelong.memory.runtime import Runtime, identity_of
from lifelong.memory.state import States
from lifelong.memory.store import Commit

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import MemoryStore

IntArray = npt.NDArray[np.int64]

REMEMBER = 24 * 3600
"""Seconds for which client event ids are remembered."""
ATTEMPTS = 100
"""How often a batch is made again because other processes wrote its users."""
MAX_ID = 1_024
"""Longest id of a user, item or event, in characters."""
_TO_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
LAST_SECOND = 253_402_300_799
"""End of the year 9999; a larger time is in milliseconds by mistake."""


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One thing a user did to one item.

    Args:
        user: her id; any text that is not empty.
        item: its id; need not be known.
        time: UTC seconds (or the ordinal of a log without times).
        event_type: click, buy ...; None where it is not known.
        fields: item fields that came with the event; they win over items put online and over the catalogue.
        event_id: the client's own id; a second event of this user with it changes nothing.
    """

    user: str
    item: str
    time: int
    event_type: str | None = None
    fields: Mapping[str, str | None] | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event as the store's log keeps it."""

    item: str
    time: int
    event_type: str | None = None
    fields: Mapping[str, str | None] | None = None


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
        self.artifact, self.store, self.runtime = artifact, store, Runtime(artifact, codec=identity.codec)
        self._late: Literal["apply", "refuse"] = "apply" if late == "apply" else "refuse"
        self._event_log, self._now = event_log, now or (lambda: int(clock.time()))
        self._schema, self._lock = artifact.config.dataset_schema, threading.Lock()
        store.bind(identity)

    def apply(
        self,
        events: Sequence[UserEvent],
        *,
        source: str = "http",
        partition: int = 0,
        offsets: Sequence[int] | None = None,
        through: int | None = None,
    ) -> Applied:
        """Fold events in, in their order; all of it is written at once, or nothing.

        Args:
            events: of any users.
            source: where they come from.
            partition: of the source.
            offsets: strictly increasing place of each event in its partition; those at or below the stored watermark
                were applied before. None for sources without places.
            through: how far the partition was read, where what follows the last event is none; in the same write.

        Raises:
            RequestError: an event is not valid; says which and why. Nothing was kept.
            StoreUnavailableError: the error says what was kept, if anything; what was is a duplicate when it is sent
                again with offsets or event ids.
        """
        check_events(events, time_unit=self._schema.time_unit)
        _check_offsets(events, offsets)
        last = max(-1 if through is None else through, int(offsets[-1]) if offsets is not None and len(offsets) else -1)
        with self._lock:
            marks = {} if last < 0 else {(source, partition): last}
            return self._apply(events, source, partition, offsets, marks)

    def _apply(
        self,
        events: Sequence[UserEvent],
        source: str,
        partition: int,
        offsets: Sequence[int] | None,
        marks: Mapping[tuple[str, int], int],
    ) -> Applied:
        applied = Applied()
        for _ in range(ATTEMPTS):
            step = self._step(events, source, partition, offsets, marks)
            try:
                if step.change != Commit():
                    self.store.commit(step.change)
            except StoreConflictError as conflict:
                applied += step.outcome(without=conflict.users)
                places = [place for place, event in enumerate(events) if event.user in conflict.users]
                events = [events[place] for place in places]
                offsets = None if offsets is None else [offsets[place] for place in places]
            else:
                return applied + step.outcome()
        raise StoreUnavailableError(
            f"{len(events)} events were not kept: other processes wrote their users {ATTEMPTS} times in between",
            expected="few processes that write the same users at once",
            fix="send them again",
        )

    def _step(
        self,
        events: Sequence[UserEvent],
        source: str,
        partition: int,
        offsets: Sequence[int] | None,
        marks: Mapping[tuple[str, int], int],
    ) -> _Step:
        """Fold events into the memories that the store holds now."""
        now = self._now()
        # The memories first: what another process writes after this line makes the commit a conflict, and what it wrote
        # before is found in the positions and ids.
        everyone = list(dict.fromkeys(event.user for event in events))
        record_of = dict(zip(everyone, self.store.read_many(everyone), strict=True))
        fresh = self._fresh(events, source, partition, offsets, now)
        users = list(dict.fromkeys(events[place].user for place in fresh))
        before = self.runtime.decode([record_of[user] for user in users])
        plan = _plan([events[place] for place in fresh], users, before.last_time_B, refuse=self._late == "refuse")
        places = [fresh[place] for place in plan.kept_N.tolist()]
        kept = [events[place] for place in places]
        number_NF, unknown = self._numbers(kept, plan)
        states, count_N = self._fold(before, plan, number_NF)
        touched = np.unique(plan.user_N)
        names = [users[place] for place in touched.tolist()]
        log = zip(kept, count_N.tolist(), strict=True) if self._event_log else ()
        change = Commit(
            states=dict(zip(names, self.runtime.encode(states.take(touched)), strict=True)),
            watermarks={key: value for key, value in marks.items() if value > self.store.watermark(*key)},
            event_ids={(event.user, event.event_id): now + REMEMBER for event in kept if event.event_id is not None},
            events={(event.user, count): encode_event(event) for event, count in log},
            based_on={user: record_of[user] for user in names},
        )
        late = [fresh[place] for place in plan.late]
        return _Step(change, events, offsets is not None, fresh, places, late, [places[at] for at in unknown])

    def _fresh(
        self, events: Sequence[UserEvent], source: str, partition: int, offsets: Sequence[int] | None, now: int
    ) -> list[int]:
        """Places of the events that were not applied before."""
        places = list(range(len(events)))
        if offsets is not None:
            marks = self.store.positions(source, partition, [event.user for event in events])
            places = [place for place in places if offsets[place] > marks[place]]
        named = list(dict.fromkeys(key for place in places if (key := _identity(events[place])) is not None))
        known = {key for key, seen in zip(named, self.store.seen(named, now=now), strict=True) if seen}
        fresh = []
        for place in places:
            key = _identity(events[place])
            if key in known:
                continue
            if key is not None:
                known.add(key)
            fresh.append(place)
        return fresh

    def _numbers(self, events: Sequence[UserEvent], plan: _Plan) -> tuple[IntArray, list[int]]:
        """Numbers `[N, F]` of `schema.history_fields`, and which of the N have a new event type."""
        unknown: list[int] = []
        columns = [self._item_numbers(events)]
        types = self.artifact.event_types
        if types is not None:
            values = list(dict.fromkeys(event.event_type for event in events))
            number_of = dict(zip(values, types.numbers(values).tolist(), strict=True))
            new = {value for value in values if value is not None and number_of[value] < types.first_known}
            unknown = [place for place, event in enumerate(events) if event.event_type in new]
            number_N = np.array([number_of[event.event_type] for event in events], np.int64)
            columns.append(number_N[:, None])
        if "gap" in self._schema.event_fields:
            columns.append(gap_numbers(plan.time_N, plan.previous_N)[:, None])
        return np.concatenate(columns, axis=1), unknown

    def _item_numbers(self, events: Sequence[UserEvent]) -> IntArray:
        """Numbers `[N, F]` of the item fields; each item is looked up once."""
        items = list(dict.fromkeys(event.item for event in events))
        place_of = {item: place for place, item in enumerate(items)}
        online = [None if value is None else json.loads(value) for value in self.store.read_items(items)]
        catalogue = self.artifact.catalogue
        number_VF = catalogue.numbers(items, online if any(online) else None)
        number_NF = number_VF[[place_of[event.item] for event in events]]
        for place, event in enumerate(events):
            if event.fields:
                given = {**(online[place_of[event.item]] or {}), **event.fields}
                number_NF[place] = catalogue.numbers([event.item], [given])[0]
        return number_NF

    def _fold(self, states: States, plan: _Plan, number_NF: IntArray) -> tuple[States, IntArray]:
        """Memories after all events, and each event's place in its user's history (from 1)."""
        states = states.take(np.arange(len(states)))
        count_N = states.count_B[plan.user_N] + plan.rank_N + 1
        for place_N in plan.rounds():
            user_B = plan.user_N[place_N]
            states.put(user_B, self.runtime.write(states.take(user_B), number_NF[place_N], plan.time_N[place_N]))
        return states, count_N


@dataclass(frozen=True, slots=True)
class _Step:
    """What a batch of events makes of the memories, and what became of each event.

    Args:
        change: what is to be written.
        events: the batch.
        placed: whether the events came with offsets.
        fresh: places of those that were not applied before.
        kept: of those that are folded in.
        late: of those that are older than their user's last one.
        unknown: of those whose type is new.
    """

    change: Commit
    events: Sequence[UserEvent]
    placed: bool
    fresh: Sequence[int]
    kept: Sequence[int]
    late: Sequence[int]
    unknown: Sequence[int]

    def outcome(self, *, without: frozenset[str] = frozenset()) -> Applied:
        """How many events had which outcome, some users' left out."""

        def count(places: Sequence[int]) -> int:
            return sum(self.events[place].user not in without for place in places)

        kept, fresh = count(self.kept), count(self.fresh)
        nameless = [] if self.placed else [place for place in self.kept if self.events[place].event_id is None]
        return Applied(
            applied=kept,
            duplicates=count(range(len(self.events))) - fresh,
            late=count(self.late),
            refused=fresh - kept,
            no_dedup=count(nameless),
            unknown_types=count(self.unknown),
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """N events that will be folded in, in their order.

    Args:
        kept_N: their places among the fresh events.
        user_N: place of the user.
        rank_N: how many events of the user come before, in this batch.
        time_N: times.
        previous_N: latest time of the user's events before, `NO_TIME` if none.
        late: places among the fresh events of those that are older than that, refused ones too.
    """

    kept_N: IntArray
    user_N: IntArray
    rank_N: IntArray
    time_N: IntArray
    previous_N: IntArray
    late: list[int]

    def rounds(self) -> list[IntArray]:
        """The first events of all users, then the second ones ..."""
        order_N = np.argsort(self.rank_N, kind="stable")
        bounds = np.flatnonzero(np.diff(self.rank_N[order_N])) + 1
        return [part for part in np.split(order_N, bounds) if len(part)]


def _plan(events: Sequence[UserEvent], users: Sequence[str], last_time_U: IntArray, *, refuse: bool) -> _Plan:
    place_of = {user: place for place, user in enumerate(users)}
    latest, seen = last_time_U.tolist(), [0] * len(users)
    kept, late = [], []
    for place, event in enumerate(events):
        user = place_of[event.user]
        before = latest[user]
        is_late = event.time < before
        if is_late:
            late.append(place)
        if is_late and refuse:
            continue
        kept.append((place, user, seen[user], event.time, before))
        latest[user] = max(before, event.time)
        seen[user] += 1
    columns = np.array(kept, np.int64).reshape(-1, 5).T
    return _Plan(columns[0], columns[1], columns[2], columns[3], columns[4], late)


def _identity(event: UserEvent) -> tuple[str, str] | None:
    """The name under which an event is known again, None if it has none."""
    return None if event.event_id is None else (event.user, event.event_id)


def check_events(events: Sequence[UserEvent], *, time_unit: str = "seconds") -> None:
    """Refuse events that cannot be what was meant.

    Raises:
        RequestError: says which event and why.
    """
    for place, event in enumerate(events):
        problem = event_problem(event, time_unit=time_unit)
        if problem is not None:
            column, found, expected = problem
            raise RequestError(f"event {place}: {column} {found}", expected=expected, fix="mend it; nothing was kept")


def event_problem(event: UserEvent, *, time_unit: str = "seconds") -> tuple[str, str, str] | None:
    """What is wrong with an event: (column, what was found, what was expected), or None."""
    texts = (("user", event.user), ("item", event.item), ("event_type", event.event_type), ("event_id", event.event_id))
    for column, value in texts:
        if value is None and column.startswith("event_"):
            continue
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
            return column, f"is {_short(value)}", f"text of 1 to {MAX_ID} characters"
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return column, f"is {_short(value)}, which is no valid text", "Unicode text"
    if type(event.time) is not int:
        return "time", f"is {_short(event.time)}", "a whole number"
    if not 0 <= event.time <= LAST_SECOND and time_unit == "seconds":
        return "time", f"is {event.time}", f"UTC seconds, 0 to {LAST_SECOND} (not milliseconds)"
    if time_unit != "seconds" and not 0 <= event.time < 2**62:
        return "time", f"is {event.time}", "the ordinal of the event, 0 or more"
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_offsets(events: Sequence[UserEvent], offsets: Sequence[int] | None) -> None:
    if offsets is None:
        return
    if len(offsets) != len(events):
        raise UsageError(f"{len(offsets)} offsets for {len(events)} events", expected="one offset per event")
    if any(after <= before for before, after in itertools.pairwise(offsets)) or (len(offsets) and offsets[0] < 0):
        raise UsageError("the offsets do not increase", expected="strictly increasing offsets from 0 on")


def encode_event(event: UserEvent | LoggedEvent) -> bytes:
    """One event for the log: a JSON list [item, time, type, fields], without empty parts at its end."""
    parts = [event.item, event.time, event.event_type, dict(event.fields) if event.fields else None]
    while parts[-1] is None:
        parts.pop()
    return _TO_JSON(parts).encode()


def decode_event(value: bytes) -> LoggedEvent:
    """The inverse of `encode_event`."""
    return LoggedEvent(*json.loads(value))
