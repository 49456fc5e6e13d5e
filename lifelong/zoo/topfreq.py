"""TopFreq: the user's most frequent items; a lower bound for all models of repeat consumption.

P-TopFreq and GP-TopFreq of Li, Jullien, Ariannezhad and de Rijke, "A Next Basket Recommendation Reality Check", ACM
TOIS 2023: the user's items ranked by how many of the user's baskets contained them, followed in GP-TopFreq by all other
items ranked by their number of events in training. Here popularity also breaks ties between the user's own items.

    score = baskets of the user with the item + popularity, which is below 1          popularity 0 for P-TopFreq

State: how often the user had each item. It grows with the history.

Shapes: N examples, V item numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray
from lifelong.offline.data.counts import target_counts
from lifelong.offline.models.settings import setting
from lifelong.zoo.inputs.baskets import basket_weights, by_moment
from lifelong.zoo.scored_model import ScoredModel

_MOMENTS = 4096


@dataclass(frozen=True)
class TopFreqConfig:
    """Settings of `topfreq`."""

    everyone: bool = setting(True, "items that a user had equally often are ordered by popularity (GP-TopFreq)")


class TopFreq(ScoredModel):
    """One count."""

    Config = TopFreqConfig
    title: str = "GP-TopFreq"
    source = "Li et al., TOIS 2023"
    state = "counters"
    floor: ClassVar[float] = 0.01

    def __init__(self, inputs: Any, config: TopFreqConfig) -> None:
        super().__init__(inputs, config)
        self.title = "GP-TopFreq" if config.everyone else "P-TopFreq"

    def learn(self, dataset: Dataset, *, seed: int) -> dict[str, npt.NDArray[Any]]:
        """Popularity of each number, below 1."""
        count_V = target_counts(dataset)["item"]
        # Below 1, so that popularity orders items of equal counts and never outweighs a count.
        return {"popularity": count_V / (count_V.max(initial=0) + 1)}

    def scores(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Count of the user's own baskets, and popularity."""
        rows, row_N = len(dataset.catalogue), np.asarray(examples.row_N)
        row_V = np.where(np.arange(rows) >= FIRST_ROW, np.arange(rows), -1)
        score_N = np.zeros(len(examples))
        for chosen_N, moment_N, moments in by_moment(examples, _MOMENTS):
            own = basket_weights(dataset.histories, moments, row_V, rows, lambda age, number: np.ones(len(age)))
            score_N[chosen_N] = np.asarray(own[moment_N, row_N[chosen_N]]).reshape(-1)
        if self.config.everyone:
            score_N += self.learned["popularity"][dataset.catalogue.number_VF[row_N, 0]]
        return score_N
