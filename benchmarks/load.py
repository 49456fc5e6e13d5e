"""Sends HTTP requests at a set rate and measures each from the moment at which it was due.

Open loop: requests are due at the times of a Poisson process, whether answers come or not. A request that has to wait
for a free connection counts the wait, so that a slow moment of the service is seen by all that would have met it.

Runs in a process of its own, so that it takes no thread of what it measures: `python benchmarks/load.py`. It is a plain
loop over sockets: an event loop and its streams add .2 ms to each request, and .7 ms to the slowest.
"""

from __future__ import annotations

import argparse
import json
import random
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a run; times in milliseconds.

    Args:
        requests: how many were sent.
        failed: those without an answer, or with another status than 200.
        rate: requests a second that were answered.
        p50_ms: median from due to answered.
        p95_ms: the same of 95 in 100.
        p99_ms: the same of 99 in 100.
        max_ms: the slowest.
    """

    requests: int
    failed: int
    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def summary(milliseconds: Sequence[float], failed: int, seconds: float) -> Load:
    """Percentiles of requests."""
    took = sorted(milliseconds) or [float("nan")]
    p50, p95, p99, most = (round(percentile(took, share), 3) for share in (0.5, 0.95, 0.99, 1.0))
    return Load(len(milliseconds) + failed, failed, round(len(milliseconds) / seconds, 1), p50, p95, p99, most)


class _Connection:
    """One kept-alive connection; opened when it is first used."""

    def __init__(self, address: tuple[str, int], ready: selectors.BaseSelector) -> None:
        self.due: float | None = None
        """When the request was due whose answer is on its way."""
        self._address, self._ready, self._got = address, ready, b""
        self._socket: socket.socket | None = None

    def send(self, request: bytes, due: float) -> None:
        """Send a request, whose answer `receive` will give."""
        self.due, self._got = due, b""
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ready.register(self._socket, selectors.EVENT_READ, self)
        self._socket.sendall(request)

    def receive(self) -> int | None:
        """Read what has come: the status, once the answer is there to its end."""
        assert self._socket is not None
        if not (some := self._socket.recv(65_536)):
            raise EOFError
        self._got += some
        head, ended, body = self._got.partition(b"\r\n\r\n")
        if not ended:
            return None
        lines = head.lower().split(b"\r\n")
        length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        return int(lines[0].split(b" ", 2)[1]) if len(body) >= length else None

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._ready.unregister(self._socket)
            self._socket.close()
        self._socket = None


_ENDS = OSError, EOFError, StopIteration, ValueError
"""What a connection ends with that gives no answer."""


class _Run:
    """Requests on their way, those that wait for a free connection, and how long the others took."""

    def __init__(self, url: str, requests: Sequence[bytes], connections: int, counted_from: float) -> None:
        parts, self._requests, self._counted_from = urlsplit(url), requests, counted_from
        # It wakes when a request is due; that of epoll rounds up to whole milliseconds, .6 of one on average.
        self._ready = selectors.SelectSelector()
        address = parts.hostname or "127.0.0.1", parts.port or 80
        self.free: list[_Connection] = [_Connection(address, self._ready) for _ in range(connections)]
        self._all, self._waiting, self._number = [*self.free], deque[float](), 0
        self.took: list[float] = []
        self.failed: int = 0

    @property
    def done(self) -> bool:
        """Whether each request has its answer."""
        return not self._waiting and len(self.free) == len(self._all)

    def ask(self, due: float) -> None:
        """Send the next request, as soon as a connection is free."""
        self._waiting.append(due)
        self._send()

    def _send(self) -> None:
        while self._waiting and self.free:
            connection, due = self.free.pop(), self._waiting.popleft()
            request = self._requests[self._number % len(self._requests)]
            self._number += 1
            try:
                connection.send(request, due)
            except OSError:
                self._end(connection, None)

    def wait(self, seconds: float | None) -> None:
        """Take answers, until this time has passed or some have come."""
        if not self._ready.get_map():
            time.sleep(seconds or 0)
            return
        for key, _ in self._ready.select(seconds):
            connection: _Connection = key.data
            try:
                status = connection.receive()
            except _ENDS:
                self._end(connection, None)
            else:
                if status is not None:
                    self._end(connection, status)
        self._send()

    def _end(self, connection: _Connection, status: int | None) -> None:
        """A request has its answer, or will have none."""
        due, connection.due = connection.due, None
        if status is None:
            connection.close()
        if due is None:
            # The service hung up while nothing was asked.
            return
        self.free.append(connection)
        if due >= self._counted_from and status == 200:
            self.took.append(1e3 * (time.perf_counter() - due))
        elif due >= self._counted_from:
            self.failed += 1

    def close(self) -> None:
        """Hang up."""
        for connection in self._all:
            connection.close()


def run(
    url: str,
    bodies: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = 32,
    warm_up: float = 1.0,
    key: str | None = None,
    seed: int = 0,
) -> Load:
    """Send requests.

    Args:
        url: where to; http only.
        bodies: sent one after another and again from the first.
        rate: requests a second; 0 sends the next as soon as one is answered (a closed loop, to find the most).
        seconds: how long, after the warm-up.
        connections: requests on their way at the same time, at most.
        warm_up: seconds that are not counted.
        key: API key.
        seed: of the moments at which requests are due.
    """
    started, chance = time.perf_counter(), random.Random(seed)
    requests = [_request(url, body, key) for body in bodies]
    asked, end = _Run(url, requests, connections, started + warm_up), started + warm_up + seconds
    due = started + (chance.expovariate(rate) if rate else 0.0)
    while due < end or not asked.done:
        now = time.perf_counter()
        if rate:
            while due <= now and due < end:
                asked.ask(due)
                due += chance.expovariate(rate)
        else:
            due = now
            for _ in range(len(asked.free) if now < end else 0):
                asked.ask(now)
            if now >= end and asked.done:
                # Connections are open on which nothing comes any more.
                break
        asked.wait(max(0.0, due - time.perf_counter()) if rate and due < end else None)
    asked.close()
    return summary(asked.took, asked.failed, max(1e-9, time.perf_counter() - started - warm_up))


def _request(url: str, body: bytes, key: str | None) -> bytes:
    parts = urlsplit(url)
    head = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}", *([f"X-API-Key: {key}"] if key else [])]
    return "\r\n".join([*head, "", ""]).encode() + body


def start(
    url: str,
    bodies: Sequence[object],
    folder: Path,
    *,
    rate: float,
    seconds: float,
    connections: int = 32,
    seed: int = 0,
) -> subprocess.Popen[str]:
    """Send requests from a process of its own; `result` waits for it.

    Args:
        url: where to.
        bodies: what JSON is made of.
        folder: where the bodies are put for it.
        rate: see `run`.
        seconds: see `run`.
        connections: see `run`.
        seed: see `run`.
    """
    file = folder / f"bodies-{seed}.jsonl"
    file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    options = {"rate": rate, "seconds": seconds, "connections": connections, "seed": seed}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, __file__, url, str(file), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> Load:
    """What came of a run that was started."""
    text, _ = process.communicate()
    return Load(**json.loads(text.splitlines()[-1]))


def main() -> None:
    """Send what a file holds, and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="as http://127.0.0.1:8000/v1/score")
    parser.add_argument("bodies", type=Path, help="file with one body a line")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second; 0: as many as are answered")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--key", default=None, help="API key")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    bodies = [line for line in given.bodies.read_bytes().splitlines() if line.strip()]
    options = {name: getattr(given, name) for name in ("rate", "seconds", "connections", "key", "seed")}
    print(json.dumps(asdict(run(given.url, bodies, **options))))


if __name__ == "__main__":
    main()
