"""A service whose days are short is after many of them as it was after a few: memory, descriptors, disk, latency."""

import contextlib
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.fast_clock import FastClock
from support.valkey import free_port

DAY = 86_400
DAYS, KEPT = 24, 3
CLIENTS, ACTIVE = 4, 300
MEASURED = 10
"""Times a day."""
PATHS = ("/v1/events", "/v1/score")


@dataclass
class Days:
    """A service with a fast clock, and what was measured of it.

    Args:
        process: of the service.
        port: of it.
        folder: of its store.
        clock: of both sides.
        first: UTC second at which the first day began.
        took: seconds of each answer since the last measurement, by its path.
    """

    process: subprocess.Popen
    port: int
    folder: Path
    clock: FastClock
    first: float
    took: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: list[str] = field(default_factory=list)
    measured: list[dict[str, float]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def day(self) -> float:
        return (self.clock.now() - self.first) / DAY

    def client(self, number: int) -> None:
        """Users of this day write and are scored; each comes for some days and never again."""
        chance, turn = random.Random(number), 0
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            while not self.over.is_set():
                turn += 1
                user = f"u{int(self.day())}.{chance.randrange(ACTIVE)}"
                event = {"user": user, "item": f"i{chance.randrange(50)}", "time": int(self.clock.now())}
                event |= {"event_id": f"{number}.{turn}"}
                self.ask(connection, "/v1/events", {"events": [event]})
                self.ask(connection, "/v1/score", {"user": user, "items": ["i1", "i2", "i3"]})
                time.sleep(0.02)

    def ask(self, connection: http.client.HTTPConnection, path: str, body: object) -> None:
        start = time.perf_counter()
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        self.took[path].append(time.perf_counter() - start)
        if answer.status != 200:
            self.failed.append(f"{path} {answer.status} {text[:300]!r}")

    def measure(self) -> None:
        """Write down what the service takes now, and how fast it has answered since the last time."""
        took, self.took = self.took, defaultdict(list)
        if not all(took[path] for path in PATHS):
            return
        proc = Path(f"/proc/{self.process.pid}")
        memory = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS"))
        self.measured.append(
            {
                "day": self.day(),
                "memory": float(memory.split()[1]),
                "descriptors": len(list((proc / "fd").iterdir())),
                "disk": sum(size(path) for path in self.folder.rglob("*") if not path.name.startswith("LOG")),
                # RocksDB's diary fills up to a bound.
                "diary": sum(map(size, self.folder.rglob("LOG*"))),
                **{path: min(took[path]) for path in PATHS},
                "latency": statistics.median(seconds for path in PATHS for seconds in took[path]),
                "answers": sum(map(len, took.values())),
            }
        )

    def between(self, name: str, first: float, last: float) -> float:
        """What was measured between two days: of answers the fastest, of all else the median."""
        found = [one[name] for one in self.measured if first <= one["day"] < last]
        return min(found) if name in PATHS else statistics.median(found)


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def served(artifact, folder: Path, speed: float):
    port, clock = free_port(), FastClock(speed, time.time(), time.monotonic())
    paths = os.pathsep.join(str(Path(__file__).parents[up]) for up in (1, 2))
    words = ["serve", str(artifact.path), "--store", f"rocksdb://{folder}/store", "--port", str(port)]
    words += ["--forget-after", str(KEPT), "--keep-events", str(KEPT)]
    given = [str(speed), repr(clock.begin), repr(clock.zero)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.fast_clock", *given, *words],
            stdout=output,
            stderr=output,
            env=os.environ | {"PYTHONPATH": paths},
        )
    try:
        until = time.monotonic() + 120
        while b"http://" not in (folder / "output").read_bytes():
            assert process.poll() is None and time.monotonic() < until, (folder / "output").read_text()
            time.sleep(0.05)
        yield Days(process, port, folder / "store", clock, clock.now())
    finally:
        process.terminate()
        process.wait()


@pytest.mark.soak
def test_a_service_is_after_many_days_as_it_was_after_a_few(artifact, tmp_path):
    """24 days in `LIFELONG_DAYS_SECONDS`, an hour if it is not set."""
    pytest.importorskip("rocksdict")
    seconds = float(os.environ.get("LIFELONG_DAYS_SECONDS", "3600"))
    with served(artifact, tmp_path, DAYS * DAY / seconds) as days:
        clients = [threading.Thread(target=days.client, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            while days.day() < DAYS:
                time.sleep(seconds / DAYS / MEASURED)
                days.measure()
        finally:
            days.over.set()
            for client in clients:
                client.join()
    # Users are forgotten from the fourth day on; what is compared begins behind that.
    early, late = (DAYS / 4, DAYS / 2), (DAYS * 3 / 4, DAYS)
    ratio = {name: days.between(name, *late) / days.between(name, *early) for name in days.measured[0]}
    print(ratio, days.measured[0], days.measured[-1])
    assert not days.failed, days.failed[:3]
    assert ratio["memory"] < 1.1 and ratio["disk"] < 1.3 and ratio["latency"] < 1.5, ratio
    assert ratio["descriptors"] < 1.3 and all(ratio[path] < 1.5 for path in PATHS), ratio
    assert days.measured[-1]["diary"] < 5 * 2**20, ratio


def test_a_fast_clock_goes_fast():
    clock = FastClock(1_000_000.0, 5.0, time.monotonic())
    time.sleep(0.001)
    assert clock.now() > 1_000
