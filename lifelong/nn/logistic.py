"""Logistic regression, by Newton's method.

Shapes: N examples, K inputs.
"""

from __future__ import annotations

import numpy as np

from lifelong.dtypes import FloatArray

_ROWS_AT_ONCE = 4096


def fit_logistic(value_NK: FloatArray, label_N: FloatArray, *, l2: float) -> tuple[FloatArray, float]:
    """Weights `[K]` and bias of an L2-regularised logistic regression (the bias is not regularised).

    Newton's method with halved steps where a whole one would lead uphill; a handful of passes over the data.

    Args:
        value_NK: standardised inputs.
        label_N: 0 to 1.
        l2: minimised is the summed log loss + l2 / 2 times the squared weights.
    """
    width = value_NK.shape[1]
    penalty_K = np.append(np.full(width, l2), 0.0)
    parameter_K, loss = np.zeros(width + 1), np.inf
    step_K = np.zeros(width + 1)
    for _ in range(100):
        proposed_K = parameter_K - step_K
        logit_N = value_NK @ proposed_K[:-1] + proposed_K[-1]
        proposed_loss = _loss(logit_N, label_N) + penalty_K @ proposed_K**2 / 2
        if proposed_loss > loss:
            step_K /= 2
            continue
        gain, parameter_K, loss = loss - proposed_loss, proposed_K, proposed_loss
        if gain < 1e-9 * len(label_N):
            break
        step_K = _newton_step(value_NK, logit_N, label_N, penalty_K, parameter_K)
    return parameter_K[:-1], float(parameter_K[-1])


def _loss(logit_N: FloatArray, label_N: FloatArray) -> float:
    return float(np.logaddexp(0.0, logit_N).sum() - label_N @ logit_N)


def _newton_step(
    value_NK: FloatArray, logit_N: FloatArray, label_N: FloatArray, penalty_K: FloatArray, parameter_K: FloatArray
) -> FloatArray:
    """Inverse Hessian times gradient of the summed loss; the last parameter is the bias."""
    gradient_K = penalty_K * parameter_K
    # A little on the diagonal keeps a column that never varies from making the system singular.
    hessian_KK = np.diag(penalty_K + 1e-6)
    for start in range(0, len(label_N), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        rows_NK = np.concatenate([value_NK[part], np.ones((len(logit_N[part]), 1))], axis=1)
        probability_N = 0.5 * (1 + np.tanh(logit_N[part] / 2))
        gradient_K = gradient_K + rows_NK.T @ (probability_N - label_N[part])
        # Single precision will do here: the Hessian only steers, where the minimum lies is the gradient's business.
        scaled_NK = (rows_NK * np.sqrt(probability_N * (1 - probability_N))[:, None]).astype(np.float32)
        hessian_KK += scaled_NK.T @ scaled_NK
    return np.asarray(np.linalg.solve(hessian_KK, gradient_K), np.float64)
