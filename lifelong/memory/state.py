"""The state of users as plain arrays: what the graphs take and give, and what a store keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import FieldLayout
from lifelong.data.events import NO_TIME

__all__ = ["FieldLayout", "States"]


@dataclass(frozen=True, slots=True)
class States:
    """Memories of B users.

    Args:
        count_B: int64, events folded in.
        last_time_B: int64, time of the last event, `NO_TIME` before the first.
        fields: field name -> `[B, *shape]`, of the layout's type.
    """

    count_B: npt.NDArray[np.int64]
    last_time_B: npt.NDArray[np.int64]
    fields: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def empty(cls, layout: Sequence[FieldLayout], num_users: int) -> States:
        """Memories of users without events."""
        return cls(
            np.zeros(num_users, np.int64),
            np.full(num_users, NO_TIME, np.int64),
            {part.name: np.zeros((num_users, *part.shape), part.dtype) for part in layout},
        )

    def __len__(self) -> int:
        return len(self.count_B)

    def take(self, place_B: npt.NDArray[np.integer]) -> States:
        """A copy of the chosen users' memories, in the chosen order."""
        fields = {name: value[place_B] for name, value in self.fields.items()}
        return States(self.count_B[place_B], self.last_time_B[place_B], fields)

    def put(self, place_B: npt.NDArray[np.integer], states: States) -> None:
        """Write memories over those of the chosen (distinct) users, in place."""
        self.count_B[place_B], self.last_time_B[place_B] = states.count_B, states.last_time_B
        for name, value in states.fields.items():
            self.fields[name][place_B] = value
