"""The answers that clients get from services under faults fit one order of all operations."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import socket
import socketserver
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest
from support.faults import Link, Nursery, Pair, Service, Step, disturb, pair, schedule, shrink, small_disk
from support.histories import FOREVER, Clients, Features, Operation, Violation, check
from support.kafka import broker, installed
from support.simulation import seeds
from support.variants import other_artifact

from lifelong.errors import StoreUnavailableError, UsageError
from lifelong.online.memory.event import decode_event
from lifelong.online.store.backup import backup, restore
from lifelong.online.store.opening import open_store

USERS = ["ada", "bob", "eve"]


def write(token, start, end=None, user="u"):
    return Operation("write", user, start, FOREVER if end is None else end, token=token)


def read(start, end, *seen, counted=None, user="u"):
    return Operation("read", user, start, end, seen=seen, counted=counted)


def erase(start, end, user="u"):
    return Operation("erase", user, start, end)


RIGHT = [
    write("a", 0, 1),
    write("b", 0.5, 2),
    write("c", 3),
    read(0.6, 0.9, "b"),
    read(4, 5, "b", "a"),
    read(6, 7, "b", "a", "c"),
]
WRONG = {
    "lost": [*RIGHT, write("d", 5, 5.5)],
    "twice": [write("a", 0, 1), read(2, 3, "a", "a")],
    "invented": [write("a", 2, 3), read(0, 1, "a")],
    "backwards": [write("a", 0), write("b", 0), read(1, 2, "a", "b"), read(3, 4, "b", "a")],
    "out of order": [write("a", 0, 1), write("b", 2, 3), read(2.5, 4, "b", "a")],
    "skewed": [write("a", 0, 1), read(2, 3, "a", counted=2)],
    "returned": [write("a", 0, 1), erase(2, 3), read(4, 5, "a")],
}


def test_a_history_that_can_be_is_not_complained_about():
    assert check(RIGHT) == []
    assert check([write("a", 0, 1), read(2, 3, user="other")]) == [], "users are apart"
    assert check([write("a", 0), read(1, 2), read(3, 4, "a")]) == [], "a write in doubt may come later"
    assert check([write("a", 0, 1), read(1, 2, "a"), erase(2, FOREVER), read(3, 4)]) == [], "it was erased"
    assert check([write("a", 0, 1), erase(2, FOREVER), read(3, 4, "a")]) == [], "an erasure in doubt may come later"


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_found_by_its_name(name):
    (violation,) = check(WRONG[name])
    assert violation.name == name


def test_a_report_holds_the_operations_that_show_it_and_no_other():
    noise = [write(f"n{step}", step, step + 0.5, user="v") for step in range(50)]
    (violation,) = check([*noise, *RIGHT[:2], write("d", 5, 5.5), read(6, 7, "b", "a")])
    assert [one.kind for one in violation.operations] == ["write", "read"]
    assert str(violation).startswith("lost\n  [5.000, 5.500]") and len(violation.operations) == 2


def test_of_random_histories_those_of_a_list_pass_and_altered_ones_do_not():
    for seed in range(200):
        rng, told, kept, now = random.Random(seed), list[Operation](), list[str](), 0.0
        for step in range(12):
            start, now = now, now + 1
            if rng.random() < 0.6:
                kept.append(f"t{step}")
                told.append(write(kept[-1], start, now - 0.5))
            else:
                told.append(read(start, now - 0.5, *kept, counted=len(kept)))
        told.append(read(now, now + 1, *kept, counted=len(kept)))
        assert check(told) == []
        if len(kept) > 1:
            at = rng.randrange(len(kept) - 1)
            swapped = [*kept[:at], kept[at + 1], kept[at], *kept[at + 2 :]]
            assert check([*told[:-1], read(now, now + 1, *swapped)])
            assert check([*told[:-1], read(now, now + 1, *kept[:at], *kept[at + 1 :])])


class Liar(BaseHTTPRequestHandler):
    """Answers as the service does, from lists in RAM; every tenth write or third read is answered wrongly."""

    lie, lists, turn, lock = "", dict[str, list[str]](), count(1), threading.Lock()

    def do_POST(self):
        (event,) = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["events"]
        with self.lock:
            tokens, lies = self.lists.setdefault(event["user"], []), next(self.turn) % 10 == 0
            if event["item"] not in tokens:
                copies = {"lost": 0, "twice": 2}.get(self.lie, 1) if lies else 1
                at = 0 if lies and self.lie == "out of order" else len(tokens)
                tokens[at:at] = [event["item"]] * copies
        self._answer({"applied": 1})

    def do_GET(self):
        with self.lock:
            tokens = list(self.lists.get(self.path.rpartition("/")[2], []))
            if next(self.turn) % 3 == 0 and self.lie == "backwards":
                tokens = tokens[:-2]
        self._answer({"events": [{"item": token} for token in tokens], "memories": [{"count": len(tokens)}]})

    def _answer(self, document):
        text = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        pass


@pytest.mark.parametrize("lie", ["", "lost", "twice", "out of order", "backwards"])
def test_a_service_that_lies_is_found_out(lie):
    kind = type("One", (Liar,), {"lie": lie, "lists": {}, "turn": count(1), "lock": threading.Lock()})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            clients = Clients([server.server_address], USERS, seed=1)
            clients.start(3)
            try:
                disturb([Step(20, "none")] * 4, {"none": lambda: None}, clients)
            finally:
                clients.stop()
            clients.read_all()
        finally:
            server.shutdown()
    names = {violation.name for violation in check(clients.operations)}
    assert lie in names if lie else not names, names


def test_a_schedule_is_made_smaller_until_each_step_is_needed():
    steps = schedule(["a", "b", "c"], 40, seed=3)
    wanted = [steps[7], steps[30], steps[31]]
    tried = []

    def fails(fewer):
        tried.append(fewer)
        return all(step in fewer for step in wanted)

    assert [step for step in shrink(steps, fails) if step in wanted] == wanted
    assert len(shrink(steps, fails)) == 3 and len(tried) < 120
    assert schedule(["a", "b", "c"], 40, seed=3) == steps != schedule(["a", "b", "c"], 40, seed=4)


class Echo(socketserver.BaseRequestHandler):
    """Answers what it is sent."""

    def handle(self):
        while data := self.request.recv(100):
            self.request.sendall(data)


class Fault:
    """Lets a fault last for as long as a test wants."""

    def __init__(self):
        self.begun, self.over = threading.Event(), threading.Event()

    def wait(self, seconds):
        self.begun.set()
        self.over.wait()


@pytest.fixture
def fault():
    return Fault()


@pytest.fixture
def link(fault):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever).start()
        cable = Link(server.server_address[1], fault.wait)
        yield cable
        cable.close()
        server.shutdown()


def answer(link, word=b"word", timeout=300.0):
    with socket.create_connection(("127.0.0.1", link.port), timeout=timeout) as one:
        one.sendall(word)
        return one.recv(100)


@pytest.mark.parametrize(("name", "found"), [("cut", b""), ("hold", b"in it"), ("lose_answers", b"")])
def test_a_link_carries_holds_cuts_and_loses_answers(link, fault, name, found):
    assert answer(link) == b"word"
    with socket.create_connection(("127.0.0.1", link.port), timeout=300) as one:
        one.sendall(b"before")
        assert one.recv(100) == b"before"
        thread = threading.Thread(target=getattr(link, name))
        thread.start()
        fault.begun.wait()
        with contextlib.suppress(OSError):
            one.sendall(b"in it")
        fault.over.set()
        seen = b""
        with contextlib.suppress(ConnectionError):
            seen = one.recv(100)
        assert seen == found
        thread.join()
    assert answer(link) == b"word"


@dataclass
class Ground:
    """Services under faults.

    Args:
        services: that run.
        faults: by their names.
        reads: what was read elsewhere than from the services: from backups.
    """

    services: list[Service]
    faults: dict[str, Callable[[], None]]
    reads: list[Operation] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        nursery: Nursery,
        artifact,
        folder: Path,
        urls: list[str],
        chance: random.Random,
        options: Sequence[str] = (),
        **more: Callable[[], None],
    ) -> Self:
        """Services of some URLs, with the faults that each can have."""
        made = [Service(nursery, artifact.path, url, folder / f"clock-{at}", options) for at, url in enumerate(urls)]
        faults: dict[str, Callable[[], None]] = {**more}
        for at, one in enumerate(made):
            faults |= {f"kill {at}": one.kill, f"pause {at}": partial(one.pause, chance)}
            faults[f"jump {at}"] = partial(one.jump, chance)
        return cls(made, faults)

    def back_up(self, store: Path, folder: Path) -> None:
        """Make a backup, restore it, and read all of it."""
        name, start = f"{len(self.reads)}-{random.random()}", time.monotonic()
        try:
            backup(store, folder / f"backup-{name}")
        except (StoreUnavailableError, UsageError):
            # The service starts, or has not yet.
            return
        end = time.monotonic()
        restore(folder / f"backup-{name}", folder / f"restored-{name}")
        with contextlib.closing(open_store(f"rocksdb://{folder}/restored-{name}")) as copy:
            for user in USERS:
                seen = tuple(decode_event(event).item for event in copy.events(user))
                self.reads.append(Operation("read", user, start, end, seen=seen, client="backup"))

    def switch(self, other: Path) -> None:
        """Build another artifact's memories, and serve it when they are complete; or leave it at any error."""
        found = call(self.services[0], "POST", "/v1/admin/artifacts", {"path": str(other)})
        for _ in range(100):
            if found is None:
                return
            ready = [one["id"] for one in found["artifacts"] if one["phase"] == "ready" and not one["served"]]
            if ready:
                call(self.services[0], "POST", "/v1/admin/switch", {"artifact": ready[0]})
                return
            time.sleep(0.05)
            found = call(self.services[0], "GET", "/v1/admin/artifacts")


def call(service: Service, method: str, path: str, body=None):
    """What a service answers; None for an error."""
    text = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}{path}", text, {"Content-Type": "application/json"}, method=method
    )
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
    return None


@contextlib.contextmanager
def own_store(nursery: Nursery, artifact, folder: Path, chance: random.Random, options: list[str]) -> Iterator[Ground]:
    """A service of its own store, on a disk that fills up where one can be mounted."""
    pytest.importorskip("rocksdict")
    with small_disk(folder / "disk") as fill:
        more = {} if fill is None else {"fill the disk": fill}
        ground = Ground.of(nursery, artifact, folder, [f"rocksdb://{folder}/disk/store"], chance, options, **more)
        ground.faults["back up"] = lambda: ground.back_up(folder / "disk" / "store", folder)
        yield ground


@contextlib.contextmanager
def one_server(
    nursery: Nursery, artifact, folder: Path, chance: random.Random, options: list[str], wait: str = ""
) -> Iterator[Ground]:
    """Two services of one server, each with a link of its own; the server keeps a log and has a replica."""
    with contextlib.ExitStack() as stack:
        primary, follower = stack.enter_context(pair(folder / "servers"))
        links = [Link(primary.port) for _ in range(2)]
        for link in links:
            stack.callback(link.close)
        servers = Pair(primary, follower, links)
        urls = [f"redis://127.0.0.1:{link.port}/0{wait}" for link in links]
        more = {"fail over": servers.fail_over} if wait else {"restart the server": servers.restart}
        for at, link in enumerate(links):
            more |= {f"cut {at}": link.cut, f"hold {at}": link.hold, f"lose answers {at}": link.lose_answers}
        yield Ground.of(nursery, artifact, folder, urls, chance, options, **more)


KINDS = {
    "a store of its own": own_store,
    "a server": one_server,
    "a server that fails over": partial(one_server, wait="?replicas=1"),
}
# Several services of one server would log impressions into one folder; and the log is of Parquet files.
LOGGED = ["impressions"] if importlib.util.find_spec("pyarrow") else []
ALLOWED = {
    "a store of its own": ["ids", "late", "erase", "switch", "backup", "topic", "workers", *LOGGED],
    "a server": ["ids", "late", "erase", "switch", "topic"],
    "a server that fails over": ["ids", "late", "erase", "switch", "topic"],
}


@dataclass
class Field:
    """What all schedules of this file share.

    Args:
        nursery: starts services.
        artifact: that they serve.
        other: that they can be switched to.
        topic: makes a new topic of a broker: its URL, and what sends a row to it; None without a broker.
    """

    nursery: Nursery
    artifact: Any
    other: Path
    topic: Callable[[], tuple[str, Callable[[dict[str, Any]], None]]] | None

    def options(self, features: Features, folder: Path, topic: str) -> list[str]:
        """Options of services."""
        found = ["--set", f"impressions_log={folder / 'impressions'}"] if features.impressions else []
        found += ["--workers", "2"] if features.workers else []
        return found + (["--topic", topic] if topic else [])


def told_by(
    shared: Field, folder: Path, kind: str, steps: Sequence[Step], seed: int, features: Features
) -> list[Violation]:
    """What clients are told that cannot be, while a schedule disturbs the services."""
    folder.mkdir(parents=True)
    topic, send = shared.topic() if features.topic and shared.topic is not None else ("", None)
    options = shared.options(features, folder, topic)
    with KINDS[kind](shared.nursery, shared.artifact, folder, random.Random(seed), options) as ground:
        running = ground.services
        ground.faults["switch"] = lambda: ground.switch(shared.other)
        # Where no disk can be mounted, none is filled.
        steps = [step for step in steps if step.fault in ground.faults]
        clients = Clients([("127.0.0.1", one.port) for one in running], USERS, seed, features=features)
        try:
            for one in running:
                one.launch()
            for one in running:
                one.wait()
            clients.start(4)
            try:
                for number, step in enumerate(steps):
                    if send is not None:
                        from_topic(clients, send, number)
                    disturb([step], ground.faults, clients)
            finally:
                clients.stop()
            if send is not None:
                all_came(running, clients)
            clients.read_all()
            clients.operations += ground.reads
        finally:
            for one in running:
                one.end()
    assert clients.acknowledged() >= sum(step.writes for step in steps)
    assert sum(one.kind == "read" for one in clients.operations) > len(USERS)
    return check(clients.operations)


def from_topic(clients: Clients, send: Callable[[dict[str, Any]], None], number: int) -> None:
    """Send some events to the topic, of a user that nobody erases."""
    for place in range(3):
        token, start = f"topic.{number}.{place}", time.monotonic()
        send({"user": "tom", "item": token, "time": 1_700_000_000})
        clients.add(Operation("write", "tom", start, FOREVER, token=token, client="topic"))


def all_came(running: Sequence[Service], clients: Clients) -> None:
    """Wait until the events of the topic are applied; which are applied twice, the check of the reads finds."""
    wanted, until = {one.token for one in clients.operations if one.user == "tom"}, time.monotonic() + 300
    while True:
        start, found = time.monotonic(), call(running[0], "GET", "/v1/admin/users/tom")
        seen = () if found is None else tuple(event["item"] for event in found["events"])
        if wanted <= set(seen):
            clients.add(Operation("read", "tom", start, time.monotonic(), seen=seen, client="end"))
            return
        assert time.monotonic() < until, f"{wanted - set(seen)} of the topic are not applied"
        time.sleep(0.1)


def names_of(kind: str, features: Features) -> list[str]:
    """The faults that a kind can have, and what else happens once in a while."""
    more = ["switch"] if features.switch else []
    if kind == "a store of its own":
        return ["kill 0", "pause 0", "jump 0", "fill the disk", *more, *(["back up"] if features.backup else [])]
    shared = ["restart the server" if kind == "a server" else "fail over", *more]
    for at in range(2):
        shared += [f"{fault} {at}" for fault in ("kill", "pause", "jump", "cut", "hold", "lose answers")]
    return shared


def assert_a_schedule_passes(shared: Field, folder: Path, kind: str, steps: list[Step], seed: int) -> None:
    """Try a schedule; of one that fails the fewest steps are found that still fail.

    Raises:
        AssertionError: clients were told what cannot be; with those steps and the operations that show it.
    """
    features = Features.of(seed, ALLOWED[kind])
    print(f"{kind}, seed {seed}: {features}")
    number, found = count(), told_by(shared, folder / "first", kind, steps, seed, features)

    def fails(fewer: list[Step]) -> bool:
        # What fails depends on the moment, too: twice.
        return any(told_by(shared, folder / str(next(number)), kind, fewer, seed, features) for _ in range(2))

    if found:
        fewest = shrink(steps, fails)
        raise AssertionError(f"{kind}, seed {seed} ({features}), {fewest}:\n" + "\n".join(map(str, found)))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Starts the services of all schedules of this file."""
    one = Nursery()
    yield one
    one.close()


@pytest.fixture(scope="module")
def shared(nursery, artifact, tmp_path_factory) -> Iterator[Field]:
    """What all schedules share; without a broker none follows a topic."""
    other, number = other_artifact(artifact, tmp_path_factory.mktemp("other") / "artifact"), count()
    if not installed():
        yield Field(nursery, artifact, other.path, None)
        return
    with broker(tmp_path_factory.mktemp("kafka")) as one:

        def topic():
            name = f"swarm-{next(number)}"
            one.make(name, 2)
            return one.url(name, group=name), lambda row: one.send(name, [row])

        yield Field(nursery, artifact, other.path, topic)


def test_a_service_and_its_writer_have_the_clock_that_jumps(nursery, artifact, tmp_path):
    pytest.importorskip("rocksdict")
    one = Service(nursery, artifact.path, f"rocksdb://{tmp_path}/store", tmp_path / "clock")
    (tmp_path / "clock").write_bytes(struct.pack("d", 9 * 86_400))
    one.start()
    try:
        event = {"user": "u", "item": "i1", "time": int(time.time() + 8.5 * 86_400)}
        request = urllib.request.Request(
            f"http://127.0.0.1:{one.port}/v1/events",
            json.dumps({"events": [event]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=400) as answer:
            assert answer.status == 200
    finally:
        one.end()


A_FEW = {
    "a store of its own": ["jump 0", "fill the disk", "pause 0", "kill 0"],
    "a server that fails over": ["lose answers 0", "cut 1", "hold 0", "fail over", "kill 0"],
}


# Of features that between them are all.
A_SEED = {"a store of its own": 22, "a server that fails over": 69}


@pytest.mark.slow
@pytest.mark.parametrize("kind", A_FEW)
def test_clients_of_services_under_faults_are_told_what_can_be(shared, tmp_path, needs_valkey, kind):
    """`LIFELONG_SEED=17` gives it the features of another seed."""
    (seed,) = seeds(1, first=A_SEED[kind])
    steps = [Step(5, fault) for fault in A_FEW[kind]]
    features = Features.of(seed, ALLOWED[kind])
    assert set(A_FEW[kind]) <= set(names_of(kind, features))
    steps += [Step(5, fault) for fault in set(names_of(kind, features)) & {"switch", "back up"}]
    assert_a_schedule_passes(shared, tmp_path, kind, steps, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(170))
@pytest.mark.parametrize("kind", KINDS)
def test_many_schedules(shared, tmp_path, needs_valkey, kind, seed):
    """510 of them."""
    names = names_of(kind, Features.of(seed, ALLOWED[kind]))
    assert_a_schedule_passes(shared, tmp_path, kind, schedule(names, 8, seed), seed)
