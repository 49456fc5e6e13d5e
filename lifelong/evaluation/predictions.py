"""Scores of a dataset's examples as a table, without a store."""

from __future__ import annotations

from typing import Any

import numpy as np

from lifelong.artifact.export import load_model
from lifelong.artifact.folder import Artifact, check_fits
from lifelong.data.dataset import Dataset
from lifelong.data.examples import Split
from lifelong.errors import require
from lifelong.evaluation import evaluate


def predict(
    artifact: Artifact,
    dataset: Dataset,
    *,
    split: Split = "test",
    delay: int = 0,
    base_rate: float | None = None,
    threads: int | None = None,
) -> Any:
    """Score the examples of a split, each from the events before it.

    Args:
        artifact: any, served or not.
        dataset: with the fields and vocabularies of training.
        split: train, validation or test.
        delay: seconds; younger events are hidden.
        base_rate: share of positives in production, for probabilities where negatives were sampled; of the first task.
        threads: of torch; None leaves them as they are.

    Returns:
        A `pyarrow.Table` in the order of the examples: user, item, time (UTC seconds, or ordinals of a log without
        times), events (how many were known), label, score, and probability, null where no base rate is
        known; of a model with several tasks `label_<task>`, `score_<task>` and `probability_<task>` of the others too.

    Raises:
        MismatchError: the dataset does not fit the model.
        UsageError: a delay on data without clock times.
        MissingExtraError: pyarrow is not installed.
    """
    arrow = require("pyarrow", extra="train", purpose="tables")
    check_fits(artifact, dataset)
    model, examples = load_model(artifact), dataset.examples(split)
    evaluate.check_requirements(model, dataset)
    logit_NT = evaluate.predict(model, dataset, examples, delay=delay, threads=threads)
    columns: dict[str, Any] = {
        "user": arrow.array([dataset.users.id_at(int(user)) for user in examples.user_N], arrow.string()),
        "item": arrow.array([dataset.catalogue.id_of(int(row)) for row in examples.row_N], arrow.string()),
        "time": np.asarray(examples.time_N, np.int64),
        "events": np.asarray(evaluate.delayed(dataset, examples, delay).position_N, np.int64),
    }
    for at, task in enumerate(dataset.schema.tasks):
        end = f"_{task}" if at else ""
        columns[f"label{end}"] = np.asarray(examples.label_NT[:, at], np.float64)
        columns[f"score{end}"] = logit_NT[:, at]
        probability_N, _ = artifact.probability(logit_NT[:, at], None if at else base_rate, task=task)
        columns[f"probability{end}"] = (
            arrow.nulls(len(examples), arrow.float64()) if probability_N is None else probability_N
        )
    return arrow.table(columns)
