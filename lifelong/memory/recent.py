"""A memory that is the user's recent history itself: what history models are served from.

The two fields of `recent_layout`, numbers and times, are used as rings: the event at position n (from 0) stands at
place n % recent, so that a write changes one row and nothing moves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import NUMBER, TIME
from lifelong.memory.state import States

IntArray = npt.NDArray[np.int64]


class Recent(NamedTuple):
    """The last events of B users, oldest first, left-aligned; zeros in padding."""

    number_BLF: IntArray
    time_BL: IntArray
    length_B: IntArray


def append(states: States, number_BF: IntArray, time_B: IntArray) -> dict[str, npt.NDArray[np.generic]]:
    """The fields of B users after one more event each; those of `states` are not changed."""
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
    place_BL = ((states.count_B - length_B)[:, None] + step_L) % recent
    user_B1, real_BL = np.arange(len(states))[:, None], step_L < length_B[:, None]
    return Recent(
        np.where(real_BL[..., None], number[user_B1, place_BL], 0).astype(np.int64),
        np.where(real_BL, times[user_B1, place_BL], 0),
        length_B,
    )


def roll(number_BLF: IntArray, time_BL: IntArray, count_B: IntArray, recent: int) -> dict[str, npt.NDArray[np.generic]]:
    """The fields after the first `count` events of whole histories: what appending them one by one gives."""
    # The last event whose position is the place modulo `recent`, if there is one.
    last_B1, place_R = count_B[:, None] - 1, np.arange(recent)
    event_BR = last_B1 - (last_B1 - place_R) % recent
    real_BR = event_BR >= 0
    event_BR, user_B1 = np.where(real_BR, event_BR, 0), np.arange(len(count_B))[:, None]
    return {
        NUMBER: np.where(real_BR[..., None], number_BLF[user_B1, event_BR], 0).astype(np.int32),
        TIME: np.where(real_BR, time_BL[user_B1, event_BR], 0),
    }
