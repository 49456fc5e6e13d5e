"""How far the expected rating is from the rating, where all steps of a rating are tasks (`lifelong.data.ratings`).

    rmse            root of the mean squared error of the expected rating
    mae             mean absolute error of it
    rmse_of_mean    root of the mean squared error of one number for all, the mean rating of the training examples

Shapes: N examples, T tasks, U users, R resamples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lifelong.data.ratings import expected_rating
from lifelong.evaluation.metrics import FloatArray, sigmoid
from lifelong.evaluation.results import Estimate
from lifelong.evaluation.significance import draw_weights, interval

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples


def graded_metrics(
    dataset: Dataset, examples: Examples, logit_NT: FloatArray, *, resamples: int, seed: int
) -> dict[str, Estimate]:
    """The metrics with intervals by bootstrap over users; none where no rating is graded.

    Args:
        dataset: whose schema has the grades, and whose training examples the mean.
        examples: what was scored.
        logit_NT: of every task.
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
    users, place_N = np.unique(np.asarray(examples.user_N), return_inverse=True)
    sums_UX = np.zeros((len(users), columns_NX.shape[1]))
    np.add.at(sums_UX, place_N, columns_NX)
    drawn_RX = draw_weights(len(users), resamples, np.random.default_rng(seed)) @ sums_UX
    whole, drawn = _from_sums(sums_UX.sum(axis=0, keepdims=True)), _from_sums(drawn_RX)
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
