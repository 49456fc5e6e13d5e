"""Embeddings of item fields initialised by factorisation of which users had which values in the training events.

Values that occur with the same users get embeddings of similar direction: for each field a truncated singular value
decomposition of the matrix of users and values. An entry is log(1 + how often a user had a value), divided by the
square root of the user's row sum and by the square root of the value's column norm, so that neither long histories nor
frequent values dominate. The first factor reflects overall frequency, and is left out.

Source: latent semantic analysis, Deerwester et al., JASIS 1990.

Only what training itself looks at is read: of each user the events up to her last training target. These are the
training targets themselves, so that a vector made of a user's own events gives her targets away: the cosine of a
target's vector and the mean of her history is larger in training than it will ever be again, and a model that trusts it
becomes worse the longer it is trained. So users are put into `GROUPS` groups (`group_of`), and each group is trained
with vectors made of all others' events.

Shapes: U users, V numbers of a field, N events, D width of an embedding, K factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import ranges
from lifelong.dataset.folder import Dataset
from lifelong.dataset.histories import FIRST_USER
from lifelong.dtypes import Float32Array, FloatArray, IntArray

GROUPS = 4
"""Groups of users; each is trained with vectors that come from the events of all others."""
EVENTS = 20_000_000
"""About how many events are read; of a longer log, those of a random part of the users."""


def cooccurrence_vectors(
    dataset: Dataset, dim: int, *, seed: int, most: int = EVENTS, before: int | None = None
) -> dict[str, Float32Array]:
    """For each item field the embeddings of its numbers.

    Args:
        dataset: prepared.
        dim: width D of an embedding.
        seed: of the choice of users, where the log has more than `most` events.
        most: about how many events are looked at.
        before: only training targets with an earlier time count; None = all of them.

    Returns:
        Field -> float32 `[V, D]`. The entries of an embedding have a mean square of 1. It is 0 for padding, for numbers
        without training events, and for all numbers of a field with fewer than three values.
    """
    events = _Events.of(dataset, seed, most, before)
    return events.vectors(dict.fromkeys(dataset.inputs.item, dim))


def aligned_vectors(
    dataset: Dataset,
    whole: Mapping[str, Float32Array],
    fields: Iterable[str],
    *,
    seed: int,
) -> list[dict[str, Float32Array]]:
    """The initial embeddings that each group of users is trained with, on the axes of those of all users.

    Vectors of two decompositions have different axes. Each group's are rotated so that they come as close to those of
    all users as possible, frequent values above all: what training learns for one group then holds for all, and for the
    vectors of all users, which a service has.

    Source: Schoenemann, "A Generalized Solution of the Orthogonal Procrustes Problem", Psychometrika 1966.

    Args:
        dataset: prepared.
        whole: `cooccurrence_vectors`.
        fields: which are wanted.
        seed: see `cooccurrence_vectors`.

    Returns:
        For each group, field -> float32 `[V, D]`, with zeros for values that no other user had.
    """
    from scipy.linalg import orthogonal_procrustes

    widths, events = {field: whole[field].shape[1] for field in fields}, _Events.of(dataset, seed, EVENTS)

    def aligned(field: str, vector_VD: Float32Array) -> Float32Array:
        # The error of a value counts as often as the value occurs.
        weight_V1 = np.sqrt(np.bincount(events.number_N(field), minlength=len(vector_VD)))[:, None]
        if not (weight_V1 * vector_VD).any():
            return vector_VD
        rotation_DD, _ = orthogonal_procrustes(weight_V1 * vector_VD, weight_V1 * whole[field])
        aligned_VD: Float32Array = (vector_VD @ rotation_DD).astype(np.float32)
        return aligned_VD

    return [
        {field: aligned(field, vector_VD) for field, vector_VD in events.vectors(widths, without=group).items()}
        for group in range(GROUPS)
    ]


def unit_factors(
    dataset: Dataset, widths: Mapping[str, int], *, seed: int
) -> tuple[dict[str, Float32Array], list[dict[str, Float32Array]]]:
    """Fixed factors of item fields: the same vectors at length 1, and those for training.

    On the log of the accuracy table, the cosine of a target's factor and the user's sum has an AUC of .81 in training
    and of .73 in validation where her own events helped to make the factors. Only inner products of factors with one
    another may be read: other factors have other axes, and these are not aligned.

    Args:
        dataset: prepared.
        widths: item field -> numbers of its factor.
        seed: see `cooccurrence_vectors`.

    Returns:
        Field -> float32 `[V, width]` of all users; and the same for each group. Zeros where `cooccurrence_vectors` has
        zeros.
    """
    events = _Events.of(dataset, seed, EVENTS)

    def made(without: int | None) -> dict[str, Float32Array]:
        vectors = events.vectors(widths, without=without)
        return {field: vector_VD / np.float32(np.sqrt(widths[field])) for field, vector_VD in vectors.items()}

    return made(None), [made(group) for group in range(GROUPS)]


def group_of(user: Any) -> Any:
    """The group of each user number; its vectors in training come from the events of the other groups.

    >>> group_of(np.arange(2, 8)).tolist()
    [2, 3, 0, 1, 2, 3]
    """
    return user % GROUPS


def training_lengths(dataset: Dataset, before: int | None = None) -> IntArray:
    """How many events of each user training looks at: up to and including her last training target.

    Args:
        dataset: prepared.
        before: only training targets with an earlier time count; None = all of them.
    """
    histories, examples = dataset.histories, dataset.examples("train")
    if before is not None:
        examples = examples.take(np.asarray(examples.time_N) < before)
    asked_N, position_N = np.asarray(examples.user_N), np.asarray(examples.position_N)
    users = len(histories.offset_U) - 1
    end_U = np.zeros(users, np.int64)
    # A user occurs once for each of her targets. Plain assignment would keep whichever of them comes last, not the
    # largest.
    np.maximum.at(end_U, asked_N, position_N)
    # A target with a positive label is an event itself: the one at its position. One that was only shown is not.
    last_N = (position_N == end_U[asked_N]) & (np.asarray(examples.label_NT).max(axis=1, initial=0) > 0)
    # Positives of one moment share a position, and each is an event of its own.
    end_U += np.bincount(asked_N[last_N], minlength=users)
    ended_U: IntArray = np.minimum(end_U, np.diff(np.asarray(histories.offset_U)))
    return ended_U


def of_some_users(length_U: IntArray, most: int, *, seed: int) -> IntArray:
    """How many events of each user are read: all, or none of some users where all together have more than `most`.

    >>> of_some_users(np.array([5, 5, 5]), 10, seed=0).tolist(), of_some_users(np.array([5, 5, 5]), 15, seed=0).tolist()
    ([5, 0, 5], [5, 5, 5])
    """
    if length_U.sum() <= most:
        return length_U
    # In random order: users may be stored by age or by length, and the first of them would not speak for all.
    order_U = np.random.default_rng(seed).permutation(len(length_U))
    read_U = length_U.copy()
    read_U[order_U[np.cumsum(length_U[order_U]) > most]] = 0
    return read_U


@dataclass(frozen=True)
class _Events:
    """The events that training looks at.

    Args:
        dataset: prepared.
        user_N: the user of each event.
        row_N: their rows of the catalogue.
    """

    dataset: Dataset
    user_N: IntArray
    row_N: IntArray

    @classmethod
    def of(cls, dataset: Dataset, seed: int, most: int, before: int | None = None) -> _Events:
        """All of them, or those of a random part of the users."""
        histories, end_U = dataset.histories, training_lengths(dataset, before)
        end_U, start_U = of_some_users(end_U, most, seed=seed), np.asarray(histories.offset_U[:-1])
        row_N = np.asarray(histories.row_N[ranges(start_U, end_U)], np.int64)
        return cls(dataset, np.repeat(np.arange(len(end_U)), end_U), row_N)

    def number_N(self, field: str) -> IntArray:  # noqa: N802
        """The number of this item field of each event."""
        column = list(self.dataset.inputs.item).index(field)
        number_N: IntArray = np.asarray(self.dataset.catalogue.number_VF)[self.row_N, column]
        return number_N

    def vectors(self, widths: Mapping[str, int], *, without: int | None = None) -> dict[str, Float32Array]:
        """Vectors of these fields, from the events of all users, or of all but one group."""
        chosen_N = group_of(FIRST_USER + self.user_N) != without
        users, sizes = len(self.dataset.histories.offset_U) - 1, self.dataset.inputs.item
        return {
            field: _factors(self.user_N[chosen_N], self.number_N(field)[chosen_N], (users, sizes[field]), width)
            for field, width in widths.items()
        }


def _factors(user_N: IntArray, number_N: npt.NDArray[np.integer], shape: tuple[int, int], dim: int) -> Float32Array:
    from scipy import sparse
    from scipy.sparse.linalg import svds

    # Number 0 stands for no value. A column of it would make all users without a value look alike.
    valued_N = number_N > 0
    # The conversion to rows adds up repeated pairs, so that ones become counts.
    count_UV = sparse.coo_array((np.ones(int(valued_N.sum())), (user_N[valued_N], number_N[valued_N])), shape).tocsr()
    log_UV = count_UV.log1p()
    sum_U: FloatArray = np.asarray(log_UV.sum(axis=1))
    square_V: FloatArray = np.asarray(log_UV.power(2).sum(axis=0))
    vector_VD, there_V = np.zeros((shape[1], dim), np.float32), square_V > 0
    # One more than the width, as the first is left out. The solver finds fewer factors than a matrix has rows or
    # columns, and empty ones carry none.
    factors = min(dim + 1, int((sum_U > 0).sum()) - 1, int(there_V.sum()) - 1)
    if factors < 2:
        return vector_VD
    scaled = sparse.diags_array(_reciprocal_root(sum_U)) @ log_UV @ sparse.diags_array(_reciprocal_root(square_V**0.5))
    # A fixed start vector, so that the result depends on the log alone.
    _, strength_K, right_KV = svds(scaled, k=factors, v0=np.random.default_rng(0).standard_normal(min(shape)))
    # The solver promises no order.
    order_K = np.argsort(-strength_K)[1:]
    factor_VK = right_KV[order_K].T * np.sqrt(strength_K[order_K])
    # The sign of a factor is arbitrary: its largest entry is made positive.
    factor_VK *= np.sign(factor_VK[np.abs(factor_VK).argmax(axis=0), np.arange(factor_VK.shape[1])])
    length_V = np.sqrt(np.square(factor_VK).sum(axis=1))
    # A value that no factor reaches has a length of rounding errors. At length 1 it would be noise of full size.
    there_V &= length_V > 1e-9 * length_V.max()
    vector_VD[there_V, : factor_VK.shape[1]] = np.sqrt(dim) * factor_VK[there_V] / length_V[there_V, None]
    return vector_VD


def _reciprocal_root(value: FloatArray) -> FloatArray:
    # Empty rows and columns become 0. Infinities would turn the whole decomposition into NaN.
    return np.divide(1.0, np.sqrt(value), out=np.zeros_like(value), where=value > 0)
