"""Writes the statistics of items (`lifelong.data.item_statistics`): the log sorted by item and time, from disk to disk.

    events, ratings --engine: sort by (item, time)--> batches --running sums--> .npy

Memory holds one batch, and a number per item.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.data.arrays import ArrayWriter
from lifelong.data.catalogue import FIRST_ROW
from lifelong.data.engine import batches, scalars
from lifelong.data.item_statistics import whole
from lifelong.data.numbering import Numbered, count_ascending
from lifelong.data.sources import RawLog

OVERALL_ROW = 0


def rating_range(log: RawLog, cut_time: int | None) -> tuple[float, ...]:
    """Lowest and highest rating before a cut time (of all if None); () where there are no two of them."""
    if log.ratings is None:
        return ()
    rated = log.ratings if cut_time is None else log.ratings.filter(log.ratings["time"] < cut_time)
    found = scalars(rated.aggregate(low=rated["rating"].min(), high=rated["rating"].max()))
    low, high = found["low"], found["high"]
    return () if low is None or low == high else (float(low), float(high))


def write_statistics(
    connection: Any, log: RawLog, numbered: Numbered, folder: Path, *, rated: bool, progress: Callable[[str], None]
) -> None:
    """Write the statistics of all items below `folder`.

    Args:
        connection: of the engine.
        log: whose events and ratings are counted.
        numbered: tables of ids.
        folder: see `lifelong.data.item_statistics`.
        rated: whether ratings are written, too.
        progress: called with plain words.
    """
    items = numbered.items.select("item", "row")
    rows = FIRST_ROW + int(items.count().to_pyarrow().as_py())
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


def _write(connection: Any, table: Any, order: tuple[str, ...], folder: Path, rows: int) -> None:
    """Write one `Running`.

    Args:
        connection: of the engine.
        table: columns `row`, `time` and perhaps `rating`.
        order: of the columns.
        folder: gets `offset`, `time` and, of ratings, `sum`.
        rows: V.
    """
    length_V, total = np.zeros(rows, np.int64), np.zeros(1, np.int64)
    with ExitStack() as stack:
        times = stack.enter_context(ArrayWriter(folder / "time.npy", np.int64))
        sums = None
        if "rating" in order:
            sums = stack.enter_context(ArrayWriter(folder / "sum.npy", np.int64))
            sums.append(total)
        for batch in batches(connection, table.order_by(list(order))):
            column = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in ("row", *order)}
            count_ascending(length_V, column["row"])
            times.append(column["time"])
            if sums is not None:
                sum_N = total + np.cumsum(whole(column["rating"]))
                sums.append(sum_N)
                total = sum_N[-1:]
    np.save(folder / "offset.npy", np.concatenate([[0], np.cumsum(length_V)]))
