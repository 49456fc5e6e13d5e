"""A store filled by Spark: its engine divides and orders the log, its tasks fill one part after another.

    log --Spark: by part, user and time--> tasks --fold--> parts of a folder, or keys of a server --driver--> one store

The rule of a part is one expression in Spark, so a task has whole users. A task that is killed does no harm: Spark runs
it again, and what it had finished is left as it is, or written again with the same bytes.
"""

from __future__ import annotations

import pickle
import time as clock
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.dataset.mapping import mapping_from
from lifelong.errors import LifelongError, SourceError, StoreUnavailableError, UsageError, require
from lifelong.online.ingestion.folding import fill_log
from lifelong.online.ingestion.parts import check_new, fill_part, join_parts
from lifelong.online.ingestion.rows import EventRows
from lifelong.online.memory.filling import BackfillReport
from lifelong.online.memory.runtime import identity_of
from lifelong.online.store.contract import note_filled
from lifelong.online.store.opening import folder_of, open_store
from lifelong.online.store.part import folder_of as folder_of_part

_PART = "lifelong_part"
"""Column with the number of the part."""
_PLACE, _TIES = ("file_path", "row_index"), ("lifelong_file", "lifelong_row")
"""What Spark knows of a row's place, and the columns for it: the order of events of equal time."""
_OUTCOME = "outcome"
"""Column with what became of a part: a pickled `BackfillReport` or `LifelongError`."""


def backfill(
    artifact: Artifact,
    log: Any,
    store: str,
    *,
    mapping: Path | str | Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    **options: Any,
) -> BackfillReport:
    """`lifelong.backfill` of a log in any order, by the running Spark session or a new one.

    Args:
        artifact: of a model that is served; its folder must have this path on every machine.
        log: a path or glob of Parquet as Spark takes them, or a `DataFrame` of Spark.
        store: URL of a new store: a folder that every machine sees, with `?shards=N`, or a server.
        mapping: see `lifelong.fold`.
        columns: columns with other names, by ours.
        options: `until`, `event_log` and `codec` of `lifelong.backfill`.

    Returns:
        What was done; of a folder events and bytes are those of the parts that were not there yet.

    Raises:
        ConfigError: the mapping is wrong.
        SourceError: a row is not an event.
        UsageError: the log cannot be divided or ordered by Spark, or the folder has no parts or is a store already.
    """
    given = artifact.config.mapping if mapping is None else mapping_from(mapping)
    rows = EventRows(artifact.config.dataset_schema, columns or {}, mapping=given)
    reading = {"mapping": rows.mapping.model_dump(exclude_defaults=True), **options}
    started, path = clock.perf_counter(), artifact.path.resolve()
    if not store.startswith("rocksdb://"):
        with closing(open_store(store)) as opened:
            opened.bind(identity_of(artifact, opened, options.get("codec")))
            report = _sum(divided(log, rows, None), FillTask(path, store, None, reading))
            if report.until is not None:
                # Now that every user is there: before, the store would have said so of users who were still missing.
                note_filled(opened, report.until)
        return replace(report, seconds=clock.perf_counter() - started)
    named = folder_of(store)
    folder, shards = named.path, named.shards
    if shards is None:
        raise UsageError(
            f"{store!r} does not say how many parts there are",
            expected="rocksdb:///path?shards=N",
            fix="add ?shards=N: Spark fills one shard after another, several at a time",
        )
    if named.own is not None or named.partitioner not in (None, "crc32"):
        raise UsageError(
            f"{store!r} asks for some shards, or for users divided by {named.partitioner or 'crc32'}",
            expected="all shards, by crc32: these are what Spark fills",
            fix=f"fill each shard K by itself: lifelong backfill ARTIFACT LOG --store URL --part K/{shards}",
        )
    check_new(folder)
    report = _sum(divided(log, rows, shards), FillTask(path, folder.resolve(), shards, reading))
    for number in range(shards):
        # A part without users comes to no task.
        if not folder_of_part(folder, number).exists():
            fill_part(artifact, _none(rows), folder, f"{number}/{shards}", **reading)
    joined = join_parts(folder, shards)
    return replace(report, users=joined.users, until=joined.until, seconds=clock.perf_counter() - started)


def _sum(frame: Any, task: FillTask) -> BackfillReport:
    """What all tasks did; the error of one of them, if there is any."""
    outcomes = list[BackfillReport]()
    for row in frame.mapInArrow(task, f"{_OUTCOME} binary").collect():
        # Written by this package, in tasks of this session.
        outcome = pickle.loads(row[_OUTCOME])
        if isinstance(outcome, LifelongError):
            raise outcome
        outcomes.append(outcome)
    users, events, newer, size = (
        sum(getattr(one, name) for one in outcomes) for name in ("users", "events", "newer", "bytes")
    )
    until = max((one.until for one in outcomes if one.until is not None), default=None)
    return BackfillReport(users, events, newer, 0, size, 0.0, until)


def divided(log: Any, rows: EventRows, parts: int | None) -> Any:
    """A log as a `DataFrame` whose partitions have whole parts, each ordered by user and time.

    Without parts, Spark chooses how many partitions there are by the size of the log, and each counts as one part.

    Events of equal time of one user keep the order of files (by name) and of their rows; of a `DataFrame` that is
    given, no order.

    Raises:
        UsageError: a column is missing, or is of a type that does not order as its users or times do.
    """
    functions = require("pyspark.sql.functions", extra="spark", purpose="Spark")
    sql, user, time = require("pyspark.sql", extra="spark", purpose="Spark"), rows.column["user"], rows.column["time"]
    if rows.mapping.query is not None:
        raise UsageError(
            "a mapping with a query, with Spark",
            expected="a log whose users and times are columns",
            fix="do in Spark what the query does, and give a mapping without it",
        )
    frame, ties = log, list[str]()
    if isinstance(log, str | Path):
        read = sql.SparkSession.builder.appName("lifelong").getOrCreate().read.parquet(str(log))
        ties = list(_TIES)
        place = (functions.col(f"_metadata.{name}").alias(tie) for name, tie in zip(_PLACE, ties, strict=True))
        frame = read.select("*", *place)
    kind_of = dict(frame.dtypes)
    for name, kinds, fix in ((user, _IDS, "a text or an integer"), (time, _TIMES, "an integer, a timestamp or a date")):
        found = kind_of.get(name, "not there")
        if not found.startswith(kinds):
            raise UsageError(
                f"column {name!r} is {found}",
                expected=fix,
                fix="cast it in Spark, or name another by --column, in Python by user= or time=",
            )
    text = functions.col(user).cast("string")
    # A row without a user is of part 0, where it is found.
    hash_of = functions.coalesce(functions.crc32(functions.encode(text, "UTF-8")), functions.lit(0))
    part = functions.lit(0) if parts is None else hash_of % parts
    frame = frame.withColumn(user, text).withColumn(_PART, part)
    frame = frame.repartition(user) if parts is None else frame.repartition(parts, _PART)
    return frame.sortWithinPartitions(_PART, user, time, *ties).drop(*ties)


_IDS, _TIMES = ("string", "bigint", "int", "smallint", "tinyint"), ("bigint", "int", "timestamp", "date")


@dataclass(frozen=True)
class FillTask:
    """What a task of Spark does with its rows: `DataFrame.mapInArrow` calls it with their Arrow batches.

    Args:
        artifact: its folder.
        store: folder of the parts, or URL of a server.
        parts: how many there are; None for a server.
        options: of `fill_log`.
    """

    artifact: Path
    store: Path | str
    parts: int | None
    options: Mapping[str, Any]

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The outcome of each part that was not there yet, as one row; an error that would come again is the last."""
        arrow = require("pyarrow", extra="spark", purpose="Spark")
        artifact = Artifact.open(self.artifact)
        for number, rows in groupby(_runs(batches), key=lambda run: run[0]):
            outcome = self._fill(artifact, number, _reader(batch for _, batch in rows))
            if outcome is not None:
                yield arrow.RecordBatch.from_pylist([{_OUTCOME: pickle.dumps(outcome)}])
            if isinstance(outcome, LifelongError):
                return

    def _fill(self, artifact: Artifact, number: int, log: Any) -> BackfillReport | LifelongError | None:
        try:
            if isinstance(self.store, Path):
                return fill_part(artifact, log, self.store, f"{number}/{self.parts}", **self.options)
            with closing(open_store(self.store)) as store:
                return fill_log(artifact, log, store, noted=False, **self.options)
        except StoreUnavailableError:
            # Another attempt of Spark may find the server again.
            raise
        except SourceError as error:
            return SourceError(
                error.found.replace("the table", f"part {number}, its rows in the order of users and times", 1),
                expected=error.expected,
                fix="correct the row, or set skip_invalid in the mapping, and run it again",
            )
        except LifelongError as error:
            return error


def _runs(batches: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """The rows of Arrow batches, cut where another part begins: its number, and the rows without the number."""
    for batch in batches:
        number_N = batch.column(_PART).to_numpy()
        # A difference at place i is between rows i and i + 1.
        first = [0, *(np.flatnonzero(np.diff(number_N)) + 1).tolist(), len(number_N)]
        rows = batch.drop_columns([_PART])
        for start, end in pairwise(first):
            if end > start:
                yield int(number_N[start]), rows.slice(start, end - start)


def _reader(batches: Iterator[Any]) -> Any:
    arrow, first = require("pyarrow", extra="spark", purpose="Spark"), next(batches)
    return arrow.RecordBatchReader.from_batches(first.schema, (batch for some in ([first], batches) for batch in some))


def _none(rows: EventRows) -> Any:
    """A table of events without a row."""
    arrow = require("pyarrow", extra="spark", purpose="Spark")
    kinds = [(name, arrow.int64() if name == rows.column["time"] else arrow.string()) for name in rows.named]
    return arrow.schema(kinds).empty_table()
