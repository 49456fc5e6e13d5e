"""A service whose days are short is after many of them as it was after a few: memory, descriptors, disk, latency.

How long an answer takes depends on what else the machine does. So the same requests go, in the same moments and in
turns, to a control: a service of the same artifact on a store that is made on that day. The time of an answer is
divided by that of the control's answer, and it is this ratio that must not grow.
"""

import contextlib
import http.client
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.fast_clock import FastClock
from support.processes import PATIENCE, children
from support.valkey import free_port

DAY = 86_400
DAYS, KEPT = 24, 3
CLIENTS, ACTIVE = 4, 300
A_DAY = 1_500
"""Requests of each kind, whatever the machine manages: what a store takes depends on how many events came."""
MEASURED = 10
"""Times a day."""
COMPARED = 1 / 3
"""Share of the time in which the control is asked as well."""
FILLED = 10
"""Events of each user in a control."""
PATHS = ("/v1/events", "/v1/score")
ALLOWED = {"memory": 1.1, "disk": 1.3, "descriptors": 1.3} | {
    f"{kind} {path}": 1.5 for kind in ("fastest", "latency") for path in PATHS
}
"""What each figure of the last days may be, divided by that of the early ones."""
DIARY = 5 * 2**20
"""Bytes that RocksDB's own log may take."""


@dataclass
class Service:
    """A service with a fast clock.

    Args:
        process: of the service.
        port: of it.
        folder: of its store.
    """

    process: subprocess.Popen
    port: int
    folder: Path

    def figures(self) -> dict[str, float]:
        """What it takes now, the process that writes its store included."""
        processes = [Path(f"/proc/{one}") for one in (self.process.pid, *children(self.process.pid))]
        return {
            "memory": sum(map(resident, processes)),
            "descriptors": sum(len(list((one / "fd").iterdir())) for one in processes),
            "disk": sum(size(path) for path in self.folder.rglob("*") if not path.name.startswith("LOG")),
            # RocksDB's diary fills up to a bound.
            "diary": sum(map(size, self.folder.rglob("LOG*"))),
        }


@dataclass
class Days:
    """Clients of a service and of its controls, and what was measured.

    Args:
        clock: of the services and the clients.
        first: UTC second at which the first day began.
        took: seconds of each answer since the last measurement, by service and path.
        failed: answers other than 200.
        measured: figures, in the order of time.
        turns: numbers for requests.
    """

    clock: FastClock
    first: float
    took: defaultdict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: list[str] = field(default_factory=list)
    measured: list[dict[str, float]] = field(default_factory=list)
    turns: Iterator[int] = field(default_factory=itertools.count)

    def day(self) -> float:
        return (self.clock.now() - self.first) / DAY

    @contextlib.contextmanager
    def asked(self, *services: Service):
        """Users of this day write and are scored, the same by each service; each comes for a day and never again."""
        over = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(self._client, services, over) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                over.set()
        for client in clients:
            client.result()

    def _client(self, services: tuple[Service, ...], over: threading.Event) -> None:
        with contextlib.ExitStack() as opened:
            ways = [opened.enter_context(Way(one.port)) for one in services]
            while not over.is_set():
                turn = next(self.turns)
                while self.day() * A_DAY < turn and not over.is_set():
                    time.sleep(0.02)
                # Each is the first to be asked equally often.
                order = [(turn + number) % len(ways) for number in range(len(ways))]
                for path, body in self._requests(turn):
                    for number in order:
                        start = time.perf_counter()
                        status, text = ways[number].ask(path, body)
                        self.took[number, path].append(time.perf_counter() - start)
                        if status != 200:
                            self.failed.append(f"{number} {path} {status} {text[:300]!r}")

    def _requests(self, turn: int) -> list[tuple[str, object]]:
        chance = random.Random(turn)
        user = f"u{int(self.day())}.{chance.randrange(ACTIVE)}"
        event = {"user": user, "item": f"i{chance.randrange(50)}", "time": int(self.clock.now()), "event_id": str(turn)}
        return [("/v1/events", {"events": [event]}), ("/v1/score", {"user": user, "items": ["i1", "i2", "i3"]})]

    def fill(self, service: Service) -> None:
        """Give a service the users of this day, and let it answer each of them once, without a measurement."""
        users = [f"u{int(self.day())}.{number}" for number in range(ACTIVE)]
        with Way(service.port) as way:
            for _ in range(FILLED):
                events = [{"user": user, "item": "i1", "time": int(self.clock.now())} for user in users]
                way.ask("/v1/events", {"events": events})
            for user in users:
                way.ask("/v1/score", {"user": user, "items": ["i1", "i2", "i3"]})

    def measure(self, service: Service) -> None:
        """Write down what the service takes, and how long its answers and those of the control took."""
        took, self.took = self.took, defaultdict(list)
        if all(took[number, path] for path in PATHS for number in (0, 1)):
            answers = {
                f"{name} {path} {who}": of(took[number, path])
                for name, of in (("fastest", min), ("latency", statistics.median), ("answers", len))
                for path in PATHS
                for number, who in enumerate(("service", "control"))
            }
            self.measured.append({"day": self.day(), **service.figures(), **answers})


def between(measured: list[dict[str, float]], first: float, last: float) -> dict[str, float]:
    """What was measured between two days, the median of all measurements; of answers, the ratio to the control."""
    found = [one for one in measured if first <= one["day"] < last]
    figures = {name: statistics.median(one[name] for one in found) for name in ("memory", "disk", "descriptors")}
    for path in PATHS:
        for kind in ("fastest", "latency"):
            ratios = [one[f"{kind} {path} service"] / one[f"{kind} {path} control"] for one in found]
            figures[f"{kind} {path}"] = statistics.median(ratios)
    return figures


def growth(measured: list[dict[str, float]]) -> dict[str, float]:
    """Figures of the last quarter of the days divided by those of the second quarter.

    Users are forgotten from the fourth day on: what is compared begins after that.
    """
    early, late = (between(measured, DAYS * part / 4, DAYS * (part + 1) / 4) for part in (1, 3))
    return {name: late[name] / early[name] for name in early}


def too_large(measured: list[dict[str, float]]) -> dict[str, float]:
    """What has grown more than is allowed."""
    found = {name: ratio for name, ratio in growth(measured).items() if ratio >= ALLOWED[name]}
    return found | ({"diary": measured[-1]["diary"]} if measured[-1]["diary"] >= DIARY else {})


class Way:
    """A connection of a client to a service.

    Args:
        port: of the service.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, path: str, body: object) -> tuple[int, bytes]:
        """The status of an answer, and what it says."""
        try:
            return self._ask(path, json.dumps(body))
        except ConnectionError:
            # A service closes what is idle; on a busy machine the answer of the other service can take that long. One
            # that is gone refuses the new connection, and an event that was taken already has an id.
            self._connection.close()
            return self._ask(path, json.dumps(body))

    def _ask(self, path: str, body: str) -> tuple[int, bytes]:
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def resident(process: Path) -> float:
    """KiB of RAM that a process has."""
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return float(line.split()[1])


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def served(artifact, folder: Path, clock: FastClock):
    port = free_port()
    folder.mkdir()
    paths = os.pathsep.join(str(Path(__file__).parents[up]) for up in (1, 2))
    words = ["serve", str(artifact.path), "--store", f"rocksdb://{folder}/store", "--port", str(port)]
    words += ["--set", f"forget_after={KEPT}d", "--set", f"keep_events={KEPT}d"]
    given = [str(clock.speed), repr(clock.begin), repr(clock.zero)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.fast_clock", *given, *words],
            stdout=output,
            stderr=output,
            env=os.environ | {"PYTHONPATH": paths},
        )
    try:
        until = time.monotonic() + PATIENCE
        while b"http://" not in (folder / "output").read_bytes():
            assert process.poll() is None and time.monotonic() < until, (folder / "output").read_text()
            time.sleep(0.05)
        yield Service(process, port, folder / "store")
    finally:
        process.terminate()
        process.wait()


def live_a_day(days: Days, artifact, service: Service, folder: Path, step: float) -> None:
    """Let clients ask the service until the day is over; measure it about `MEASURED` times, each with a new control."""
    tomorrow = int(days.day()) + 1
    with contextlib.ExitStack() as opened:
        with days.asked(service):
            control = opened.enter_context(served(artifact, folder, days.clock))
        days.fill(control)
        days.took.clear()
        while days.day() < tomorrow:
            with days.asked(service):
                time.sleep(step * (1 - COMPARED))
            days.took.clear()
            with days.asked(service, control):
                time.sleep(step * COMPARED)
            days.measure(service)
            (folder.parent / "measured.json").write_text(json.dumps(days.measured))


@pytest.mark.soak
def test_a_service_is_after_many_days_as_it_was_after_a_few(artifact, tmp_path):
    """24 days in `LIFELONG_DAYS_SECONDS`, an hour if it is not set."""
    pytest.importorskip("rocksdict")
    seconds = float(os.environ.get("LIFELONG_DAYS_SECONDS", "3600"))
    clock = FastClock(DAYS * DAY / seconds, time.time(), time.monotonic())
    with served(artifact, tmp_path / "service", clock) as service:
        days = Days(clock, clock.now())
        while days.day() < DAYS:
            live_a_day(days, artifact, service, tmp_path / f"control{int(days.day())}", seconds / DAYS / MEASURED)
            assert not days.failed, days.failed[:3]
    print(growth(days.measured), days.measured[0], days.measured[-1])
    assert not too_large(days.measured), growth(days.measured)


def made(*, late: float = 1.0, busy: float = 1.0, **figures: float) -> list[dict[str, float]]:
    """Measurements of days; on the later ones the service takes `late` as long, and everything `busy` as long."""
    found = []
    for day in range(DAYS):
        slow = busy if day >= DAYS / 2 else 1.0
        one = {"day": day, "memory": 5e4, "descriptors": 40, "disk": 1e6, "diary": 1e5}
        for name, path in itertools.product(("fastest", "latency"), PATHS):
            one[f"{name} {path} control"] = 0.002 * slow
            one[f"{name} {path} service"] = 0.003 * slow * (late if day >= DAYS / 2 else 1.0)
        found.append(one | (figures if day >= DAYS / 2 else {}))
    return found


def test_a_machine_that_is_slower_on_the_last_days_is_not_the_service_being_slower():
    assert not too_large(made(busy=7.0))


def test_a_service_that_is_slower_on_the_last_days_is_found_even_if_the_machine_is_faster_by_then():
    assert set(too_large(made(late=1.6, busy=0.3))) == {name for name in ALLOWED if "/v1/" in name}
    assert not too_large(made(late=1.4, busy=0.3))


@pytest.mark.parametrize("figures", [{"memory": 5.6e4}, {"disk": 1.31e6}, {"descriptors": 53}, {"diary": 6e6}])
def test_what_grows_on_the_last_days_is_found(figures):
    assert set(too_large(made(**figures))) == set(figures)


def test_a_fast_clock_goes_fast():
    clock = FastClock(1_000_000.0, 5.0, time.monotonic())
    time.sleep(0.001)
    assert clock.now() > 1_000


def test_a_service_and_its_writer_have_the_fast_clock(artifact, tmp_path):
    pytest.importorskip("rocksdict")
    clock = FastClock(2.0, time.time() + 9 * DAY, time.monotonic())
    with served(artifact, tmp_path / "service", clock) as service, Way(service.port) as way:
        event = {"user": "u", "item": "i1", "time": int(clock.now())}
        assert way.ask("/v1/events", {"events": [event]})[0] == 200
        assert service.figures()["descriptors"] > len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))
