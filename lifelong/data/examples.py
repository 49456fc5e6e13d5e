"""Labelled targets: who was asked about which item when, and what she did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lifelong.errors import DatasetError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Examples:
    """N labelled targets, sorted by (user, time, order of drawing).

    Args:
        user_N: int32, index into the histories.
        row_N: int32, catalogue row of the target item.
        time_N: int64.
        position_N: int32, number of the user's events with a strictly earlier time.
        label_NT: float32, one column per task; 0/1, or graded.

    Where negatives are sampled, the training split holds the positives alone (negatives are drawn anew each pass);
    validation and test hold both.
    """

    user_N: npt.NDArray[np.int32]
    row_N: npt.NDArray[np.int32]
    time_N: npt.NDArray[np.int64]
    position_N: npt.NDArray[np.int32]
    label_NT: npt.NDArray[np.float32]

    @classmethod
    def open(cls, folder: Path) -> Examples:
        """Map saved examples.

        Raises:
            DatasetError: a file is missing, or the lengths differ.
        """
        try:
            parts = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _COLUMNS]
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot read the examples in {folder}: {error}", fix="make the dataset anew") from error
        if len({len(part) for part in parts}) != 1:
            raise DatasetError(f"the columns in {folder} have different lengths", fix="make the dataset anew")
        return cls(*parts)

    def save(self, folder: Path) -> None:
        """Write one file per column into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _COLUMNS:
            np.save(folder / f"{name}.npy", getattr(self, "label_NT" if name == "label" else f"{name}_N"))

    def __len__(self) -> int:
        return len(self.user_N)

    def take(self, index: npt.NDArray[np.integer] | slice) -> Examples:
        """The chosen examples, in the chosen order."""
        return Examples(
            self.user_N[index], self.row_N[index], self.time_N[index], self.position_N[index], self.label_NT[index]
        )


_COLUMNS = ("user", "row", "time", "position", "label")
