"""TIFU-KNN: item frequencies with a two-level decay, mixed with those of the nearest users.

Hu, He, Gao and Zhang, "Modeling Personalized Item Frequency Information for Next-basket Recommendation", SIGIR 2020.

    group  = mean over its m baskets of r_b^(baskets after it in the group) * [the basket holds i]
    u      = mean over the groups of r_g^(groups after it) * group
    score  = alpha u(i) + (1 - alpha) mean of v(i) over the k nearest users v by Euclidean distance

Groups are counted from the latest basket, so that the earliest one may have fewer.

Differs from the paper: other users have the state at the end of training, and only u is up to date. Items that are rare
or new in training count only among u's own. In a very large log only a random sample of users serves as neighbours.

State: the user's item frequencies, and all users'. It grows with the history, and with the users.

Shapes: M moments, U users that lend, V numbers of items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.offline.models.settings import setting
from lifelong.zoo.neighbour_model import NeighbourModel

_Whole = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class TifuKnnConfig:
    """Settings of `tifu_knn`."""

    group: PositiveInt = setting(7, "m, baskets of a group")
    within: _Whole = setting(0.9, "r_b, what of a basket's weight is left a basket later, in its group")
    between: _Whole = setting(0.7, "r_g, what of a group's weight is left a group later")
    alpha: _Whole = setting(0.7, "weight of the user's own frequencies")
    neighbours: PositiveInt = setting(300, "k, nearest users")
    users: PositiveInt = setting(10_000, "users that are looked at, at most, chosen at random")


class TifuKnn(NeighbourModel):
    """Fading frequencies with the user and with the users nearest to her."""

    Config = TifuKnnConfig
    title = "TIFU-KNN"
    source = "Hu et al., SIGIR 2020"
    state = "all users' item frequencies"
    floor: ClassVar[float] = 1e-4

    def __init__(self, inputs: Any, config: TifuKnnConfig) -> None:
        super().__init__(inputs, config)
        self.own_weight: float = config.alpha

    def basket(self, age: IntArray, number: IntArray) -> FloatArray:
        """r_b^(place in the group) r_g^(group), over the sizes of the group and of the list of groups.

        Source: equations 1 and 2.
        """
        settings = self.config
        group, behind = age // settings.group, age % settings.group
        size = np.minimum(settings.group, number - group * settings.group)
        groups = -(-number // settings.group)
        weight: FloatArray = settings.within**behind / size * settings.between**group / groups
        return weight

    def weights(self, own: Any, lent: Any, other_MU: BoolArray) -> FloatArray:
        """An equal share of what is not the user's own, for each of the nearest users."""
        square_M, square_U = (np.asarray(part.power(2).sum(axis=1)).reshape(-1) for part in (own, lent))
        # |a - b|^2 from products, as differences of all pairs of sparse rows would be dense.
        distance_MU = square_M[:, None] + square_U[None] - 2 * (own @ lent.T).toarray()
        # Sorted twice: places in an order become ranks. Users who must not lend are infinitely far away, and masked
        # where there are fewer than k others.
        rank_MU = np.argsort(np.argsort(np.where(other_MU, distance_MU, np.inf), axis=1, kind="stable"), axis=1)
        near_MU = other_MU & (rank_MU < self.config.neighbours)
        weight_MU: FloatArray = near_MU * (1 - self.config.alpha) / np.maximum(near_MU.sum(axis=1, keepdims=True), 1)
        return weight_MU
