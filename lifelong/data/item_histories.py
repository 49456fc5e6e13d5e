"""All items' events as memory-mapped ragged arrays: one item after another, oldest event first, of all users.

These are the events of `histories`, sorted by (item, time, sequence). `prepare` writes them where it is asked to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import save_arrays
from lifelong.data.histories import count_earlier, open_events
from lifelong.data.vocabulary import UNKNOWN
from lifelong.dtypes import BoolArray, Int32Array, IntArray
from lifelong.errors import DatasetError

FOLDER = "items"
"""Name of the folder in a dataset."""
DTYPES: dict[str, type[np.integer[Any]]] = {"user": np.int32, "time": np.int64, "event_type": np.int16}
FIRST_USER = 2
"""Number of the user at index 0 of the histories."""
HOW = "prepare the data again with --set item_histories=true"


@dataclass(frozen=True, slots=True)
class ItemHistories:
    """Events of all catalogue rows, N in all.

    Args:
        offset_V: int64, a row more than the catalogue; row v has the events `offset_V[v]:offset_V[v + 1]`.
        user_N: int32, the event's user: index into the histories.
        time_N: int64, UTC seconds.
        trained_U: whether a user has an event in the training period.
        event_type_N: int16, number in the event type vocabulary, or None if the log has no event types.
    """

    offset_V: IntArray
    user_N: Int32Array
    time_N: IntArray
    trained_U: BoolArray
    event_type_N: npt.NDArray[np.int16] | None = None

    @classmethod
    def open(cls, folder: Path) -> ItemHistories:
        """Map saved item histories.

        Raises:
            DatasetError: there are none, or a file is missing or of the wrong length.
        """
        if not folder.is_dir():
            raise DatasetError(f"{folder.parent} has no item histories", expected=f"a folder {folder.name}", fix=HOW)
        parts = open_events(folder, "item histories", DTYPES, more=["trained"])
        return cls(parts["offset"], parts["user"], parts["time"], parts["trained"], parts.get("event_type"))

    def save(self, folder: Path) -> None:
        """Write one file per array into `folder`."""
        events = {name: getattr(self, f"{name}_N") for name in DTYPES}
        save_arrays(folder, {"offset": self.offset_V, "trained": self.trained_U, **events})

    def positions(self, row_N: npt.NDArray[np.integer], time_N: IntArray) -> IntArray:
        """For (row, time) pairs: how many of the item's events, of all users, have a strictly earlier time."""
        return count_earlier(self.offset_V, self.time_N, row_N, time_N)

    def numbers(self, user: npt.NDArray[np.integer]) -> IntArray:
        """The number by which a model knows each user, in any shape; users who are not in training are unknown."""
        return np.where(self.trained_U[user], user.astype(np.int64) + FIRST_USER, UNKNOWN)
