"""Errors of the expected rating, where all steps of a rating are tasks (`lifelong.offline.data.grades`).

    rmse            root mean squared error of the expected rating
    mae             its mean absolute error
    rmse_of_mean    root mean squared error of a constant, the mean rating of the training examples

Shapes: N examples, T tasks, U users, R resamples.
"""

from __future__ import annotations

import numpy as np

from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray
from lifelong.offline.data.grades import expected_rating
from lifelong.offline.evaluation.metrics import sigmoid
from lifelong.offline.evaluation.results import Estimate
from lifelong.offline.evaluation.significance import interval, resampled_sums


def graded_metrics(
    dataset: Dataset, examples: Examples, logit_NT: FloatArray, *, resamples: int, seed: int
) -> dict[str, Estimate]:
    """The metrics with intervals by bootstrap over users; none where no rating is graded.

    Args:
        dataset: its schema has the grades; its training examples give the mean rating.
        examples: what was scored.
        logit_NT: logits of every task.
        resamples: of users.
        seed: of the resampling.
    """
    tasks, grades = dataset.schema.tasks, dataset.schema.grades
    if not grades or not len(examples):
        return {}
    rating_N = expected_rating(tasks, grades, examples.label_NT)
    mean = float(expected_rating(tasks, grades, dataset.examples("train").label_NT).mean())
    gap_N = expected_rating(tasks, grades, sigmoid(logit_NT)) - rating_N
    columns_NX = np.stack([np.ones(len(rating_N)), gap_N**2, np.abs(gap_N), (mean - rating_N) ** 2], axis=1)
    whole, drawn = map(_from_sums, resampled_sums(columns_NX, examples.user_N, resamples=resamples, seed=seed))
    found = {}
    for name, (value,) in whole.items():
        low, high = interval(drawn[name]) if resamples else (None, None)
        found[name] = Estimate(value=float(value), low=low, high=high)
    return found


def _from_sums(sums_RX: FloatArray) -> dict[str, FloatArray]:
    number, squared, absolute, constant = sums_RX.T
    return {
        "rmse": np.sqrt(squared / number),
        "mae": absolute / number,
        "rmse_of_mean": np.sqrt(constant / number),
    }
