"""All users' events as memory-mapped ragged arrays: values and offsets, one user after another, oldest event first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.errors import DatasetError

DTYPES = {"row": np.int32, "time": np.int64, "sequence": np.int64, "event_type": np.int16}


def open_events(folder: Path, what: str, whole: Sequence[str], of_events: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Map the arrays of a folder of events; the one of event types need not be there.

    Args:
        folder: with one file per array.
        what: the folder holds, in words.
        whole: names of arrays of any length, `offset` among them.
        of_events: names of arrays with a value per event.

    Raises:
        DatasetError: a file is missing or of the wrong size.
    """
    try:
        parts = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in (*whole, *of_events)
            if name != "event_type" or (folder / "event_type.npy").exists()
        }
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read the {what} in {folder}: {error}", fix="make the dataset anew") from error
    for name in parts.keys() - set(whole):
        if len(parts[name]) != parts["offset"][-1]:
            raise DatasetError(
                f"{folder / name}.npy has {len(parts[name])} values",
                expected=f"{parts['offset'][-1]}, one per event",
                fix="make the dataset anew",
            )
    return parts


@dataclass(frozen=True, slots=True)
class Histories:
    """Events of U users, N in all.

    Args:
        offset_U: int64, U + 1; user u has the events `offset_U[u]:offset_U[u + 1]`.
        row_N: int32, catalogue row of each event's item.
        time_N: int64, UTC seconds (or ordinals).
        sequence_N: int64, place in the source; (time, sequence) orders a user's events.
        event_type_N: int16, number in the event type vocabulary, or None if the log has no event types.
    """

    offset_U: npt.NDArray[np.int64]
    row_N: npt.NDArray[np.int32]
    time_N: npt.NDArray[np.int64]
    sequence_N: npt.NDArray[np.int64]
    event_type_N: npt.NDArray[np.int16] | None = None

    @classmethod
    def open(cls, folder: Path) -> Histories:
        """Map saved histories.

        Raises:
            DatasetError: a file is missing or of the wrong size.
        """
        parts = open_events(folder, "histories", ("offset",), DTYPES)
        return cls(parts["offset"], parts["row"], parts["time"], parts["sequence"], parts.get("event_type"))

    def save(self, folder: Path) -> None:
        """Write one file per array into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "offset.npy", self.offset_U)
        for name in DTYPES:
            values = getattr(self, f"{name}_N")
            if values is not None:
                np.save(folder / f"{name}.npy", values)

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.offset_U) - 1

    @property
    def num_events(self) -> int:
        """N."""
        return int(self.offset_U[-1])

    def of(self, user: int) -> slice:
        """Where the events of one user stand."""
        return slice(int(self.offset_U[user]), int(self.offset_U[user + 1]))

    def positions(self, user_N: npt.NDArray[np.integer], time_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For (user, time) pairs: how many of the user's events have a strictly earlier time."""
        return count_earlier(self.offset_U, self.time_N, user_N, time_N)


def count_earlier(
    offset_U: npt.NDArray[np.int64],
    time_N: npt.NDArray[np.int64],
    of_M: npt.NDArray[np.integer],
    before_M: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """For (history, time) pairs: how many of the history's events have a strictly earlier time.

    Args:
        offset_U: of the histories.
        time_N: of their events, ascending in each history.
        of_M: which history.
        before_M: the times.
    """
    low = np.array(offset_U[of_M], np.int64)
    start = low.copy()
    high = np.array(offset_U[np.asarray(of_M) + 1], np.int64)
    # One binary search for all pairs at once: log2(longest history) rounds.
    while np.any(low < high):
        middle = (low + high) // 2
        open_ = low < high
        earlier = np.zeros(len(low), bool)
        earlier[open_] = time_N[middle[open_]] < before_M[open_]
        low = np.where(open_ & earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return low - start
