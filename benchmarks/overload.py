"""What a service answers in time when it is asked for more than it can do, and how soon it is well afterwards.

python benchmarks/overload.py [--proxy] [--artifact DIR] [--seconds 5] [--times 2,5] [--deadline 1.0] [--only events]

For events and for scores: first a closed loop finds the capacity; then requests are due at the times of a Poisson
process, at multiples of the capacity, whether answers come or not; then at 0.3 of it. An answer counts if it is 200 and
came within the deadline, from the moment at which the request was due. `goodput` is the rate of these, as a share of
the capacity of the same run; `recovered` is the share in time at 0.3 of the capacity, in the seconds after the first
two.

Service and load take processes of their own. A machine with two cores gives the load as much as the service needs, so
the load is as cheap as Python allows: uvloop, raw bytes, kept-alive connections, as many as are due at a time. What no
connection is free for is not sent, and counts as not answered. Each connection comes from an address of its own. With
`--proxy` all of this goes through nginx with deploy/nginx.conf, the capacity too. On a busy machine the service gets
another share of the cores in each phase: `cores` says how many, and `goodput_per_core` is what it answered in time for
each, as a share of the same in the closed loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import uvloop
from printed import last_line

ROOT = Path(__file__).parents[1]
ARTIFACT, PROXY = ROOT / "tests" / "assets" / "tiny_artifact", ROOT / "deploy" / "nginx.conf"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""Folders of nginx that Debian's is compiled with, where only root may write."""
START = 1_700_000_000
_SETTLED = 2.0
"""Seconds after an overload in which the service may still be recovering."""
_TICK = 0.002
"""Seconds: what is due within one is sent together, since each sleep costs the load as much as a request."""


@dataclass(slots=True)
class Outcome:
    """What became of the requests of one run.

    Args:
        due: how many were due.
        in_time: answered 200 before the deadline.
        late: answered 200, but later.
        shed: answered 503 or 429.
        other: another answer, or none.
        moments: when each was due, seconds since the start, and whether it was answered in time.
    """

    due: int = 0
    in_time: int = 0
    late: int = 0
    shed: int = 0
    other: int = 0
    moments: dict[float, bool] = field(default_factory=dict)

    def note(self, due: float, status: int, in_time: bool) -> None:
        """Note the answer to a request."""
        if status == 200 and in_time:
            self.in_time += 1
            self.moments[due] = True
        elif status == 200:
            self.late += 1
        elif status in (429, 503):
            self.shed += 1
        else:
            self.other += 1


class Client(asyncio.Protocol):
    """One connection, one request at a time; answers are distinguished by their length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answered: Callable[[int], None] | None = None
        self._text = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the way to the service."""
        # uvloop's is of no class of asyncio.
        self.transport = cast(asyncio.Transport, transport)

    @property
    def connected(self) -> bool:
        """Whether the service has not hung up, as it may after any answer."""
        return self.transport is not None and not self.transport.is_closing()

    def send(self, request: bytes, answered: Callable[[int], None]) -> None:
        """Send a request; `answered` is called with the status of its answer, 0 if there is none."""
        assert self.transport is not None
        self._answered = answered
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer."""
        self._text += data
        head, found, body = self._text.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) >= length:
            self._text = b""
            self._end(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that is under way."""
        self._end(0)

    def _end(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status)


async def _connected(port: int, number: int) -> list[Client]:
    loop = asyncio.get_running_loop()
    addresses = [f"127.0.{1 + of // 250}.{1 + of % 250}" for of in range(number)]
    return [
        (await loop.create_connection(Client, "127.0.0.1", port, local_addr=(address, 0)))[1] for address in addresses
    ]


async def _disconnect(clients: list[Client]) -> None:
    for client in clients:
        assert client.transport is not None
        client.transport.abort()
    # The event loop takes them down in its next turn.
    await asyncio.sleep(0)


@contextlib.contextmanager
def proxied(service: int, folder: Path) -> Iterator[tuple[int, int]]:
    """The port of nginx in front of a service, and its process; its configuration with other ports and folders.

    Args:
        service: port of the service.
        folder: for what nginx writes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = PROXY.read_text()
    folders = "".join(f"{name}_temp_path {folder}/{name};\n" for name in _TEMPORARY)
    for shown, used in (
        ("127.0.0.1:8000", f"127.0.0.1:{service}"),
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        ("http {\n", f"http {{\n{folders}"),
    ):
        assert shown in text, shown
        text = text.replace(shown, used)
    (folder / "nginx.conf").write_text(text)
    options = f"daemon off; pid {folder}/pid;"
    process = subprocess.Popen(["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", options])
    try:
        # It listens a moment after it was started.
        until = time.monotonic() + 30
        while (probe := socket.socket()).connect_ex(("127.0.0.1", port)) and time.monotonic() < until:
            probe.close()
            time.sleep(0.05)
        probe.close()
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


async def closed(port: int, bodies: list[bytes], *, seconds: float, connections: int) -> float:
    """Requests a second that are answered when each connection sends the next as soon as it has an answer."""
    clients, statuses, left = await _connected(port, connections), Counter[int](), asyncio.Semaphore(0)
    numbers = itertools.count()
    end = time.perf_counter() + seconds

    def go(client: Client, status: int) -> None:
        statuses[status] += 1
        if time.perf_counter() < end:
            client.send(bodies[next(numbers) % len(bodies)], partial(go, client))
        else:
            left.release()

    for client in clients:
        go(client, -1)
    for _ in clients:
        await left.acquire()
    await _disconnect(clients)
    return statuses[200] / seconds


async def open_loop(
    port: int, bodies: list[bytes], *, rate: float, seconds: float, connections: int, deadline: float, seed: int
) -> Outcome:
    """Requests at the moments of a Poisson process."""
    clients, outcome, under_way = await _connected(port, connections), Outcome(), 0
    free = [*clients]
    chance = np.random.default_rng(seed)
    due_N = np.cumsum(chance.exponential(1 / rate, int(rate * seconds)))
    waiting: deque[tuple[int, float]] = deque()
    started = time.perf_counter()

    def send_waiting() -> None:
        nonlocal under_way
        # The client gives up on what it could not send in time.
        while waiting and time.perf_counter() - started - waiting[0][1] > deadline:
            waiting.popleft()
            outcome.other += 1
        while waiting and free:
            client = free.pop()
            if not client.connected:
                continue
            number, due = waiting.popleft()
            under_way += 1
            client.send(bodies[number % len(bodies)], partial(end, client, due))

    def end(client: Client, due: float, status: int) -> None:
        nonlocal under_way
        under_way -= 1
        outcome.note(due, status, time.perf_counter() - started - due <= deadline)
        if status:
            free.append(client)
            send_waiting()

    for number, due in enumerate(due_N.tolist()):
        while (ahead := due - (time.perf_counter() - started)) > 0:
            await asyncio.sleep(max(ahead, _TICK))
        outcome.due += 1
        outcome.moments[due] = False
        waiting.append((number, due))
        send_waiting()
        if number % 50 == 0:
            await asyncio.sleep(0)
    outcome.other += len(waiting)
    waiting.clear()
    last = time.perf_counter() + 30
    while under_way and time.perf_counter() < last:
        # What is under way at the end is still answered, or ends with its connection.
        await asyncio.sleep(0.01)
    await _disconnect(clients)
    return outcome


def _requests(path: str, documents: list[object]) -> list[bytes]:
    requests = []
    for document in documents:
        body = json.dumps(document).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        requests.append(head.encode() + b"\r\n\r\n" + body)
    return requests


def _events(users: int, each: int) -> list[object]:
    """Bodies of events; each user's in the order of time."""
    return [
        {
            "events": [
                {"user": f"u{(number * each + at) % users}", "item": f"i{at % 9}", "time": START + number}
                for at in range(each)
            ]
        }
        for number in range(5_000)
    ]


def _scores(users: int, candidates: int) -> list[object]:
    items = [f"i{number}" for number in range(candidates)]
    return [{"user": f"u{number % users}", "items": items} for number in range(5_000)]


def _used(process: int) -> float:
    """Seconds of processor time that a process and those that it has started have used."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    started = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK") + sum(_used(int(child)) for child in started)


def _measure(port: int, processes: list[int], bodies: list[bytes], given: argparse.Namespace) -> dict[str, object]:
    """Capacity, goodput at each multiple of it, and how soon the service is well again."""
    uvloop.run(closed(port, bodies, seconds=1, connections=32))
    used = sum(map(_used, processes))
    capacity = uvloop.run(closed(port, bodies, seconds=given.seconds, connections=32))
    cost = (sum(map(_used, processes)) - used) / given.seconds
    document: dict[str, object] = {"capacity": round(capacity, 1), "cores": round(cost, 2)}
    for times in given.times:
        options = {"connections": given.connections, "deadline": given.deadline}
        used = sum(map(_used, processes))
        rush = uvloop.run(open_loop(port, bodies, rate=times * capacity, seconds=given.seconds, seed=1, **options))
        taken = (sum(map(_used, processes)) - used) / given.seconds
        calm = uvloop.run(
            open_loop(port, bodies, rate=0.3 * capacity, seconds=_SETTLED + given.seconds, seed=2, **options)
        )
        later = [in_time for due, in_time in calm.moments.items() if due > _SETTLED]
        document[f"{times:g}x"] = {
            "goodput": round(rush.in_time / given.seconds / capacity, 3),
            "cores": round(taken, 2),
            "goodput_per_core": round(rush.in_time / given.seconds / taken / (capacity / cost), 3),
            "late": round(rush.late / rush.due, 3),
            "shed": round(rush.shed / rush.due, 3),
            "not_sent_or_failed": round(rush.other / rush.due, 3),
            "recovered": round(sum(later) / len(later), 3),
            "in_time_at_once": round(calm.in_time / calm.due, 3),
        }
    return document


def main() -> None:
    """Measure, and print one line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, default=ARTIFACT)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--times", type=lambda text: [float(part) for part in text.split(",")], default=[2.0, 5.0])
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds in which an answer is of use")
    parser.add_argument("--only", choices=["events", "scores"], default=None)
    parser.add_argument("--proxy", action="store_true", help="through nginx, as deploy/nginx.conf configures it")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--events", type=int, default=20, help="events in one request")
    parser.add_argument("--candidates", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as around:
        command = [sys.executable, "-m", "lifelong", "serve", str(given.artifact), "--port", "0", "--json"]
        process = subprocess.Popen(
            [*command, "--store", f"rocksdb://{folder}/store"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            port, processes = int(json.loads(process.stdout.readline())["address"].rpartition(":")[2]), [process.pid]
            if given.proxy:
                port, proxy = around.enter_context(proxied(port, Path(folder)))
                processes.append(proxy)
            requests = {
                "events": _requests("/v1/events", _events(given.users, given.events)),
                "scores": _requests("/v1/score", _scores(given.users, given.candidates)),
            }
            figures = {
                kind: _measure(port, processes, of, given)
                for kind, of in requests.items()
                if given.only in (None, kind)
            }
        finally:
            process.terminate()
            process.wait()
    print(last_line(figures))


if __name__ == "__main__":
    main()
