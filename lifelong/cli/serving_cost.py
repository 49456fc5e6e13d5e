"""What a model takes to serve: bytes of one user's memory, and latency of a request behind histories of given lengths.

Measured in this process, without HTTP, on a store in RAM: one user's memory is written event by event until it holds as
many as asked, and then read. A history model keeps its `recent` events and no more, so that its latency stops growing.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.evaluation.costs import Serving
    from lifelong.memory.updater import UserEvent

EVENTS = (100, 1_000, 10_000)
"""Lengths of the history."""
CANDIDATES = 100
_REQUESTS = 20
_SECONDS = 3.0
"""Of requests behind one length, about; at least three are measured."""
_START, _GAP = 1_600_000_000, 3_600
_USER = "user"


def serving_of(artifact: Artifact, *, events: Sequence[int] = EVENTS) -> Serving | None:
    """State and latency of an artifact, or None if it cannot be served.

    What was measured is kept beside the artifact and not measured again.
    """
    from lifelong.evaluation.costs import Serving

    if artifact.config.memory is None:
        return None
    kept = artifact.path.with_name("serving.json")
    wanted = {"artifact": artifact.id, "events": list(events)}
    if (found := _read(kept)) is not None and {name: found.get(name) for name in wanted} == wanted:
        return Serving(found["state_bytes"], {int(count): took for count, took in found["latency_ms"].items()})
    made = _measured(artifact, events)
    record = {**wanted, "state_bytes": made.state_bytes, "latency_ms": dict(made.latency_ms)}
    kept.write_text(json.dumps(record, indent=2) + "\n")
    return made


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _measured(artifact: Artifact, events: Sequence[int]) -> Serving:
    from lifelong.evaluation.costs import Serving
    from lifelong.memory.store import open_store
    from lifelong.memory.updater import Updater
    from lifelong.serving.scorer import Scorer, ScoreRequest

    store = open_store("memory://")
    updater, scorer = Updater(artifact, store, event_log=False), Scorer(artifact, store)
    ids = artifact.catalogue.ids
    items = [ids.id_at(place) for place in range(min(len(ids), 1_000))]
    candidates = [items[place % len(items)] for place in range(CANDIDATES)]
    took, written = {}, 0
    for count in sorted(events):
        updater.apply([_event(items[place % len(items)], place) for place in range(written, count)])
        written = count
        request = ScoreRequest(_USER, candidates, _START + count * _GAP)
        answer = scorer.answer([request])[0]
        assert answer.count == count, f"the memory holds {answer.count} events, not {count}"
        took[count] = _median(lambda request=request: scorer.answer([request]))  # type: ignore[misc]
    size = next(len(value) for _, value in store.users())
    store.close()
    return Serving(size, took)


def _event(item: str, place: int) -> UserEvent:
    from lifelong.memory.updater import UserEvent

    return UserEvent(_USER, item, _START + place * _GAP)


def _median(call: Callable[[], object]) -> float:
    """Milliseconds; the first calls are not counted."""
    call()
    began = time.perf_counter()
    call()
    number = max(3, min(_REQUESTS, int(_SECONDS / max(1e-9, time.perf_counter() - began))))
    took = []
    for _ in range(number):
        began = time.perf_counter()
        call()
        took.append(1e3 * (time.perf_counter() - began))
    return statistics.median(took)
