"""Labelled targets: which user was asked about which item at what time, and how she responded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import AGAIN, open_arrays, save_arrays
from lifelong.dtypes import BoolArray, Float32Array, Int32Array, IntArray
from lifelong.errors import DatasetError

Split = Literal["train", "validation", "test", "vault"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""The splits of every dataset, in order of time."""
VAULT: Split = "vault"
"""The split after test, which lies in a dataset of its own (`Dataset.vault`)."""


@dataclass(frozen=True, slots=True)
class Examples:
    """N labelled targets, sorted by (user, time, order of drawing).

    Where negatives are sampled, the training split holds the positives alone (negatives are drawn again each epoch);
    validation and test hold both.

    Args:
        user_N: int32, index into the histories.
        row_N: int32, catalogue row of the target item.
        time_N: int64, UTC seconds (or ordinals).
        position_N: int32, number of the user's events with a strictly earlier time.
        label_NT: float32, one column per task; 0/1, or graded.

    >>> five = np.arange(5)
    >>> examples = Examples(five // 3, five + 2, five * 60, five % 3, np.ones((5, 1), np.float32))
    >>> examples.take(examples.user_N == 1).position_N.tolist()
    [0, 1]
    """

    user_N: Int32Array
    row_N: Int32Array
    time_N: IntArray
    position_N: Int32Array
    label_NT: Float32Array

    @classmethod
    def open(cls, folder: Path) -> Examples:
        """Map saved examples.

        Raises:
            DatasetError: a file is missing, or the lengths differ.
        """
        parts = open_arrays(folder, COLUMNS, "examples")
        if len({len(values) for values in parts.values()}) != 1:
            raise DatasetError(f"the columns in {folder} have different lengths", fix=AGAIN)
        return cls(*parts.values())

    def save(self, folder: Path) -> None:
        """Write one file per column into `folder`."""
        save_arrays(folder, dict(zip(COLUMNS, self.columns(), strict=True)))

    def __len__(self) -> int:
        return len(self.user_N)

    def take(self, index: npt.NDArray[np.integer] | BoolArray | slice) -> Examples:
        """The chosen examples, in the chosen order."""
        return Examples(*(column[index] for column in self.columns()))

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """All arrays, in the order of the fields."""
        return self.user_N, self.row_N, self.time_N, self.position_N, self.label_NT


COLUMNS: dict[str, type[np.generic]] = {
    "user": np.int32,
    "row": np.int32,
    "time": np.int64,
    "position": np.int32,
    "label": np.float32,
}
"""Name of each array's file, in the order of the fields, and the type of its values."""
