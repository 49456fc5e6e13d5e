"""A dataset in which each target sees only the last events before it, for models that read raw histories.

Every (user, position) that is asked about becomes a user of her own, whose whole history is that window. It is copied,
so it is made in parts of a bounded number of events.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.data.histories import Histories

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples

IntArray = npt.NDArray[np.int64]
_EVENTS_AT_ONCE = 4_000_000


def recent_parts(
    dataset: Dataset, examples: Examples, recent: int, *, max_events: int = _EVENTS_AT_ONCE
) -> Iterator[tuple[IntArray, Dataset, Examples]]:
    """Parts of the examples, each with a dataset whose histories are the windows that they see.

    Args:
        dataset: where the whole histories are.
        examples: in any order.
        recent: events of a window at most.
        max_events: of one part, about.

    Yields:
        Places of the part's examples, the dataset, and those examples with its users and positions.
    """
    user_N, position_N = np.asarray(examples.user_N, np.int64), np.asarray(examples.position_N, np.int64)
    windows, window_N = np.unique(np.stack([user_N, position_N], axis=1), axis=0, return_inverse=True)
    window_N = window_N.reshape(-1)
    length_W = np.minimum(recent, windows[:, 1])
    part_W = np.cumsum(length_W) // max_events
    for part in np.unique(part_W):
        place_W = np.flatnonzero(part_W == part)
        chosen_N = np.flatnonzero(part_W[window_N] == part)
        histories = _windows(dataset.histories, windows[place_W], length_W[place_W])
        seen = replace(
            examples.take(chosen_N),
            user_N=(window_N[chosen_N] - place_W[0]).astype(np.int32),
            position_N=length_W[window_N[chosen_N]].astype(np.int32),
        )
        yield chosen_N, _with_histories(dataset, histories), seen


def _windows(histories: Histories, window_W2: IntArray, length_W: IntArray) -> Histories:
    """The events before each (user, position), as the histories of as many users."""
    offset_W = np.concatenate([[0], np.cumsum(length_W)]).astype(np.int64)
    end_W = np.asarray(histories.offset_U)[window_W2[:, 0]] + window_W2[:, 1]
    event_N = np.arange(offset_W[-1]) + np.repeat(end_W - offset_W[1:], length_W)
    types = histories.event_type_N
    return Histories(
        offset_W,
        np.asarray(histories.row_N)[event_N],
        np.asarray(histories.time_N)[event_N],
        np.asarray(histories.sequence_N)[event_N],
        None if types is None else np.asarray(types)[event_N],
    )


def _with_histories(dataset: Dataset, histories: Histories) -> Dataset:
    """The same dataset with other histories; they take the place of those that would be mapped when first used."""
    other = copy.copy(dataset)
    other.__dict__["histories"] = histories
    return other
