"""The losses of the first steps of every trainable model, to notice a change of the numbers that nobody meant.

    python -m support.golden > tests/assets/golden_losses.txt      writes them anew

One line per model, and per preset with a class of its own: its name, then the loss before each of the first 20 steps of
Adam on `tiny_dataset`, in float64 and without dropout, so that another processor gives the same.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.config import TrainSettings
from lifelong.dataset.folder import Dataset
from lifelong.offline.data.batches import TrainingBatches, training_batches
from lifelong.offline.models import MODELS, PRESETS, build
from lifelong.offline.models.base import Model
from lifelong.testing.datasets import tiny_dataset

STEPS = 20
LEARNING_RATE = 0.01


def golden_cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name of a line -> model and settings: all that is trained by gradient, presets of a class of their own too."""
    names = [name for name, entry in MODELS.items() if issubclass(entry, Model)]
    return {name: (name, {}) for name in [*names, *(name for name, preset in PRESETS.items() if preset.home)]}


def first_losses(dataset: Dataset, name: str, config: Mapping[str, Any]) -> list[float]:
    """Loss (cross entropy and auxiliary terms) before each of the first steps."""
    torch.manual_seed(0)
    model = build(name, dataset.inputs, {**config, "dropout": 0.0})
    assert isinstance(model, Model)
    model.double()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    settings = TrainSettings(max_targets=16, batch_events=256, batch_targets=128)
    batches = TrainingBatches(dataset, settings, phase=32)
    model.learn_scales(batches.make(pass_B, 0, number) for number, pass_B in enumerate(batches.epoch(0)))
    losses: list[float] = []
    while len(losses) < STEPS:
        for _, batch in training_batches(batches, epoch=len(losses)):
            output = model(batch)
            label = batch.label_BCT[batch.mask_BC].double()
            each = [binary_cross_entropy_with_logits(logit[batch.mask_BC], label) for logit in output.learned_BCT]
            loss = sum(output.aux_losses.values(), torch.stack(each).sum())
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if len(losses) == STEPS:
                break
    return losses


def read_losses(path: Path) -> dict[str, list[float]]:
    """Name -> losses of a written file."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {name: [float(loss) for loss in losses] for name, *losses in rows}


def main() -> None:
    """Write all lines to standard output."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = tiny_dataset(Path(folder) / "data")
        for line, (name, config) in golden_cases().items():
            losses = [f"{loss:.6f}" for loss in first_losses(dataset, name, config)]
            sys.stdout.write(" ".join([line, *losses]) + "\n")


if __name__ == "__main__":
    main()
