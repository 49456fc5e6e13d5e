"""From logits to probabilities: an increasing map fitted on validation, then a shift to the world's rate of positives.

    calibrated logit = a * log p - above * log(1 - p) + b,  p = sigmoid(logit)      at the rate of positives of the fit
    probability = sigmoid(calibrated logit + log-odds(base rate) - log-odds(sampled rate))

The slope of the map is `a` for very negative logits and `above` for very positive ones; if both are equal, the map is
a * logit + b. Where negatives are sampled, the rate of the fit is the sampler's, and there are no probabilities without
a base rate.

Source: beta calibration, Kull, Silva Filho and Flach, AISTATS 2017; with equal slopes, Platt, 1999.
"""

from __future__ import annotations

import math
import operator
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from lifelong.dtypes import FloatArray
from lifelong.errors import UsageError

Rate = Annotated[float, Field(gt=0, lt=1)]
NO_BASE_RATE = (
    "negatives were sampled, so the rate of positives in the world is not known; state a base rate to get probabilities"
)
NO_CALIBRATOR = "this artifact has no calibrator: none could be fitted on its validation examples"


class Calibrator(BaseModel):
    """The fitted map; applying it needs no torch.

    >>> calibrator = Calibrator(a=1.0, b=0.0, sampled_rate=0.5)
    >>> calibrator.probability([0.0], base_rate=0.1)[0].round(3).tolist()
    [0.1]
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    a: Annotated[float, Field(gt=0)]
    """Slope for low logits; positive, so that the order stays."""
    above: Annotated[float, Field(gt=0)] | None = Field(default=None, exclude_if=operator.not_)
    """Slope for high logits; `a` if None."""
    b: float
    """Intercept, in logits."""
    sampled_rate: Rate
    """Share of positives among the examples of the fit."""
    base_rate: Rate | None = None
    """Share of positives in the world; equal to `sampled_rate` where labels are logged, None where it is not known."""

    def logit(self, logit: npt.ArrayLike) -> FloatArray:
        """Calibrated logits, at the rate of positives of the fit; any shape."""
        raw = np.asarray(logit, np.float64)
        calibrated: FloatArray = self.a * raw + self.b
        if self.above is not None:
            # -log(1 - p) is log(1 + exp(logit)), and log p is the logit less that. In this form nothing overflows.
            calibrated += (self.above - self.a) * np.logaddexp(0, raw)
        return calibrated

    def probability(self, logit: npt.ArrayLike, base_rate: float | None = None) -> tuple[FloatArray | None, str | None]:
        """Probabilities at a base rate, or the reason why there are none.

        Args:
            logit: raw logits of the model, any shape.
            base_rate: share of positives in the world; the calibrator's own if None.

        Returns:
            (probabilities, None), or (None, reason).

        Raises:
            UsageError: the base rate is not between 0 and 1.
        """
        rate = self.base_rate if base_rate is None else base_rate
        if rate is None:
            return None, NO_BASE_RATE
        if isinstance(rate, str) or not 0 < rate < 1:
            raise UsageError(
                f"a base rate of {rate}",
                expected="a share between 0 and 1, without the ends",
                fix="give the share of positives in production, such as 0.02",
            )
        return _sigmoid(self.logit(logit) + _log_odds(rate) - _log_odds(self.sampled_rate)), None


def _log_odds(rate: float) -> float:
    return math.log(rate) - math.log1p(-rate)


def _sigmoid(logit: FloatArray) -> FloatArray:
    # tanh does not overflow, exp does.
    probability: FloatArray = 0.5 * (1 + np.tanh(0.5 * logit))
    return probability
