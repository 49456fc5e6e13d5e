"""Fit the map from logits to probabilities on validation examples.

`lifelong.artifact.calibration` has the map: that of beta calibration, at the base rate of the examples it is fitted on.
Where negatives were sampled, that is the rate of the sample and not of responses: the calibrator stores it, and shifts
the log-odds to a given base rate when it is applied.

Source: Kull, Silva Filho, Flach, AISTATS 2017.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from lifelong.artifact.calibration import Calibrator
from lifelong.dtypes import FloatArray
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.metrics import Sample

_SURE = 6.63
"""Twice the log likelihood that a second slope must gain: 99 % point of chi-squared with one degree of freedom."""


def fit_calibrator(logit: npt.ArrayLike, label: npt.ArrayLike, *, logged: bool = False) -> Calibrator | None:
    """The increasing map of logits with the least log loss: affine, or with two slopes where they differ significantly.

    Labels are smoothed by one example of the other class, as Platt did, so that perfectly separated scores get a finite
    slope.

    Args:
        logit: of validation examples.
        label: of these examples, in `[0, 1]`.
        logged: the labels are logged responses, so that their share of positives is the true base rate.

    Returns:
        The calibrator; None where all labels or all logits are equal, or where no increasing map is better than the
        base rate alone.
    """
    sample = Sample.of(label, logit)
    rate = float(sample.label.mean()) if len(sample) else 0.0
    if not 0 < rate < 1 or np.ptp(sample.logit) == 0:
        return None
    # On standardised logits one step length fits all parameters.
    centre, scale = float(sample.logit.mean()), float(sample.logit.std())
    start = np.array([scale, math.log(rate / (1 - rate))])
    affine_loss, (of_scale, shift) = _minimise(sample, ((sample.logit - centre) / scale)[:, None], start)
    slope, intercept = of_scale / scale, shift - of_scale * centre / scale
    if slope <= 0:
        return None
    logs = np.stack([-np.logaddexp(0, -sample.logit), np.logaddexp(0, sample.logit)], axis=1)
    loss, (low, high, between) = _minimise(sample, logs, np.array([slope, slope, intercept]))
    above = None
    if low > 0 and high > 0 and 2 * len(sample) * (affine_loss - loss) > _SURE:
        slope, above, intercept = low, high, between
    return Calibrator(a=slope, above=above, b=intercept, sampled_rate=rate, base_rate=rate if logged else None)


def calibration_errors(calibrator: Calibrator, logit: npt.ArrayLike, label: npt.ArrayLike) -> tuple[float, float]:
    """Expected calibration error of the raw and of the calibrated logits."""
    return metrics.ece(label, logit), metrics.ece(label, calibrator.logit(logit))


def _minimise(sample: Sample, input_NK: FloatArray, start: FloatArray) -> tuple[float, tuple[float, ...]]:
    """The least log loss, and the weights of K inputs and the intercept that reach it."""
    from scipy.optimize import minimize

    positives = float(sample.label.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (len(sample) - positives + 2)
    soft = low + sample.label * (high - low)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        z = input_NK @ parameters[:-1] + parameters[-1]
        gap = metrics.sigmoid(z) - soft
        return float((np.logaddexp(0, z) - soft * z).mean()), np.append(gap @ input_NK / len(gap), gap.mean())

    minimum = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-8})
    return float(minimum.fun), tuple(minimum.x.tolist())
