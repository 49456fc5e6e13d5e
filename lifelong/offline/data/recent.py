"""A dataset in which each target sees only the last events before it, for models that read raw histories.

Every (user, position) that is asked about becomes a user of its own, with that window as the whole history. Windows are
copied, so the dataset is made in parts of a bounded number of events.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lifelong.dataset.arrays import ranges
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.histories import Histories
from lifelong.dtypes import IntArray

# A bound on memory, as windows overlap and each is a copy of its events.
_EVENTS_AT_ONCE = 4_000_000


def recent_parts(
    dataset: Dataset, examples: Examples, recent: int, *, max_events: int = _EVENTS_AT_ONCE
) -> Iterator[tuple[IntArray, Dataset, Examples]]:
    """Parts of the examples, each with a dataset that has the windows that they see as histories.

    Args:
        dataset: where the whole histories are.
        examples: in any order.
        recent: events of a window at most.
        max_events: about how many events a part has.

    Yields:
        Places of the part's examples, the dataset of the part, and the examples with its users and positions.
    """
    user_N, position_N = np.asarray(examples.user_N, np.int64), np.asarray(examples.position_N, np.int64)
    windows, window_N = np.unique(np.stack([user_N, position_N], axis=1), axis=0, return_inverse=True)
    # NumPy 2.0 returns the inverse of rows with an axis more than other versions.
    window_N = window_N.reshape(-1)
    # A position is the number of events before it, so a window at a small one is shorter.
    length_W = np.minimum(recent, windows[:, 1])
    # The total only grows, so that windows of a part are neighbours and can be numbered from its first one.
    part_W = np.cumsum(length_W) // max_events
    for part in np.unique(part_W):
        place_W = np.flatnonzero(part_W == part)
        chosen_N = np.flatnonzero(part_W[window_N] == part)
        histories = _windows(dataset.histories, windows[place_W], length_W[place_W])
        # A window ends right before its target, so that the target sees all of it: its position is the window's length.
        seen = replace(
            examples.take(chosen_N),
            user_N=(window_N[chosen_N] - place_W[0]).astype(np.int32),
            position_N=length_W[window_N[chosen_N]].astype(np.int32),
        )
        yield chosen_N, _with_histories(dataset, histories, windows[place_W, 0]), seen


def _windows(histories: Histories, window_W2: IntArray, length_W: IntArray) -> Histories:
    """The events before each (user, position), each window as the history of a user."""
    offset_W = np.concatenate([[0], np.cumsum(length_W)]).astype(np.int64)
    end_W = np.asarray(histories.offset_U)[window_W2[:, 0]] + window_W2[:, 1]
    event_N = ranges(end_W - length_W, length_W)
    types = histories.event_type_N
    return Histories(
        offset_W,
        np.asarray(histories.row_N)[event_N],
        np.asarray(histories.time_N)[event_N],
        np.asarray(histories.sequence_N)[event_N],
        None if types is None else np.asarray(types)[event_N],
    )


def _with_histories(dataset: Dataset, histories: Histories, user_W: IntArray) -> Dataset:
    """The dataset with windows of users as histories."""
    other = copy.copy(dataset)
    # A cached property keeps its value in `__dict__`, so the file is never mapped.
    other.__dict__["histories"] = histories
    other.window_users = user_W
    return other
