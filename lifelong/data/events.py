"""What an event is, and which numbers a model sees of it.

One order for all: a user's events are sorted by (time, sequence); a target sees the events of a strictly earlier
time. Times are int64 UTC seconds; a source without times counts events instead (`time_unit = "ordinal"`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

GAP_NUMBERS = 36
HOUR_NUMBERS = 26
WEEKDAY_NUMBERS = 9
NO_TIME = np.iinfo(np.int64).min
"""`last_time` of a user without events."""

IntArray = npt.NDArray[np.int64]


class Schema(BaseModel):
    """The fields of a dataset, in the order in which every array holds them.

    `item_fields[0]` is always `item`. A history row is `item_fields + event_fields`, a target row `item_fields`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_fields: tuple[str, ...]
    event_types: bool
    time_unit: Literal["seconds", "ordinal"] = "seconds"
    tasks: tuple[str, ...] = ("response",)

    @property
    def event_fields(self) -> tuple[str, ...]:
        """Fields that belong to the event and not to its item: its type, the gap since the event before."""
        types = ("event_type",) if self.event_types else ()
        return (*types, "gap") if self.time_unit == "seconds" else types

    @property
    def history_fields(self) -> tuple[str, ...]:
        """Columns of `history_BLF`."""
        return self.item_fields + self.event_fields

    @property
    def context_fields(self) -> tuple[str, ...]:
        """Columns of `context_BCF`: gap since the last event, hour of day and weekday (UTC) of the target."""
        return ("gap", "hour", "weekday") if self.time_unit == "seconds" else ()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How many numbers each input field has: all that a model must know of a dataset to be built.

    Args:
        item: item field -> size, in the schema's order.
        event: event field -> size.
        context: context field -> size.
        users: size of the user numbers (padding and unknown included).
        tasks: names of the labels.
    """

    item: dict[str, int]
    event: dict[str, int]
    context: dict[str, int]
    users: int
    tasks: tuple[str, ...] = ("response",)


def gap_numbers(time: IntArray, previous: IntArray) -> IntArray:
    """Bucket of the seconds since the event before, elementwise.

    0 padding (never returned), 1 no event before (`previous == NO_TIME`), 2 the same moment or earlier,
    3 + floor(log2(seconds)) otherwise, at most `GAP_NUMBERS - 1`.
    """
    first = previous == NO_TIME
    seconds = np.maximum(time - np.where(first, time, previous), 0)
    bucket = np.where(seconds > 0, 3 + np.frexp(np.maximum(seconds, 1).astype(np.float64))[1] - 1, 2)
    return np.where(first, 1, np.minimum(bucket, GAP_NUMBERS - 1)).astype(np.int64)


def context_numbers(schema: Schema, time: IntArray, last_time: IntArray) -> IntArray:
    """Context numbers of targets.

    Args:
        time: the targets' times, any shape.
        last_time: time of the user's last event before each, `NO_TIME` if none; same shape.

    Returns:
        Same shape plus one axis of `len(schema.context_fields)`.
    """
    if not schema.context_fields:
        return np.zeros((*time.shape, 0), np.int64)
    hour = 2 + (time // 3600) % 24
    # 1970-01-01 was a Thursday; Monday is 0.
    weekday = 2 + (time // 86400 + 3) % 7
    return np.stack([gap_numbers(time, last_time), hour, weekday], axis=-1)
