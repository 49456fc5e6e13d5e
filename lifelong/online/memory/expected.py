"""What the memories of a store must hold: by the events of a dataset, or by the store's own log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lifelong.dataset.folder import Dataset
from lifelong.dtypes import IntArray
from lifelong.errors import UsageError
from lifelong.online.memory.event import EventTable, LoggedEvent, decode_event
from lifelong.online.memory.replaying import HistoryFold, Replayer, counts_until
from lifelong.online.memory.state import States
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.store.contract import MemoryStore


class FromData:
    """What a store must hold, from the events of a dataset."""

    dataset: Dataset
    histories: HistoryFold
    count_U: IntArray
    replayer: Replayer

    def __init__(self, writer: MemoryWriter, dataset: Dataset, store: MemoryStore, until: int | None) -> None:
        self.dataset, self.histories = dataset, HistoryFold(writer.artifact, writer.runtime, dataset)
        self.count_U = counts_until(dataset, until)
        self.replayer = Replayer(store, writer, dataset)

    def choose(self, users: int | Sequence[str] | None, rng: np.random.Generator) -> list[str]:
        """Users, those of similar length together: long ones do not wait for short ones."""
        every = self.dataset.histories.num_users
        if users is None:
            chosen = np.arange(every)
        elif isinstance(users, int):
            chosen = np.sort(rng.choice(every, min(users, every), replace=False))
        else:
            chosen = self.dataset.users.find(users)
            if len(chosen) and chosen.min() < 0:
                raise UsageError(f"user {users[int(chosen.argmin())]!r} is not in the dataset", fix="check the id")
        chosen = chosen[np.argsort(self.count_U[chosen], kind="stable")]
        return [self.dataset.users.id_at(int(user)) for user in chosen]

    def states(self, users: Sequence[str], kept: States) -> tuple[States, Mapping[int, str]]:
        """Memories of users, and place -> why a user's is not known."""
        user_B = self.histories.find(users)
        return self.histories.fold(user_B, self.count_U[user_B]), {}

    def why(self, user: str, kept: States, wanted: States) -> str:
        """What another number of events means: whether the log has the others."""
        more = int(kept.count_B[0] - wanted.count_B[0])
        if more < 0:
            return f"{-more} events of DATA are missing"
        replayed = self.replayer.replay([user], self.replayer.writer.runtime.empty(1), kept)
        if replayed.unknown:
            return f"{more} extra events, {replayed.unknown[0]}"
        codec, same = self.replayer.writer.runtime.codec, replayed.states
        beyond = any(
            (np.abs(kept.fields[name] - value) > codec.allowed(name, value)).any()
            for name, value in same.fields.items()
        )
        if beyond:
            return f"{more} extra events, and the memory is not what DATA and the log give"
        return f"{more} extra events, which are in the log"

    def differing(self, user: str, count: int) -> str:
        """Which of a user's first `count` events the log has otherwise than DATA, as the end of a sentence."""
        store, writer, artifact = self.replayer.store, self.replayer.writer, self.replayer.writer.artifact
        log = [(position, decode_event(value)) for position, value in store.logs([(user, 0)])[0] if position <= count]
        if not log:
            return ""
        only_known, catalogue = artifact.catalogue.only_known, self.dataset.catalogue
        table = EventTable(
            user=[user] * len(log),
            item=[event.item for _, event in log],
            time_N=np.array([event.time for _, event in log], np.int64),
            fields=[event.fields and only_known(event.fields) for _, event in log],
        )
        # Counts begin at 1, places in the dataset at the user's first event.
        place_N = self.histories.first_U[int(self.histories.find([user])[0])] + [position - 1 for position, _ in log]
        found_NF = writer.item_numbers(table)
        wanted_NF = catalogue.of_rows(self.dataset.histories.row_N[place_N])
        differs_N = (found_NF != wanted_NF).any(axis=1)
        for at, (position, event) in enumerate(log):
            if differs_N[at]:
                return self._differing_field(position, event, found_NF[at], wanted_NF[at])
            _, time, kind = self.dataset.event(int(place_N[at]))
            if kind is not None and kind != event.event_type:
                return f": event {position} is of type {event.event_type!r}, and in DATA of {kind!r}"
            if time != event.time:
                return f": event {position} is of time {event.time}, and in DATA of {time}"
        return ""

    def _differing_field(self, place: int, event: LoggedEvent, found_F: IntArray, wanted_F: IntArray) -> str:
        """The first item field that one event has otherwise than DATA, as the end of a sentence."""
        writer = self.replayer.writer
        artifact = writer.artifact
        # Keys follow the numbers: values may differ that share a number.
        column = int(np.argmax(found_F != wanted_F)) % len(artifact.catalogue.fields)
        name = artifact.catalogue.fields[column]
        value = artifact.vocabularies[name].value_of(int(wanted_F[column]))
        if name == "item":
            return f": event {place} is of item {event.item!r}, and in DATA of {value!r}"
        own = event.fields if writer.new_items([event.item]) else None
        given, where = (own or {}).get(name), ""
        if name not in (own or {}):
            online = writer.put_online([event.item]).get(event.item, {})
            given, where = online.get(name), "put online as " if name in online else ""
        return f": {name} of event {place} (item {event.item!r}) is {where}{given!r}, and in DATA {value!r}"


class FromLog:
    """What a store must hold, from its own event log, as far as that goes."""

    store: MemoryStore
    space: int
    replayer: Replayer

    def __init__(self, writer: MemoryWriter, store: MemoryStore, space: int) -> None:
        self.store, self.space, self.replayer = store, space, Replayer(store, writer)

    def choose(self, users: int | Sequence[str] | None, rng: np.random.Generator) -> list[str]:
        """Users of the store, all or a sample."""
        if users is not None and not isinstance(users, int):
            records = self.store.read_many(users, space=self.space)
            if None in records:
                raise UsageError(f"user {users[records.index(None)]!r} is not in the store", fix="check the id")
            return list(users)
        names = sorted({user for user, _ in self.store.scan(self.space)})
        if users is None:
            return names
        return [names[at] for at in np.sort(rng.choice(len(names), min(users, len(names)), replace=False)).tolist()]

    def states(self, users: Sequence[str], kept: States) -> tuple[States, Mapping[int, str]]:
        """Memories of users, and place -> why a user's is not known."""
        replayed = self.replayer.replay(users, self.replayer.writer.runtime.empty(len(users)), kept)
        later = self.store.logs(list(zip(users, kept.count_B.tolist(), strict=True)))
        for at, log in enumerate(later):
            if log and at not in replayed.unknown:
                replayed.states.count_B[at] = log[-1][0]
        return replayed.states, replayed.unknown

    def why(self, user: str, kept: States, wanted: States) -> str:
        """What another number of events means."""
        return f"the log holds {int(wanted.count_B[0] - kept.count_B[0])} events that are not in the memory"

    def differing(self, user: str, count: int) -> str:
        """Nothing: the log is what the memory was compared with."""
        return ""
