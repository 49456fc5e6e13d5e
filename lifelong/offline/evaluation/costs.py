"""What a model took to train, and what it takes to serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lifelong.artifact.folder import Artifact
from lifelong.offline.evaluation.compare import Cost


@dataclass(frozen=True, slots=True)
class Serving:
    """What a service needs for one user and one request, as a caller has measured it.

    Args:
        state_bytes: bytes of one user in a store.
        latency_ms: length of the history in events -> median milliseconds of one request with 100 candidates.
    """

    state_bytes: int
    latency_ms: Mapping[int, float]


def cost_of(artifact: Artifact, serving: Serving | None) -> Cost:
    """The cost of a finished run, from what its training recorded.

    Args:
        artifact: of the run.
        serving: None for a model that cannot be served, or where that is not measured.
    """
    record = artifact.metrics
    return Cost(
        parameters=record.get("parameters"),
        examples_seen=record.get("examples_seen"),
        train_seconds=float(record.get("seconds", {}).get("train", 0.0)),
        examples_per_second=record.get("examples_per_second"),
        stopped_by=str(record.get("stopped_by", "")),
        hit_limit=hit_limit(record),
        state_bytes=None if serving is None else serving.state_bytes,
        latency_ms=None if serving is None else dict(serving.latency_ms),
    )


def hit_limit(record: Mapping[str, Any]) -> bool:
    """Whether time or a number of examples ended the training although its last validation was the best so far."""
    curve = record.get("learning_curve") or []
    return record.get("stopped_by") in ("time", "examples") and bool(curve) and record.get("best") == curve[-1]
