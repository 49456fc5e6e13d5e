"""All items' events as memory-mapped ragged arrays: who had to do with an item, one item after another, oldest first.

The same events as in `histories`, sorted by (item, time, sequence). `prepare` writes them where it is asked to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lifelong.data.histories import count_earlier, open_events
from lifelong.data.vocabulary import UNKNOWN
from lifelong.errors import DatasetError

FOLDER = "items"
"""Of a dataset."""
DTYPES = {"user": np.int32, "time": np.int64, "event_type": np.int16}
FIRST_USER = 2
"""Number of the user at index 0 of the histories."""
HOW = "prepare the data anew with --set item_histories=true"


@dataclass(frozen=True, slots=True)
class ItemHistories:
    """Events of all catalogue rows, N in all.

    Args:
        offset_V: int64, a row more than the catalogue; row v has the events `offset_V[v]:offset_V[v + 1]`.
        user_N: int32, whose event it is: index into the histories.
        time_N: int64, UTC seconds.
        trained_U: whether a user has an event in the training period.
        event_type_N: int16, number in the event type vocabulary, or None if the log has no event types.
    """

    offset_V: npt.NDArray[np.int64]
    user_N: npt.NDArray[np.int32]
    time_N: npt.NDArray[np.int64]
    trained_U: npt.NDArray[np.bool_]
    event_type_N: npt.NDArray[np.int16] | None = None

    @classmethod
    def open(cls, folder: Path) -> ItemHistories:
        """Map saved item histories.

        Raises:
            DatasetError: there are none, or a file is missing or of the wrong size.
        """
        if not folder.is_dir():
            raise DatasetError(f"{folder.parent} has no item histories", expected=f"a folder {folder.name}", fix=HOW)
        parts = open_events(folder, "item histories", ("offset", "trained"), DTYPES)
        return cls(parts["offset"], parts["user"], parts["time"], parts["trained"], parts.get("event_type"))

    def save(self, folder: Path) -> None:
        """Write one file per array into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "offset.npy", self.offset_V)
        np.save(folder / "trained.npy", self.trained_U)
        for name in DTYPES:
            values = getattr(self, f"{name}_N")
            if values is not None:
                np.save(folder / f"{name}.npy", values)

    def positions(self, row_N: npt.NDArray[np.integer], time_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For (row, time) pairs: how many of the item's events, of all users, have a strictly earlier time."""
        return count_earlier(self.offset_V, self.time_N, row_N, time_N)

    def numbers(self, user: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The number by which a model knows a user; unknown for whoever is not in training. Any shape."""
        return np.where(self.trained_U[user], user.astype(np.int64) + FIRST_USER, UNKNOWN)
