"""`lifelong bench`: latency of scoring and writing in this process, without HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.options import ArtifactPath
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.updater import UserEvent

_START = 1_700_000_000


def bench(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    candidates: Annotated[int, typer.Option("--candidates", min=1, help="Candidates of one request.")] = 100,
    requests: Annotated[int, typer.Option("--requests", min=1, help="Measured requests, and measured events.")] = 300,
    users: Annotated[int, typer.Option("--users", min=1, help="Users in the store.")] = 100,
) -> Reply:
    """Measure one request and one event on a store in RAM, on items of the artifact's catalogue."""
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import open_store
    from lifelong.memory.updater import Updater
    from lifelong.serving.scorer import Scorer

    opened, store = Artifact.open(artifact), open_store("memory://")
    items = _items(opened, candidates)
    updater = Updater(opened, store)
    for step in range(8):
        updater.apply([_event(f"u{user}", items[(user + step) % len(items)], step) for user in range(users)])
    scorer = Scorer(opened, store)
    asked = [items[place % len(items)] for place in range(candidates)]
    with terminal.progress("requests") as advance:
        read = _measure(requests, lambda k: scorer.score(f"u{k % users}", asked, time=_START + 100), advance)
    with terminal.progress("events") as advance:
        write = _measure(
            requests, lambda k: updater.apply([_event(f"u{k % users}", items[k % len(items)], 10 + k)]), advance
        )
    document = {"candidates": candidates, "requests": requests, "score": read, "write": write}
    return Reply(
        document, [_line(f"one request, {candidates} candidates", read), _line("one event, one commit in RAM", write)]
    )


def _measure(number: int, call: Callable[[int], object], progress: Callable[[int, int], None]) -> dict[str, float]:
    """Milliseconds of single calls; a tenth as many calls come first and are not counted."""
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
    at = {"median_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
    return {name: took[min(number - 1, int(share * number))] for name, share in at.items()}


def _items(artifact: Artifact, number: int) -> list[str]:
    """The first items of the catalogue."""
    index = artifact.catalogue.ids
    return [index.id_at(place) for place in range(min(number, len(index)))]


def _event(user: str, item: str, second: int) -> UserEvent:
    from lifelong.memory.updater import UserEvent

    return UserEvent(user, item, _START + second)


def _line(what: str, took: dict[str, Any]) -> str:
    return f"{what}: median {took['median_ms']:.2f} ms, p95 {took['p95_ms']:.2f} ms, p99 {took['p99_ms']:.2f} ms"
