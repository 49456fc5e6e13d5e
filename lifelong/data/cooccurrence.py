"""Vectors of item fields, made of who had which value in the training events: a start for trained vectors.

Values that the same users have get vectors of like direction: for each field a truncated singular value decomposition
of the matrix of users and values, as in latent semantic analysis (Deerwester et al., JASIS 1990). An entry is the
logarithm of 1 + how often a user had a value, over the square root of the user's sum and that of the value's norm, so
that neither long histories nor frequent values rule. The first factor says how much there is of a user or a value at
all, and is left out.

Only what training itself looks at is read: of each user the events up to her last training target.

Shapes: U users, V numbers of a field, N events, D width of a vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

EVENTS = 20_000_000
"""Events that are looked at, about; of longer logs a random part of the users."""


def cooccurrence_vectors(dataset: Dataset, dim: int, *, seed: int, most: int = EVENTS) -> dict[str, FloatArray]:
    """For each item field the vectors of its numbers.

    Args:
        dataset: prepared.
        dim: width D of a vector.
        seed: of the choice of users, where the log has more events than are looked at.
        most: events that are looked at, about.

    Returns:
        Field -> float32 `[V, D]`. The numbers in a vector have a mean square of 1; all of them are 0 where nothing is
        known: of padding, of numbers without training events, and of all numbers of a field of fewer than three values.
    """
    user_N, row_N = _training_events(dataset, np.random.default_rng(seed), most)
    number_VF = np.asarray(dataset.catalogue.number_VF)
    users = len(dataset.histories.offset_U) - 1
    return {
        field: _factors(user_N, number_VF[row_N, place], (users, size), dim)
        for place, (field, size) in enumerate(dataset.inputs.item.items())
    }


def _training_events(dataset: Dataset, rng: np.random.Generator, most: int) -> tuple[IntArray, IntArray]:
    """User and catalogue row of the events up to each user's last training target, that one included."""
    histories, examples = dataset.histories, dataset.examples("train")
    users = len(histories.offset_U) - 1
    asked_N, position_N = np.asarray(examples.user_N), np.asarray(examples.position_N)
    end_U = np.zeros(users, np.int64)
    np.maximum.at(end_U, asked_N, position_N)
    # What was answered stands in the history behind the events before it; what was only shown does not.
    last_N = (position_N == end_U[asked_N]) & (np.asarray(examples.label_NT).max(axis=1, initial=0) > 0)
    end_U += np.bincount(asked_N[last_N], minlength=users)
    start_U = np.asarray(histories.offset_U[:-1])
    end_U = np.minimum(end_U, np.diff(np.asarray(histories.offset_U)))
    if end_U.sum() > most:
        order_U = rng.permutation(users)
        end_U[order_U[np.cumsum(end_U[order_U]) > most]] = 0
    user_N = np.repeat(np.arange(users), end_U)
    place_N = np.arange(len(user_N)) - np.repeat(np.cumsum(end_U) - end_U, end_U)
    return user_N, np.asarray(histories.row_N[start_U[user_N] + place_N], np.int64)


def _factors(user_N: IntArray, number_N: npt.NDArray[np.integer], shape: tuple[int, int], dim: int) -> FloatArray:
    from scipy import sparse
    from scipy.sparse.linalg import svds

    known_N = number_N > 0
    count_UV = sparse.coo_array((np.ones(int(known_N.sum())), (user_N[known_N], number_N[known_N])), shape).tocsr()
    log_UV = count_UV.log1p()
    sum_U: npt.NDArray[np.float64] = np.asarray(log_UV.sum(axis=1))
    square_V: npt.NDArray[np.float64] = np.asarray(log_UV.power(2).sum(axis=0))
    vector_VD, there_V = np.zeros((shape[1], dim), np.float32), square_V > 0
    factors = min(dim + 1, int((sum_U > 0).sum()) - 1, int(there_V.sum()) - 1)
    if factors < 2:
        return vector_VD
    scaled = sparse.diags_array(_reciprocal_root(sum_U)) @ log_UV @ sparse.diags_array(_reciprocal_root(square_V**0.5))
    # A start of its own, so that the same log gives the same vectors.
    _, strength_K, right_KV = svds(scaled, k=factors, v0=np.random.default_rng(0).standard_normal(min(shape)))
    order_K = np.argsort(-strength_K)[1:]
    found_VK = right_KV[order_K].T * np.sqrt(strength_K[order_K])
    # A factor has no sign of its own.
    found_VK *= np.sign(found_VK[np.abs(found_VK).argmax(axis=0), np.arange(found_VK.shape[1])])
    length_V = np.sqrt(np.square(found_VK).sum(axis=1))
    there_V &= length_V > 1e-9 * length_V.max()
    vector_VD[there_V, : found_VK.shape[1]] = np.sqrt(dim) * found_VK[there_V] / length_V[there_V, None]
    return vector_VD


def _reciprocal_root(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(1.0, np.sqrt(value), out=np.zeros_like(value), where=value > 0)
