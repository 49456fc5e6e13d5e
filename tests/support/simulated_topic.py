"""A topic, the processes that follow it, and their store in a simulated world; `Stream` is the real one.

    topic --FakeConsumer--> Stream --apply: one commit--> store      kills, rebalances, errors, losses

Each process is a greenlet that runs only when it has its turn, from one call of the consumer or the store to the next.
`apply` is a model of `Updater.apply_table`, since the real one takes longer than all else; some worlds have that one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet

from lifelong.dataset.events import Schema
from lifelong.errors import StoreBehindError, StoreConflictError, StoreError, StoreUnavailableError
from lifelong.online.ingestion import kafka
from lifelong.online.ingestion.kafka_client import KafkaAddress
from lifelong.online.memory.event import decode_event
from lifelong.online.memory.updater import Applied
from lifelong.online.store.contract import Commit
from lifelong.online.store.ram import InMemoryStore
from support.simulation import BrokenError

SOURCE, PARTITIONS = "kafka:t", 2
Apply = Callable[..., Applied]


class KilledError(BaseException):
    """The process ends at once."""


class Store(InMemoryStore):
    """A store that fails, and forgets; it gives others a turn before each write.

    Args:
        world: it is in.
        shared: whether several processes write to it.
    """

    def __init__(self, world: World, *, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        self._world = world
        self._kept: list[Any] = [self._state()]

    def _state(self) -> Any:
        return (
            {space: dict(names) for space, names in self._spaces.items()},
            dict(self._watermarks),
            {user: dict(log) for user, log in self._events.items()},
        )

    def commit(self, change: Commit) -> None:
        """See `MemoryStore`; the error may come although all is kept."""
        self._world.turn()
        failing, late = self._world.failing(), self._world.chance.random() < 0.5
        if not (failing and late):
            # A store of several processes takes none of them back.
            marks = {key: max(offset, self.watermark(*key)) for key, offset in change.watermarks.items()}
            super().commit(replace(change, watermarks=marks))
            self._kept.append(self._state())
        self._world.turn()
        if failing:
            raise StoreUnavailableError("the store is gone", fix="again")

    def lose(self) -> None:
        """Be what it was some commits ago."""
        del self._kept[self._world.chance.randint(max(1, len(self._kept) - 4), len(self._kept)) :]
        spaces, self._watermarks, events = self._kept.pop()
        self._spaces.clear()
        self._spaces.update(spaces)
        self._events = events
        self._kept.append(self._state())


class Message:
    """What a consumer gives: no error, and no headers."""

    def __init__(self, partition: int, offset: int, text: bytes, user: str) -> None:
        none: Callable[[], None] = lambda: None  # noqa: E731
        self.user, self.text, self.error, self.headers, self.key = user, text, none, none, user.encode
        self.partition: Callable[[], int] = lambda: partition
        self.offset: Callable[[], int] = lambda: offset
        self.value: Callable[[], bytes] = lambda: text


class FakeConsumer:
    """Stands for `confluent_kafka.Consumer`: callbacks of the group come while it is polled."""

    def __init__(self, world: World) -> None:
        self._world, self.at = world, dict[int, int]()
        self.assigned: Callable[..., object] | None = None
        self.coming: list[Callable[[], object]] = []

    def subscribe(self, _: Sequence[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        """Join the group."""
        self.assigned, self.revoked, self.lost = on_assign, on_revoke, on_lost
        self._world.rebalance()

    def poll(self, _: float) -> Message | None:
        """The next message, if there is one."""
        return next(iter(self.consume(1, 0)), None)

    def consume(self, most: int, _: float) -> list[Message]:
        """The next messages."""
        self._world.turn()
        while self.coming:
            self.coming.pop(0)()
        found: list[Message] = []
        for partition in self._world.chance.sample(sorted(self.at), len(self.at)):
            log = self._world.log[partition]
            left = most - len(found)
            number = self._world.chance.randint(0, left) if self._world.trouble else left
            some = log[self.at[partition] : self.at[partition] + number]
            self.at[partition] += len(some)
            found += some
        return found

    def incremental_assign(self, places: Sequence[Any]) -> None:
        """Read more partitions."""
        self.at |= {place.partition: max(place.offset, 0) for place in places}

    def incremental_unassign(self, places: Sequence[Any]) -> None:
        """Read fewer partitions."""
        for place in places:
            self.at.pop(place.partition, None)

    def get_watermark_offsets(self, place: Any, **_: object) -> tuple[int, int]:
        """The first offset, and the one after the last."""
        return 0, len(self._world.log[place.partition])

    def commit(self, *, offsets: Sequence[Any], asynchronous: bool) -> None:
        """Keep the group's offsets, which nobody may be ahead of the store with."""
        self._world.committed |= {place.partition: place.offset for place in offsets}
        if not self._world.lost:
            for place in offsets:
                if place.offset > self._world.store.watermark(SOURCE, place.partition) + 1:
                    raise BrokenError(f"the group is at {place.offset}, before it is in the store")

    def close(self) -> None:
        """Leave."""


class Member:
    """A process that follows the topic, until it is killed or told to stop.

    Args:
        world: it is in.
    """

    def __init__(self, world: World) -> None:
        self.world, self.killed, self.over = world, False, False
        self.problem: BaseException | None = None
        self.client = FakeConsumer(world)
        settings = kafka.StreamSettings(on_bad="skip", patience=0, batch=5)
        apply = world.apply(world.store)
        self.stream = kafka.Stream(KafkaAddress(("h",), "t"), world.store, apply, world.schema, settings=settings)
        self.process = greenlet(self._run, world.scheduler)

    def _run(self) -> None:
        try:
            if not self.killed:
                self.stream.run()
        except (KilledError, StoreError):
            pass
        except BaseException as problem:
            self.problem = problem
        self.over = True


class World:
    """One world: messages come, processes follow them, faults happen; at the end all is applied, each message once.

    Args:
        seed: of all chance.
        apply: makes what folds events into a store.
        schema: of the events.
    """

    def __init__(self, seed: int, apply: Callable[[Any], Apply], schema: Schema) -> None:
        self.chance, self.apply, self.schema = random.Random(seed), apply, schema
        self.now, self.scheduler, self.trouble, self.lost = 0.0, getcurrent(), True, False
        self.committed = dict[int, int]()
        self.log: list[list[Message]] = [[] for _ in range(PARTITIONS)]
        shared = self.chance.random() < 0.7
        self.store = Store(self, shared=shared)
        self.running: Member | None = None
        self.fails = self.chance.choice([0.0, 0.1, 0.3])
        seams: Any = kafka
        seams.consumer = lambda *_, **__: None if self.running is None else self.running.client
        seams.partitions_of = lambda *_, **__: list(range(PARTITIONS))
        seams.clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: 1.8e9)
        self.members = [Member(self) for _ in range(2 if shared else 1)]

    def failing(self) -> bool:
        """Whether this write fails."""
        return self.trouble and self.chance.random() < self.fails

    def turn(self) -> None:
        """Let others go on; called by a process."""
        member = self.running
        assert member is not None
        self.scheduler.switch()
        if member.killed:
            raise KilledError

    def step(self, member: Member) -> None:
        """Let a process go on until its next turn."""
        self.running = member
        self.now += 0.1
        member.process.switch()
        if member.problem is not None:
            raise member.problem
        if member.over:
            self.members[self.members.index(member)] = Member(self)
            self.rebalance()

    def run(self) -> None:
        """Let the world run.

        Raises:
            BrokenError: something was seen that must not be.
        """
        faults = self.chance.sample([self.kill, self.rebalance, self.lose], self.chance.randint(0, 3))
        try:
            for _ in range(self.chance.randint(15, 40)):
                if self.chance.random() < 0.5:
                    self.send(self.chance.randrange(PARTITIONS))
                if faults and self.chance.random() < 0.2:
                    self.chance.choice(faults)()
                self.step(self.chance.choice(self.members))
            self.trouble = False
            self.rebalance()
            # Who follows a topic finds out what its store has lost at the next message.
            for partition in range(PARTITIONS):
                self.send(partition)
            for _ in range(200):
                if all(self.store.watermark(SOURCE, at) == len(log) - 1 for at, log in enumerate(self.log)):
                    break
                for member in list(self.members):
                    self.step(member)
            self.check()
        finally:
            for member in self.members:
                member.killed = True
                member.process.switch()

    def send(self, partition: int) -> None:
        """Send a few messages, of which some are no events."""
        for _ in range(self.chance.randint(1, 3)):
            user, offset = f"{partition}{self.chance.choice('ab')}", len(self.log[partition])
            text = f'{{"user": "{user}", "item": "{partition}.{offset}", "time": {1_700_000_000 + offset}}}'
            if self.chance.random() < 0.1:
                text = "no event"
            self.log[partition].append(Message(partition, offset, text.encode(), user))

    def kill(self) -> None:
        """Kill a process."""
        member = self.chance.choice(self.members)
        member.killed = True
        self.step(member)

    def lose(self) -> None:
        """Let the store lose what it has acknowledged; one that is embedded does so only with its process."""
        if not self.store.shared:
            self.kill()
        self.lost = True
        self.store.lose()

    def rebalance(self) -> None:
        """Assign the partitions anew; a process learns of it when it polls next, and may still hold messages."""
        # It begins to follow the topic with its first turn, and joins the group then.
        joined = [member for member in getattr(self, "members", ()) if member.client.assigned is not None]
        if not joined:
            return
        kit = joined[0].stream._kafka
        target = {partition: self.chance.choice(joined) for partition in range(PARTITIONS)}
        for member in joined:
            wanted = {partition for partition, one in target.items() if one is member}
            member.client.coming.append(lambda member=member, wanted=wanted: self._assign(kit, member, wanted))

    @staticmethod
    def _assign(kit: Any, member: Member, wanted: set[int]) -> None:
        client = member.client
        gone, new = (
            [kit.TopicPartition("t", partition) for partition in sorted(some)]
            for some in (client.at.keys() - wanted, wanted - client.at.keys())
        )
        if gone:
            client.revoked(client, gone)
            client.incremental_unassign(gone)
        assert client.assigned is not None
        client.assigned(client, new)

    def check(self) -> None:
        """Each event is applied once, and in order."""
        for partition, log in enumerate(self.log):
            if self.store.watermark(SOURCE, partition) != len(log) - 1:
                raise BrokenError(f"partition {partition} has {len(log)} messages and is not read to its end")
            for user in (f"{partition}a", f"{partition}b"):
                wanted = [f"{partition}.{one.offset()}" for one in log if one.user == user and one.text != b"no event"]
                if (found := self.applied(user)) != wanted:
                    raise BrokenError(f"{user} has {found} instead of {wanted}")

    def applied(self, user: str) -> list[str]:
        """The events that a user has."""
        logged = self.store.events(user)
        if logged:
            return [decode_event(event).item for event in logged]
        return (self.store.read_many([user])[0] or b"").decode().split()


class Model:
    """Folds events in as `Updater.apply_table` does: memories and offset in one commit, made from what was read.

    Args:
        store: of the world.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def __call__(self, table: Any, *, source: str, partition: int, offsets: Any, through: int, after: int) -> Applied:
        """See `Updater.apply_table`."""
        key = source, partition
        while True:
            if self.reached(key) < after:
                raise StoreBehindError("the store has lost something", fix="again")
            users = list(dict.fromkeys(table.user))
            before = dict(zip(users, self.store.read_many(users), strict=True))
            position = self.position(key)
            if through <= position:
                return Applied(duplicates=len(table))
            records = dict(before)
            for user, offset in zip(table.user, np.asarray(offsets).tolist(), strict=True):
                if offset > position:
                    records[user] = (records[user] or b"") + f"{partition}.{offset} ".encode()
            kept = {user: record for user, record in records.items() if record is not None}
            try:
                self.keep(kept, before, key, through, after)
            except StoreConflictError:
                continue
            return Applied(applied=len(table))

    def reached(self, key: tuple[str, int]) -> int:
        """How far the store is, to be compared with what this process knows."""
        return self.store.watermark(*key)

    def position(self, key: tuple[str, int]) -> int:
        """Offset up to which events were applied before."""
        return self.store.watermark(*key)

    def keep(self, records: Any, before: Any, key: tuple[str, int], through: int, after: int) -> None:
        """Commit."""
        reached = {} if after < 0 else {key: after}
        self.store.commit(Commit(records={0: records}, bases={0: before}, watermarks={key: through}, reached=reached))
