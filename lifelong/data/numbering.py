"""From ids to numbers, in the engine: users, items, event types; then the events, sorted and streamed to disk.

    events (strings) --distinct, sorted--> users, items, types --join--> numbers --sort, stream--> .npy

Rows stay in the engine and in batches; only tables as long as users or items are held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.data import histories, item_histories
from lifelong.data.arrays import CHUNK, ArrayWriter, read_slice
from lifelong.data.catalogue import FIRST_ROW
from lifelong.data.engine import batches, materialise, scalars
from lifelong.data.sources import RawLog
from lifelong.data.vocabulary import UNKNOWN, IdIndex
from lifelong.errors import DataError

Progress = Callable[[str], None]
SPLIT_CODES = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, slots=True)
class Numbered:
    """Tables of the engine that translate ids.

    Args:
        users: Ibis table `user`, `user_index` (from 0, in order of the ids).
        items: Ibis table `item`, `row` (catalogue row, in order of the ids) and the item fields.
        types: event type ids in order; empty if the log has none.
    """

    users: Any
    items: Any
    types: tuple[str, ...]


def check_log(log: RawLog) -> dict[str, int]:
    """Count the events, and make sure that each has a user, an item, a time and a place.

    Raises:
        DataError: there are no events, or one lacks something.
    """
    for what, table in (("event", log.events), ("impression", log.impressions)):
        if table is None:
            continue
        columns = ("user", "item", "time", "sequence")
        lacks = {f"no_{name}": table[name].isnull().sum() for name in columns}
        found = scalars(table.aggregate(rows=table.count(), **lacks))
        if not found["rows"]:
            raise DataError(f"{log.name} holds no {what}s", expected=f"at least one {what}", fix="check the files")
        for name in columns:
            if found[f"no_{name}"]:
                raise DataError(
                    f"{found[f'no_{name}']} of {found['rows']} {what}s have no {name}",
                    expected=f"a {name} in every row",
                    fix="drop or mend those rows",
                )
    events = log.events
    span = events.aggregate(events=events.count(), time_first=events["time"].min(), time_last=events["time"].max())
    counted: dict[str, int] = scalars(span)
    return counted


def number_ids(connection: Any, log: RawLog) -> Numbered:
    """Number all users and items of a log in order of their ids; the item table's items count too.

    Raises:
        DataError: the item table names an item twice.
    """
    import ibis

    def distinct(column: str, tables: Sequence[Any]) -> Any:
        tables = [table.select(column) for table in tables if table is not None]
        return (ibis.union(*tables) if len(tables) > 1 else tables[0]).distinct()

    given = None
    if log.items is not None:
        # Written once: the source may have to work through the whole log for it.
        given = materialise(connection, "lifelong_given", log.items.select("item", *log.item_fields))
    users = distinct("user", [log.events, log.impressions])
    users = users.mutate(user_index=ibis.row_number().over(order_by="user").cast("int32"))
    items = distinct("item", [log.events, log.impressions, given])
    items = items.mutate(row=(ibis.row_number().over(order_by="item") + FIRST_ROW).cast("int32"))
    items = materialise(connection, "lifelong_items", items)
    if given is not None:
        number = int(items.count().to_pyarrow().as_py())
        items = materialise(connection, "lifelong_item_fields", items.left_join(given, "item").drop("item_right"))
        if int(items.count().to_pyarrow().as_py()) != number:
            raise DataError("the item table names an item twice", expected="one row per item")
    types: tuple[str, ...] = ()
    if log.event_types:
        column = log.events.select("event_type").distinct().to_pyarrow().column("event_type")
        types = tuple(sorted(value for value in column.to_pylist() if value is not None))
    return Numbered(materialise(connection, "lifelong_users", users), items, types)


def id_index(connection: Any, table: Any, column: str, order: str) -> IdIndex:
    """Index the ids of a table in the order of its numbers."""
    import pyarrow as pa

    texts, lengths = [], []
    for batch in batches(connection, table.order_by(order).select(column)):
        strings = batch.column(0).cast(pa.large_string())
        offset = np.frombuffer(strings.buffers()[1], np.int64)[strings.offset : strings.offset + len(strings) + 1]
        text = np.frombuffer(strings.buffers()[2] or b"", np.uint8)
        texts.append(text[offset[0] : offset[-1]].copy())
        lengths.append(np.diff(offset))
    offset_all = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]).astype(np.int64))])
    return IdIndex.from_text(np.concatenate([np.empty(0, np.uint8), *texts]), offset_all.astype(np.int64))


def write_histories(
    connection: Any, log: RawLog, numbered: Numbered, folder: Path, work: Path, progress: Progress
) -> None:
    """Sort all events by (user, time, sequence) and write the histories, event types apart from them.

    Args:
        folder: gets `offset`, `row`, `time` and `sequence`.
        work: gets `type_code.npy`, place of the type in `numbered.types`, -1 where missing.

    Raises:
        DataError: two events of a user share both time and sequence, so that their order is not known.
    """
    paths = {name: folder / f"{name}.npy" for name in ("row", "time", "sequence")}
    if numbered.types:
        paths["event_type"] = work / "type_code.npy"
    writers = {name: ArrayWriter(path, histories.DTYPES[name]) for name, path in paths.items()}
    length_U = np.zeros(int(numbered.users.count().to_pyarrow().as_py()), np.int64)
    before = np.full(3, np.iinfo(np.int64).min)
    progress(f"sorting {int(log.events.count().to_pyarrow().as_py()):,} events by user and time")
    ordered = _sorted(connection, log, numbered, ("user_index", "time", "sequence"), "writing histories", progress)
    with _all(writers):
        for column in ordered:
            before = _check_order(np.stack([column["user_index"], column["time"], column["sequence"]]), before)
            count_ascending(length_U, column["user_index"])
            for name, writer in writers.items():
                writer.append(column[name])
    np.save(folder / "offset.npy", np.concatenate([[0], np.cumsum(length_U)]))


def write_item_histories(
    connection: Any, log: RawLog, numbered: Numbered, folder: Path, work: Path, progress: Progress
) -> None:
    """Sort all events by (item, time, sequence) and write the histories of items, event types apart from them.

    Events of several users that share all three are in the order of the users' ids.

    Args:
        folder: gets `offset`, `user` and `time`.
        work: gets `item_type_code.npy`, as `write_histories` writes `type_code.npy`.
    """
    paths = {"user_index": folder / "user.npy", "time": folder / "time.npy"}
    if numbered.types:
        paths["event_type"] = work / "item_type_code.npy"
    writers = {
        name: ArrayWriter(path, item_histories.DTYPES[name.removesuffix("_index")]) for name, path in paths.items()
    }
    length_V = np.zeros(FIRST_ROW + int(numbered.items.count().to_pyarrow().as_py()), np.int64)
    progress("sorting the events by item and time")
    order = ("row", "time", "sequence", "user_index")
    with _all(writers):
        for column in _sorted(connection, log, numbered, order, "writing item histories", progress):
            count_ascending(length_V, column["row"])
            for name, writer in writers.items():
                writer.append(column[name])
    np.save(folder / "offset.npy", np.concatenate([[0], np.cumsum(length_V)]))


def _sorted(
    connection: Any, log: RawLog, numbered: Numbered, order: tuple[str, ...], stage: str, progress: Progress
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """All events in an order, batch by batch: user_index, row, time, sequence and, if there are types, event_type."""
    events = log.events.join(numbered.users, "user").join(numbered.items.select("item", "row"), "item")
    columns = ["user_index", "row", "time", "sequence"] + ["event_type"] * bool(numbered.types)
    if numbered.types:
        events = events.mutate(event_type=_code(events["event_type"], numbered.types))
    total, written = int(log.events.count().to_pyarrow().as_py()), 0
    for batch in batches(connection, events.select(*columns).order_by(list(order))):
        yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in columns}
        written += batch.num_rows
        _tell(progress, stage, written, batch.num_rows, total)


def count_ascending(length_U: npt.NDArray[np.int64], of_N: npt.NDArray[np.integer]) -> None:
    """Add to the counts how often each number stands in an ascending column, which is not empty."""
    low = int(of_N[0])
    count = np.bincount(of_N - low)
    length_U[low : low + len(count)] += count


def write_impressions(connection: Any, log: RawLog, numbered: Numbered, work: Path, progress: Progress) -> None:
    """Sort the impressions by (user, time, sequence) into `work`: user, row, time, label, split (0 if not given).

    Raises:
        DataError: a split is none of train, validation and test, or a label is missing.
    """
    shown = log.impressions
    assert shown is not None
    table = shown.join(numbered.users, "user").join(numbered.items.select("item", "row"), "item")
    columns = ["user_index", "row", "time", *log.tasks]
    if "split" in shown.columns:
        table = table.mutate(split=_code(table["split"], tuple(SPLIT_CODES)))
        columns.append("split")
    total, written = int(shown.count().to_pyarrow().as_py()), 0
    ordered = table.select(*columns, "sequence").order_by(["user_index", "time", "sequence"])
    writers = {
        "user": ArrayWriter(work / "user.npy", np.int32),
        "row": ArrayWriter(work / "row.npy", np.int32),
        "time": ArrayWriter(work / "time.npy", np.int64),
        "label": ArrayWriter(work / "label.npy", np.float32, width=len(log.tasks)),
        "split": ArrayWriter(work / "split.npy", np.int8),
    }
    progress(f"sorting {total:,} impressions by user and time")
    with _all(writers):
        for batch in batches(connection, ordered):
            column = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in columns}
            label_NT = np.stack([column[task] for task in log.tasks], axis=1).astype(np.float32)
            split_N = column.get("split", np.zeros(batch.num_rows, np.int8))
            if np.isnan(label_NT).any() or (split_N < 0).any():
                raise DataError(
                    "an impression has no label, or a split that is not known",
                    expected=f"numbers in {', '.join(log.tasks)}; splits {', '.join(SPLIT_CODES)}",
                    fix="drop or mend those rows",
                )
            parts = (column["user_index"], column["row"], column["time"], label_NT, split_N)
            for writer, values in zip(writers.values(), parts, strict=True):
                writer.append(values)
            written += batch.num_rows
            _tell(progress, "writing impressions", written, batch.num_rows, total)


def write_event_types(code: Path, target: Path, number_of_code: npt.NDArray[np.int64]) -> None:
    """Turn the codes of event types into numbers of the vocabulary; a missing type is unknown."""
    # A missing type has code -1, which picks the last entry.
    table = np.append(number_of_code, UNKNOWN).astype(histories.DTYPES["event_type"])
    length = len(np.load(code, mmap_mode="r"))
    with ArrayWriter(target, histories.DTYPES["event_type"]) as writer:
        for start in range(0, length, CHUNK):
            writer.append(table[read_slice(code, start, start + CHUNK)])


def _code(column: Any, values: tuple[str, ...]) -> Any:
    """Place of a string in a short list, -1 where it is missing, as an Ibis expression."""
    import ibis

    whens = [(column == value, ibis.literal(place)) for place, value in enumerate(values)]
    return ibis.cases(*whens, else_=-1).cast("int16") if whens else ibis.literal(-1)


def _check_order(key_3N: npt.NDArray[np.int64], before: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The last key, once no two neighbours are equal."""
    key_3N = np.concatenate([before[:, None], key_3N], axis=1)
    if (key_3N[:, 1:] == key_3N[:, :-1]).all(axis=0).any():
        raise DataError(
            "two events of one user have the same time and the same place in the source",
            expected="a sequence that orders events of one time",
            fix="number the rows of the source, each with its own sequence",
        )
    return key_3N[:, -1]


def _tell(progress: Progress, stage: str, done: int, step: int, total: int) -> None:
    """Report every twentieth."""
    if done * 20 // total > (done - step) * 20 // total:
        progress(f"{stage}: {100 * done // total} %")


@contextlib.contextmanager
def _all(writers: dict[str, ArrayWriter]) -> Iterator[None]:
    """Several writers as one context."""
    with contextlib.ExitStack() as stack:
        for writer in writers.values():
            stack.enter_context(writer)
        yield
