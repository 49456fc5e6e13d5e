"""What a model takes to serve: bytes of one user's memory, and latency of a request by length of the history.

Measured in this process, without HTTP, on a store in RAM: one user's memory is written event by event up to each
length, and then read. A history model keeps only its `recent` events, so its latency stops growing.
"""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.offline.evaluation.costs import Serving

EVENTS = (100, 1_000, 10_000)
"""Lengths of the history in events."""
CANDIDATES = 100
_REQUESTS = 20
_SECONDS = 3.0
"""About how long the requests at one length are measured; there are at least three."""
_START, _GAP = 1_600_000_000, 3_600
_USER = "user"


def serving_of(artifact: Artifact, *, events: Sequence[int] = EVENTS) -> Serving | None:
    """State and latency of an artifact, or None if it cannot be served.

    The measurements are kept next to the artifact, and not repeated.
    """
    from lifelong.offline.evaluation.costs import Serving

    if artifact.config.memory is None:
        return None
    path = artifact.path.with_name("serving.json")
    setup = {"artifact": artifact.id, "events": list(events)}
    # What another release wrote, or half a file, is measured again.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        document = json.loads(path.read_text())
        if {name: document[name] for name in setup} == setup:
            return Serving(
                document["state_bytes"], {int(count): took for count, took in document["latency_ms"].items()}
            )
    made = _measured(artifact, events)
    record = {**setup, "state_bytes": made.state_bytes, "latency_ms": dict(made.latency_ms)}
    path.write_text(json.dumps(record, indent=2) + "\n")
    return made


def _measured(artifact: Artifact, events: Sequence[int]) -> Serving:
    from lifelong.offline.evaluation.costs import Serving
    from lifelong.online.memory.event import UserEvent
    from lifelong.online.memory.updater import Updater
    from lifelong.online.scoring.answer import ScoreRequest
    from lifelong.online.scoring.scorer import Scorer
    from lifelong.online.store.opening import open_store

    store = open_store("memory://")
    updater, scorer = Updater(artifact, store, event_log=False), Scorer(artifact, store)
    ids = artifact.catalogue.ids
    items = [ids.id_at(index) for index in range(min(len(ids), 1_000))]
    candidates = [items[index % len(items)] for index in range(CANDIDATES)]
    took, written = {}, 0
    for count in sorted(events):
        new = range(written, count)
        updater.apply([UserEvent(_USER, items[index % len(items)], _START + index * _GAP) for index in new])
        written = count
        request = ScoreRequest(_USER, candidates, _START + count * _GAP)
        answer = scorer.answer([request])[0]
        assert answer.count == count, f"the memory holds {answer.count} events, not {count}"
        took[count] = _median(functools.partial(scorer.answer, [request]))
    # One user alone was written.
    size = next(len(value) for _, value in store.scan())
    store.close()
    return Serving(size, took)


def _median(call: Callable[[], object]) -> float:
    """Median milliseconds of a call; the first calls are not counted."""
    call()
    # As many calls as fit into the seconds, by the second one: the first compiles and loads.
    number = int(1e3 * _SECONDS / max(1e-6, milliseconds(call)))
    return statistics.median(milliseconds(call) for _ in range(max(3, min(_REQUESTS, number))))


def milliseconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)
