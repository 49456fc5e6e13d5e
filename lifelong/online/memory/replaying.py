"""A user's memory, rebuilt: from the store's event log, and from DATA for the events before the log.

    events 1 .. k of DATA -------.
                                  `--> memory after `count` events, or why it cannot be known
    events k + 1 .. of the log --'

If both hold an event, they must agree on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.dataset.catalogue import with_columns
from lifelong.dataset.events import Schema, gap_numbers
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import IntArray
from lifelong.errors import UsageError
from lifelong.online.memory.event import EventTable, LoggedEvent, decode_event, last_time
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.state import States
from lifelong.online.memory.writer import MemoryWriter, Rounds, fold, make_rounds
from lifelong.online.store.contract import MemoryStore


@dataclass(frozen=True, slots=True)
class Replayed:
    """Memories that were rebuilt.

    Args:
        states: one per user; for those in `unknown` not what was asked for.
        unknown: place of a user -> why the memory cannot be known.
    """

    states: States
    unknown: Mapping[int, str]


class Replayer:
    """Folds logged events into memories of one artifact.

    Args:
        store: with the log.
        writer: of the artifact.
        dataset: each user's first events, where the log lacks them; with the artifact's vocabularies.

    Raises:
        MismatchError: the dataset has other fields or vocabularies than the artifact.
    """

    store: MemoryStore
    writer: MemoryWriter

    def __init__(self, store: MemoryStore, writer: MemoryWriter, dataset: Dataset | None = None) -> None:
        self.store, self.writer = store, writer
        self.histories: HistoryFold | None = (
            None if dataset is None else HistoryFold(writer.artifact, writer.runtime, dataset)
        )

    def replay(self, users: Sequence[str], states: States, wanted: States) -> Replayed:
        """Fold what is missing.

        Args:
            users: B of them.
            states: memories to begin with, empty or of earlier events; not changed.
            wanted: memories with the count that is wanted; of any artifact.
        """
        states = states.take(np.arange(len(users)))
        # More events than are wanted: of an earlier user of this id, who was erased.
        beyond = np.flatnonzero(states.count_B > wanted.count_B)
        states.put(beyond, self.writer.runtime.empty(len(beyond)))
        asked = zip(users, states.count_B.tolist(), strict=True)
        logs = [
            {count: value for count, value in log if count <= last}
            for log, last in zip(self.store.logs(list(asked)), wanted.count_B.tolist(), strict=True)
        ]
        unknown = self._first_events(users, states, wanted, logs)
        return Replayed(self._logged_events(users, states, wanted, logs, unknown), unknown)

    def _first_events(
        self, users: Sequence[str], states: States, wanted: States, logs: Sequence[Mapping[int, bytes]]
    ) -> dict[int, str]:
        """Fold events of the dataset that are before the log into `states`; place -> why that is not possible."""
        unknown, good, count_G = {}, [], []
        for at, log in enumerate(logs):
            # The event before the first one in the log is the last one that DATA must give.
            before = min(log, default=int(wanted.count_B[at]) + 1) - 1
            if before <= states.count_B[at]:
                continue
            why = self._not_in_data(users[at], before, log.get(before + 1), int(wanted.last_time_B[at]))
            if why is None:
                good.append(at)
                count_G.append(before)
            else:
                unknown[at] = why
        if good and self.histories is not None:
            index_G = self.histories.find([users[at] for at in good])
            states.put(np.array(good), self.histories.fold(index_G, np.array(count_G, np.int64)))
        return unknown

    def _not_in_data(self, user: str, count: int, following: bytes | None, last_time: int) -> str | None:
        """Why the dataset does not hold a user's first `count` events, None if it does."""
        if self.histories is None:
            return f"the log lacks the user's first {count} events"
        held = self.histories.count(user)
        if held < count:
            return f"the log lacks the user's first {count} events, and DATA holds {held}"
        if following is not None and held > count:
            event = decode_event(following)
            if self.histories.event(user, count) != (event.item, event.time):
                return f"event {count + 1} is another one in DATA than in the log"
        if self.histories.event(user, count - 1)[1] > last_time:
            return f"event {count} has a later time in DATA than the memory"
        return None

    def _logged_events(
        self,
        users: Sequence[str],
        states: States,
        wanted: States,
        logs: Sequence[Mapping[int, bytes]],
        unknown: dict[int, str],
    ) -> States:
        events: list[LoggedEvent] = []
        user: list[int] = []
        for at, log in enumerate(logs):
            missing = range(int(states.count_B[at]) + 1, int(wanted.count_B[at]) + 1)
            if at in unknown:
                continue
            absent = next((count for count in missing if count not in log), None)
            if absent is not None:
                unknown[at] = f"the log lacks the user's event {absent}"
                continue
            events += [decode_event(log[count]) for count in missing]
            user += [at] * len(missing)
        if not events:
            return states
        only_known = self.writer.artifact.catalogue.only_known
        table = EventTable(
            user=[users[at] for at in user],
            item=[event.item for event in events],
            time_N=np.array([event.time for event in events], np.int64),
            event_type=[event.event_type for event in events],
            fields=[event.fields and only_known(event.fields) for event in events],
        )
        # Late events are folded in as they were: the log has only those that counted.
        plan = make_rounds(np.array(user, np.int64), table.time_N, states.last_time_B, refuse=False)
        return fold(self.writer.runtime, states, plan, self.writer.numbers(table, plan))


class HistoryFold:
    """Folds users of a dataset.

    Args:
        artifact: memories are made for this one.
        runtime: its graphs, and the codec that rounds after every event.
        dataset: with the fields and vocabularies of the artifact's training.

    Raises:
        MismatchError: it has others.
    """

    runtime: Runtime
    dataset: Dataset
    schema: Schema

    def __init__(self, artifact: Artifact, runtime: Runtime, dataset: Dataset) -> None:
        check_fits(artifact, dataset)
        self.runtime, self.dataset, self.schema = runtime, dataset, dataset.schema
        self.first_U: IntArray = np.asarray(dataset.histories.offset_U, np.int64)[:-1]

    def find(self, users: Sequence[str]) -> IntArray:
        """Indices of users, -1 where one is not in the dataset."""
        return self.dataset.users.find(users)

    def count(self, user: str) -> int:
        """How many events of a user the dataset holds, 0 if the user is not in it."""
        index = int(self.find([user])[0])
        rows = self.dataset.histories.of(index) if index >= 0 else slice(0, 0)
        return rows.stop - rows.start

    def event(self, user: str, position: int) -> tuple[str, int]:
        """Item and time of one of a user's events, the first one at 0."""
        at = int(self.first_U[int(self.find([user])[0])]) + position
        histories = self.dataset.histories
        return self.dataset.catalogue.id_of(int(histories.row_N[at])) or "", int(histories.time_N[at])

    def fold(self, user_B: IntArray, count_B: IntArray, *, start: States | None = None) -> States:
        """Memories of users after this many of their events.

        Args:
            user_B: indices of the users.
            count_B: numbers of events.
            start: memories after fewer of these events, to continue from; None for empty ones.
        """
        states = self.runtime.empty(len(user_B)) if start is None else start.take(np.arange(len(user_B)))
        left_B = np.maximum(count_B - states.count_B, 0)
        user_N = np.repeat(np.arange(len(user_B)), left_B)
        # A user's events follow one another in the dataset: the first that is missing, and how far each is from it.
        rank_N = np.arange(len(user_N)) - np.repeat(np.cumsum(left_B) - left_B, left_B)
        event_N = (self.first_U[user_B] + states.count_B)[user_N] + rank_N
        time_N = np.asarray(self.dataset.histories.time_N[event_N], np.int64)
        plan = make_rounds(user_N, time_N, states.last_time_B, refuse=False)
        return fold(self.runtime, states, plan, self._numbers(event_N, plan))

    def _numbers(self, event_N: IntArray, plan: Rounds) -> IntArray:
        """Numbers of `schema.history_fields`, followed by the items' keys."""
        histories, columns = self.dataset.histories, list[IntArray]()
        if histories.event_type_N is not None and self.schema.event_types:
            columns.append(np.asarray(histories.event_type_N[event_N], np.int64)[:, None])
        if "gap" in self.schema.event_fields:
            columns.append(gap_numbers(plan.time_N, plan.previous_N)[:, None])
        return with_columns(self.dataset.catalogue.of_rows(histories.row_N[event_N]), *columns)


def counts_until(dataset: Dataset, until: int | None) -> IntArray:
    """For each user the number of events with an earlier time, of all if None.

    Raises:
        UsageError: it is a time that no event can have.
    """
    check_until(dataset.schema.time_unit, until)
    histories = dataset.histories
    offset_U = np.asarray(histories.offset_U, np.int64)
    if until is None:
        return offset_U[1:] - offset_U[:-1]
    # All users at one moment: how many events of each come before it.
    every = np.arange(histories.num_users)
    return histories.positions(every, np.full(len(every), until, np.int64))


def check_until(time_unit: str, until: int | None) -> None:
    """Check a time before which events are to be taken; None for all.

    Raises:
        UsageError: it is a time that no event can have.
    """
    latest = last_time(time_unit)
    if until is not None and not (isinstance(until, Integral) and 0 <= until <= latest):
        unit = "UTC seconds, from 0 to" if time_unit == "seconds" else "from 0 to"
        raise UsageError(f"until = {until!r}", expected=f"{unit} {latest}", fix="leave it out to take all events")
