"""From ids to numbers, in the engine: users, items, event types; then the events, sorted and streamed to disk.

    events (strings) --distinct, sorted--> users, items, types --join--> numbers --sort, stream--> .npy

Rows stay in the engine and in batches; only arrays as long as the users or items are held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset import histories
from lifelong.dataset.arrays import CHUNK, ArrayWriter, is_first, read_slice
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.vocabulary import UNKNOWN, IdIndex
from lifelong.dtypes import IntArray
from lifelong.errors import DataError
from lifelong.offline.preparation.engine import batches, count, materialise, scalars
from lifelong.offline.preparation.settings import Job
from lifelong.offline.preparation.sources import RawLog

Columns = dict[str, npt.NDArray[Any]]
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
        sums = scalars(table.aggregate(rows=table.count(), **lacks))
        if not sums["rows"]:
            raise DataError(f"{log.name} holds no {what}s", expected=f"at least one {what}", fix="check the files")
        for name in columns:
            if sums[f"no_{name}"]:
                raise DataError(
                    f"{sums[f'no_{name}']} of {sums['rows']} {what}s have no {name}",
                    expected=f"a {name} in every row",
                    fix="drop or fix those rows",
                )
    events = log.events
    span = events.aggregate(events=events.count(), time_first=events["time"].min(), time_last=events["time"].max())
    counted: dict[str, int] = scalars(span)
    return counted


def number_ids(job: Job) -> Numbered:
    """Number all users and items of a log in order of their ids; the item table's items count too.

    Raises:
        DataError: the item table names an item twice.
    """
    import ibis

    connection, log = job.connection, job.log

    def distinct(column: str, tables: Sequence[Any]) -> Any:
        tables = [table.select(column) for table in tables if table is not None]
        return (ibis.union(*tables) if len(tables) > 1 else tables[0]).distinct()

    given = None
    if log.items is not None:
        # Computed once: the source may have to work through the whole log for it.
        given = materialise(connection, "lifelong_given", log.items.select("item", *log.item_columns))
    users = distinct("user", [log.events, log.impressions])
    # In the order of the ids: numbers then depend neither on the order of the rows nor on the threads of the engine.
    users = users.mutate(user_index=ibis.row_number().over(order_by="user").cast("int32"))
    named = [log.events, log.impressions] if job.whole is None else [job.whole.items]
    items = distinct("item", [*named, given])
    # The first rows of the catalogue are padding and the unknown item.
    items = items.mutate(row=(ibis.row_number().over(order_by="item") + FIRST_ROW).cast("int32"))
    items = materialise(connection, "lifelong_items", items)
    if given is not None:
        number = count(items)
        items = materialise(connection, "lifelong_item_fields", items.left_join(given, "item").drop("item_right"))
        # A join with a table that names an item twice has a row more.
        if count(items) != number:
            raise DataError(
                "the item table names an item twice",
                expected="one row per item",
                fix="remove the other rows of the item",
            )
    types: tuple[str, ...] = ()
    if job.whole is not None:
        types = tuple(sorted(job.whole.types))
    elif log.event_types:
        column = log.events.select("event_type").distinct().to_pyarrow().column("event_type")
        types = tuple(sorted(value for value in column.to_pylist() if value is not None))
    return Numbered(materialise(connection, "lifelong_users", users), items, types)


def id_index(connection: Any, table: Any, column: str, order: str) -> IdIndex:
    """Index the ids of a table in the order of its numbers."""
    import pyarrow as pa

    texts, lengths = [], []
    for batch in batches(connection, table.order_by(order).select(column)):
        strings = batch.column(0).cast(pa.large_string())
        # A batch may be a slice of a larger one: its offsets begin at `strings.offset`, and its texts not at 0.
        offset = np.frombuffer(strings.buffers()[1], np.int64)[strings.offset : strings.offset + len(strings) + 1]
        text = np.frombuffer(strings.buffers()[2] or b"", np.uint8)
        texts.append(text[offset[0] : offset[-1]].copy())
        lengths.append(np.diff(offset))
    offset_all = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]).astype(np.int64))])
    return IdIndex.from_text(np.concatenate([np.empty(0, np.uint8), *texts]), offset_all.astype(np.int64))


def write_histories(job: Job, numbered: Numbered) -> None:
    """Sort all events by (user, time, sequence) and write the histories, event types apart from them.

    The code of an event's type, in the file `job.type_code`, is its place in `numbered.types`, -1 where it is missing.

    Raises:
        DataError: two events of a user share both time and sequence, so that their order is not known.
    """
    folder = job.folder / "histories"
    paths = {name: folder / f"{name}.npy" for name in ("row", "time", "sequence")}
    if numbered.types:
        paths["event_type"] = job.work / "type_code.npy"
    # Below every key, so that the first row of all has a smaller one before it.
    before = np.full(3, np.iinfo(np.int64).min)

    def checked() -> Iterator[Columns]:
        nonlocal before
        order = ("user_index", "time", "sequence")
        for column in _sorted(job, numbered, order, "writing histories"):
            # The last key of a batch is compared with the first of the next: neighbours may be in two batches.
            before = _check_order(np.stack([column[name] for name in order]), before)
            yield column

    job.progress(f"sorting {count(job.log.events):,} events by user and time")
    writers = {name: ArrayWriter(path, histories.DTYPES[name]) for name, path in paths.items()}
    write_ragged(checked(), "user_index", count(numbered.users), writers, folder)


def write_ragged(
    columns: Iterable[Columns], by: str, groups: int, writers: Mapping[str, ArrayWriter], folder: Path
) -> None:
    """Write sorted columns batch by batch, and the offsets of their groups.

    Args:
        columns: batches of columns by name.
        by: the column of the group, ascending.
        groups: how many groups there are.
        writers: of columns, by name; they are closed at the end.
        folder: gets `offset.npy`.
    """
    length_G = np.zeros(groups, np.int64)
    with _all(writers):
        for column in columns:
            low = int(column[by][0])
            # The column ascends, so counting from its first value takes an array as long as the batch's range.
            count_B = np.bincount(column[by] - low)
            length_G[low : low + len(count_B)] += count_B
            for name, writer in writers.items():
                writer.append(column[name])
    np.save(folder / "offset.npy", np.concatenate([[0], np.cumsum(length_G)]))


def _sorted(job: Job, numbered: Numbered, order: tuple[str, ...], stage: str) -> Iterator[Columns]:
    """All events in an order, batch by batch: user_index, row, time, sequence and, if there are types, event_type."""
    log = job.log
    events = log.events.join(numbered.users, "user").join(numbered.items.select("item", "row"), "item")
    columns = ["user_index", "row", "time", "sequence"] + ["event_type"] * bool(numbered.types)
    if numbered.types:
        events = events.mutate(event_type=_code(events["event_type"], numbered.types))
    total, written = count(log.events), 0
    for batch in batches(job.connection, events.select(*columns).order_by(list(order))):
        yield column_arrays(batch)
        written += batch.num_rows
        _tell(job, stage, written, batch.num_rows, total)


def column_arrays(batch: Any) -> Columns:
    """The columns of an Arrow batch by name."""
    return {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}


def write_impressions(job: Job, numbered: Numbered) -> None:
    """Sort the impressions by (user, time, sequence) into `job.work`: user, row, time, label, split (0 if not given).

    Raises:
        DataError: a split is none of train, validation and test, or a label is missing.
    """
    shown, work, tasks = job.log.impressions, job.work, job.log.tasks
    assert shown is not None
    table = shown.join(numbered.users, "user").join(numbered.items.select("item", "row"), "item")
    columns = ["user_index", "row", "time", *tasks]
    if "split" in shown.columns:
        table = table.mutate(split=_code(table["split"], tuple(SPLIT_CODES)))
        columns.append("split")
    total, written = count(shown), 0
    ordered = table.select(*columns, "sequence").order_by(["user_index", "time", "sequence"])
    writers = {
        "user": ArrayWriter(work / "user.npy", np.int32),
        "row": ArrayWriter(work / "row.npy", np.int32),
        "time": ArrayWriter(work / "time.npy", np.int64),
        "label": ArrayWriter(work / "label.npy", np.float32, width=len(tasks)),
        "split": ArrayWriter(work / "split.npy", np.int8),
    }
    job.progress(f"sorting {total:,} impressions by user and time")
    with _all(writers):
        for batch in batches(job.connection, ordered):
            column = column_arrays(batch)
            label_NT = np.stack([column[task] for task in tasks], axis=1).astype(np.float32)
            split_N = column.get("split", np.zeros(batch.num_rows, np.int8))
            if np.isnan(label_NT).any() or (split_N < 0).any():
                raise DataError(
                    "an impression has no label, or a split that is not known",
                    expected=f"numbers in {', '.join(tasks)}; splits {', '.join(SPLIT_CODES)}",
                    fix="drop or fix those rows",
                )
            parts = (column["user_index"], column["row"], column["time"], label_NT, split_N)
            for writer, values in zip(writers.values(), parts, strict=True):
                writer.append(values)
            written += batch.num_rows
            _tell(job, "writing impressions", written, batch.num_rows, total)


def write_event_types(code: Path, target: Path, number_of_code: IntArray) -> None:
    """Turn the codes of event types into numbers of the vocabulary; a missing type is unknown."""
    # A missing type has code -1, which picks the last entry of the table.
    table = np.append(number_of_code, UNKNOWN).astype(histories.DTYPES["event_type"])
    length = len(np.load(code, mmap_mode="r"))
    with ArrayWriter(target, histories.DTYPES["event_type"]) as writer:
        for start in range(0, length, CHUNK):
            writer.append(table[read_slice(code, slice(start, start + CHUNK))])


def _code(column: Any, values: tuple[str, ...]) -> Any:
    """Place of a string in a short list, -1 where it is missing, as an Ibis expression."""
    import ibis

    whens = [(column == value, ibis.literal(place)) for place, value in enumerate(values)]
    return ibis.cases(*whens, else_=-1).cast("int16") if whens else ibis.literal(-1)


def _check_order(key_3N: IntArray, before: IntArray) -> IntArray:
    """The last key of a batch, once it is sure that no two neighbours are equal."""
    key_3N = np.concatenate([before[:, None], key_3N], axis=1)
    if not is_first(*key_3N).all():
        raise DataError(
            "two events of one user have the same time and the same place in the source",
            expected="a sequence that orders events of one time",
            fix="number the rows of the source, each with its own sequence",
        )
    return key_3N[:, -1]


def _tell(job: Job, stage: str, done: int, step: int, total: int) -> None:
    """Report progress at every twentieth of the total."""
    # Only where a batch passes a twentieth: a log of billions has thousands of batches.
    if done * 20 // total > (done - step) * 20 // total:
        job.progress(f"{stage}: {100 * done // total} %")


@contextlib.contextmanager
def _all(writers: Mapping[str, ArrayWriter]) -> Iterator[None]:
    """Several writers as one context."""
    with contextlib.ExitStack() as stack:
        for writer in writers.values():
            stack.enter_context(writer)
        yield
