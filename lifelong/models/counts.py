"""Counts: logistic regression on how often, and how long ago, the target's fields occurred in the history.

The strong baseline: exact counts, without embeddings or a sequence model (`lifelong.data.counts`). Every comparison
includes it.

State: the counts and the last time of every value of every item field in the history. It grows with the history, so no
service keeps it.

Shapes: N examples, K features, T tasks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt

from lifelong.data.counts import count_inputs, standardising
from lifelong.data.dataset import Dataset
from lifelong.data.events import InputSpec
from lifelong.data.examples import Examples
from lifelong.data.negatives import labelled_training_examples
from lifelong.dtypes import FloatArray
from lifelong.models.base import FittedModel
from lifelong.models.settings import setting
from lifelong.nn.logistic import fit_logistic


@dataclass(frozen=True)
class CountsConfig:
    """Settings of `counts`."""

    max_examples: PositiveInt = setting(200_000, "training examples at most, negatives included, chosen at random")
    l2: NonNegativeFloat = setting(1.0, "half of this times the squared weights is added to the summed log loss")


class Counts(FittedModel):
    """A linear model of log counts and log distances."""

    Config = CountsConfig
    title = "Counts"
    source = "baseline"
    state = "counters"
    not_served = "it counts in the raw history"
    not_continued = "its loss has one minimum, which a fit finds from anywhere"

    def __init__(self, inputs: InputSpec, config: CountsConfig) -> None:
        super().__init__(inputs)
        self.config: CountsConfig = config
        self.mean_K: FloatArray = np.zeros(0)
        self.scale_K: FloatArray = np.ones(0)
        self.weight_TK: FloatArray = np.zeros((len(inputs.tasks), 0))
        self.bias_T: FloatArray = np.zeros(len(inputs.tasks))

    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Fit on training examples and, where they are positives alone, drawn negatives."""
        examples = labelled_training_examples(dataset, seed=seed, limit=self.config.max_examples)
        value_NK = count_inputs(dataset, examples)
        self.mean_K, self.scale_K = standardising(value_NK)
        value_NK = (value_NK - self.mean_K) * self.scale_K
        fits = [
            fit_logistic(value_NK, label_N, l2=self.config.l2) for label_N in np.asarray(examples.label_NT, float).T
        ]
        self.weight_TK, self.bias_T = np.stack([weight for weight, _ in fits]), np.array([bias for _, bias in fits])

    def predict(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Logits `[N, T]`."""
        value_NK = (count_inputs(dataset, examples) - self.mean_K) * self.scale_K
        logit_NT: FloatArray = value_NK @ self.weight_TK.T + self.bias_T
        return logit_NT

    def save(self, folder: Path) -> None:
        """Write `counts.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {"inputs": asdict(self.inputs), **asdict(self.config)}
        fitted = {name: getattr(self, name).tolist() for name in _FITTED}
        (folder / "counts.json").write_text(json.dumps({**record, **fitted}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Counts:
        """Read what `save` wrote."""
        record = json.loads((folder / "counts.json").read_text())
        model = cls(InputSpec(**record["inputs"]), CountsConfig(record["max_examples"], record["l2"]))
        for name in _FITTED:
            setattr(model, name, np.array(record[name]))
        return model


_FITTED = ("mean_K", "scale_K", "weight_TK", "bias_T")
