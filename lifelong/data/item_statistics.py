"""How many events and which ratings an item had before a moment: what a target's context may say about its item.

DATA/statistics/        where `prepare` was asked for them
  events/               the events of each item, of all users: offset.npy, time.npy
  ratings/, overall/    the ratings of each item, and of all items together: offset.npy, time.npy, sum.npy; if there are
                        ratings

A moment sees what has a **strictly earlier** time, of all users: neither the target itself nor anything in its second.
So the statistics of a target do not depend on what the log holds from its time on.

    item.reviews    the number of those events
    item.rating     the mean of those ratings and of `PRIOR` more, which count as the mean of all ratings before the
                    moment; unknown before the first rating of the log

Both are numbers on a scale (`scales.ITEM_SCALES`). An artifact holds their values at the end of its log.

Shapes: V catalogue rows, N events or ratings, M questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import check_lengths, open_arrays, save_arrays
from lifelong.data.histories import count_earlier
from lifelong.data.scales import ITEM_SCALES, RATING, REVIEWS
from lifelong.dtypes import FloatArray, Int32Array, IntArray
from lifelong.errors import RequestError

FOLDER = "statistics"
"""Name of the folder in a dataset."""
PRIOR = 10
"""Ratings of the overall mean that every item is given in advance."""
UNIT = 1 << 16
"""Ratings are summed as whole multiples of 1 / this: such sums are exact, in any order."""
END = np.iinfo(np.int64).max
"""After every moment of a log."""


@dataclass(frozen=True, slots=True)
class Running:
    """Events or ratings of each of V rows, in order of time, with running sums.

    Args:
        offset_V: int64, V + 1; row v has the places `offset_V[v]:offset_V[v + 1]`.
        time_N: int64, ascending in each row.
        sum_N: int64, N + 1; entry n is the sum of the first n ratings, over all rows, in units of 1 / `UNIT`. None
            where there are no ratings.

    >>> running = Running.of([7, 7, 7], [10, 20, 30], [5, 3, 1], rows=8)
    >>> count_M, sum_M = running.before(np.array([7]), np.array([30]))
    >>> count_M.tolist(), sum_M.tolist()
    ([2], [8.0])
    """

    offset_V: IntArray
    time_N: IntArray
    sum_N: IntArray | None = None

    @classmethod
    def of(cls, row_N: npt.ArrayLike, time_N: npt.ArrayLike, rating_N: npt.ArrayLike | None, rows: int) -> Running:
        """Sort events or ratings in memory, for small logs."""
        row, time = np.asarray(row_N, np.int64), np.asarray(time_N, np.int64)
        order = np.lexsort((time, row))
        offset_V = np.searchsorted(row[order], np.arange(rows + 1)).astype(np.int64)
        if rating_N is None:
            return cls(offset_V, time[order])
        return cls(offset_V, time[order], np.append(0, np.cumsum(whole(np.asarray(rating_N)[order]))))

    @classmethod
    def open(cls, folder: Path, *, rated: bool) -> Running:
        """Map saved arrays.

        Raises:
            DatasetError: a file is missing or of the wrong length.
        """
        parts = open_arrays(folder, ["offset", "time", *(["sum"] if rated else [])], "statistics")
        length = int(parts["offset"][-1])
        check_lengths(folder, {"time": parts["time"]}, length)
        if rated:
            check_lengths(folder, {"sum": parts["sum"]}, length + 1)
        # Plain views: indexing a memory map by many places is slower than indexing the array below it.
        return cls(*map(np.asarray, parts.values()))

    def save(self, folder: Path) -> None:
        """Write one file per array into `folder`."""
        save_arrays(folder, {"offset": self.offset_V, "time": self.time_N, "sum": self.sum_N})

    def before(self, row_M: npt.NDArray[np.integer], time_M: IntArray) -> tuple[IntArray, FloatArray]:
        """For (row, time) pairs: how many entries have a strictly earlier time, and the sum of their ratings."""
        count_M = count_earlier(self.offset_V, self.time_N, row_M, time_M)
        if self.sum_N is None:
            return count_M, np.zeros(len(count_M))
        first_M = self.offset_V[row_M]
        # The sums run over all rows, so what the rows before this one hold is subtracted.
        return count_M, (self.sum_N[first_M + count_M] - self.sum_N[first_M]) / UNIT


@dataclass(frozen=True, slots=True)
class ItemStatistics:
    """Statistics of all items of a dataset at any moment.

    Args:
        events: events of each catalogue row.
        ratings: ratings of each catalogue row, None where the log has none.
        overall: all ratings, as one row.
        rating_range: lowest and highest rating of the training period; () without ratings.
    """

    events: Running
    ratings: Running | None = None
    overall: Running | None = None
    rating_range: tuple[float, ...] = ()

    @classmethod
    def open(cls, folder: Path, rating_range: tuple[float, ...]) -> ItemStatistics:
        """Map saved statistics.

        Args:
            folder: where they are.
            rating_range: that of the schema; if it is empty, the log has no ratings.

        Raises:
            DatasetError: a file is missing or of the wrong length.
        """
        events = Running.open(folder / "events", rated=False)
        if not rating_range:
            return cls(events)
        ratings, overall = (Running.open(folder / name, rated=True) for name in ("ratings", "overall"))
        return cls(events, ratings, overall, rating_range)

    def save(self, folder: Path) -> None:
        """Write all arrays below `folder`."""
        for name, part in (("events", self.events), ("ratings", self.ratings), ("overall", self.overall)):
            if part is not None:
                part.save(folder / name)

    def values(self, row_M: npt.NDArray[np.integer], time_M: IntArray) -> dict[str, FloatArray]:
        """Context field -> its value for each (row, time) pair, from strictly earlier entries; NaN where unknown."""
        found = {REVIEWS: self.events.before(row_M, time_M)[0].astype(np.float64)}
        if self.ratings is not None and self.overall is not None:
            number_M, sum_M = self.ratings.before(row_M, time_M)
            all_M, sum_of_all_M = self.overall.before(np.zeros(len(time_M), np.int64), time_M)
            mean_M = np.where(all_M > 0, sum_of_all_M / np.maximum(all_M, 1), np.nan)
            found[RATING] = (sum_M + PRIOR * mean_M) / (number_M + PRIOR)
        return found

    def numbers(self, row_M: npt.NDArray[np.integer], time_M: IntArray) -> dict[str, IntArray]:
        """Context field -> its context number for each (row, time) pair."""
        found = self.values(row_M, time_M)
        return {field: level(field, value_M, self.rating_range) for field, value_M in found.items()}

    def as_sent(
        self, fields: Sequence[str], row_M: npt.NDArray[np.integer], time_M: IntArray
    ) -> list[dict[str, str | None]]:
        """Per (row, time) pair the value of each field as a client would send it, None where unknown."""
        found = self.values(row_M, time_M)
        columns = [found[field].tolist() for field in fields]
        return [
            {field: None if math.isnan(value) else repr(value) for field, value in zip(fields, values, strict=True)}
            for values in zip(*columns, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class LatestStatistics:
    """The statistics of an artifact: those of its items at the end of its log, unless a request brings newer ones.

    Args:
        fields: context fields of an item that the model reads.
        number_VK: int32 context numbers of each catalogue row; row 1 holds those of unknown items.
        rating_range: see `ItemStatistics`.
    """

    fields: tuple[str, ...]
    number_VK: Int32Array
    rating_range: tuple[float, ...]

    def numbers(
        self, row_M: npt.NDArray[np.integer], given: Sequence[Mapping[str, str | None] | None] | None = None
    ) -> IntArray:
        """Context numbers of items: `[M, K]`.

        Args:
            row_M: their catalogue rows.
            given: per item newer values by field, which win; None means unknown. Or None.

        Raises:
            RequestError: a value is not a number.
        """
        number_MK = np.array(self.number_VK[row_M], np.int64)
        for at, field in enumerate(self.fields):
            newer = {place: values[field] for place, values in enumerate(given or ()) if values and field in values}
            value_N = np.array([parsed(field, text) for text in newer.values()], np.float64)
            number_MK[list(newer), at] = level(field, value_N, self.rating_range)
        return number_MK


def latest_numbers(statistics: ItemStatistics, fields: Sequence[str]) -> Int32Array:
    """Context numbers of all catalogue rows at the end of the log: `[V, K]`."""
    rows = np.arange(len(statistics.events.offset_V) - 1)
    found = statistics.numbers(rows, np.full(len(rows), END))
    return np.stack([found[field] for field in fields], axis=1).astype(np.int32)


def level(field: str, value_M: FloatArray, rating_range: tuple[float, ...]) -> IntArray:
    """Context numbers of values; NaN is unknown. A rating counts by its place between the lowest and the highest."""
    known_M = ~np.isnan(value_M)
    if field == RATING:
        low, high = rating_range
        value_M = (value_M - low) / (high - low)
    return ITEM_SCALES[field].numbers(value_M, known_M)


def parsed(field: str, text: str | None) -> float:
    """A value that a request brings; NaN for None, which means unknown.

    Raises:
        RequestError: it is not a number.
    """
    if text is None:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(f"{field} is {text!r}", expected="a number, as a text", fix="leave it out, or fix it")
    return value


def whole(rating_N: npt.NDArray[np.floating]) -> IntArray:
    """Ratings as whole multiples of 1 / `UNIT`."""
    return np.rint(np.asarray(rating_N, np.float64) * UNIT).astype(np.int64)
