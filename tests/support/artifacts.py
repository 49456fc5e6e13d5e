"""A small untrained artifact, for tests of what follows training. Needs torch; opening the result does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lifelong.artifact.calibration import Calibrator
from lifelong.artifact.folder import Artifact
from lifelong.artifact.list_order import ListOrder
from lifelong.dataset.folder import Dataset
from lifelong.offline.export.saving import write_artifact
from lifelong.offline.models import build
from lifelong.offline.models.base import Model

SETTINGS: dict[str, dict[str, Any]] = {
    "hpmn": {"embedding": 3, "width": 6, "periods": [1, 2, 4], "hops": 2},
    "tally": {"embedding": 3, "width": 6, "periods": [1, 2, 4], "state": 512},
    "gru4rec": {"embedding": 4, "width": 8},
    "dnn": {"embedding": 4},
    "din": {"embedding": 4, "recent": 12},
    "shan": {"embedding": 4, "recent": 12, "short": 4},
    "sim": {"embedding": 4, "recent": 6, "hits": 3},
}
"""Small settings by model; others have their defaults."""


def empty_graphs(model: object, folder: Path) -> None:
    """In place of `write_graphs`, whose exports take seconds and have tests of their own: files without content."""
    folder.mkdir()
    for name in ("write", "read", "head"):
        (folder / f"{name}.onnx").touch()


def tiny_artifact(
    out: Path,
    dataset: Dataset,
    *,
    model: str = "hpmn",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    list_order: ListOrder | None = None,
) -> Artifact:
    """Write and open an artifact with random weights, and a calibrator without base rate where the model has logits.

    Args:
        out: the folder.
        dataset: what it would have been trained on; see `lifelong.testing.datasets.tiny_dataset`.
        model: its name in the registry.
        seed: of the weights.
        settings: of the model; small ones if None.
        metrics: the record of its training; empty if None.
        list_order: what orders its lists.
    """
    settings = dict(SETTINGS.get(model, {}) if settings is None else settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = build(model, dataset.inputs, settings)
    if not isinstance(built, Model):
        built.fit(dataset, seed=seed)
    calibrator = Calibrator(a=1.0, b=0.0, sampled_rate=0.5)
    others = dict.fromkeys(dataset.schema.tasks[1:], calibrator)
    return write_artifact(
        out,
        built,
        dataset,
        run={"model": settings},
        metrics=dict(metrics or {}),
        calibrator=calibrator,
        list_order=list_order,
        other_calibrators=others,
    )
