"""Sends HTTP requests at a set rate and measures each from the moment at which it was due.

Open loop: requests are due at the times of a Poisson process, whether answers come or not. A request that has to wait
for a free connection counts the wait, so that a slow moment of the service is seen by all that would have met it.

Runs in a process of its own, so that it takes no thread of what it measures: `python benchmarks/load.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import msgpack


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

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def post(self, request: bytes) -> int:
        """Status of the answer, which is read to its end."""
        if self.writer is None or self.reader is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        try:
            self.writer.write(request)
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            await self.reader.readexactly(length)
            return int(head.split(b" ", 2)[1])
        except BaseException:
            self.close()
            raise

    async def end(self) -> None:
        """Hang up, and wait until that is done."""
        writer = self.writer
        self.close()
        if writer is not None:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def close(self) -> None:
        """Hang up."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def run(
    url: str,
    bodies: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = 32,
    warm_up: float = 1.0,
    key: str | None = None,
    kind: str = "application/json",
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
        kind: content type of the bodies.
        seed: of the moments at which requests are due.
    """
    requests, parts = [_request(url, body, key, kind) for body in bodies], urlsplit(url)
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    every = [_Connection(parts.hostname or "127.0.0.1", parts.port or 80) for _ in range(connections)]
    for connection in every:
        free.put_nowait(connection)
    took: list[float] = []
    failed, chance = [0], random.Random(seed)
    started = time.perf_counter()

    async def send(number: int, due: float) -> None:
        connection = await free.get()
        if not rate:
            due = time.perf_counter()
        try:
            good = await connection.post(requests[number % len(requests)]) == 200
        except (OSError, EOFError, asyncio.IncompleteReadError, StopIteration, ValueError):
            good = False
        free.put_nowait(connection)
        if due < started + warm_up:
            return
        if good:
            took.append(1e3 * (time.perf_counter() - due))
        else:
            failed[0] += 1

    tasks: set[asyncio.Task[None]] = set()
    due, number, end = started, 0, started + warm_up + seconds
    while due < end:
        if rate:
            due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        else:
            due = time.perf_counter()
            while len(tasks) >= connections:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(send(number, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)
    for connection in every:
        await connection.end()
    return summary(took, failed[0], max(1e-9, time.perf_counter() - started - warm_up))


def _request(url: str, body: bytes, key: str | None, kind: str) -> bytes:
    parts = urlsplit(url)
    head = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Type: {kind}"]
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


def _precise_loop() -> asyncio.AbstractEventLoop:
    """A loop that wakes when a request is due: that of epoll rounds up to whole milliseconds, .6 of one on average."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


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
    parser.add_argument("--msgpack", action="store_true", help="send, and be answered in, MessagePack")
    given = parser.parse_args()
    bodies = [line for line in given.bodies.read_bytes().splitlines() if line.strip()]
    options = {name: getattr(given, name) for name in ("rate", "seconds", "connections", "key", "seed")}
    if given.msgpack:
        bodies, options["kind"] = [msgpack.encode(json.loads(body)) for body in bodies], "application/msgpack"
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        print(json.dumps(asdict(runner.run(run(given.url, bodies, **options)))))


if __name__ == "__main__":
    main()
