"""What a list over the catalogue is ordered by: the score, popularity, and counts of each item.

    value = score + popularity * log(1 + n) + sum over fields f and inputs k of counts_fk c_fk

n says how often an item is drawn as a negative in training (`log_popularity`), and c what a memory, or for LightGBM the
whole history, counts of the user's events with the item, its category and so on: `count_inputs`. A model that learns
from drawn negatives says how much more likely an item is than its popularity; the weights 1 and 0 are what follows
from that (sampled softmax, Bengio and Senecal 2008). But drawn negatives are seldom items that the user has, so that
training hardly orders these. The weights are therefore fitted on validation
(`lifelong.offline.evaluation.list_order`).

Shapes: N items, F item fields, K inputs of a field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from lifelong.dtypes import FloatArray, IntArray

HALF_LIVES = (10.0, 50.0, 250.0)
"""In events: by how much a count weighs less with its age."""
DAY_HALF_LIVES = (7.0, 60.0)
"""The same in days."""
INPUTS = 3 + len(HALF_LIVES) + len(DAY_HALF_LIVES)
"""K."""
NUMBERS = 4
"""What is counted of a value: how often the user had it, how many events ago, how many hours ago, and its rank."""
_DAY = 24.0

Weights = Annotated[tuple[float, ...], Field(min_length=INPUTS, max_length=INPUTS)]


class ListOrder(BaseModel):
    """The fitted weights; applying them needs no torch.

    >>> order = ListOrder(popularity=0.5, counts={"item": (2.0,) + (0.0,) * (INPUTS - 1)})
    >>> number_NFX = np.array([[[3.0, 1.0, 2.0, 7.0]], [[0.0, 0.0, 0.0, 9.0]]])
    >>> order.added(np.array([4.0, 4.0]), number_NFX).tolist()
    [4.0, 2.0]
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    popularity: float
    """Weight of log popularity."""
    counts: Annotated[dict[str, Weights], Field(min_length=1)]
    """Item field -> weight of each of its `count_inputs`."""

    def of_counts(self, number_NFX: npt.ArrayLike) -> FloatArray:
        """What the memory's counts add to the scores of items: `[N]`.

        Args:
            number_NFX: see `count_inputs`.
        """
        added: FloatArray = count_inputs(number_NFX) @ np.concatenate([*self.counts.values()])
        return added

    def added(self, popularity_N: FloatArray, number_NFX: npt.ArrayLike) -> FloatArray:
        """What is added to scores to order items: `[N]`.

        Args:
            popularity_N: log popularity of the items.
            number_NFX: see `count_inputs`.
        """
        added: FloatArray = self.popularity * popularity_N + self.of_counts(number_NFX)
        return added


@dataclass(frozen=True, slots=True)
class AddedInLists:
    """What is added to the scores of C items to order them in a list over the catalogue.

    Args:
        popularity_C: by their popularity; None where the scores alone order them.
        counts_C: by what the user's memory counts of them; None where nothing is.
    """

    popularity_C: FloatArray | None = None
    counts_C: FloatArray | None = None

    def to(self, score_C: FloatArray) -> FloatArray:
        """What orders the items, from their scores."""
        return sum((part for part in (self.popularity_C, self.counts_C) if part is not None), score_C)

    def of(self, at: int) -> dict[str, Any]:
        """The parts of one item."""
        parts = {"popularity": self.popularity_C, "from_counts": self.counts_C}
        return {name: None if part_C is None else float(part_C[at]) for name, part_C in parts.items()}


def log_popularity(drawn: IntArray) -> FloatArray:
    """What is added to the scores of a model that learns from drawn negatives, to rank all items: the shape of `drawn`.

    Such a model learns log p(item | user) - log q(item), q being what its negatives are drawn by. One is added to
    each count, since an item that was never drawn is not impossible.

    Args:
        drawn: how often an item is drawn, see `lifelong.dataset.negatives.drawn_counts`.

    >>> log_popularity(np.array([0, 1, 99])).round(3).tolist()
    [0.0, 0.693, 4.605]
    """
    added: FloatArray = np.log1p(drawn)
    return added


def count_inputs(number_NFX: npt.ArrayLike) -> FloatArray:
    """What the weights are of: `[N, F * K]`, field after field.

    Of each field: whether the memory keeps the value, the log of its count, that of its rank, and the log of its count
    decayed at each half-life.

    Args:
        number_NFX: the `NUMBERS` of each field's value; a value that is not kept has no count and no ages.

    >>> count_inputs([[[3, 10, 0, 0]], [[0, 0, 0, 5]]])[:, :4].round(3).tolist()
    [[1.0, 1.386, 0.0, 0.693], [0.0, 0.0, 1.792, 0.0]]
    """
    number_NFX = np.asarray(number_NFX, np.float64)
    times_NF, events_NF, hours_NF, rank_NF = np.moveaxis(number_NFX, -1, 0)
    log_NF = np.log1p(times_NF)
    decayed = [log_NF * np.exp2(-events_NF / half_life) for half_life in HALF_LIVES]
    decayed += [log_NF * np.exp2(-hours_NF / (_DAY * half_life)) for half_life in DAY_HALF_LIVES]
    parts = [(times_NF > 0).astype(np.float64), log_NF, np.log1p(rank_NF), *decayed]
    # Field after field, in the order in which the weights are put together.
    return np.stack(parts, axis=-1).reshape(len(number_NFX), -1)
