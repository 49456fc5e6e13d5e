"""The item side of a batch: for each target the last events of its item, of all users, before the target.

    targets --item, time--> (item, first event of the window) --group--> windows, each read at some positions

A window starts at a multiple of the model's largest period, counted from the item's first event, as a window of a
user's history does. Targets that have item and start in common share a window, so that a batch folds it once; a
window is read at a few positions at most, and comes again for more.

Shapes: B users of a batch, C targets per user, W windows, L padded length, K reads of a window, F fields, N targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from lifelong.data.events import NO_TIME, gap_numbers
from lifelong.data.vocabulary import PADDING, UNKNOWN

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset

IntArray = npt.NDArray[np.int64]
_READS = 4
"""Positions of a window at most: more leave room unused, since most windows are read once."""


@dataclass(frozen=True, slots=True)
class ItemSpan:
    """Which events of an item a target sees.

    Args:
        recent: the last ones before it, at most; at least twice `period`.
        period: windows start at multiples of it.
        delay: seconds; younger events are hidden. Those of the target's own moment always are.
    """

    recent: int
    period: int = 1
    delay: int = 0

    def starts(self, end_N: IntArray) -> IntArray:
        """Where windows start that end behind so many events of their item."""
        start_N: IntArray = np.maximum(0, -((self.recent - end_N) // self.period) * self.period)
        return start_N


class WindowArrays(NamedTuple):
    """See `lifelong.data.batches.ItemWindows`."""

    number_WLF: IntArray
    length_W: IntArray
    position_WK: IntArray
    place_BC: IntArray
    gap_BC: IntArray
    query_BF: IntArray


class ItemReader:
    """Reads windows of a dataset's item histories.

    Args:
        dataset: where they are.
        span: which events a target sees.

    Raises:
        DatasetError: the dataset was prepared without item histories.
    """

    def __init__(self, dataset: Dataset, span: ItemSpan) -> None:
        self._items, self._span = dataset.item_histories, span
        self._profile_UF = np.asarray(dataset.profile_UF, np.int64)
        self._offset_V, self._time_N = np.asarray(self._items.offset_V), np.asarray(self._items.time_N)
        self._user_N, self._type_N = np.asarray(self._items.user_N), self._items.event_type_N

    def windows(
        self, user_B: IntArray, row_BC: npt.NDArray[np.int32], time_BC: IntArray, mask_BC: npt.NDArray[np.bool_]
    ) -> WindowArrays:
        """The windows of a batch's targets; there is at least one, of no events if need be.

        Args:
            user_B: index of each user.
            row_BC: catalogue row of each target.
            time_BC: its time.
            mask_BC: True where a target is real.
        """
        row_N, time_N = row_BC[mask_BC].astype(np.int64), time_BC[mask_BC]
        end_N = self._items.positions(row_N, time_N - max(0, self._span.delay - 1))
        start_N = self._span.starts(end_N)
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
        number_WLF = self._events(row_W, start_W, length_W)
        return WindowArrays(number_WLF, length_W, position_WK, place_BC, gap_BC, self._of_users(user_B))

    def until(self, row_W: IntArray, time_W: IntArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """The windows of items at some moments, as a service keeps them.

        Args:
            row_W: catalogue row of each item.
            time_W: events of an earlier time are in the window.

        Returns:
            Field numbers `[W, L, F]` and times `[W, L]`, 0 in padding; place of the first event and of the one behind
            the last, counted from the item's first event.
        """
        end_W = self._items.positions(row_W, time_W)
        start_W = np.maximum(0, end_W - self._span.recent)
        number_WLF = self._events(row_W, start_W, end_W - start_W)
        event_WL = (self._offset_V[row_W] + start_W)[:, None] + np.arange(number_WLF.shape[1])
        real_WL = event_WL < (self._offset_V[row_W] + end_W)[:, None]
        time_WL = np.zeros(event_WL.shape, np.int64)
        time_WL[real_WL] = self._time_N[event_WL[real_WL]]
        return number_WLF, time_WL, start_W, end_W

    def _events(self, row_W: IntArray, start_W: IntArray, length_W: IntArray) -> IntArray:
        """Field numbers `[W, L, F]`: the users', and the event's; L is at least 1."""
        step_L = np.arange(max(1, int(length_W.max())))
        real_WL = step_L < length_W[:, None]
        first_W = self._offset_V[row_W]
        event_WL = np.where(real_WL, (first_W + start_W)[:, None] + step_L, first_W[:, None])
        event_N, place_N = event_WL[real_WL], (start_W[:, None] + step_L)[real_WL]
        columns = [self._of_known(self._user_N[event_N])]
        if self._type_N is not None:
            columns.append(np.asarray(self._type_N[event_N], np.int64)[:, None])
        columns.append(self._gaps(event_N - place_N, place_N, self._time_N[event_N])[:, None])
        number_NF = np.concatenate(columns, axis=1)
        number_WLF = np.full((*real_WL.shape, number_NF.shape[1]), PADDING, np.int64)
        number_WLF[real_WL] = number_NF
        return number_WLF

    def _gaps(self, first_N: IntArray, place_N: IntArray, time_N: IntArray) -> IntArray:
        """Bucket of the time since the event before place `place` of an item whose events begin at `first`."""
        known_N = place_N > 0
        before_N = np.where(known_N, first_N + place_N - 1, 0)
        return gap_numbers(time_N, np.where(known_N, self._time_N[before_N], NO_TIME))

    def _of_known(self, user_N: npt.NDArray[np.integer]) -> IntArray:
        """The same as a service can know them who was told no profile: nothing of users who are not in training."""
        number_NF = self._of_users(user_N)
        number_NF[~self._items.trained_U[user_N]] = UNKNOWN
        return number_NF

    def _of_users(self, user_N: npt.NDArray[np.integer]) -> IntArray:
        """Number and profile of users: `[N, F]`."""
        number_N = self._items.numbers(np.asarray(user_N))
        return np.concatenate([number_N[:, None], self._profile_UF[user_N]], axis=1)


def _groups(key_KN: IntArray) -> tuple[IntArray, IntArray]:
    """Sorted keys in groups of at most `_READS` equal ones: number of the group, and place in it."""
    fresh_N = np.ones(key_KN.shape[1], bool)
    fresh_N[1:] = (key_KN[:, 1:] != key_KN[:, :-1]).any(axis=0)
    place_N = np.arange(len(fresh_N))
    rank_N = (place_N - np.maximum.accumulate(np.where(fresh_N, place_N, 0))) % _READS
    return np.cumsum(rank_N == 0) - 1, rank_N
