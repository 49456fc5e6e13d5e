"""Nodes of several that share a topic, while shards move and owners are lost; events and scores come all the time.

    events --> topic of 6 partitions --> first (0-1)   second (2-3), its standby   third (4-5)
    scores of each shard, one after another --> first --421--> whoever has the shard, by the file of addresses

    shard 5 moves from the third to a new process --> the second is killed, its standby promoted, it comes back as the
    standby --> the third is killed; shard 4 is brought back from a backup and catches up

At the end each process has, of its shards, the records and logs of one process that reads the whole topic.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lifelong.artifact.folder import Artifact
from lifelong.client import Client
from lifelong.errors import require
from lifelong.online.ingestion.kafka import FILLING, Stream, StreamSettings
from lifelong.online.ingestion.kafka_client import parse
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.store.backup import backup, restore
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.opening import node_of, open_store
from lifelong.online.store.part import part_of
from support.kafka import Broker
from support.processes import until
from support.serving import Service

SHARDS, USERS, TOPIC = 6, 600, "moving"
_CHUNK, _PAUSE = 200, 0.1
"""Events that are sent together, and seconds between two times while something happens."""
_BY_HTTP, _ERASED = 20, 50
"""Every how many chunks events come over HTTP, and a user is erased."""
_START = 1_700_000_000


def row_of(number: int) -> dict[str, Any]:
    """An event: its user, and the rest, follow from its number."""
    user = f"u{number * 7919 % USERS}"
    return {"user": user, "item": f"i{number % 50}", "time": _START + number, "event_type": "view"}


class Counting(httpx.HTTPTransport):
    """Counts what fails on the way, or is refused."""

    failures = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.HTTPTransport`."""
        try:
            answer = super().handle_request(request)
        except httpx.TransportError:
            self.failures += 1
            raise
        self.failures += answer.status_code >= 500
        return answer


@dataclass(slots=True)
class Asked:
    """What became of the scores of one shard.

    Args:
        answers: how many came.
        failures: attempts that failed.
        longest: seconds from a request to its answer, over all its attempts, since `begin`.
    """

    answers: int = 0
    failures: int = 0
    longest: float = 0.0


@dataclass(slots=True)
class Nodes:
    """The processes, the log, and who asks.

    Args:
        folder: for stores and files.
        artifact: of a memory model.
        kafka: a broker.
        total: events in all.
    """

    folder: Path
    artifact: Artifact
    kafka: Broker
    total: int
    running: dict[str, tuple[Service, contextlib.ExitStack]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=lambda: [Asked() for _ in range(SHARDS)])
    problems: list[BaseException] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)
    settled: threading.Event = field(default_factory=threading.Event)

    def start(self, name: str, own: str) -> Service:
        """Start a node, or start it again; returns when it is ready."""
        stack, url = contextlib.ExitStack(), f"rocksdb://{self.folder / name}?shards={SHARDS}&own={own}"
        options = ["--topic", self.kafka.url(TOPIC, group=name), "--peers", str(self.folder / "peers.json")]
        errors = self.folder / f"{name}-{time.monotonic_ns()}.stderr"
        service = stack.enter_context(Service.started(self.artifact, url, options, errors=errors))
        self.running[name] = service, stack
        until(lambda: service.ready, f"{name} does not get ready: {errors.read_text()}")
        return service

    def kill(self, name: str) -> None:
        """Kill a node; the process that writes for it ends by itself."""
        self.running.pop(name)[1].close()

    def own(self, **owners: str) -> None:
        """Change who answers for which shards: name=shards."""
        self.owners |= {shards: self.running[name][0].address for name, shards in owners.items()}
        draft = self.folder / "peers.draft"
        draft.write_text(json.dumps(self.owners))
        draft.rename(self.folder / "peers.json")

    def offset(self, name: str, shard: int) -> int:
        """How far a node has read a shard's partition."""
        found = re.search(
            rf'^lifelong_stream_offset{{partition="{shard}"}} (.*)$',
            self.running[name][0].text("/metrics") or "",
            re.MULTILINE,
        )
        return -1 if found is None else int(float(found[1]))

    def caught_up(self, name: str, shard: int, wanted: int) -> float:
        """Seconds until a node has read up to an offset."""
        began = time.monotonic()
        until(lambda: self.offset(name, shard) >= wanted, f"{name} does not catch up")
        return time.monotonic() - began

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Events and scores come inside of the context; what is left of the events is sent at its end."""
        threads = [threading.Thread(target=self._noted, args=[self._feed])]
        threads += [threading.Thread(target=self._noted, args=[self._ask, shard]) for shard in range(SHARDS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.settled.set()
            threads[0].join()
            self.over.set()
            for thread in threads[1:]:
                thread.join()
        if self.problems:
            raise self.problems[0]

    def _noted(self, work: Any, *given: Any) -> None:
        try:
            work(*given)
        except BaseException as problem:
            self.problems.append(problem)

    def _feed(self) -> None:
        kit = require("confluent_kafka", extra="kafka", purpose="nodes")
        producer = kit.Producer({"bootstrap.servers": self.kafka.address, "linger.ms": 5, "log_level": 0})
        with Client(self.running["first"][0].address, patience=300, batch=_CHUNK) as client:
            for chunk, first in enumerate(range(0, self.total, _CHUNK)):
                rows = [row_of(number) for number in range(first, min(first + _CHUNK, self.total))]
                if chunk % _BY_HTTP == 0:
                    reply = client.events([UserEvent(**row, event_id=f"{first}+{n}") for n, row in enumerate(rows)])
                    assert reply.queued == len(rows)
                else:
                    for row in rows:
                        producer.produce(TOPIC, json.dumps(row).encode(), row["user"])
                    # In the log before what comes over HTTP next.
                    assert producer.flush(300) == 0
                if chunk % _ERASED == _ERASED - 1:
                    user = next(row["user"] for row in rows if part_of(row["user"], SHARDS) == 0)
                    self.erased.add(user)
                    answer = httpx.delete(f"{client.address}/v1/users/{user}/memory", timeout=300)
                    assert answer.status_code == 200, answer.text
                self.settled.wait(_PAUSE)

    def _ask(self, shard: int) -> None:
        users = [user for user in map("u{}".format, range(USERS)) if part_of(user, SHARDS) == shard]
        transport, mine = Counting(), self.asked[shard]
        with Client(self.running["first"][0].address, patience=300, transport=transport) as client:
            while not self.over.is_set():
                began, user = time.monotonic(), users[mine.answers % len(users)]
                assert client.score(ScoreRequest(user, ["i1", "i2"])).user == user
                mine.answers, mine.failures = mine.answers + 1, transport.failures
                mine.longest = max(mine.longest, time.monotonic() - began)
                time.sleep(0.01)


def play(nodes: Nodes) -> dict[str, Any]:
    """The whole story; what it took.

    Raises:
        AssertionError: an event is missing or counted twice, a record is another one, or a shard that nobody touched
            was away.
    """
    began, folder, took = time.monotonic(), nodes.folder, dict[str, float]()
    (folder / "peers.json").write_text("{}")
    for name, own in (("first", "0-1"), ("second", "2-3"), ("standby", "2-3"), ("third", "4-5")):
        nodes.start(name, own)
    nodes.own(first="0-1", second="2-3", third="4")
    nodes.own(third="5")
    with nodes.busy():
        until(lambda: nodes.offset("third", 4) > 0 and all(one.answers for one in nodes.asked), "nothing comes")
        backup(folder / "third", folder / "copy-4", shard=4)
        backup(folder / "third", folder / "copy-5", shard=5)
        restore(folder / "copy-5", folder / "moved")
        nodes.start("moved", "5")
        took["catching up of the moved shard"] = nodes.caught_up("moved", 5, nodes.offset("third", 5))
        nodes.own(moved="5")
        seen = nodes.asked[5].answers
        until(lambda: nodes.asked[5].answers > seen + 200, "the moved shard does not answer")
        took["moved shard"] = nodes.asked[5].longest
        assert nodes.asked[5].failures == 0, "the moved shard was away"

        took["lost shards, with a standby"] = _without_answers(nodes, "second", (2, 3), standby="2-3")
        nodes.start("second", "2-3")

        lost, wanted = time.monotonic(), nodes.offset("third", 4)
        nodes.kill("third")
        restore(folder / "copy-4", folder / "again")
        nodes.start("again", "4")
        took["catching up of the lost shard"] = nodes.caught_up("again", 4, wanted)
        nodes.own(again="4")
        seen = nodes.asked[4].answers
        until(lambda: nodes.asked[4].answers > seen + 1, "a lost shard does not answer")
        took["lost shard, from a backup"] = time.monotonic() - lost
    away = {shard: nodes.asked[shard].failures for shard in (0, 1, 5)}
    assert not any(away.values()), f"shards that nobody touched were away: {away}"
    events = _compare(nodes)
    return {
        "events": nodes.total,
        "compared": events,
        "answers": sum(one.answers for one in nodes.asked),
        "failed attempts by shard": [one.failures for one in nodes.asked],
        "seconds without answers": {name: round(seconds, 2) for name, seconds in took.items()},
        "seconds": round(time.monotonic() - began),
    }


def _without_answers(nodes: Nodes, name: str, shards: Sequence[int], **owner: str) -> float:
    """Kill an owner, let another one answer, and give the longest time for which one of its shards did not."""
    for shard in shards:
        nodes.asked[shard].longest = 0.0
    nodes.kill(name)
    nodes.own(**owner)
    seen = {shard: nodes.asked[shard].answers for shard in shards}
    until(lambda: all(nodes.asked[at].answers > seen[at] + 1 for at in shards), "a lost shard does not answer")
    return max(nodes.asked[shard].longest for shard in shards)


def _compare(nodes: Nodes) -> int:
    """Hold what each process has against one process that has read all; the events in it.

    Raises:
        AssertionError: there is a difference.
    """
    whole, place = f"rocksdb://{nodes.folder / 'whole'}?shards={SHARDS}&own=0-{SHARDS - 1}", nodes.kafka.url(TOPIC)
    with contextlib.closing(open_store(whole)) as store:
        settings = StreamSettings(idle=2, batch=FILLING, share=node_of(whole))
        apply, schema = Updater(nodes.artifact, store).apply_table, nodes.artifact.config.dataset_schema
        followed = Stream(parse(place), store, apply, schema, settings=settings).run()
        ends, wanted = {at: place.offset for at, place in followed.places.items()}, _kept(store)
    # Counted from the numbers alone.
    counts = Counter(row_of(number)["user"] for number in range(nodes.total))
    found = {user: len(log) for user, (_, log) in wanted.items()}
    assert {user: n for user, n in found.items() if user not in nodes.erased} == {
        user: n for user, n in counts.items() if user not in nodes.erased
    }
    assert followed.applied.applied == nodes.total and followed.applied.duplicates == 0, followed.applied
    for name, (service, _) in nodes.running.items():
        own = node_of(f"rocksdb://{nodes.folder / name}")
        assert own is not None
        for shard in own.numbers:
            nodes.caught_up(name, shard, ends[shard])
        service.stop()
        with contextlib.closing(open_store(f"rocksdb://{nodes.folder / name}", read_only=True)) as store:
            theirs = {user: kept for user, kept in wanted.items() if part_of(user, SHARDS) in own.numbers}
            assert _kept(store) == theirs, f"{name} has other records or events"
            assert {shard: store.watermark(f"kafka:{TOPIC}", shard) for shard in own.numbers}.items() <= ends.items()
    return sum(found.values())


def _kept(store: MemoryStore) -> Mapping[str, tuple[bytes, list[bytes]]]:
    """User -> record and events."""
    return {user: (record, store.events(user)) for user, record in store.scan()}


@contextlib.contextmanager
def nodes(folder: Path, artifact: Artifact, kafka: Broker, total: int) -> Iterator[Nodes]:
    """The processes of a story; they are ended with the context."""
    kafka.make(TOPIC, SHARDS)
    some = Nodes(folder, artifact, kafka, total)
    try:
        yield some
    finally:
        for name in list(some.running):
            some.kill(name)
