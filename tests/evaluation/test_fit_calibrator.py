import numpy as np
import pytest

from lifelong.offline.evaluation.calibration import calibration_errors, fit_calibrator
from lifelong.offline.evaluation.metrics import log_loss, sigmoid

pytest.importorskip("scipy")


def labelled(slope, intercept, *, examples=20_000):
    """Logits, and labels that follow sigmoid(slope * logit + intercept)."""
    rng = np.random.default_rng(0)
    logit = rng.normal(1.0, 2.0, examples)
    return logit, (rng.random(examples) < sigmoid(slope * logit + intercept)).astype(float)


def test_the_map_that_made_the_labels_is_found():
    logit, label = labelled(0.5, -1.0)
    calibrator = fit_calibrator(logit, label)
    assert calibrator.a == pytest.approx(0.5, abs=0.03)
    assert calibrator.b == pytest.approx(-1.0, abs=0.05)


def test_scores_that_are_too_sure_on_one_side_alone_are_mended_there():
    rng = np.random.default_rng(1)
    logit = rng.normal(0.0, 2.5, 60_000)
    true = np.where(logit > 0, 0.5 * logit, logit)
    label = (rng.random(len(logit)) < sigmoid(true)).astype(float)
    calibrator = fit_calibrator(logit, label)
    assert calibrator.above < 0.65 < 0.85 < calibrator.a
    affine = calibrator.model_copy(update={"above": None, "a": np.polyfit(logit, true, 1)[0], "b": true.mean()})
    assert log_loss(label, calibrator.logit(logit)) < log_loss(label, affine.logit(logit)) - 0.001
    ranks = np.argsort(logit)
    assert (np.diff(calibrator.logit(logit)[ranks]) > 0).all()


def test_a_map_that_would_fall_on_one_side_is_affine():
    rng = np.random.default_rng(2)
    logit = rng.normal(0.0, 2.0, 20_000)
    label = (rng.random(len(logit)) < sigmoid(np.where(logit > 0, -0.2 * logit, logit))).astype(float)
    calibrator = fit_calibrator(logit, label)
    assert calibrator.above is None and calibrator.a > 0


def test_calibration_lowers_the_error_and_the_loss():
    logit, label = labelled(0.3, 1.0)
    calibrator = fit_calibrator(logit, label)
    before, after = calibration_errors(calibrator, logit, label)
    assert after < 0.02 < before
    assert log_loss(label, calibrator.logit(logit)) < log_loss(label, logit)


def test_a_sampled_rate_is_kept_apart_from_the_worlds():
    logit, label = labelled(1.0, 0.0)
    sampled, logged = fit_calibrator(logit, label), fit_calibrator(logit, label, logged=True)
    assert sampled.sampled_rate == logged.sampled_rate == label.mean()
    assert (sampled.base_rate, logged.base_rate) == (None, label.mean())


def test_at_another_base_rate_the_probabilities_average_to_it():
    logit, label = labelled(1.0, -0.5)
    probability, _ = fit_calibrator(logit, label).probability(logit, base_rate=0.01)
    # Weighing the sampled positives and negatives as they occur in a world with 1 % positives.
    share = label.mean()
    weight = np.where(label == 1, 0.01 / share, 0.99 / (1 - share))
    assert np.average(probability, weights=weight) == pytest.approx(0.01, rel=0.1)


def test_separated_scores_keep_a_finite_slope():
    calibrator = fit_calibrator([-1.0] * 50 + [1.0] * 50, [0] * 50 + [1] * 50)
    assert 1 < calibrator.a < 10


@pytest.mark.parametrize(
    ("logit", "label"),
    [([1.0, 2.0], [1, 1]), ([], []), ([1.0, 1.0, 1.0], [0, 1, 1]), ([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0])],
    ids=["one class", "no examples", "equal logits", "worse than chance"],
)
def test_there_is_no_calibrator_where_none_helps(logit, label):
    assert fit_calibrator(logit, label) is None
