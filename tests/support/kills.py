"""Kills processes that write memories, with -9, at random moments and around their commits, and compares what is there.

    start --> work, acknowledged line by line --> kill --> store == replay of a prefix, no shorter than what was
      ^                                                             acknowledged --> start on the same store ...
      `----------------------------------------------------------------------------------'  (a new one after the end)

    python benchmarks/kills.py --kills 300 --seed 1      a JSON line per kill, and a summary last

What is killed (`KINDS`): ingestion of a file, over RocksDB and over Valkey; the same while RocksDB is made to compact;
the same by two workers into shards, where one of them is killed, or their parent, or all; a process that follows a
topic, over both; the same by two workers into shards; a service under posted events, over both and over shards; a
backfill; the writer of a service that goes on: while it follows a topic, and while it builds the memories of another
artifact.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import os
import random
import signal
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Updater
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.opening import open_store
from lifelong.online.store.part import part_of
from lifelong.online.store.ram import InMemoryStore
from support import victims
from support.kafka import Broker, broker
from support.processes import until
from support.serving import Service
from support.valkey import server
from support.variants import other_artifact

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_PATIENCE = 400
"""Seconds in which a victim does something on a busy machine."""
_PARTITIONS, _SHARDS = 3, 3
_POST, _SENT, _COPIES = 5, 60, 20
"""Events of one request; messages of one kill of a writer; users of a build for each of the dataset's."""
_TOLERANCE = 1e-5
_IMPORTED = [
    *(
        "__main__",
        "support.kills",
        "onnxruntime",
        "rocksdict",
        "redis",
        "confluent_kafka",
        "uvicorn",
        "lifelong.online.memory.filling",
    ),
    *(f"lifelong.online.{name}" for name in ("ingestion.files", "ingestion.kafka", "store.rocksdb", "store.redis")),
    *("lifelong.online.memory.filling", "lifelong.online.serving.app", "lifelong.online.serving.run"),
]
"""What victims are forked with, so that a start takes a moment and not a second; what is not installed is left out."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill and what was found after it.

    Args:
        kind: of the victim.
        seed: of the campaign.
        number: of the kill.
        point: where it fell.
        acknowledged: events (of a backfill users) that the victim had said were done.
        recovered: those that the store holds.
    """

    kind: str
    seed: int
    number: int
    point: str
    acknowledged: int
    recovered: int


@dataclass(slots=True)
class Ground:
    """What a campaign works on.

    Args:
        folder: for stores and files.
        artifact: of a memory model.
        events: in the order in which they are sent.
        chance: of everything drawn.
        new_store: gives the URL of a store that is not there yet.
        kafka: a broker, for the kinds that need one.
        data: a prepared dataset's folder, for the kinds that need one.
    """

    folder: Path
    artifact: Artifact
    events: Sequence[UserEvent]
    chance: random.Random
    new_store: Callable[[], str]
    kafka: Broker | None = None
    data: Path | None = None
    runtime: Runtime = field(init=False)

    def __post_init__(self) -> None:
        self.runtime = Runtime(self.artifact)


class Victims:
    """Processes that are killed one after another, over one store until its work is done.

    Args:
        ground: see `Ground`.
    """

    longest = 0.25
    """Seconds after its first word within which a victim is killed from outside."""
    codes: tuple[int, ...] = (-9,)
    """With which a victim may end that was killed."""

    def __init__(self, ground: Ground) -> None:
        self.ground, self.number = ground, 0
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(_IMPORTED)
        self.renew()

    def renew(self) -> None:
        """Begin with a new store."""
        self.url = self.ground.new_store()
        self.said = self.ground.folder / f"said-{time.monotonic_ns()}"
        self.said.touch()

    def work(self, doom: victims.Doom) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """What the process does."""
        raise NotImplementedError

    def acknowledged(self) -> int:
        """What the victims of this store have said to be done."""
        lines = self.said.read_text().split()
        return int(lines[-1]) if lines else 0

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """What the store holds, and whether all is done.

        Raises:
            AssertionError: it holds something else than a replay gives.
        """
        raise NotImplementedError

    def kill(self) -> tuple[str, int, int] | None:
        """Start one, kill it, and compare: (point, acknowledged, recovered); None where it ended first."""
        doom = self._doom()
        target, arguments = self.work(doom)
        process = self._processes.Process(target=target, args=arguments)
        process.start()
        point = self._meet(process, doom)
        ended = process.exitcode == 0
        assert ended or process.exitcode in self.codes, f"a victim ended with {process.exitcode}"
        process.close()
        told = self.acknowledged()
        store = open_store(self.url)
        try:
            recovered, done = self.check(store)
        finally:
            store.close()
        assert recovered >= told, f"{told} were acknowledged, {recovered} are there"
        if done:
            self.renew()
        return None if ended else (point, told, recovered)

    def _doom(self) -> victims.Doom:
        if self.ground.chance.random() < 0.5:
            return None
        return self.ground.chance.choice(victims.POINTS), self.ground.chance.randint(1, 12)

    def _meet(self, process: BaseProcess, doom: victims.Doom) -> str:
        """See a victim through to its end; where it fell."""
        if doom is not None:
            process.join(_PATIENCE)
            point = f"{doom[0]} of commit {doom[1]}"
        elif self.ground.chance.random() < 0.1:
            pause = self.ground.chance.uniform(0, 0.2)
            process.join(pause)
            point = f"{pause:.3f} s after its start"
        else:
            self._wait_for_a_word(process)
            pause = self.ground.chance.uniform(0, self.longest)
            process.join(pause)
            point = f"{pause:.3f} s after its first commit"
        process.kill()
        process.join(_PATIENCE)
        return point

    def _wait_for_a_word(self, process: BaseProcess) -> None:
        before, end = self.said.stat().st_size, time.monotonic() + _PATIENCE
        while self.said.stat().st_size == before and process.is_alive():
            assert time.monotonic() < end, "a victim did nothing"
            time.sleep(0.002)


class FileVictims(Victims):
    """Ingestion of a file."""

    compact = False

    def __init__(self, ground: Ground) -> None:
        self.path = ground.folder / "log.jsonl"
        self.path.write_text("".join(json.dumps(row(event)) + "\n" for event in ground.events))
        super().__init__(ground)

    def work(self, doom: victims.Doom) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """See `Victims`."""
        place = str(self.ground.artifact.path), self.url, str(self.path), str(self.said), doom
        return (compacting if self.compact else victims.ingest_file), place

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """The lines up to the watermark are there, and no other."""
        mark = max(0, store.watermark("log", 0))
        compare(self.ground, store, self.ground.events[:mark])
        return mark, mark == len(self.ground.events)


class CompactingVictims(FileVictims):
    """The same, while RocksDB compacts."""

    compact = True


def compacting(*arguments: Any) -> None:
    """Fold a file in while RocksDB compacts; see `victims.ingest_file`."""
    victims.ingest_file(*arguments, compact=True)


class WorkerVictims(Victims):
    """Work that two workers do, into three shards; a worker is killed, or the parent, or all of them."""

    # A parent whose worker is killed ends by itself.
    codes = (-9, victims.LOST)

    def _doom(self) -> victims.Doom:
        return None

    def _meet(self, process: BaseProcess, doom: victims.Doom) -> str:
        self._wait_for_a_word(process)
        pause = self.ground.chance.uniform(0, self.longest)
        process.join(pause)
        workers = victims.workers_of(process.pid or 0)
        whom = self.ground.chance.choice(["the parent", "a worker", "all"])
        for one in workers if whom == "all" else workers[:1] if whom == "a worker" else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        if whom == "a worker":
            # The parent says that it is gone, and ends.
            process.join(_PATIENCE)
        process.kill()
        process.join(_PATIENCE)
        return f"{whom}, {pause:.3f} s after the first commit"


class ShardVictims(WorkerVictims, FileVictims):
    """Ingestion of a file by two workers."""

    def work(self, doom: victims.Doom) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """See `Victims`."""
        return victims.ingest_in_workers, (str(self.ground.artifact.path), self.url, str(self.path), str(self.said))

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """Of each user the lines up to her shard's watermark are there, and no other."""
        users = [event.user for event in self.ground.events]
        marks = store.positions("log", 0, users)
        events = [event for line, event in enumerate(self.ground.events, 1) if line <= marks[line - 1]]
        compare(self.ground, store, events)
        mark = max(0, store.watermark("log", 0))
        return mark, mark == len(self.ground.events)


class TopicVictims(Victims):
    """A process that follows a topic."""

    longest = 0.5
    source = "log"

    def __init__(self, ground: Ground) -> None:
        assert ground.kafka is not None
        self.kafka = ground.kafka
        self.new_topic(ground.events)
        super().__init__(ground)

    def new_topic(self, events: Sequence[UserEvent]) -> None:
        """Make a topic, and put events into it."""
        self.topic = f"log-{time.monotonic_ns()}"
        self.parts: list[list[UserEvent]] = [[] for _ in range(_PARTITIONS)]
        self.kafka.make(self.topic, _PARTITIONS)
        self.send(events)

    def send(self, events: Sequence[UserEvent]) -> None:
        """Put events at the end of the topic."""
        for partition in range(_PARTITIONS):
            some = [event for event in events if zlib.crc32(event.user.encode()) % _PARTITIONS == partition]
            self.parts[partition] += some
            self.kafka.send(self.topic, map(row, some), partition=partition)

    def work(self, doom: victims.Doom) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """See `Victims`. A group of its own: a dead member would have to be waited for."""
        self.number += 1
        place = self.kafka.url(self.topic, group=f"{self.topic}-{self.number}")
        return victims.follow_topic, (str(self.ground.artifact.path), self.url, place, str(self.said), doom)

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """The messages of each partition up to its watermark are there, and no other."""
        marks = [store.watermark(self.source, partition) + 1 for partition in range(_PARTITIONS)]
        compare(self.ground, store, [e for part, mark in zip(self.parts, marks, strict=True) for e in part[:mark]])
        return sum(marks), sum(marks) == len(self.ground.events)


class ShardTopicVictims(TopicVictims):
    """A process that follows a topic into several shards."""

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """Of each user the messages up to her shard's watermark are there, and no other."""
        there: list[UserEvent] = []
        for partition, events in enumerate(self.parts):
            marks = store.positions("log", partition, [event.user for event in events])
            there += [event for offset, event in enumerate(events) if offset <= marks[offset]]
        compare(self.ground, store, there)
        mark = sum(store.watermark("log", partition) + 1 for partition in range(_PARTITIONS))
        return mark, mark == len(self.ground.events)


class ServiceVictims(Victims):
    """A service to which events are posted, by one client that sends again what was not answered."""

    whole = True
    """Whether a request is written in one."""

    def renew(self) -> None:
        """See `Victims`."""
        super().renew()
        self.sent = 0

    def work(self, doom: victims.Doom) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """See `Victims`."""
        self.address = self.ground.folder / f"address-{time.monotonic_ns()}"
        self.address.touch()
        return victims.serve, (str(self.ground.artifact.path), self.url, str(self.address), doom)

    def acknowledged(self) -> int:
        """The events of the requests that were answered."""
        return self.sent

    def _meet(self, process: BaseProcess, doom: victims.Doom) -> str:
        end = time.monotonic() + _PATIENCE
        while not self.address.read_text().endswith("\n") and process.is_alive():
            assert time.monotonic() < end, "a service did not start"
            time.sleep(0.005)
        pause = self.ground.chance.uniform(0, self.longest)
        killer = threading.Timer(_PATIENCE if doom else pause, process.kill)
        self._post(killer.start)
        killer.cancel()
        process.kill()
        process.join(_PATIENCE)
        return f"{doom[0]} of commit {doom[1]}" if doom else f"{pause:.3f} s after its first answer"

    def _post(self, answered: Callable[[], None]) -> None:
        """Send requests until one is not answered, or all are; `answered` is called at the first answer."""
        first = True
        host = self.address.read_text().strip().removeprefix("http://")
        if not host:
            return
        connection, events = http.client.HTTPConnection(host, timeout=_PATIENCE), self.ground.events
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            while self.sent < len(events):
                some = events[self.sent : self.sent + _POST]
                body = {"events": [{**row(event), "event_id": f"{self.sent}+{k}"} for k, event in enumerate(some)]}
                connection.request("POST", "/v1/events", json.dumps(body), {"content-type": "application/json"})
                answer = connection.getresponse()
                counts = json.loads(answer.read())
                assert answer.status == 200 and counts["applied"] + counts["duplicates"] == len(some), counts
                # All of a request is known already, or nothing of it.
                assert not self.whole or counts["duplicates"] in (0, len(some)), counts
                self.sent += len(some)
                if first:
                    answered()
                first = False

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """What was answered is there, and of what was not, the one request that was under way wholly or not at all."""
        found = sum(len(store.events(user)) for user in {user for user, _ in store.scan()})
        assert found in (self.sent, min(self.sent + _POST, len(self.ground.events))), (found, self.sent)
        compare(self.ground, store, self.ground.events[:found])
        return found, found == len(self.ground.events)


class ShardedServiceVictims(ServiceVictims):
    """The same, over shards."""

    whole = False

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """What was answered is there, and of the request under way each shard's part wholly or not at all."""
        answered, under_way = self.ground.events[: self.sent], self.ground.events[self.sent : self.sent + _POST]
        before = Counter(event.user for event in answered)
        kept = [event for event in under_way if len(store.events(event.user)) > before[event.user]]
        lost = [event for event in under_way if event not in kept]
        shards = [{part_of(event.user, _SHARDS) for event in some} for some in (kept, lost)]
        assert not set.intersection(*shards), shards
        compare(self.ground, store, [*answered, *kept])
        return self.sent + len(kept), self.sent + len(kept) == len(self.ground.events)


class BackfillVictims(Victims):
    """A backfill."""

    longest = 0.1

    def __init__(self, ground: Ground) -> None:
        assert ground.data is not None
        self.everyone = {event.user for event in ground.events}
        super().__init__(ground)

    def work(self, doom: victims.Doom) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """See `Victims`; each begins anew."""
        self.said.write_text("")
        return victims.fill, (
            str(self.ground.artifact.path), self.url, str(self.ground.data), str(self.said), doom,
        )  # fmt: skip

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """Each user is there with all of her events, or not at all."""
        found = {user for user, _ in store.scan()}
        compare(self.ground, store, [event for event in self.ground.events if event.user in found])
        return len(found), found == self.everyone


class WriterVictims(Victims):
    """The writer of a service; the service goes on, and ends its work with another writer."""

    def work_of(self, service: Service) -> tuple[str, int, int]:
        """Let a service do something and kill its writer meanwhile: (point, acknowledged before, done in the end)."""
        raise NotImplementedError

    def kill(self) -> tuple[str, int, int] | None:
        """See `Victims`."""
        with Service.started(self.ground.artifact, self.url, self.options()) as service:
            point, told, wanted = self.work_of(service)
            service.stop()
        with contextlib.closing(open_store(self.url)) as store:
            recovered, done = self.check(store)
        assert recovered == wanted, f"{wanted} were to be done, {recovered} are there"
        if done:
            self.renew()
        return point, told, recovered

    def options(self) -> list[str]:
        """Of `lifelong serve`."""
        return []

    def kill_writer(self, service: Service) -> str:
        """Kill the writer at a random moment; when."""
        pause = self.ground.chance.uniform(0, self.longest)
        time.sleep(pause)
        writer = service.writer
        assert writer is not None
        os.kill(writer, signal.SIGKILL)
        return f"{pause:.3f} s after its work began"


class FollowingWriterVictims(WriterVictims, TopicVictims):
    """While it follows a topic."""

    longest = 0.3

    def renew(self) -> None:
        """See `Victims`."""
        super().renew()
        self.new_topic(())
        self.source, self.sent = f"kafka:{self.topic}", 0

    def options(self) -> list[str]:
        """See `WriterVictims`."""
        return ["--topic", self.kafka.url(self.topic)]

    def work_of(self, service: Service) -> tuple[str, int, int]:
        """Events are sent some at a time."""
        told, some = self.sent, self.ground.events[self.sent : self.sent + _SENT]
        self.sent += len(some)

        def send() -> None:
            for at in range(0, len(some), _POST):
                self.send(some[at : at + _POST])

        sender = threading.Thread(target=send)
        sender.start()
        point = self.kill_writer(service)
        sender.join()
        until(lambda: service.number("lifelong_stream_offset") + _PARTITIONS == self.sent, "messages are not applied")
        until(lambda: service.ask("/readyz") is not None, "the service does not get ready")
        return point, told, self.sent


class BuildingWriterVictims(WriterVictims):
    """While it builds the memories of another artifact, which is served then."""

    longest = 0.6

    def __init__(self, ground: Ground) -> None:
        self.newer = other_artifact(ground.artifact, ground.folder / "newer")
        self.events = [replace(event, user=f"{event.user}-{n}") for event in ground.events for n in range(_COPIES)]
        super().__init__(ground)

    def renew(self) -> None:
        """See `Victims`."""
        super().renew()
        with contextlib.closing(open_store(self.url)) as store:
            updater = Updater(self.ground.artifact, store)
            for at in range(0, len(self.events), 4_096):
                updater.apply(self.events[at : at + 4_096])

    def work_of(self, service: Service) -> tuple[str, int, int]:
        """A takeover."""
        service.ask("/v1/admin/artifacts", {"path": str(self.newer.path)})
        point = self.kill_writer(service)

        def complete() -> bool:
            found = service.ask("/v1/admin/artifacts")
            return found is not None and all(one["phase"] == "ready" for one in found["artifacts"])

        def switched() -> bool:
            # Refused for as long as the killed process is away: then it is asked for again, as an operator would.
            answer = service.ask("/v1/admin/switch", {"artifact": self.newer.id})
            return answer is not None and answer["served"] == self.newer.id

        until(complete, "the memories are not built")
        until(switched, "the new artifact is not served")
        return point, 0, len(self.events)

    def check(self, store: MemoryStore) -> tuple[int, bool]:
        """The memories of both artifacts are what the events give."""
        for artifact in (self.ground.artifact, self.newer):
            compare(replace(self.ground, artifact=artifact), store, self.events)
        return len(self.events), True


KINDS: dict[str, tuple[type[Victims], str]] = {
    "file, rocksdb": (FileVictims, "rocksdb"),
    "file while compacting, rocksdb": (CompactingVictims, "rocksdb"),
    "file, sharded": (ShardVictims, "sharded"),
    "service, rocksdb": (ServiceVictims, "rocksdb"),
    "service, sharded": (ShardedServiceVictims, "sharded"),
    "backfill, rocksdb": (BackfillVictims, "rocksdb"),
    "topic, rocksdb": (TopicVictims, "rocksdb"),
    "topic, sharded": (ShardTopicVictims, "sharded"),
    "writer under a topic, rocksdb": (FollowingWriterVictims, "rocksdb"),
    "writer under a build, rocksdb": (BuildingWriterVictims, "rocksdb"),
    "file, valkey": (FileVictims, "valkey"),
    "service, valkey": (ServiceVictims, "valkey"),
    "topic, valkey": (TopicVictims, "valkey"),
}
"""What is killed -> how, and over which store."""


def row(event: UserEvent) -> dict[str, Any]:
    """An event as a line or a message."""
    return {"user": event.user, "item": event.item, "time": event.time, "event_type": event.event_type}


def compare(ground: Ground, store: MemoryStore, events: Sequence[UserEvent]) -> None:
    """Hold a store against a replay: counts, times and logs equal, memories to a rounding.

    Raises:
        AssertionError: it holds something else.
    """
    once, stored = InMemoryStore(), store.artifact_list().find(ground.artifact.id)
    space = 0 if stored is None else stored.space
    Updater(ground.artifact, once).apply(events)
    users = [user for user, _ in once.scan()]
    assert {user for user, _ in store.scan(space)} == set(users)
    records = store.read_many(users, space=space)
    found, wanted = ground.runtime.decode(records), ground.runtime.decode(once.read_many(users))
    assert found.count_B.tolist() == wanted.count_B.tolist()
    assert found.last_time_B.tolist() == wanted.last_time_B.tolist()
    for name, value in wanted.fields.items():
        assert np.abs(found.fields[name] - value).max(initial=0) <= _TOLERANCE, name
    assert [store.events(user) for user in users] == [once.events(user) for user in users]


def campaign(ground: Ground, kind: str, *, kills: int, seed: int, say: Callable[[Kill], None]) -> list[Kill]:
    """Kill so many victims of a kind.

    Args:
        ground: see `Ground`; its store is one that the kind needs.
        kind: one of `KINDS`.
        kills: how many; those that end before do not count.
        seed: of the ground's chance, for the record.
        say: told of each kill after it was looked into.

    Raises:
        AssertionError: a store holds something else than a replay gives; says after which kill.
    """
    some, done = KINDS[kind][0](ground), list[Kill]()
    while len(done) < kills:
        try:
            outcome = some.kill()
        except AssertionError as error:
            raise AssertionError(f"{kind}, seed {seed}, kill {len(done)}: {error}") from error
        if outcome is not None:
            done.append(Kill(kind, seed, len(done), *outcome))
            say(done[-1])
    return done


@contextlib.contextmanager
def grounds(folder: Path, artifact: Artifact, events: Sequence[UserEvent], data: Path | None) -> Iterator[Any]:
    """Makes the `Ground` of a kind and a seed; brokers and servers are started when they are first needed."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Any] = {}

        def need(name: str, start: Callable[[], contextlib.AbstractContextManager[Any]]) -> Any:
            if name not in running:
                running[name] = stack.enter_context(start())
            return running[name]

        def make(kind: str, seed: int) -> Ground:
            victim, where = KINDS[kind]
            number = iter(range(10**9))
            place = folder / f"{kind.replace(', ', '-').replace(' ', '-')}-{seed}"
            place.mkdir()

            def new_store() -> str:
                if where in ("rocksdb", "sharded"):
                    return f"rocksdb://{place / f'store-{next(number)}'}" + f"?shards={_SHARDS}" * (where == "sharded")
                valkey = need("valkey", lambda: server(folder / "valkey"))
                return f"redis://127.0.0.1:{valkey.port}/0?prefix={place.name}.{next(number)}"

            one = need("kafka", lambda: broker(folder / "kafka")) if issubclass(victim, TopicVictims) else None
            return Ground(place, artifact, events, random.Random(f"{kind} {seed}"), new_store, one, data)

        yield make
