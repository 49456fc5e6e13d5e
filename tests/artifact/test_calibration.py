"""Logits to probabilities."""

import numpy as np
import pytest
from pydantic import ValidationError

from lifelong.artifact.calibration import Calibrator
from lifelong.errors import UsageError


def test_without_a_base_rate_there_is_a_reason_and_no_probability():
    probability, reason = Calibrator(a=1, b=0, sampled_rate=0.5).probability([0.0])
    assert probability is None
    assert "base rate" in reason


def test_where_labels_are_logged_the_calibrated_logit_is_the_answer():
    calibrator = Calibrator(a=2, b=1, sampled_rate=0.1, base_rate=0.1)
    probability, reason = calibrator.probability([0.0, -0.5])
    assert reason is None
    np.testing.assert_allclose(probability, [1 / (1 + np.exp(-1)), 0.5])


def test_the_mean_at_even_odds_becomes_the_stated_rate():
    # A score that says nothing: at one negative per positive it means 1/2, in the world the base rate.
    probability, _ = Calibrator(a=1, b=0, sampled_rate=0.5).probability(np.zeros((2, 3)), 0.02)
    np.testing.assert_allclose(probability, np.full((2, 3), 0.02))


def test_the_shift_is_bayes_rule():
    # Densities 0.8 and 0.2 at this score: log-odds log(4) at even odds.
    probability, _ = Calibrator(a=1, b=0, sampled_rate=0.5).probability([np.log(4)], 0.1)
    np.testing.assert_allclose(probability, 0.1 * 0.8 / (0.1 * 0.8 + 0.9 * 0.2))


def test_a_stated_rate_wins_over_the_stored_one():
    calibrator = Calibrator(a=1, b=0, sampled_rate=0.5, base_rate=0.3)
    assert calibrator.probability([0.0], 0.2)[0] == pytest.approx(0.2)


def test_huge_logits_stay_probabilities():
    probability, _ = Calibrator(a=1, b=0, sampled_rate=0.5, base_rate=0.5).probability([-1e6, 1e6])
    assert probability.tolist() == [0, 1]


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(UsageError, match="base rate"):
        Calibrator(a=1, b=0, sampled_rate=0.5).probability([0.0], rate)


@pytest.mark.parametrize("change", [{"a": 0}, {"a": -1}, {"sampled_rate": 1}, {"b": float("nan")}, {"c": 1}])
def test_a_map_that_turns_ranks_around_or_is_no_number_is_refused(change):
    with pytest.raises(ValidationError):
        Calibrator(**{"a": 1, "b": 0, "sampled_rate": 0.5, **change})
