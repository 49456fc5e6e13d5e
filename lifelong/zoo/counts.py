"""Counts: logistic regression on how often, and how long ago, the target's fields occurred in the history.

The strong baseline: exact counts, without embeddings or a sequence model (`lifelong.offline.data.counts`). Every
comparison includes it.

State: the counts and the last time of every value of every item field in the history. It grows with the history, so no
service keeps it.

Shapes: N examples, K features, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt

from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import labelled_training_examples
from lifelong.dtypes import FloatArray
from lifelong.offline.data.counts import count_inputs, standardising
from lifelong.offline.models.base import FittedModel, setting
from lifelong.zoo.scored_model import fit_logistic


@dataclass(frozen=True)
class CountsConfig:
    """Settings of `counts`."""

    max_examples: PositiveInt = setting(200_000, "training examples at most, negatives included, chosen at random")
    l2: NonNegativeFloat = setting(1.0, "half of this times the squared weights is added to the summed log loss")


class Counts(FittedModel):
    """A linear model of log counts and log distances."""

    Config = CountsConfig
    config: CountsConfig
    title = "Counts"
    source = "baseline"
    state = "counters"
    not_served = "it counts in the raw history"

    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Fit on training examples and, where they are positives alone, drawn negatives."""
        examples = labelled_training_examples(dataset, seed=seed, limit=self.config.max_examples)
        value_NK = count_inputs(dataset, examples)
        mean_K, scale_K = standardising(value_NK)
        value_NK = (value_NK - mean_K) * scale_K
        fits = [
            fit_logistic(value_NK, label_N, l2=self.config.l2) for label_N in np.asarray(examples.label_NT, float).T
        ]
        weight_TK, bias_T = np.stack([weight for weight, _ in fits]), np.array([bias for _, bias in fits])
        self.learned.update({"mean": mean_K, "scale": scale_K, "weight": weight_TK, "bias": bias_T})

    def predict(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Logits `[N, T]`."""
        found = self.learned
        value_NK = (count_inputs(dataset, examples) - found["mean"]) * found["scale"]
        logit_NT: FloatArray = value_NK @ found["weight"].T + found["bias"]
        return logit_NT
