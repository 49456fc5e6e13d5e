"""From run settings to a checked model: `[model]` against its config class, the dataset against the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.config import RunConfig, TrainSettings, load_config
from lifelong.data.batches import TrainingBatches
from lifelong.data.counts import count_inputs
from lifelong.data.labelled import labelled_training_examples
from lifelong.errors import MismatchError
from lifelong.models import build, check_config
from lifelong.models.base import FittedModel, Model

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples

_SCALED_BY = 50_000
"""Training examples that counts are standardised by, about."""


def load_run_config(model: str, path: Path | str | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Settings of a run of one model: problems of `[train]` and of `[model]` are reported together.

    Raises:
        ConfigError: names every problem.
    """
    return load_config(path, overrides, check_model=partial(check_config, model))


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


def largest_period(model: Model) -> int:
    """The number of events after which all parts of a model's memory have been written; 1 without periods."""
    periods: Sequence[int] = getattr(model, "periods", (1,))
    return max(periods, default=1)


def batches_for(model: Model, dataset: Dataset, settings: TrainSettings, *, fit_counts: bool = True) -> TrainingBatches:
    """The training batches of a model, which standardises counts, if it is given them, by a part of the examples.

    Args:
        model: on the CPU; only the scale of its counts is changed.
        dataset: its training split is used.
        settings: of the run.
        fit_counts: whether the scale is to be found; not where the model has one from an earlier training.

    Raises:
        ConfigError: see `TrainingBatches`.
    """
    if model.counted is not None and fit_counts:
        examples = labelled_training_examples(dataset, seed=settings.seed, limit=_SCALED_BY)
        model.counted.fit(count_inputs(dataset, examples))
    items = None if model.item_side is None else model.item_side.span
    return TrainingBatches(
        dataset, settings, phase=largest_period(model), counts=model.counted is not None, items=items
    )


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
    """The tasks for which all labels are the same, in words; "" for the only one."""
    positive_NT, tasks = np.asarray(examples.label_NT) >= 0.5, dataset.schema.tasks
    return [
        f" for task {task!r}" if len(tasks) > 1 else ""
        for at, task in enumerate(tasks[: positive_NT.shape[1]])
        if positive_NT[:, at].all() or not positive_NT[:, at].any()
    ]
