"""Numbers whose size means something, as context fields: fine levels, each with a fixed code.

    value --numbers--> level (a number like that of any field) --code_VK[level]--> code --trained matrix--> vector

A level is so fine that a network sees no steps: five minutes of a day, a twelfth of a doubling of a gap. Being numbers
as any other, levels go through batches, tables, graphs and requests without a second way beside the first.

    Cycle     sine and cosine of the first harmonics: the end of a day is next to its beginning
    Octaves   piecewise-linear: code k is clip(log2(1 + value) - k, 0, 1), so a vector moves along a line from one power
              of two to the next, keeps its order, and stays what it was beyond the last
    Share     the same without the logarithm, for a number between 0 and 1

They are the encodings that Gorishniy et al. found best for numbers in deep models ("On Embeddings for Numerical
Features in Tabular Deep Learning", NeurIPS 2022): the periodic one of section 3.3 where a number wraps round, with the
harmonics in place of trained frequencies, and the piecewise-linear one of section 3.2 where it has an order. Its bins
are powers of two and not quantiles: gaps and prices spread over many of them, and nothing has to be learnt from the
training period, nor stored.

Shapes: V numbers of a field, K length of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
UNKNOWN, FIRST_LEVEL = 1, 2
"""As in every vocabulary; padding is 0."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """A moment within a period.

    Args:
        seconds: the period.
        levels: parts of it.
        harmonics: waves of its code.
        origin: a moment at which a period begins, UTC seconds.
    """

    seconds: int
    levels: int
    harmonics: int
    origin: int = 0

    @property
    def size(self) -> int:
        """V."""
        return FIRST_LEVEL + self.levels

    def numbers(self, time: IntArray) -> IntArray:
        """Level of moments, UTC seconds."""
        return FIRST_LEVEL + (time - self.origin) % self.seconds * self.levels // self.seconds

    def codes(self) -> FloatArray:
        """`[V, K]`: sines, cosines, and a one for what is unknown."""
        turn_L = 2 * np.pi * (np.arange(self.levels) + 0.5) / self.levels
        wave_LH = turn_L[:, None] * np.arange(1, self.harmonics + 1)
        return _with_unknown(np.concatenate([np.sin(wave_LH), np.cos(wave_LH)], axis=1))


@dataclass(frozen=True, slots=True)
class Octaves:
    """A number of at least 0, by its powers of two.

    Args:
        octaves: powers of two that are told apart.
        parts: levels of one octave.
        unit: of the values.
    """

    octaves: int
    parts: int
    unit: float = 1.0

    @property
    def size(self) -> int:
        """V."""
        return FIRST_LEVEL + self.octaves * self.parts + 1

    def numbers(self, value: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> IntArray:
        """Level of values; below 0 as 0; unknown where not `known`."""
        place = np.rint(self.parts * np.log2(1.0 + np.maximum(np.where(known, value, 0), 0) / self.unit))
        level = np.minimum(place, self.octaves * self.parts).astype(np.int64)
        return np.where(known, FIRST_LEVEL + level, UNKNOWN)

    def values(self) -> FloatArray:
        """The value in the middle of each level."""
        found: FloatArray = self.unit * (2 ** (np.arange(self.octaves * self.parts + 1) / self.parts) - 1)
        return found

    def codes(self) -> FloatArray:
        """`[V, K]`: how far into each octave a level reaches, and a one for what is unknown."""
        place_L = np.arange(self.octaves * self.parts + 1) / self.parts
        return _with_unknown(np.clip(place_L[:, None] - np.arange(self.octaves), 0, 1))


@dataclass(frozen=True, slots=True)
class Share:
    """A number from 0 to 1, by equal parts.

    Args:
        knots: parts that are told apart.
        parts: levels of one of them.
    """

    knots: int
    parts: int

    @property
    def size(self) -> int:
        """V."""
        return FIRST_LEVEL + self.knots * self.parts + 1

    def numbers(self, value: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> IntArray:
        """Level of values, those outside as the nearer end; unknown where not `known`."""
        place = np.rint(self.knots * self.parts * np.clip(np.where(known, value, 0), 0, 1))
        return np.where(known, FIRST_LEVEL + place.astype(np.int64), UNKNOWN)

    def codes(self) -> FloatArray:
        """`[V, K]`: how far into each part a level reaches, and a one for what is unknown."""
        place_L = np.arange(self.knots * self.parts + 1) / self.parts
        return _with_unknown(np.clip(place_L[:, None] - np.arange(self.knots), 0, 1))


def _with_unknown(code_LK: FloatArray) -> FloatArray:
    """Codes of all numbers: padding has none, unknown one of its own."""
    levels, length = code_LK.shape
    code_VK = np.zeros((FIRST_LEVEL + levels, length + 1))
    code_VK[FIRST_LEVEL:, :length] = code_LK
    code_VK[UNKNOWN, length] = 1
    return code_VK


DAY, WEEK = 86_400, 604_800
_MONDAY = 4 * DAY
"""1970-01-05."""
Scale = Cycle | Octaves | Share
TIME_OF_DAY = Cycle(DAY, levels=288, harmonics=6)
TIME_OF_WEEK = Cycle(WEEK, levels=168, harmonics=3, origin=_MONDAY)
"""Three waves tell seven days apart."""
SINCE = Octaves(octaves=30, parts=12)
"""Seconds, up to 34 years."""
SCALES: dict[str, Scale] = {"time_of_day": TIME_OF_DAY, "time_of_week": TIME_OF_WEEK, "since_event": SINCE}
"""Context field of a moment -> its scale."""
REVIEWS, RATING = "item.reviews", "item.rating"
ITEM_SCALES: dict[str, Octaves | Share] = {REVIEWS: Octaves(octaves=27, parts=12), RATING: Share(knots=16, parts=8)}
"""Context field that says something of the target's item -> its scale: up to 134 million events; a rating by its place
between the lowest and the highest."""
NUMBER = Octaves(octaves=40, parts=4, unit=0.01)
"""Of an item field that is a number, such as a price: steps of a quarter octave, from a hundredth to ten thousand
millions."""
