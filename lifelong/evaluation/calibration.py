"""Fit the map from logits to probabilities on validation examples.

`probability = sigmoid(slope * logit + intercept)` at the base rate of the examples it was fitted on (Platt, 1999).
Where negatives were sampled, that rate is the sampler's and not the world's: the calibrator stores it, and shifts the
log-odds to a stated base rate when it is applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lifelong.evaluation import metrics
from lifelong.evaluation.metrics import FloatArray, Sample


@dataclass(frozen=True, slots=True)
class Affine:
    """A fitted map of logits.

    Args:
        slope: positive, so that ranks stay.
        intercept: in logits.
        rate: share of positives among the examples of the fit.
        ece_before: expected calibration error of `sigmoid(logit)` on them.
        ece_after: the same after the map.
    """

    slope: float
    intercept: float
    rate: float
    ece_before: float
    ece_after: float


def fit_affine(logit: npt.ArrayLike, label: npt.ArrayLike) -> Affine | None:
    """Slope and intercept that minimise the log loss; None with one class, or if a rising map does not help.

    The labels are smoothed as Platt did, by one example of the other class, so that perfectly separated scores keep a
    finite slope.
    """
    sample = Sample.of(label, logit)
    rate = float(sample.label.mean()) if len(sample) else 0.0
    if not 0 < rate < 1:
        return None
    slope, intercept = _minimise(sample)
    if slope <= 0:
        return None
    after = slope * sample.logit + intercept
    return Affine(slope, intercept, rate, metrics.ece(sample.label, sample.logit), metrics.ece(sample.label, after))


def _minimise(sample: Sample) -> tuple[float, float]:
    from scipy.optimize import minimize

    # Standardised logits make one step length right for both parameters.
    centre, scale = float(sample.logit.mean()), float(sample.logit.std()) or 1.0
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
