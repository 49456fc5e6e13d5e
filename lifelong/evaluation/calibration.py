"""Fit the map from logits to probabilities on validation examples.

`probability = sigmoid(slope * logit + intercept)` at the base rate of the examples it was fitted on (Platt, 1999).
Where negatives were sampled, that rate is the sampler's and not the world's: the calibrator stores it, and shifts the
log-odds to a stated base rate when it is applied.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lifelong.artifact.calibration import Calibrator
from lifelong.evaluation import metrics
from lifelong.evaluation.metrics import FloatArray, Sample


def fit_calibrator(logit: npt.ArrayLike, label: npt.ArrayLike, *, logged: bool = False) -> Calibrator | None:
    """The rising affine map of logits with the least log loss.

    Labels are smoothed as Platt did, by one example of the other class, so that perfectly separated scores keep a
    finite slope.

    Args:
        logit: of validation examples.
        label: theirs, in `[0, 1]`.
        logged: the labels are logged responses, so their share of positives is the world's and not a sampler's.

    Returns:
        The calibrator; None where all labels or all logits are equal, or where no rising map does better than the base
        rate alone.
    """
    sample = Sample.of(label, logit)
    rate = float(sample.label.mean()) if len(sample) else 0.0
    if not 0 < rate < 1 or np.ptp(sample.logit) == 0:
        return None
    slope, intercept = _minimise(sample)
    if slope <= 0:
        return None
    return Calibrator(a=slope, b=intercept, sampled_rate=rate, base_rate=rate if logged else None)


def calibration_errors(calibrator: Calibrator, logit: npt.ArrayLike, label: npt.ArrayLike) -> tuple[float, float]:
    """Expected calibration error of the raw and of the calibrated logits."""
    return metrics.ece(label, logit), metrics.ece(label, calibrator.logit(logit))


def _minimise(sample: Sample) -> tuple[float, float]:
    from scipy.optimize import minimize

    # Standardised logits make one step length right for both parameters.
    centre, scale = float(sample.logit.mean()), float(sample.logit.std())
    x = (sample.logit - centre) / scale
    positives = float(sample.label.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (len(sample) - positives + 2)
    soft = low + sample.label * (high - low)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        z = parameters[0] * x + parameters[1]
        gap = metrics.sigmoid(z) - soft
        return float((np.logaddexp(0, z) - soft * z).mean()), np.array([(gap * x).mean(), gap.mean()])

    rate = float(soft.mean())
    start = np.array([scale, math.log(rate / (1 - rate))])
    slope, intercept = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return float(slope / scale), float(intercept - slope * centre / scale)
