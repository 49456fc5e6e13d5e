"""From run settings to a checked model: `[model]` against its config class, the dataset against the model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.config import RunConfig, TrainSettings
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import labelled_training_examples
from lifelong.dtypes import Float32Array
from lifelong.errors import MismatchError
from lifelong.offline.data.batches import TrainingBatches
from lifelong.offline.data.cooccurrence import aligned_vectors, cooccurrence_vectors, unit_factors
from lifelong.offline.data.counts import target_counts
from lifelong.offline.models import build, model_class
from lifelong.offline.models.base import FittedModel, Model

logger: logging.Logger = logging.getLogger(__name__)
ENOUGH = 1_000_000
"""Examples of a run of few epochs at least, if `EPOCHS` have as many."""
EPOCHS = 4
"""Epochs of such a run at most."""
TWICE = 10_000_000
"""Examples of an epoch up to which such a run has two: beyond, a second one has not been tried and takes hours."""
STEPS = 4_000
"""Where such a run would have fewer steps, its batches are smaller."""
SMALLEST = 512
"""Targets of a batch, negatives included, below which batches do not get smaller."""
APART = 2
"""First item fields with initial embeddings for each group of users: their many values are what her own events say most
about, and others gained nothing (docs/decisions/0026-factors-of-other-users.md). Numbers have no table."""
_ENDS = frozenset({"max_epochs", "max_examples", "max_minutes"})
_BATCHES = frozenset({"batch_events", "batch_targets"})
_SCALED_BY = 50_000
"""About how many training examples the counts are standardised by."""


def build_model(dataset: Dataset, name: str, config: Mapping[str, Any]) -> Model | FittedModel:
    """A new model for a dataset, after checking that the one can be trained on the other.

    Raises:
        ConfigError: a setting of the model is wrong; names all of them.
        MismatchError: the dataset lacks something; names all of it.
    """
    model = build(name, dataset.inputs, config)
    problems = [*model.requirements(dataset), *_split_problems(dataset, needs_validation=isinstance(model, Model))]
    if problems:
        raise MismatchError(
            f"{name} cannot be trained on this dataset: " + "; ".join(problems),
            fix="choose another model, or prepare the data with what is missing",
        )
    return model


def with_recipe(config: RunConfig, name: str, dataset: Dataset) -> RunConfig:
    """The settings of a run, with what nobody named as the model trains best (`Model.recipe`).

    Args:
        config: of the run; what was given to `[train]`, by a file, an override or in Python, stays.
        name: of the model.
        dataset: its size says how many epochs a run takes, and whether negatives are drawn.
    """
    entry = model_class(name, config.model)
    if not issubclass(entry, Model):
        return config
    named, rule, recipe = config.train.model_fields_set, dataset.manifest.negatives, dict(entry.recipe)
    if not rule.drawn_in_training:
        # The recipe says how many negatives to draw, and logged labels come with theirs.
        recipe.pop("negatives", None)
    if "patience" in named:
        # Who says how long to wait waits as long after a fall.
        recipe.pop("fall_patience", None)
    recipe = {key: value for key, value in recipe.items() if key not in named}
    if entry.few_epochs:
        ratio = recipe.get("negatives", config.train.negatives) or rule.ratio
        epoch = len(dataset.examples("train")) * (1 + ratio if rule.drawn_in_training else 1)
        # Who names any end of a run has decided how long it takes: no epochs are added.
        if not named & _ENDS:
            recipe["max_epochs"] = min(EPOCHS, max(math.ceil(ENOUGH / max(1, epoch)), 2 if epoch <= TWICE else 1))
        if not named & _BATCHES:
            recipe |= _batches(config.with_train(**recipe).train, epoch)
    return config.with_train(**recipe)


def _batches(train: TrainSettings, epoch: int) -> dict[str, int]:
    """Sizes of batches with which a run over all its examples takes `STEPS` steps; at most those of the run.

    Args:
        train: the settings of the run.
        epoch: labelled examples of an epoch.
    """
    examples = min(epoch * train.max_epochs, train.max_examples or math.inf)
    targets = min(train.batch_targets, max(SMALLEST, int(examples / STEPS)))
    # In proportion, so that the same limit ends a batch as before.
    return {"batch_targets": targets, "batch_events": train.batch_events * targets // train.batch_targets}


def largest_period(model: Model) -> int:
    """Number of events after which every part of a model's memory has been written; 1 without periods."""
    return max(model.periods, default=1)


def initialised(
    model: Model, dataset: Dataset, settings: TrainSettings, *, say: Callable[[str], None], trained: bool = False
) -> TrainingBatches:
    """Give a model what it takes from the data before its first step; returns the batches of the run.

    That are initial embeddings, fixed factors, popularities, and the scale of its inputs.

    Args:
        model: on the CPU.
        dataset: its training split is used.
        settings: of the run.
        say: is given a line for each slow step.
        trained: whether the model has weights of an earlier training. It then keeps its embeddings and scales. Factors
            are made anew: heads read products of factors, which mean the same whatever their axes.

    Raises:
        ConfigError: see `TrainingBatches`.
    """
    if not trained and settings.initial_vectors != "random" and model.vector_spread > 0:
        say("initial vectors from co-occurrence in the training events")
        vectors = cooccurrence_vectors(dataset, model.vector_width, seed=settings.seed)
        several = APART if settings.initial_vectors == "crossfitted" else 0
        fields = [field for field in vectors if field in model.embed.tables][:several]
        model.begin_with(vectors, aligned_vectors(dataset, vectors, fields, seed=settings.seed) if fields else ())
    if model.factor_widths:
        say("fixed factors of items, once for all users and once for each group of them")
        whole, apart = unit_factors(dataset, model.factor_widths, seed=settings.seed)
        model.take_factors(_tensors(whole), list(map(_tensors, apart)))
    if model.reads_popularity:
        model.learn_popularity(target_counts(dataset))
    batches = batches_for(model, dataset, settings, fit_counts=not trained)
    if not trained:
        model.learn_scales(batches.make(pass_B, 0, number) for number, pass_B in enumerate(batches.epoch(0)))
    return batches


def _tensors(arrays: Mapping[str, Float32Array]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def batches_for(model: Model, dataset: Dataset, settings: TrainSettings, *, fit_counts: bool = True) -> TrainingBatches:
    """The training batches of a model; the scale of its exact counts is set first, from part of the examples.

    Args:
        model: on the CPU; only that scale is changed.
        dataset: its training split is used.
        settings: of the run.
        fit_counts: False for a model that has a scale from an earlier training.

    Raises:
        ConfigError: see `TrainingBatches`.
    """
    if model.exact is not None and fit_counts:
        model.exact.fit(dataset, labelled_training_examples(dataset, seed=settings.seed, limit=_SCALED_BY))
    return TrainingBatches(dataset, settings, phase=largest_period(model), counts=model.exact is not None)


def _split_problems(dataset: Dataset, *, needs_validation: bool) -> list[str]:
    train, validation = dataset.examples("train"), dataset.examples("validation")
    problems = []
    if not len(train):
        problems.append("its training split has no examples")
    elif train.label_NT.shape[1] != len(dataset.schema.tasks):
        problems.append(f"its examples have {train.label_NT.shape[1]} labels for {len(dataset.schema.tasks)} tasks")
    elif not dataset.manifest.negatives.drawn_in_training:
        problems += [f"its training examples all have the same label{of}" for of in _one_class(train, dataset)]
    else:
        label_NT, tasks = np.asarray(train.label_NT), dataset.schema.tasks
        problems += [
            f"its training split has no event of task {task!r}"
            for at, task in enumerate(tasks)
            if not label_NT[:, at].any()
        ]
    if needs_validation and not len(validation):
        problems.append("its validation split has no examples, and the best weights are chosen on it")
    elif needs_validation:
        problems += [f"its validation examples all have the same label{of}" for of in _one_class(validation, dataset)]
    return problems


def _one_class(examples: Examples, dataset: Dataset) -> list[str]:
    """The tasks with labels that are all equal, in words; "" for the task of a dataset with one."""
    positive_NT, tasks = np.asarray(examples.label_NT) >= 0.5, dataset.schema.tasks
    return [
        f" for task {task!r}" if len(tasks) > 1 else ""
        for at, task in enumerate(tasks[: positive_NT.shape[1]])
        if positive_NT[:, at].all() or not positive_NT[:, at].any()
    ]
