"""Quantities (times, gaps, prices) as input fields: fine levels, each with a fixed code.

    value --numbers--> level (a number like that of any field) --code_VK[level]--> code --trained matrix--> embedding

A level is so fine that a network sees no steps: five minutes of a day, a twelfth of a doubling of a gap. Levels are
numbers like all others, so batches, tables, graphs and requests need no second path for quantities.

    Cycle     sine and cosine of the first harmonics: the end of a day is next to its beginning
    Octaves   piecewise-linear: code k is clip(log2(1 + value) - k, 0, 1), so the embedding moves along a line from one
              power of two to the next, and is constant beyond the last

Source: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022: the periodic
encoding of section 3.3 where a quantity wraps round, with the harmonics in place of trained frequencies, and the
piecewise-linear encoding of section 3.2 elsewhere. The bins are powers of two instead of quantiles: gaps and prices
spread over many of them, and nothing has to be learnt from the training period or stored.

Shapes: V numbers of a field, K length of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dtypes import BoolArray, FloatArray, IntArray

UNKNOWN, FIRST_LEVEL = 1, 2
"""Numbers, as in every vocabulary; padding is 0."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """A moment within a period.

    Args:
        seconds: length of the period.
        levels: parts of the period.
        harmonics: waves of the code.
        origin: a moment at which a period begins, UTC seconds.

    >>> Cycle(seconds=86_400, levels=24, harmonics=1).numbers(np.array([0, 3_600, 90_000])).tolist()
    [2, 3, 3]
    """

    seconds: int
    levels: int
    harmonics: int
    origin: int = 0

    @property
    def size(self) -> int:
        """How many numbers there are, padding and unknown included."""
        return FIRST_LEVEL + self.levels

    def numbers(self, time: IntArray) -> IntArray:
        """Number of each moment, in UTC seconds."""
        # Multiplied before it is divided: exact in whole numbers, also where the levels do not divide the period.
        return FIRST_LEVEL + (time - self.origin) % self.seconds * self.levels // self.seconds

    def codes(self) -> FloatArray:
        """Code of each number, `[V, K]`: sines, cosines, and a one for the unknown."""
        # The middle of each level, as an angle.
        turn_L = 2 * np.pi * (np.arange(self.levels) + 0.5) / self.levels
        wave_LH = turn_L[:, None] * np.arange(1, self.harmonics + 1)
        return _with_unknown(np.concatenate([np.sin(wave_LH), np.cos(wave_LH)], axis=1))


@dataclass(frozen=True, slots=True)
class Octaves:
    """A quantity of at least 0, on a logarithmic scale.

    Args:
        octaves: number of powers of two; larger values are cut to the last.
        parts: levels of one octave.
        unit: size of a value that counts as 1.

    >>> Octaves(octaves=4, parts=2).numbers(np.array([0, 1, 3, 99]), np.array([True, True, True, False])).tolist()
    [2, 4, 6, 1]
    """

    octaves: int
    parts: int
    unit: float = 1.0

    @property
    def size(self) -> int:
        """How many numbers there are, padding and unknown included."""
        return FIRST_LEVEL + self.octaves * self.parts + 1

    def numbers(self, value: npt.NDArray[Any], known: BoolArray) -> IntArray:
        """Number of each value, where values below 0 count as 0; unknown where not `known`."""
        # To the nearest, so that the value of a level is in its middle; `bounds` is half a level to both sides.
        exact = np.rint(self.parts * np.log2(1.0 + np.maximum(np.where(known, value, 0), 0) / self.unit))
        level = np.minimum(exact, self.octaves * self.parts).astype(np.int64)
        return np.where(known, FIRST_LEVEL + level, UNKNOWN)

    def values(self) -> FloatArray:
        """The value in the middle of each level."""
        value_L: FloatArray = self.unit * (2 ** (np.arange(self.octaves * self.parts + 1) / self.parts) - 1)
        return value_L

    def bounds(self) -> FloatArray:
        """The least value of each level and of the one after it, `[L, 2]`; there is none after the last.

        >>> Octaves(octaves=2, parts=1).bounds().round(2).tolist()
        [[0.0, 0.41], [0.41, 1.83], [1.83, inf]]
        """
        least_L = self.unit * (2 ** ((np.arange(self.octaves * self.parts + 1) - 0.5) / self.parts) - 1)
        # No value is below 0, where half a level less would be.
        least_L[0] = 0
        return np.stack([least_L, np.append(least_L[1:], np.inf)], axis=1)

    def codes(self) -> FloatArray:
        """Code of each number, `[V, K]`: how far it reaches into each octave, and a one for the unknown."""
        place_L = np.arange(self.octaves * self.parts + 1) / self.parts
        return _with_unknown(np.clip(place_L[:, None] - np.arange(self.octaves), 0, 1))


def _with_unknown(code_LK: FloatArray) -> FloatArray:
    """Codes of all numbers: zeros for padding, a column of its own for the unknown."""
    levels, length = code_LK.shape
    code_VK = np.zeros((FIRST_LEVEL + levels, length + 1))
    code_VK[FIRST_LEVEL:, :length] = code_LK
    code_VK[UNKNOWN, length] = 1
    return code_VK


DAY, WEEK = 86_400, 604_800
_MONDAY = 4 * DAY
"""1970-01-05."""
Scale = Cycle | Octaves
TIME_OF_DAY = Cycle(DAY, levels=288, harmonics=6)
TIME_OF_WEEK = Cycle(WEEK, levels=168, harmonics=3, origin=_MONDAY)
"""Three waves are enough to distinguish seven days."""
SINCE = Octaves(octaves=30, parts=12)
"""Seconds, up to 34 years."""
SCALES: dict[str, Scale] = {"time_of_day": TIME_OF_DAY, "time_of_week": TIME_OF_WEEK, "since_event": SINCE}
"""Context field of a moment -> its scale."""
NUMBER = Octaves(octaves=40, parts=4, unit=0.01)
"""Scale of an item field that is a quantity, such as a price: quarters of an octave, from 0.01 to ten billion."""
