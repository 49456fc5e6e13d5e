"""Memories of users as plain arrays, as the graphs take and give them; and the ring that holds a recent history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import NUMBER, TIME, FieldLayout
from lifelong.dataset.events import NO_TIME
from lifelong.dtypes import IntArray

__all__ = ["FieldLayout", "States"]


@dataclass(frozen=True, slots=True)
class States:
    """Memories of B users.

    Args:
        count_B: int64, events folded in.
        last_time_B: int64, time of the last event, `NO_TIME` before the first.
        fields: field name -> `[B, *shape]`, of the layout's type.

    Example:
        >>> states = States.empty([FieldLayout(name="slot", shape=(2, 3))], 5)
        >>> len(states), states.fields["slot"].shape, states.take(np.array([4, 0])).count_B
        (5, (5, 2, 3), array([0, 0]))
    """

    count_B: IntArray
    last_time_B: IntArray
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


class Recent(NamedTuple):
    """The last events of B users, oldest first, left-aligned; zeros in padding."""

    number_BLF: IntArray
    time_BL: IntArray
    length_B: IntArray


def append(states: States, number_BF: IntArray, time_B: IntArray) -> dict[str, npt.NDArray[np.generic]]:
    """The fields of B users after one more event each; those of `states` are not changed."""
    # A ring: the n-th event is at place n modulo the size, over the one that is now too old.
    number, times = states.fields[NUMBER].copy(), states.fields[TIME].copy()
    user_B, place_B = np.arange(len(states)), states.count_B % times.shape[1]
    number[user_B, place_B], times[user_B, place_B] = number_BF, time_B
    return {NUMBER: number, TIME: times}


def unroll(states: States, size: int = 1) -> Recent:
    """The rings of B users as histories, padded to the longest of them, or to `size` if that is more."""
    number, times = states.fields[NUMBER], states.fields[TIME]
    recent = times.shape[1]
    length_B = np.minimum(states.count_B, recent)
    step_L = np.arange(max(size, int(length_B.max(initial=0))))
    # The oldest event that is still there is number (count - length) of the user's history.
    place_BL = ((states.count_B - length_B)[:, None] + step_L) % recent
    user_B1, real_BL = np.arange(len(states))[:, None], step_L < length_B[:, None]
    return Recent(
        np.where(real_BL[..., None], number[user_B1, place_BL], 0).astype(np.int64),
        np.where(real_BL, times[user_B1, place_BL], 0),
        length_B,
    )


def roll(number_BLF: IntArray, time_BL: IntArray, count_B: IntArray, recent: int) -> dict[str, npt.NDArray[np.generic]]:
    """The fields after the first `count` events of whole histories: what appending them one by one gives."""
    # At each place of the ring: the last event at a position equal to the place modulo `recent`, if there is one.
    last_B1, place_R = count_B[:, None] - 1, np.arange(recent)
    event_BR = last_B1 - (last_B1 - place_R) % recent
    real_BR = event_BR >= 0
    event_BR, user_B1 = np.where(real_BR, event_BR, 0), np.arange(len(count_B))[:, None]
    return {
        NUMBER: np.where(real_BR[..., None], number_BLF[user_B1, event_BR], 0).astype(np.int32),
        TIME: np.where(real_BR, time_BL[user_B1, event_BR], 0),
    }
