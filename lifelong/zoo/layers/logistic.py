"""Logistic regression.

Shapes: N examples, K inputs.
"""

from __future__ import annotations

import numpy as np

from lifelong.dtypes import FloatArray


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
