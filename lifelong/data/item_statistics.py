"""How often an item was met before a moment, and how it was rated: what a target's context may say of its item.

DATA/statistics/        where `prepare` was asked for them
  events/               every event of each item, whoever's: offset.npy, time.npy
  ratings/, overall/    every rating of each item, and of all items together: the same, and sum.npy; if there are some

A moment sees what has a **strictly earlier** time, of all users: neither the target itself nor what happened in its
second. So the statistics of a target are the same whatever the log holds from its time on.

    item.reviews    the number of those events
    item.rating     the mean of those ratings, with `PRIOR` more of the mean of all ratings before the moment; unknown
                    before the first rating of the log

Both are numbers on a scale (`scales.ITEM_SCALES`). An artifact holds them as they are at the end of its log.

Shapes: V catalogue rows, N events or ratings, M questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lifelong.data.histories import count_earlier
from lifelong.data.scales import ITEM_SCALES, RATING, REVIEWS
from lifelong.errors import DatasetError, RequestError

FOLDER = "statistics"
"""Of a dataset."""
PRIOR = 10
"""Ratings of the overall mean that every item is given beforehand."""
UNIT = 1 << 16
"""Ratings are summed as whole multiples of 1 / this: such sums are exact, in any order."""
END = np.iinfo(np.int64).max
"""Behind every moment of a log."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Running:
    """What happened to each of V rows, in order of time.

    Args:
        offset_V: int64, V + 1; row v has the places `offset_V[v]:offset_V[v + 1]`.
        time_N: int64, ascending in each row.
        sum_N: int64, N + 1; sum of the first places' ratings, of all rows, in 1 / `UNIT`. None where there are none.
    """

    offset_V: IntArray
    time_N: IntArray
    sum_N: IntArray | None = None

    @classmethod
    def of(cls, row_N: npt.ArrayLike, time_N: npt.ArrayLike, rating_N: npt.ArrayLike | None, rows: int) -> Running:
        """Sort things in memory: those of small logs."""
        row, time = np.asarray(row_N, np.int64), np.asarray(time_N, np.int64)
        order = np.lexsort((time, row))
        offset_V = np.searchsorted(row[order], np.arange(rows + 1)).astype(np.int64)
        if rating_N is None:
            return cls(offset_V, time[order])
        return cls(offset_V, time[order], np.append(0, np.cumsum(whole(np.asarray(rating_N)[order]))))

    @classmethod
    def open(cls, folder: Path, *, rated: bool) -> Running:
        """Map what was saved.

        Raises:
            DatasetError: a file is missing or of the wrong size.
        """
        names = ("offset", "time", *(("sum",) if rated else ()))
        try:
            parts = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"cannot read the statistics in {folder}: {error}", fix="make the dataset anew"
            ) from error
        for name, part, more in zip(names[1:], parts[1:], (0, 1), strict=False):
            if len(part) != parts[0][-1] + more:
                raise DatasetError(
                    f"{folder / name}.npy has {len(part)} values",
                    expected=f"{parts[0][-1] + more}, as the offsets say",
                    fix="make the dataset anew",
                )
        # Plain views: indexing a memory map by many places is slower than indexing the array below it.
        return cls(*map(np.asarray, parts))

    def save(self, folder: Path) -> None:
        """Write one file per array into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in (("offset", self.offset_V), ("time", self.time_N), ("sum", self.sum_N)):
            if values is not None:
                np.save(folder / f"{name}.npy", values)

    def before(self, row_M: npt.NDArray[np.integer], time_M: IntArray) -> tuple[IntArray, FloatArray]:
        """For (row, time) pairs: how much has a strictly earlier time, and the sum of its ratings."""
        count_M = count_earlier(self.offset_V, self.time_N, row_M, time_M)
        if self.sum_N is None:
            return count_M, np.zeros(len(count_M))
        first_M = self.offset_V[row_M]
        return count_M, (self.sum_N[first_M + count_M] - self.sum_N[first_M]) / UNIT


@dataclass(frozen=True, slots=True)
class ItemStatistics:
    """Statistics of all items of a dataset at any moment.

    Args:
        events: of each catalogue row.
        ratings: the same of ratings, None where the log has none.
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
            rating_range: of the schema; without one the log has no ratings.

        Raises:
            DatasetError: a file is missing or of the wrong size.
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
        """Context field -> its value for each (row, time) pair, from what is strictly earlier; NaN where unknown."""
        found = {REVIEWS: self.events.before(row_M, time_M)[0].astype(np.float64)}
        if self.ratings is not None and self.overall is not None:
            number_M, sum_M = self.ratings.before(row_M, time_M)
            all_M, sum_of_all_M = self.overall.before(np.zeros(len(time_M), np.int64), time_M)
            mean_M = np.where(all_M > 0, sum_of_all_M / np.maximum(all_M, 1), np.nan)
            found[RATING] = (sum_M + PRIOR * mean_M) / (number_M + PRIOR)
        return found

    def numbers(self, row_M: npt.NDArray[np.integer], time_M: IntArray) -> dict[str, IntArray]:
        """The same as context numbers."""
        found = self.values(row_M, time_M)
        return {field: level(field, value_M, self.rating_range) for field, value_M in found.items()}

    def told(
        self, fields: Sequence[str], row_M: npt.NDArray[np.integer], time_M: IntArray
    ) -> list[dict[str, str | None]]:
        """The same as a client would send them: per pair the value of each field, None where unknown."""
        found = self.values(row_M, time_M)
        columns = [found[field].tolist() for field in fields]
        return [
            {field: None if math.isnan(value) else repr(value) for field, value in zip(fields, values, strict=True)}
            for values in zip(*columns, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class LatestStatistics:
    """The statistics of an artifact: of its items at the end of its log, and of items that a request brings.

    Args:
        fields: context fields that the model reads of an item.
        number_VK: int32 context numbers of each catalogue row; those of row 1 are for items that are not known.
        rating_range: see `ItemStatistics`.
    """

    fields: tuple[str, ...]
    number_VK: npt.NDArray[np.int32]
    rating_range: tuple[float, ...]

    def numbers(
        self, row_M: npt.NDArray[np.integer], given: Sequence[Mapping[str, str | None] | None] | None = None
    ) -> IntArray:
        """Context numbers of items: `[M, K]`.

        Args:
            row_M: their catalogue rows.
            given: per item newer values, which win, None being unknown; or None.

        Raises:
            RequestError: a value is no number.
        """
        number_MK = np.array(self.number_VK[row_M], np.int64)
        for at, field in enumerate(self.fields):
            newer = {place: values[field] for place, values in enumerate(given or ()) if values and field in values}
            value_N = np.array([parsed(field, text) for text in newer.values()], np.float64)
            number_MK[list(newer), at] = level(field, value_N, self.rating_range)
        return number_MK


def latest_numbers(statistics: ItemStatistics, fields: Sequence[str]) -> npt.NDArray[np.int32]:
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
    """A value that a request brings; NaN for None, which is unknown.

    Raises:
        RequestError: it is no number.
    """
    if text is None:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(f"{field} is {text!r}", expected="a number, as a text", fix="leave it out, or mend it")
    return value


def whole(rating_N: npt.NDArray[np.floating]) -> IntArray:
    """Ratings as whole multiples of 1 / `UNIT`."""
    return np.rint(np.asarray(rating_N, np.float64) * UNIT).astype(np.int64)
