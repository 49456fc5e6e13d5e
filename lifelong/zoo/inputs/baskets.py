"""Weights of the items that users had before given moments, by how many baskets ago they had them.

A basket is all events of one user and time. The last basket before a moment has the age 0.

Shapes: M moments, N entries, V values of items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lifelong.dataset.arrays import is_first, ranges
from lifelong.dataset.examples import Examples
from lifelong.dataset.histories import Histories
from lifelong.dtypes import FloatArray, IntArray

Weights = Callable[[IntArray, IntArray], FloatArray]
"""Age of baskets and number of the user's baskets -> weight, elementwise."""


def by_moment(examples: Examples, most: int) -> Iterator[tuple[IntArray, IntArray, tuple[IntArray, IntArray]]]:
    """Examples by what they see of their users, this many moments at a time.

    Yields:
        Places of the examples, the moment of each from 0, and user and position of each moment.
    """
    user_N, position_N = np.asarray(examples.user_N, np.int64), np.asarray(examples.position_N, np.int64)
    span = int(position_N.max(initial=0)) + 1
    moment_M, moment_N = np.unique(user_N * span + position_N, return_inverse=True)
    order_N = np.argsort(moment_N, kind="stable")
    bound_M = np.searchsorted(moment_N[order_N], np.arange(len(moment_M) + 1))
    for first in range(0, len(moment_M), most):
        last = min(first + most, len(moment_M))
        chosen_N = order_N[bound_M[first] : bound_M[last]]
        yield chosen_N, moment_N[chosen_N] - first, (moment_M[first:last] // span, moment_M[first:last] % span)


def basket_weights(
    histories: Histories, moments: tuple[IntArray, IntArray], value_V: IntArray, size: int, weights: Weights
) -> Any:
    """For each moment the sum of the weights of the baskets that hold each value: a sparse matrix `[M, size]`.

    A basket that holds a value several times counts once. Entries may be stored that are 0.

    Args:
        histories: all events.
        moments: user and position of each moment.
        value_V: what each catalogue row counts as; rows with a negative value are left out.
        size: of the values.
        weights: of a basket.

    >>> from lifelong.dataset.histories import Histories
    >>> events = Histories(np.array([0, 4]), np.array([2, 3, 2, 2]), np.array([5, 5, 5, 9]), np.arange(4))
    >>> moment = (np.array([0]), np.array([4]))
    >>> basket_weights(events, moment, np.arange(4), 4, lambda age, number: 0.5**age).toarray().tolist()
    [[0.0, 0.0, 1.5, 0.5]]
    """
    from scipy import sparse

    user_M, position_M = (np.asarray(part, np.int64) for part in moments)
    event_N = ranges(np.asarray(histories.offset_U)[user_M], position_M)
    moment_N = np.repeat(np.arange(len(user_M)), position_M)
    first_N = is_first(moment_N, np.asarray(histories.time_N)[event_N]) if len(event_N) else np.zeros(0, bool)
    basket_N = np.cumsum(first_N)
    last_M = np.append(0, basket_N)[np.cumsum(position_M)]
    number_M = np.bincount(moment_N[first_N], minlength=len(user_M))
    value_N = value_V[np.asarray(histories.row_N)[event_N]]
    kept_N = np.flatnonzero(value_N >= 0)
    _, chosen_N = np.unique(basket_N[kept_N] * size + value_N[kept_N], return_index=True)
    kept_N = kept_N[chosen_N]
    moment_N = moment_N[kept_N]
    weight_N = weights(last_M[moment_N] - basket_N[kept_N], number_M[moment_N])
    return sparse.coo_array((weight_N, (moment_N, value_N[kept_N])), (len(user_M), size)).tocsr()
