"""Hides some numbers in training, so that the model meets what it will meet later: new items, and rare values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.config import TrainSettings
from lifelong.data.vocabulary import PADDING, UNKNOWN
from lifelong.dtypes import BoolArray, Int32Array


@dataclass(frozen=True, slots=True)
class Hiding:
    """Replaces numbers in place; padding stays.

    Args:
        fallback_V: for every item number the one that the item has while it is unknown.
        fields: number of item fields, which come first in a row of numbers.
        settings: shares of what is hidden.
        rng: source of randomness.
    """

    fallback_V: Int32Array
    fields: int
    settings: TrainSettings
    rng: np.random.Generator

    def items(self, number: npt.NDArray[Any]) -> None:
        """Hide items, and values of other item fields, in `number[..., F]`."""
        if self.settings.hide_items:
            hidden = self._drawn(number.shape[:-1], self.settings.hide_items)
            number[hidden, 0] = self.fallback_V[number[hidden, 0]]
        if self.settings.hide_fields and self.fields > 1:
            others = number[..., 1 : self.fields]
            others[self._drawn(others.shape, self.settings.hide_fields) & (others != PADDING)] = UNKNOWN

    def _drawn(self, shape: tuple[int, ...], share: float) -> BoolArray:
        drawn: BoolArray = self.rng.random(shape, np.float32) < share
        return drawn
