"""Errors of the expected rating."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("scipy")

from lifelong.dataset.examples import Examples
from lifelong.offline.evaluation.graded import graded_metrics
from lifelong.testing.datasets import tiny_dataset


def rated(rating_N: list[float]) -> Examples:
    """Ratings of 1, 2 or 4 as steps; two users take turns."""
    label_NT = np.array([[rating >= 2, rating >= 4] for rating in rating_N], np.float32)
    zeros = np.zeros(len(rating_N), np.int32)
    return Examples((np.arange(len(rating_N)) % 2).astype(np.int32), zeros, zeros.astype(np.int64), zeros, label_NT)


@pytest.fixture
def dataset(tmp_path):
    made = copy.copy(tiny_dataset(tmp_path / "data", num_users=4))
    schema = made.schema.model_copy(update={"tasks": ("rating_2", "rating_4"), "grades": (1.0, 2.0, 4.0)})
    made.__dict__["manifest"] = made.manifest.model_copy(update={"dataset_schema": schema})
    made.examples = lambda split: rated([1, 4, 4])
    return made


def test_errors_are_those_of_the_expectation_over_the_steps(dataset) -> None:
    probability_NT = np.array([[0.5, 0.25], [0.9, 0.8], [0.2, 0.1], [0.99, 0.5]])
    logit_NT = np.log(probability_NT / (1 - probability_NT))
    expected = np.array([1 + p + 2 * q for p, q in probability_NT])
    truth = np.array([1.0, 4.0, 2.0, 4.0])
    found = graded_metrics(dataset, rated(truth.tolist()), logit_NT, resamples=200, seed=0)
    assert found["rmse"].value == pytest.approx(np.sqrt(np.mean((expected - truth) ** 2)))
    assert found["mae"].value == pytest.approx(np.mean(np.abs(expected - truth)))
    # The mean rating of the training examples is 3.
    assert found["rmse_of_mean"].value == pytest.approx(np.sqrt(np.mean((3 - truth) ** 2)))
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high
    # Users are resampled whole: only the first one, only the second, or both.
    users = [np.sqrt(np.mean((expected - truth)[at::2] ** 2)) for at in (0, 1)]
    assert (found["rmse"].low, found["rmse"].high) == pytest.approx((min(users), max(users)))


def test_certain_and_right_is_no_error(dataset) -> None:
    examples = rated([1, 2, 4])
    found = graded_metrics(dataset, examples, np.where(examples.label_NT > 0, 50.0, -50.0), resamples=0, seed=0)
    assert (found["rmse"].value, found["mae"].value) == pytest.approx((0, 0), abs=1e-12)
    assert found["rmse"].low is None


def test_without_grades_there_is_nothing_to_measure(tmp_path) -> None:
    plain = tiny_dataset(tmp_path / "plain", num_users=4)
    assert graded_metrics(plain, plain.examples("test"), np.zeros((1, 1)), resamples=10, seed=0) == {}
