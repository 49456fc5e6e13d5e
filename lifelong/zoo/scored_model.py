"""Models that rank by a score of their own; the logit is a rising function of it.

    logit = slope log(score + floor) + bias          slope > 0 and bias by logistic regression on training examples

So the order of items is that of the score, as its authors rank, and the log loss is that of a probability.

Shapes: N examples, T tasks.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import labelled_training_examples
from lifelong.dtypes import FloatArray
from lifelong.offline.models.fitted_model import FittedModel

_EXAMPLES = 50_000
"""Training examples that the logit is fitted on."""
_LEAST_SLOPE = 1e-6


class ScoredModel(FittedModel):
    """A subclass learns something, keeps it in `learned`, and gives a score that is 0 or more."""

    learns_from_negatives = False
    floor: ClassVar[float]
    """Added to the score before its logarithm is taken."""

    @abstractmethod
    def learn(self, dataset: Dataset, *, seed: int) -> dict[str, npt.NDArray[Any]]:
        """What is kept of the training period, as named arrays."""

    @abstractmethod
    def scores(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """A score of each example, 0 or more, from the events before its position and from what was learned: `[N]`."""

    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Learn, then fit the logit."""
        self.learned.update(self.learn(dataset, seed=seed))
        examples = labelled_training_examples(dataset, seed=seed, limit=_EXAMPLES)
        value_N1 = self._logs(dataset, examples)[:, None]
        fits = [fit_logistic(value_N1, label_N, l2=1.0) for label_N in np.asarray(examples.label_NT, np.float64).T]
        self.learned["slope"] = np.array([max(float(slope[0]), _LEAST_SLOPE) for slope, _ in fits])
        self.learned["bias"] = np.array([bias for _, bias in fits])

    def predict(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Logits `[N, T]`."""
        logit_NT: FloatArray = self._logs(dataset, examples)[:, None] * self.learned["slope"] + self.learned["bias"]
        return logit_NT

    def _logs(self, dataset: Dataset, examples: Examples) -> FloatArray:
        logs: FloatArray = np.log(self.scores(dataset, examples) + self.floor)
        return logs


def fit_logistic(value_NK: FloatArray, label_N: FloatArray, *, l2: float) -> tuple[FloatArray, float]:
    """Weights `[K]` and bias of an L2-regularised logistic regression (the bias is not regularised).

    Args:
        value_NK: standardised inputs.
        label_N: 0 to 1; scikit-learn's takes classes alone.
        l2: minimised is the summed log loss + l2 / 2 times the squared weights.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    row_NX = np.column_stack([value_NK, np.ones(len(value_NK))])
    # A regularised bias would pull predictions towards one half, whatever the share of positives is.
    penalty_X = np.append(np.full(value_NK.shape[1], l2), 0.0)

    def loss(weight_X: FloatArray) -> tuple[float, FloatArray]:
        logit_N = row_NX @ weight_X
        # From logits: a probability that rounds to 0 or 1 would make the loss infinite.
        value = np.logaddexp(0.0, logit_N).sum() - label_N @ logit_N + penalty_X @ weight_X**2 / 2
        return float(value), row_NX.T @ (expit(logit_N) - label_N) + penalty_X * weight_X

    def curvature(weight_X: FloatArray) -> FloatArray:
        share_N = expit(row_NX @ weight_X)
        curvature_XX: FloatArray = (row_NX * (share_N * (1 - share_N))[:, None]).T @ row_NX + np.diag(penalty_X)
        return curvature_XX

    # The gradient is a sum over examples, so that the precision asked for grows with their number.
    start_X, precision = np.zeros(len(penalty_X)), 1e-6 * max(1, len(label_N))
    weight_X = minimize(loss, start_X, jac=True, hess=curvature, method="trust-exact", options={"gtol": precision}).x
    return weight_X[:-1], float(weight_X[-1])
