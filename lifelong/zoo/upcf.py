"""UP-CF@r: popularity in the user's last r baskets, averaged with that of users who have the same items.

Faggioli, Polato and Aiolli, "Recency Aware Collaborative Filtering for Next Basket Recommendation", UMAP 2020.

    pi(u, i) = share of u's last r baskets that hold i
    w(u, v)  = |I_u and I_v| / (|I_u|^a |I_v|^(1 - a))        I_u all items in u's baskets
    score    = sum over users v of w(u, v)^q pi(v, i)          w(u, u) = 1

Differs from the paper: other users have the state at the end of training, and only u is up to date. Items that are rare
or new in training count only among u's own. In a very large log only a random sample of users serves as neighbours.

State: the user's last r baskets and all her items; all users' too. It grows with the history, and with the users.

Shapes: M moments, U users that lend, V numbers of items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.offline.models.settings import setting
from lifelong.zoo.neighbour_model import NeighbourModel


@dataclass(frozen=True)
class UpcfConfig:
    """Settings of `upcf`."""

    baskets: PositiveInt = setting(25, "r, last baskets that count")
    locality: NonNegativeFloat = setting(10.0, "q, how much more those lend who are more alike")
    asymmetry: Annotated[float, Field(ge=0, le=1)] = setting(
        0.25, "a, how much the number of the user's own items counts in likeness"
    )
    users: PositiveInt = setting(10_000, "users that lend at most, chosen at random")


class Upcf(NeighbourModel):
    """Recent popularity with the user and with users like her."""

    Config = UpcfConfig
    title = "UP-CF"
    source = "Faggioli et al., UMAP 2020"
    state = "all users' baskets"
    floor: ClassVar[float] = 1e-4

    def basket(self, age: IntArray, number: IntArray) -> FloatArray:
        """An equal share for each of the last r baskets."""
        recent = self.config.baskets
        weight: FloatArray = (age < recent) / np.minimum(np.maximum(number, 1), recent)
        return weight

    def weights(self, own: Any, lent: Any, other_MU: BoolArray) -> FloatArray:
        """Asymmetric cosine of the sets of items, to the power q."""
        # Items of older baskets are entries too, of weight 0.
        had, have = (_ones(part) for part in (own, lent))
        # Differences of a sparse matrix's row pointers are its numbers of entries.
        size_M, size_U = np.diff(own.indptr), np.diff(lent.indptr)
        both_MU = (had @ have.T).toarray()
        share = self.config.asymmetry
        length_MU = np.maximum(size_M, 1)[:, None] ** share * np.maximum(size_U, 1)[None] ** (1 - share)
        weight_MU: FloatArray = np.where(other_MU & (both_MU > 0), (both_MU / length_MU) ** self.config.locality, 0.0)
        return weight_MU


def _ones(matrix: Any) -> Any:
    """1 where a sparse matrix has an entry."""
    ones = matrix.copy()
    ones.data = np.ones_like(ones.data)
    return ones
