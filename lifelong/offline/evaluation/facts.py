"""What a memory model reports of its own memory, such as how often it writes each slot."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.models.base import FittedModel, History, MemoryModel, Model

TITLES = {"write_rate": "share of the events that write each slot"}
"""Name of a fact -> what it is."""


def facts_of(model: Model | FittedModel, dataset: Dataset, examples: Examples) -> dict[str, list[float]]:
    """The mean over examples of what a model reports of its memories; empty for most models.

    Args:
        model: on any device; it is not changed.
        dataset: with the histories.
        examples: the memories are read at their positions.
    """
    if not isinstance(model, MemoryModel) or not len(examples) or type(model).facts is MemoryModel.facts:
        return {}
    total, device = dict[str, torch.Tensor](), next(model.parameters()).device
    with torch.inference_mode():
        for batch in evaluation_batches(dataset, examples):
            batch = batch.to(device)
            history = History(batch.history_BLF, batch.time_BL, batch.length_B)
            chosen_BC = batch.mask_BC & (batch.example_BC >= 0)
            for name, value_BCX in model.facts(model.encode(history, batch.position_BC)).items():
                total[name] = total.get(name, torch.zeros(())) + value_BCX[chosen_BC].double().sum(0).cpu()
    return {name: [round(value, 6) for value in (found / len(examples)).tolist()] for name, found in total.items()}


def in_words(facts: Mapping[str, list[float]]) -> list[str]:
    """One sentence for each fact.

    >>> in_words({"write_rate": [1.0, 0.25]})
    ['share of the events that write each slot: 1, 0.25']
    """
    return [
        f"{TITLES.get(name, name)}: {', '.join(f'{value:.3g}' for value in values)}" for name, values in facts.items()
    ]
