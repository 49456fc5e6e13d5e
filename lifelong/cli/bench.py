"""`lifelong bench`: what scoring, writing, a whole file and HTTP take on this machine, with this artifact and store."""

from __future__ import annotations

import contextlib
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.options import ArtifactPath
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import StoreError, UsageError

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import MemoryStore
    from lifelong.memory.updater import UserEvent

_START = 1_700_000_000
_ITEMS = 10_000
"""Items that the events are about."""


def bench(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="URL", help="A new store to fill; a RocksDB in a folder of its own by default."
        ),
    ] = None,
    candidates: Annotated[int, typer.Option("--candidates", min=1, help="Candidates of one request.")] = 100,
    requests: Annotated[int, typer.Option("--requests", min=1, help="Measured requests, and measured events.")] = 300,
    users: Annotated[int, typer.Option("--users", min=1, help="Users in the store.")] = 1_000,
    events: Annotated[int, typer.Option("--events", min=1, help="Events of the file that is ingested.")] = 20_000,
    rate: Annotated[float, typer.Option("--rate", min=1, help="HTTP requests a second.")] = 100.0,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="How long over HTTP; 0 leaves it out.")] = 3.0,
) -> Reply:
    """Measure on a new store: a file of events, one request, one event, bytes of a user, requests over HTTP."""
    from lifelong.artifact.folder import Artifact

    opened = Artifact.open(artifact)
    items = [opened.catalogue.ids.id_at(place) for place in range(min(_ITEMS, len(opened.catalogue.ids)))]
    asked = [items[place % len(items)] for place in range(candidates)]
    with tempfile.TemporaryDirectory(prefix="lifelong-bench-") as name:
        folder = Path(name)
        url = store or f"rocksdb://{folder / 'store'}"
        with _new_store(url) as memories:
            document: dict[str, Any] = {"store": _kind(url), "users": users, "candidates": candidates}
            document["requests"] = requests
            with terminal.progress("a file of events") as advance:
                document["ingest"] = _ingested(opened, memories, folder, (users, events), items, advance)
            document |= _singles(terminal, opened, memories, requests, users, asked)
        document["bytes"] = _bytes(opened, url, users)
        if seconds and url.partition(":")[0] != "memory":
            bodies = [{"user": f"u{k}", "items": asked, "time": _START + events + 100} for k in range(min(users, 200))]
            with _served(artifact, url) as address:
                document["http"] = _over_http(f"{address}/v1/score", bodies, folder, rate, seconds)
    return Reply(document, _summary(document))


@contextlib.contextmanager
def _new_store(url: str) -> Iterator[MemoryStore]:
    """A store that nobody has written.

    Raises:
        UsageError: somebody has.
    """
    from lifelong.memory.store import open_store

    store = open_store(url)
    try:
        if store.identity is not None:
            raise UsageError(
                "--store names a store that holds memories",
                expected="a new one: the measured events would mix with what it holds",
                fix="name another folder, or another prefix of a server",
            )
        yield store
    finally:
        store.close()


def _ingested(
    artifact: Artifact,
    store: MemoryStore,
    folder: Path,
    size: tuple[int, int],
    items: list[str],
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """Events a second of a csv, as `lifelong ingest` takes it."""
    from lifelong.memory.ingest import ingest

    (users, events), chance, path = size, random.Random(0), folder / "events.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item", "time"))
        # Every user has an event, if there are as many.
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
    from lifelong.memory.updater import Updater
    from lifelong.serving.scorer import Scorer

    scorer, updater, later = Scorer(artifact, store), Updater(artifact, store), _START + 10_000_000
    with terminal.progress("requests") as advance:
        read = _measure(requests, lambda k: scorer.score(f"u{k % users}", asked, time=later), advance)
    with terminal.progress("events") as advance:
        write = _measure(
            requests, lambda k: updater.apply([_event(f"u{k % users}", asked[k % len(asked)], later + k)]), advance
        )
    return {"score": read, "write": write}


def _measure(number: int, call: Callable[[int], object], progress: Callable[[int, int], None]) -> dict[str, float]:
    """Milliseconds of single calls; a tenth as many calls come first and are not counted."""
    from lifelong.serving.load import percentile

    for k in range(max(1, number // 10)):
        call(k)
    took = []
    for k in range(number):
        started = time.perf_counter()
        call(k)
        took.append(1e3 * (time.perf_counter() - started))
        if k % 50 == 0 or k == number - 1:
            progress(k + 1, number)
    took.sort()
    return {name: percentile(took, share) for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99))}


def _bytes(artifact: Artifact, url: str, users: int) -> dict[str, float]:
    """Bytes a user: her memory, and on disk all that is kept of her, where the store is a folder."""
    from lifelong.memory.codec import make_codec
    from lifelong.memory.store import folder_of

    found: dict[str, float] = {"memory": make_codec(artifact.config.codec, artifact.require_memory()).size}
    if url.startswith("rocksdb:"):
        folder = folder_of(url)[0]
        found["disk_with_log"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / users
    return found


@contextlib.contextmanager
def _served(artifact: Path, url: str) -> Iterator[str]:
    """`lifelong serve` in a process of its own; its address.

    Raises:
        StoreError: it did not start.
    """
    command = [sys.executable, "-m", "lifelong", "serve", str(artifact), "--store", url, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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


def _over_http(url: str, bodies: list[dict[str, Any]], folder: Path, rate: float, seconds: float) -> dict[str, Any]:
    from lifelong.serving.load import result, start

    return {"asked_per_second": rate, **asdict(result(start(url, bodies, folder, rate=rate, seconds=seconds)))}


def _kind(url: str) -> str:
    return url.partition(":")[0]


def _event(user: str, item: str, second: int) -> UserEvent:
    from lifelong.memory.updater import UserEvent

    return UserEvent(user, item, second)


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
