"""Popularity: how often users responded to an item in the training period, the same for every user. The weak baseline.

If labels are logged, it is the item's smoothed response rate, as log-odds. If negatives are sampled, the rate only
reflects the sampling rule, so the score is the log of the item's smoothed number of responses. With negatives sampled
by popularity its AUC is therefore near one half.

State: nothing, as it knows nothing of users.

Shapes: N examples, V item numbers, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import PositiveFloat

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray
from lifelong.offline.models.base import FittedModel, setting


@dataclass(frozen=True)
class PopularityConfig:
    """Settings of `popularity`."""

    smoothing: PositiveFloat = setting(10.0, "examples of average response that every item is given beforehand")


class Popularity(FittedModel):
    """One number per item."""

    Config = PopularityConfig
    config: PopularityConfig
    title = "Popularity"
    source = "baseline"
    state = "nothing"
    learns_from_negatives = False
    not_served = "it knows nothing of users"

    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Count the responses of the training examples by item number."""
        del seed
        examples, size = dataset.examples("train"), self.inputs.item["item"]
        number_N = dataset.catalogue.number_VF[examples.row_N, 0]
        label_NT = np.asarray(examples.label_NT, np.float64)
        positive_VT = np.stack([np.bincount(number_N, task, size) for task in label_NT.T], axis=1)
        shown_V = np.bincount(number_N, minlength=size)[:, None].astype(np.float64)
        if dataset.manifest.negatives.drawn_in_training:
            # Rare items share a hash bucket: what one of them is worth is the bucket's mean.
            items_V = np.bincount(dataset.catalogue.number_VF[FIRST_ROW:, 0], minlength=size)[:, None]
            mean_VT = positive_VT / np.maximum(items_V, 1)
            prior = positive_VT.sum(axis=0) / max(1, items_V.sum())
            self.learned["logit"] = np.log(mean_VT + prior) - np.log(2 * prior)
            return
        prior = (label_NT.sum(axis=0) + 1) / (len(examples) + 2)
        rate_VT = (positive_VT + self.config.smoothing * prior) / (shown_V + self.config.smoothing)
        self.learned["logit"] = np.log(rate_VT) - np.log1p(-rate_VT)

    def predict(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Logits `[N, T]`."""
        logit_NT: FloatArray = self.learned["logit"][dataset.catalogue.number_VF[examples.row_N, 0]]
        return logit_NT
