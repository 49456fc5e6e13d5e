"""Writes the statistics of items (`lifelong.data.item_statistics`) from the log, sorted by item and time.

    events, ratings --engine: sort by (item, time)--> batches --running sums--> .npy

Memory holds one batch and a number per item.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.data.arrays import ArrayWriter
from lifelong.data.catalogue import FIRST_ROW
from lifelong.data.item_statistics import FOLDER, whole
from lifelong.preparation.engine import batches, count, scalars
from lifelong.preparation.job import Job
from lifelong.preparation.numbering import Columns, Numbered, column_arrays, write_ragged
from lifelong.preparation.sources import RawLog

OVERALL_ROW = 0


def rating_range(log: RawLog, cut_time: int | None) -> tuple[float, ...]:
    """Lowest and highest rating before a cut time (of all if None); () if there are no two different ratings."""
    if log.ratings is None:
        return ()
    rated = log.ratings if cut_time is None else log.ratings.filter(log.ratings["time"] < cut_time)
    found = scalars(rated.aggregate(low=rated["rating"].min(), high=rated["rating"].max()))
    low, high = found["low"], found["high"]
    return () if low is None or low == high else (float(low), float(high))


def write_statistics(job: Job, numbered: Numbered, cut_times: tuple[int, ...]) -> tuple[float, ...]:
    """Write the statistics of all items.

    Returns:
        Lowest and highest rating of the training period, or those of the earlier dataset; () without ratings.
    """
    connection, log, progress, folder = job.connection, job.log, job.progress, job.folder / FOLDER
    rated = rating_range(log, cut_times[0] if cut_times else None)
    if rated and job.earlier is not None and job.earlier.rating_range:
        rated = job.earlier.rating_range
    items = numbered.items.select("item", "row")
    rows = FIRST_ROW + count(items)
    progress("sorting the events by item and time, for the statistics of items")
    events = log.events.select("item", "time").join(items, "item")
    _write(connection, events.select("row", "time"), ("row", "time"), folder / "events", rows)
    if rated:
        assert log.ratings is not None
        progress("sorting the ratings by item and time")
        ratings = log.ratings.select("item", "time", "rating").filter(log.ratings["rating"].notnull())
        of_items = ratings.join(items, "item").select("row", "time", "rating")
        # Equal times are in the order of their ratings, so that every engine writes the same sums.
        _write(connection, of_items, ("row", "time", "rating"), folder / "ratings", rows)
        overall = ratings.select("time", "rating", row=OVERALL_ROW)
        _write(connection, overall, ("time", "rating"), folder / "overall", 1)
    return rated


def _write(connection: Any, table: Any, order: tuple[str, ...], folder: Path, rows: int) -> None:
    """Write one `Running`.

    Args:
        connection: of the engine.
        table: columns `row`, `time` and perhaps `rating`.
        order: columns to sort by, `row` first where there are several rows.
        folder: gets `offset`, `time` and, of ratings, `sum`.
        rows: V.
    """
    writers = {"time": ArrayWriter(folder / "time.npy", np.int64)}
    if "rating" in order:
        writers["sum"] = ArrayWriter(folder / "sum.npy", np.int64)
        writers["sum"].append(np.zeros(1, np.int64))
    write_ragged(_summed(batches(connection, table.order_by(list(order)))), "row", rows, writers, folder)


def _summed(sorted_batches: Iterable[Any]) -> Iterator[Columns]:
    """Columns of batches, and the running sum of all ratings so far as the column `sum`."""
    total = 0
    for batch in sorted_batches:
        column = column_arrays(batch)
        if "rating" in column:
            column["sum"] = total + np.cumsum(whole(column["rating"]))
            total = int(column["sum"][-1])
        yield column
