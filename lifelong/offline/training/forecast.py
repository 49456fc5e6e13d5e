"""How long trainings will take, before they begin: a few steps of each model are timed and scaled to a whole pass.

Validation, scoring and what limits and patience cut off are not foreseen: it says minutes or hours, not seconds.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from lifelong.config import RunConfig
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import IntArray
from lifelong.offline.data.batches import TrainingBatches
from lifelong.offline.evaluation.evaluate import torch_threads
from lifelong.offline.evaluation.processes import Processes
from lifelong.offline.models.base import FittedModel, Model
from lifelong.offline.training.compute import open_compute
from lifelong.offline.training.gradients import Gradients
from lifelong.offline.training.loop import total_examples
from lifelong.offline.training.settings import batches_for, build_model, with_recipe

STEPS = 2
"""Batches that are timed, after one that warms up."""
PASSES = 16
"""Passes of such a batch at most."""


def seconds_of(dataset: Dataset, model: str, config: RunConfig) -> tuple[float, float] | None:
    """Seconds of one pass over the training targets, and of a whole training at most.

    Args:
        dataset: prepared.
        model: a name of `MODELS`.
        config: of its run; its limits of time and examples hold for the second number.

    Returns:
        None for a model that is fitted at once.

    Raises:
        ConfigError, MismatchError: see `lifelong.offline.training.settings.build_model`.
    """
    config = with_recipe(config, model, dataset)
    built, settings = build_model(dataset, model, config.model), config.train
    if isinstance(built, FittedModel):
        return None
    with torch_threads(settings.threads), torch.random.fork_rng():
        batches = batches_for(built, dataset, settings)
        compute = open_compute(settings)
        built.to(compute.device).train()
        gradients = Gradients(built, compute, Processes())
        try:
            one = _seconds_of_epoch(built, batches, gradients)
        finally:
            gradients.close()
    whole = one * total_examples(settings, batches.examples_per_epoch) / batches.examples_per_epoch
    return one, whole if settings.max_minutes is None else min(whole, 60 * settings.max_minutes)


def _seconds_of_epoch(model: Model, batches: TrainingBatches, gradients: Gradients) -> float:
    plan = batches.epoch(0)
    # The batches of an epoch come in random order, so that the first ones are like the others.
    chosen = [plan[place % len(plan)] for place in range(1 + STEPS)]
    took = [_seconds_of_step(model, batches, gradients, pass_B) for pass_B in chosen]
    return float(np.mean(took[1:])) * len(plan)


def _seconds_of_step(model: Model, batches: TrainingBatches, gradients: Gradients, pass_B: IntArray) -> float:
    """Seconds of a batch, from those of its first passes."""
    start, some_B = time.perf_counter(), pass_B[:PASSES]
    gradients.backward(batches.make(some_B, 0, 0), tuple)
    model.zero_grad()
    return (time.perf_counter() - start) * len(pass_B) / len(some_B)
