"""All users' events as memory-mapped ragged arrays: values and offsets, one user after another, oldest event first.

    offset_U   0       3   4         7          user 0 has the events 0 to 2, user 1 event 3, user 2 events 4 to 6
    row_N      5 9 5   7   5 2 9
    time_N     1 4 4   2   1 3 8

Shapes: U users, N events of all users together, M questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import check_lengths, open_arrays, save_arrays
from lifelong.dtypes import Int32Array, IntArray

DTYPES: dict[str, type[np.integer[Any]]] = {
    "row": np.int32,
    "time": np.int64,
    "sequence": np.int64,
    "event_type": np.int16,
}
"""Arrays with a value per event."""
FIRST_USER = 2
"""Number by which a model knows the user at index 0 of the histories."""


@dataclass(frozen=True, slots=True)
class Histories:
    """Events of U users, N in all.

    Args:
        offset_U: int64, U + 1; user u has the events `offset_U[u]:offset_U[u + 1]`.
        row_N: int32, catalogue row of each event's item.
        time_N: int64, UTC seconds (or ordinals).
        sequence_N: int64, place in the source; (time, sequence) orders a user's events.
        event_type_N: int16, number in the event type vocabulary, or None if the log has no event types.

    >>> offset_U, time_N = np.array([0, 3, 4]), np.array([1, 4, 4, 2])
    >>> histories = Histories(offset_U, np.array([5, 9, 5, 7]), time_N, np.arange(4))
    >>> histories.row_N[histories.of(0)].tolist()
    [5, 9, 5]
    >>> histories.positions(np.array([0, 0, 1]), np.array([4, 5, 9])).tolist()
    [1, 3, 1]
    """

    offset_U: IntArray
    row_N: Int32Array
    time_N: IntArray
    sequence_N: IntArray
    event_type_N: npt.NDArray[np.int16] | None = None

    @classmethod
    def open(cls, folder: Path) -> Histories:
        """Map saved histories.

        Raises:
            DatasetError: a file is missing or of the wrong length.
        """
        there = [name for name in DTYPES if name != "event_type" or (folder / "event_type.npy").exists()]
        parts = open_arrays(folder, ["offset", *there], "histories")
        # Here and not at a later read, which would fail for some users alone.
        check_lengths(folder, {name: parts[name] for name in there}, int(parts["offset"][-1]))
        return cls(parts["offset"], parts["row"], parts["time"], parts["sequence"], parts.get("event_type"))

    def save(self, folder: Path) -> None:
        """Write one file per array into `folder`."""
        save_arrays(folder, {"offset": self.offset_U, **{name: getattr(self, f"{name}_N") for name in DTYPES}})

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.offset_U) - 1

    @property
    def num_events(self) -> int:
        """Number of events of all users."""
        return int(self.offset_U[-1])

    def of(self, user: int) -> slice:
        """Where the events of one user are."""
        return slice(int(self.offset_U[user]), int(self.offset_U[user + 1]))

    def positions(self, user_N: npt.NDArray[np.integer], time_N: IntArray) -> IntArray:
        """For (user, time) pairs: how many of the user's events have a strictly earlier time."""
        return count_earlier(self.offset_U, self.time_N, user_N, time_N)


def count_earlier(
    offset_U: IntArray,
    time_N: IntArray,
    of_M: npt.NDArray[np.integer],
    before_M: IntArray,
) -> IntArray:
    """For (history, time) pairs: how many of the history's events have a strictly earlier time.

    Args:
        offset_U: offsets of the histories.
        time_N: times of their events, ascending in each history.
        of_M: the history that each question is about.
        before_M: the time that it is about.
    """
    low = np.array(offset_U[of_M], np.int64)
    return first_from(time_N, low, np.array(offset_U[np.asarray(of_M) + 1], np.int64), before_M) - low


def first_from(time_N: IntArray, low_M: IntArray, high_M: IntArray, from_M: IntArray) -> IntArray:
    """The first of the places `low` to `high` with a time of at least `from`, `high` where none has; times ascend."""
    # One binary search for all questions at once, in log2(longest history) rounds. The answer is always in [low, high];
    # a question is done when both meet.
    while np.any(open_M := low_M < high_M):
        middle_M = (low_M + high_M) // 2
        earlier_M = np.zeros(len(low_M), bool)
        # Of open questions alone: the place of a finished one may be the end of the array.
        earlier_M[open_M] = time_N[middle_M[open_M]] < from_M[open_M]
        low_M = np.where(open_M & earlier_M, middle_M + 1, low_M)
        high_M = np.where(open_M & ~earlier_M, middle_M, high_M)
    return low_M
