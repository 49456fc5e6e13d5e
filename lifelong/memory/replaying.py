"""What a user's memory must be after so many events: told by the store's event log, and by DATA where the log begins.

events 1 .. k of DATA --.
`--> memory after `count` events, or why it cannot be told
events k + 1 .. of the log -'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.memory.event import LoggedEvent, decode_event
from lifelong.memory.event_table import EventTable
from lifelong.memory.histories import HistoryFold
from lifelong.memory.plan import make_plan

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.memory.folding import Folder
    from lifelong.memory.state import States
    from lifelong.memory.store import MemoryStore

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Replayed:
    """Memories that were made anew.

    Args:
        states: one per user; of those in `unknown` not what was asked for.
        unknown: place of a user -> why her memory cannot be told.
    """

    states: States
    unknown: Mapping[int, str]


class Replayer:
    """Folds logged events into memories of one artifact.

    Args:
        store: with the log.
        folder: the artifact.
        dataset: each user's first events, where the log lacks them; with the artifact's vocabularies.

    Raises:
        MismatchError: the dataset has other fields or vocabularies than the artifact.
    """

    def __init__(self, store: MemoryStore, folder: Folder, dataset: Dataset | None = None) -> None:
        self.store, self.folder = store, folder
        self.histories = None if dataset is None else HistoryFold(folder.artifact, folder.runtime, dataset)

    def replay(self, users: Sequence[str], states: States, wanted: States) -> Replayed:
        """Fold what is missing.

        Args:
            users: B of them.
            states: memories to begin with, empty or of earlier events; not changed.
            wanted: memories with the count that is wanted; of any artifact.
        """
        states = states.take(np.arange(len(users)))
        # More events than are wanted: of another life of this user.
        beyond = np.flatnonzero(states.count_B > wanted.count_B)
        states.put(beyond, self.folder.runtime.empty(len(beyond)))
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
        """Fold those from the dataset, into `states`, that stand before the log."""
        unknown, good, count_G = {}, [], []
        for at, log in enumerate(logs):
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
            found = self.histories.find([users[at] for at in good])
            states.put(np.array(good), self.histories.fold(found, np.array(count_G, np.int64)))
        return unknown

    def _not_in_data(self, user: str, count: int, following: bytes | None, last_time: int) -> str | None:
        """Why the dataset does not hold a user's first `count` events, None if it does."""
        if self.histories is None:
            return f"the log lacks her first {count} events"
        held = self.histories.count(user)
        if held < count:
            return f"the log lacks her first {count} events, and DATA holds {held}"
        if following is not None and held > count:
            event = decode_event(following)
            if self.histories.event(user, count) != (event.item, event.time):
                return f"her event {count + 1} is another one in DATA than in the log"
        if self.histories.event(user, count - 1)[1] > last_time:
            return f"her event {count} has a later time in DATA than the memory"
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
                unknown[at] = f"the log lacks her event {absent}"
                continue
            events += [decode_event(log[count]) for count in missing]
            user += [at] * len(missing)
        if not events:
            return states
        only_known = self.folder.artifact.catalogue.only_known
        table = EventTable(
            user=[users[at] for at in user],
            item=[event.item for event in events],
            time_N=np.array([event.time for event in events], np.int64),
            event_type=[event.event_type for event in events],
            fields=[event.fields and only_known(event.fields) for event in events],
        )
        plan = make_plan(np.array(user, np.int64), table.time_N, states.last_time_B, refuse=False)
        return self.folder.fold(states, plan, self.folder.numbers(table, plan)[0])[0]
