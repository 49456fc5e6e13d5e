"""Counts: logistic regression on how often, and how long ago, the target's fields stand in the history.

The upper floor: no embedding, no sequence, exact counts (`lifelong.data.counts`). Every comparison shows it.

State: for every value of every item field that the user met its counts and its last time. It grows with the history,
and no service keeps it.

Shapes: N examples, K features, T tasks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lifelong.data.counts import count_inputs, standardising
from lifelong.data.events import InputSpec
from lifelong.data.labelled import labelled_training_examples
from lifelong.models.base import FittedModel

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CountsConfig:
    """Settings of `counts`."""

    max_examples: Annotated[int, Field(gt=0)] = field(
        default=200_000, metadata={"help": "training examples at most, negatives included, chosen at random"}
    )
    l2: Annotated[float, Field(ge=0)] = field(
        default=1.0, metadata={"help": "half of this times the squared weights is added to the summed log loss"}
    )


class Counts(FittedModel):
    """A linear model of log counts and log distances."""

    Config = CountsConfig
    title = "Counts"
    source = "floor"
    state = "counters"
    not_served = "it counts in the raw history"
    not_continued = "its loss has one minimum, which a fit finds from anywhere"

    def __init__(self, inputs: InputSpec, *, max_examples: int = 200_000, l2: float = 1.0) -> None:
        super().__init__(inputs)
        self.max_examples, self.l2 = max_examples, l2
        self.mean_K: FloatArray = np.zeros(0)
        self.scale_K: FloatArray = np.ones(0)
        self.weight_TK: FloatArray = np.zeros((len(inputs.tasks), 0))
        self.bias_T: FloatArray = np.zeros(len(inputs.tasks))

    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Fit on training examples and, where they are positives alone, drawn negatives."""
        examples = labelled_training_examples(dataset, seed=seed, limit=self.max_examples)
        value_NK = count_inputs(dataset, examples)
        self.mean_K, self.scale_K = standardising(value_NK)
        value_NK = (value_NK - self.mean_K) * self.scale_K
        fits = [fit_logistic(value_NK, label_N, l2=self.l2) for label_N in np.asarray(examples.label_NT, float).T]
        self.weight_TK, self.bias_T = np.stack([weight for weight, _ in fits]), np.array([bias for _, bias in fits])

    def predict(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Logits `[N, T]`."""
        value_NK = (count_inputs(dataset, examples) - self.mean_K) * self.scale_K
        logit_NT: FloatArray = value_NK @ self.weight_TK.T + self.bias_T
        return logit_NT

    def save(self, folder: Path) -> None:
        """Write `counts.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {"inputs": asdict(self.inputs), "max_examples": self.max_examples, "l2": self.l2}
        fitted = {name: getattr(self, name).tolist() for name in _FITTED}
        (folder / "counts.json").write_text(json.dumps({**record, **fitted}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Counts:
        """Read what `save` wrote."""
        record = json.loads((folder / "counts.json").read_text())
        model = cls(InputSpec(**record["inputs"]), max_examples=record["max_examples"], l2=record["l2"])
        for name in _FITTED:
            setattr(model, name, np.array(record[name]))
        return model


_ROWS_AT_ONCE = 4096
_FITTED = ("mean_K", "scale_K", "weight_TK", "bias_T")


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
