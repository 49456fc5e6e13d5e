"""The item side of a batch: for each target the last events of its item before the target, of all users.

    targets --item, time--> (item, first event of the window) --group--> windows, each read at some positions

A window starts at a multiple of the model's largest period, counted from the item's first event, as a window of a
user's history does. Targets that have item and start in common share a window, so that it is encoded once; a window is
read at up to `_READS` positions, and repeated where more are needed.

Shapes: B users of a batch, C targets per user, W windows, L padded length, K reads of a window, F fields, N targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import is_first, ranges, ranks
from lifelong.data.dataset import Dataset
from lifelong.data.events import NO_TIME, gap_numbers
from lifelong.data.vocabulary import PADDING, UNKNOWN
from lifelong.dtypes import BoolArray, IntArray

_READS = 4
"""Positions of a window at most: with more, most would be unused, since most windows are read once."""


@dataclass(frozen=True, slots=True)
class ItemSpan:
    """Which events of an item a target sees.

    Args:
        recent: how many of the last events before it, at most; at least twice `period`.
        period: windows start at multiples of it.
        delay: seconds; younger events are hidden. Events of the target's own moment always are.

    >>> ItemSpan(recent=10, period=4).starts(np.array([3, 10, 11, 15])).tolist()
    [0, 0, 4, 8]
    """

    recent: int
    period: int = 1
    delay: int = 0

    def starts(self, end_N: IntArray) -> IntArray:
        """Where windows start that end after this many events of their item."""
        # The first multiple of the period from which at most `recent` events are left; negated to round upwards.
        start_N: IntArray = np.maximum(0, -((self.recent - end_N) // self.period) * self.period)
        return start_N


class ItemReader:
    """Reads windows of a dataset's item histories.

    Args:
        dataset: where the item histories are.
        span: which events a target sees.

    Raises:
        DatasetError: the dataset was prepared without item histories.
    """

    def __init__(self, dataset: Dataset, span: ItemSpan) -> None:
        self._items, self._span = dataset.item_histories, span
        self._profile_UF = np.asarray(dataset.profile_UF, np.int64)
        self._offset_V, self._time_N = np.asarray(self._items.offset_V), np.asarray(self._items.time_N)
        self._user_N, self._type_N = np.asarray(self._items.user_N), self._items.event_type_N

    def windows(self, user_B: IntArray, row_N: IntArray, time_N: IntArray, mask_BC: BoolArray) -> dict[str, IntArray]:
        """The fields of `ItemWindows` for a batch's targets; without targets one window without events.

        Args:
            user_B: index of each user.
            row_N: catalogue row of each real target.
            time_N: its time.
            mask_BC: True where a target is real.
        """
        # An event of the target's own moment is hidden by any delay, that of 0, too.
        end_N = self._items.positions(row_N, time_N - max(0, self._span.delay - 1))
        start_N = self._span.starts(end_N)
        # Sorted, the reads of a window are neighbours, and the last of them says how long the window must be.
        order = np.lexsort((end_N, start_N, row_N))
        window_N, rank_N = _groups(np.stack([row_N, start_N])[:, order])
        first = np.flatnonzero(rank_N == 0)
        last = np.append(first[1:], len(order)) - 1
        row_W, start_W, length_W = row_N[order][first], start_N[order][first], (end_N - start_N)[order][last]
        position_WK = np.zeros((max(1, len(first)), rank_N.max(initial=0) + 1), np.int64)
        position_WK[window_N, rank_N] = (end_N - start_N)[order]
        place_BC, gap_BC = np.zeros(mask_BC.shape, np.int64), np.full(mask_BC.shape, PADDING, np.int64)
        place_N = np.empty(len(order), np.int64)
        place_N[order] = window_N * position_WK.shape[1] + rank_N
        place_BC[mask_BC], gap_BC[mask_BC] = place_N, self._gaps(self._offset_V[row_N], end_N, time_N)
        if not len(first):
            row_W, start_W, length_W = (np.zeros(1, np.int64) for _ in range(3))
        return {
            "number_WLF": self._events(row_W, start_W, length_W),
            "length_W": length_W,
            "position_WK": position_WK,
            "place_BC": place_BC,
            "gap_BC": gap_BC,
            "query_BF": self._of_users(user_B),
        }

    def _events(self, row_W: IntArray, start_W: IntArray, length_W: IntArray) -> IntArray:
        """Field numbers `[W, L, F]` of users and of their events; L is at least 1."""
        first_W = self._offset_V[row_W]
        event_N, place_N = ranges(first_W + start_W, length_W), ranges(start_W, length_W)
        columns = [self._of_known(self._user_N[event_N])]
        if self._type_N is not None:
            columns.append(np.asarray(self._type_N[event_N], np.int64)[:, None])
        columns.append(self._gaps(event_N - place_N, place_N, self._time_N[event_N])[:, None])
        number_NF = np.concatenate(columns, axis=1)
        real_WL = np.arange(max(1, int(length_W.max()))) < length_W[:, None]
        number_WLF = np.full((*real_WL.shape, number_NF.shape[1]), PADDING, np.int64)
        number_WLF[real_WL] = number_NF
        return number_WLF

    def _gaps(self, first_N: IntArray, place_N: IntArray, time_N: IntArray) -> IntArray:
        """Bucket of the time since the event before place `place` of an item's events, which begin at `first`."""
        known_N = place_N > 0
        before_N = np.where(known_N, first_N + place_N - 1, 0)
        return gap_numbers(time_N, np.where(known_N, self._time_N[before_N], NO_TIME))

    def _of_known(self, user_N: npt.NDArray[np.integer]) -> IntArray:
        """Number and profile of users `[N, F]`; unknown for users who are not in training."""
        number_NF = self._of_users(user_N)
        number_NF[~self._items.trained_U[user_N]] = UNKNOWN
        return number_NF

    def _of_users(self, user_N: npt.NDArray[np.integer]) -> IntArray:
        """Number and profile of users: `[N, F]`."""
        number_N = self._items.numbers(np.asarray(user_N))
        return np.concatenate([number_N[:, None], self._profile_UF[user_N]], axis=1)


def _groups(key_KN: IntArray) -> tuple[IntArray, IntArray]:
    """Number of the group and place in it, of sorted keys in groups of at most `_READS` equal ones."""
    rank_N = ranks(is_first(*key_KN)) % _READS
    return np.cumsum(rank_N == 0) - 1, rank_N
