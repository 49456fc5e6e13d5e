"""What an event is, and which of its numbers a model sees.

A user's events are sorted by (time, sequence), and a target sees the events of a strictly earlier time. Times are int64
UTC seconds; a source without times counts events instead (`time_unit = "ordinal"`).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from lifelong.config import Record
from lifelong.dataset.scales import SCALES, SINCE, TIME_OF_DAY, TIME_OF_WEEK
from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.dtypes import IntArray

# The last bucket is 3 + 32, of gaps from 2^32 seconds (136 years) on; hours and weekdays follow padding and unknown.
GAP_NUMBERS = 36
HOUR_NUMBERS = 26
WEEKDAY_NUMBERS = 9
NO_TIME = np.iinfo(np.int64).min
"""`last_time` of a user without events."""
_USER = "user."
USUAL_CONTEXT = ("gap", "hour", "weekday")
"""Context fields that a model reads unless others are chosen."""


class Schema(Record):
    """The fields of a dataset, in the order in which every array holds them.

    `item_fields[0]` is always `item`. A history row is `item_fields + event_fields`, a target row `item_fields`.
    """

    item_fields: tuple[str, ...]
    event_types: bool
    time_unit: Literal["seconds", "ordinal"] = "seconds"
    tasks: tuple[str, ...] = ("response",)
    user_fields: tuple[str, ...] = Field((), exclude_if=operator.not_)
    """Fields of the users' profiles."""
    number_fields: tuple[str, ...] = Field((), exclude_if=operator.not_)
    """Item fields that hold numbers."""

    @property
    def event_fields(self) -> tuple[str, ...]:
        """Fields that belong to the event and not to its item: its type, and the gap since the previous event."""
        types = ("event_type",) if self.event_types else ()
        return (*types, "gap") if self.time_unit == "seconds" else types

    @property
    def history_fields(self) -> tuple[str, ...]:
        """Columns of `history_BLF`."""
        return self.item_fields + self.event_fields

    @property
    def context_fields(self) -> tuple[str, ...]:
        """Columns of `context_BCF`, from which a model takes the ones that it reads.

        Gap since the last event, hour of day and weekday (UTC) of the target, as buckets; the three on fine scales
        (`SCALES`); and the fields of the user's profile.
        """
        timed = (*USUAL_CONTEXT, *SCALES) if self.time_unit == "seconds" else ()
        return (*timed, *map(user_context, self.user_fields))


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How many numbers each input field has: all that a model must know of a dataset to be built.

    Args:
        item: item field -> size, in the order of the schema.
        event: event field -> size.
        context: context field -> size, of all context fields, in the order of a batch's columns.
        users: size of the user numbers (padding and unknown included).
        tasks: names of the labels.
        chosen: context fields that the model reads; None for the usual ones.
        numbers: item fields that are numbered by the levels of `scales.NUMBER`.
        timed: whether times are seconds.
    """

    item: dict[str, int]
    event: dict[str, int]
    context: dict[str, int]
    users: int
    tasks: tuple[str, ...] = ("response",)
    chosen: tuple[str, ...] | None = None
    numbers: tuple[str, ...] = ()
    timed: bool = True

    @property
    def context_fields(self) -> tuple[str, ...]:
        """Context fields that the model takes from a batch or a request, in its order."""
        if self.chosen is not None:
            return self.chosen
        return tuple(field for field in self.context if field in USUAL_CONTEXT)


def user_context(field: str) -> str:
    """Name of the context field that holds a field of the user's profile."""
    return _USER + field


def gap_numbers(time: IntArray, previous: IntArray) -> IntArray:
    """Bucket of the seconds since the previous event, elementwise.

    0 padding (never returned), 1 no event before (`previous == NO_TIME`), 2 the same moment or earlier,
    3 + floor(log2(seconds)) otherwise, at most `GAP_NUMBERS - 1`.

    >>> gap_numbers(np.array([7, 7, 7, 7]), np.array([NO_TIME, 7, 6, 3])).tolist()
    [1, 2, 3, 5]
    """
    first = previous == NO_TIME
    seconds = np.maximum(time - np.where(first, time, previous), 0)
    # frexp gives seconds = m * 2^e with m in [0.5, 1), so e - 1 is floor(log2(seconds)), without rounding errors; e = 0
    # for no seconds.
    bucket = 2 + np.frexp(seconds.astype(np.float64))[1]
    return np.where(first, 1, np.minimum(bucket, GAP_NUMBERS - 1)).astype(np.int64)


def context_numbers(
    fields: Sequence[str], time: IntArray, last_time: IntArray, given: Mapping[str, IntArray] | None = None
) -> IntArray:
    """Context numbers of targets.

    Args:
        fields: the fields, from `Schema.context_fields`.
        time: the targets' times, in any shape.
        last_time: time of the user's last event before each, `NO_TIME` if none; in the shape of `time`.
        given: field of the user's profile -> numbers, in a shape that broadcasts to that of `time`; a field that is
            left out is unknown.

    Returns:
        The shape of `time` plus one axis, with a column per field.
    """
    number_of, columns = given or {}, np.empty((*time.shape, len(fields)), np.int64)
    for column, field in enumerate(fields):
        own = field.startswith(_USER)
        columns[..., column] = number_of.get(field, UNKNOWN) if own else _context_column(field, time, last_time)
    return columns


def _context_column(field: str, time: IntArray, last_time: IntArray) -> IntArray:
    match field:
        case "gap":
            return gap_numbers(time, last_time)
        case "hour":
            return 2 + (time // 3600) % 24
        case "weekday":
            # 1970-01-01 was a Thursday; Monday is 0.
            return 2 + (time // 86400 + 3) % 7
        case "time_of_day":
            return TIME_OF_DAY.numbers(time)
        case "time_of_week":
            return TIME_OF_WEEK.numbers(time)
        case "since_event":
            met = last_time != NO_TIME
            return SINCE.numbers(time - np.where(met, last_time, time), met)
    raise AssertionError(field)
