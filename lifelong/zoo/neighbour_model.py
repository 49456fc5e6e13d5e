"""Models in which users lend each other what they had.

    score of item i for user u at a moment = own(u, i) + sum over other users v of weight(u, v) * lent(v, i)

`own` is of the user's events before the moment; what others lend is as the training period left it, so that nothing of
anyone's later events is seen. A user lends nothing to herself.

Shapes: M moments, N examples, U users that lend, V numbers of items.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import ranges
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.offline.data.cooccurrence import training_lengths
from lifelong.zoo.inputs.baskets import basket_weights, by_moment
from lifelong.zoo.scored_model import ScoredModel

_MOMENTS = 512
_LENT = 4_000_000
"""Numbers that are lent at a time."""


class NeighbourModel(ScoredModel):
    """A subclass says what a basket weighs, and how alike users are."""

    @abstractmethod
    def basket(self, age: IntArray, number: IntArray) -> FloatArray:
        """Weight of a user's basket of some age (0 is the last one), if there are that many."""

    @abstractmethod
    def weights(self, own: Any, lent: Any, other_MU: BoolArray) -> FloatArray:
        """How much every user lends at every moment: `[M, U]`, 0 where `other` is False.

        Args:
            own: sparse `[M, V]`, the sums of the weights of baskets of each item of the user before the moment.
            lent: sparse `[U, V]`, those of the users that lend, at the end of training.
            other_MU: False where the user that lends is the one that asks.
        """

    own_weight: float = 1.0
    """Of the user's own sums."""

    def learn(self, dataset: Dataset, *, seed: int) -> dict[str, npt.NDArray[Any]]:
        """The sums of all users, or of a random part of them."""
        length_U = training_lengths(dataset)
        user_U = np.flatnonzero(length_U)
        if len(user_U) > self.config.users:
            user_U = np.sort(np.random.default_rng(seed).choice(user_U, self.config.users, replace=False))
        lent = self._own(dataset, (user_U, length_U[user_U]), _numbers(dataset), self.inputs.item["item"])
        return {
            "user": user_U,
            "offset": lent.indptr.astype(np.int64),
            "item": lent.indices.astype(np.int64),
            "weight": lent.data,
            "data_hash": np.frombuffer(dataset.manifest.data_hash.encode(), np.uint8),
        }

    def scores(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Own sums, and what others lend."""
        score_N, lent = np.zeros(len(examples)), self._lent()
        for chosen_N, moment_N, moments in by_moment(examples, _MOMENTS):
            row_N = np.asarray(examples.row_N, np.int64)[chosen_N]
            score_N[chosen_N] = self._of_moments(dataset, moments, moment_N, row_N, lent)
        return score_N

    def _of_moments(
        self, dataset: Dataset, moments: tuple[IntArray, IntArray], at_N: IntArray, row_N: IntArray, lent: Any
    ) -> FloatArray:
        number_V = _numbers(dataset)
        row_V = np.where(np.arange(len(number_V)) >= FIRST_ROW, np.arange(len(number_V)), -1)
        # Rare items share a number: what a user had herself is looked up by item.
        own = self._own(dataset, moments, row_V, len(row_V))
        score_N: FloatArray = self.own_weight * np.asarray(own[at_N, row_N], np.float64).reshape(-1)
        numbered = self._own(dataset, moments, number_V, self.inputs.item["item"])
        weight_MU = self.weights(numbered, lent, self._others(dataset, moments[0]))
        by_item = lent.T.tocsr()
        number_N = number_V[row_N]
        for part in _parts(np.where(number_N >= 0, np.diff(by_item.indptr)[number_N], 0)):
            known_N = number_N[part] >= 0
            # What is lent of an item is a stretch of the matrix by items: all stretches of a part, one after another.
            start_N = by_item.indptr[number_N[part]]
            length_N = np.where(known_N, by_item.indptr[number_N[part] + 1] - start_N, 0)
            place = ranges(start_N, length_N)
            of_N = np.repeat(np.arange(len(length_N)), length_N)
            lent_by = weight_MU[at_N[part][of_N], by_item.indices[place]] * by_item.data[place]
            score_N[part] += np.bincount(of_N, lent_by, len(length_N))
        return score_N

    def _own(self, dataset: Dataset, moments: tuple[IntArray, IntArray], value_V: IntArray, size: int) -> Any:
        return basket_weights(dataset.histories, moments, value_V, size, self.basket)

    def _lent(self) -> Any:
        from scipy import sparse

        found = self.learned
        shape = (len(found["user"]), self.inputs.item["item"])
        return sparse.csr_array((found["weight"], found["item"], found["offset"]), shape)

    def _others(self, dataset: Dataset, user_M: IntArray) -> BoolArray:
        """False where the user that lends is the one that asks; in another dataset users have other places."""
        if dataset.manifest.data_hash.encode() != self.learned["data_hash"].tobytes():
            return np.ones((len(user_M), len(self.learned["user"])), bool)
        other_MU: BoolArray = user_M[:, None] != self.learned["user"]
        return other_MU


def _numbers(dataset: Dataset) -> IntArray:
    """Number of each catalogue row's item; -1 where it shares one with others."""
    number_V = np.asarray(dataset.catalogue.number_VF[:, 0], np.int64)
    return np.where(number_V >= dataset.vocabularies["item"].first_known, number_V, -1)


def _parts(size_N: IntArray) -> Iterator[slice]:
    """Slices of about `_LENT` numbers in all."""
    bounds = np.flatnonzero(np.diff(np.cumsum(size_N) // _LENT)) + 1
    for first, last in zip([0, *bounds.tolist()], [*bounds.tolist(), len(size_N)], strict=True):
        yield slice(first, last)
