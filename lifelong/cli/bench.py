"""`lifelong bench`: how fast scoring, writing, ingesting a file and HTTP are on this machine, with this artifact."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from lifelong.cli.options import ArtifactPath
from lifelong.cli.serving_cost import milliseconds
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import StoreError, UsageError
from lifelong.launch import end_with_parent

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.store.contract import MemoryStore

_START = 1_700_000_000
_ITEMS = 10_000
"""Largest number of different items in the events."""
_GRACE = 30.0
"""Seconds that the service may take to end when the benchmark was killed."""
_CONNECTIONS, _WARM_UP = 32, 1.0
"""HTTP requests on their way at the same time, at most; seconds of requests that are not counted."""


def bench(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="A new store to fill; by default a RocksDB in a temporary folder.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates per request.")] = 100,
    requests: Annotated[int, typer.Option(min=1, help="Number of measured requests and of measured events.")] = 300,
    users: Annotated[int, typer.Option(min=1, help="Users in the store.")] = 1_000,
    events: Annotated[int, typer.Option(min=1, help="Events in the file that is ingested.")] = 20_000,
    rate: Annotated[float, typer.Option(min=1, help="HTTP requests a second.")] = 100.0,
    seconds: Annotated[float, typer.Option(min=0, help="Duration of the requests over HTTP; 0 leaves them out.")] = 3.0,
) -> Reply:
    """Benchmark a new store: ingestion of a file, single requests and events, bytes per user, requests over HTTP."""
    from lifelong.artifact.folder import Artifact

    opened = Artifact.open(artifact)
    items = [opened.catalogue.ids.id_at(place) for place in range(min(_ITEMS, len(opened.catalogue.ids)))]
    asked = [items[place % len(items)] for place in range(candidates)]
    with tempfile.TemporaryDirectory(prefix="lifelong-bench-") as name:
        folder = Path(name)
        url = store or f"rocksdb://{folder / 'store'}"
        with _new_store(url) as memories:
            document: dict[str, Any] = {"store": url.partition(":")[0], "users": users, "candidates": candidates}
            document["requests"] = requests
            with terminal.progress("a file of events") as advance:
                document["ingest"] = _ingested(opened, memories, folder, (users, events), items, advance)
            document |= _singles(terminal, opened, memories, requests, users, asked)
        document["bytes"] = _bytes(opened, url, users)
        if seconds and url.partition(":")[0] != "memory":
            bodies = [{"user": f"u{k}", "items": asked, "time": _START + events + 100} for k in range(min(users, 200))]
            with _served(artifact, url) as address:
                document["http"] = _over_http(address, bodies, rate, seconds)
    return Reply(document, _summary(document))


@contextlib.contextmanager
def _new_store(url: str) -> Iterator[MemoryStore]:
    """A new store."""
    from lifelong.store.opening import open_store

    with contextlib.closing(open_store(url)) as store:
        if store.artifact_list().identity is not None:
            raise UsageError(
                "--store names a store that holds memories",
                expected="a new one: the measured events would mix with what it holds",
                fix="name another folder, or another prefix of a server",
            )
        yield store


def _ingested(
    artifact: Artifact,
    store: MemoryStore,
    folder: Path,
    size: tuple[int, int],
    items: list[str],
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """Events per second of a csv file, as `lifelong ingest` reads it."""
    from lifelong.ingestion.files import ingest

    (users, events), chance, path = size, random.Random(0), folder / "events.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item", "time"))
        # If there are enough events, every user has one.
        who = ((k if k < users else chance.randrange(users)) for k in range(events))
        writer.writerows((f"u{user}", items[k * 7919 % len(items)], _START + k) for k, user in enumerate(who))
    started = time.perf_counter()
    ingest(artifact, store, path, progress=progress, workers=None)
    took = time.perf_counter() - started
    return {"events": events, "seconds": took, "events_per_second": events / took}


def _singles(
    terminal: Terminal, artifact: Artifact, store: MemoryStore, requests: int, users: int, asked: list[str]
) -> dict[str, Any]:
    """Milliseconds of one request and of one event in a commit of its own."""
    from lifelong.memory.updater import Updater, UserEvent
    from lifelong.scoring.scorer import Scorer

    scorer, updater, later = Scorer(artifact, store), Updater(artifact, store), _START + 10_000_000
    with terminal.progress("requests") as advance:
        read = _measure(requests, lambda k: scorer.score(f"u{k % users}", asked, time=later), advance)
    with terminal.progress("events") as advance:
        write = _measure(
            requests, lambda k: updater.apply([UserEvent(f"u{k % users}", asked[k % len(asked)], later + k)]), advance
        )
    return {"score": read, "write": write}


def _measure(number: int, call: Callable[[int], object], progress: Callable[[int, int], None]) -> dict[str, float]:
    """Milliseconds of single calls; a tenth as many calls come first and are not counted."""
    for k in range(max(1, number // 10)):
        call(k)
    took = []
    for k in range(number):
        took.append(milliseconds(partial(call, k)))
        if k % 50 == 0 or k == number - 1:
            progress(k + 1, number)
    return _percentiles(took)


def _percentiles(took: list[float]) -> dict[str, float]:
    ordered, shares = sorted(took), {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
    return {name: ordered[int(share * len(ordered))] for name, share in shares.items()}


def _bytes(artifact: Artifact, url: str, users: int) -> dict[str, float]:
    """Bytes per user: of the memory, and where the store is a folder, of everything on disk."""
    from lifelong.memory.codec import make_codec
    from lifelong.store.opening import folder_of

    found: dict[str, float] = {"memory": make_codec(artifact.config.codec, artifact.require_memory()).size}
    if url.startswith("rocksdb:"):
        folder = folder_of(url)[0]
        found["disk_with_log"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / users
    return found


@contextlib.contextmanager
def _served(artifact: Path, url: str) -> Iterator[str]:
    """The address of `lifelong serve`, running in a process of its own that ends with this one."""
    words = ["serve", str(artifact), "--store", url, "--port", "0", "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Nothing is ever written into this pipe: it is closed when this process ends, however that happens.
    parent, alive = os.pipe()
    try:
        code = f"from {__name__} import serve_until; serve_until({parent}, {words!r})"
        process = subprocess.Popen([sys.executable, "-c", code], pass_fds=(parent,), **pipes)
    except BaseException:
        os.close(alive)
        raise
    finally:
        os.close(parent)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if '"address"' not in line:
            rest = process.communicate(timeout=10)[1]
            raise StoreError(f"`lifelong serve` did not start: {rest[-500:]}", fix="run it by hand to see why")
        yield str(json.loads(line)["address"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
        os.close(alive)


def serve_until(parent: int, words: list[str]) -> None:
    """Run a command line of `lifelong` that ends with the process that started it.

    Args:
        parent: descriptor of a pipe that ends with that process.
        words: the command and its options.
    """
    from lifelong.cli import main

    end_with_parent(parent, grace=_GRACE)
    sys.exit(main(words))


def _over_http(address: str, bodies: list[dict[str, Any]], rate: float, seconds: float) -> dict[str, Any]:
    """Milliseconds of score requests that are due at random moments, whether answers come or not.

    Each is measured from the moment at which it was due: where the service is slow for a moment, all requests that
    were due then have waited.
    """
    parts, chance = urlsplit(address), random.Random(0)
    connections = [HTTPConnection(parts.hostname or "", parts.port, timeout=60) for _ in range(_CONNECTIONS)]
    free: SimpleQueue[HTTPConnection] = SimpleQueue()
    for connection in connections:
        free.put(connection)
    lines = [json.dumps(body).encode() for body in bodies]
    moments = itertools.accumulate(iter(lambda: chance.expovariate(rate), None))
    due = list(itertools.takewhile(lambda moment: moment < _WARM_UP + seconds, moments))
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        started, sent = time.perf_counter(), []
        for number, moment in enumerate(due):
            time.sleep(max(0.0, started + moment - time.perf_counter()))
            sent.append(threads.submit(_send, free, lines[number % len(lines)], started + moment))
        counted = [one.result() for one, moment in zip(sent, due, strict=True) if moment >= _WARM_UP]
        passed = time.perf_counter() - started - _WARM_UP
    for connection in connections:
        connection.close()
    took = [milliseconds for milliseconds in counted if milliseconds is not None] or [math.nan]
    failed = sum(milliseconds is None for milliseconds in counted)
    figures = {"rate": (len(counted) - failed) / passed, **_percentiles(took), "max_ms": max(took)}
    return {"asked_per_second": rate, "requests": len(counted), "failed": failed, **figures}


def _send(free: SimpleQueue[HTTPConnection], body: bytes, due: float) -> float | None:
    """Milliseconds from when a request was due to its answer; None if it got none, or another status than 200."""
    connection = free.get()
    try:
        connection.request("POST", "/v1/score", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException):
        connection.close()
        return None
    finally:
        free.put(connection)
    return 1e3 * (time.perf_counter() - due) if answer.status == 200 else None


def _summary(found: dict[str, Any]) -> list[Any]:
    file, size = found["ingest"], found["bytes"]
    lines = [
        f"a file of {file['events']:,} events into {found['store']}: {file['events_per_second']:,.0f} events/s",
        _line(f"one request, {found['candidates']} candidates", found["score"]),
        _line("one event, one commit", found["write"]),
        f"one user: {size['memory']:,.0f} bytes of memory"
        + (f", {size['disk_with_log']:,.0f} on disk with her events" if "disk_with_log" in size else ""),
    ]
    if "http" in found:
        asked = f"{found['http']['asked_per_second']:g} requests/s over HTTP"
        lines.append(_line(f"{asked}, {found['http']['failed']} failed", found["http"]))
    return lines


def _line(what: str, took: dict[str, Any]) -> str:
    return f"{what}: p50 {took['p50_ms']:.2f} ms, p95 {took['p95_ms']:.2f} ms, p99 {took['p99_ms']:.2f} ms"
