"""The table engine: Ibis on DuckDB, in a database file with a memory limit and a spill folder beside it, or on Spark.

What is asked of it is written in Ibis alone, and both engines give the same rows in the same order; only the functions
of this file know which engine it is.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lifelong.data import spark
from lifelong.errors import DataError, UsageError, require


@contextlib.contextmanager
def open_engine(
    name: str, folder: Path, *, memory_limit: str, threads: int | None, master: str | None = None
) -> Iterator[Any]:
    """An Ibis connection whose tables and spilled data live in `folder`.

    Args:
        name: "duckdb" or "spark".
        folder: an empty folder; its owner deletes it.
        memory_limit: what the engine may hold in memory, such as "1500MB".
        threads: of the engine; None = one per core.
        master: of a Spark cluster; see `open_spark`.

    Raises:
        UsageError: there is no such engine, or it cannot be started.
        MissingExtraError: it is not installed.
    """
    if name == "spark":
        with spark.open_spark(folder, master=master, memory_limit=memory_limit, threads=threads) as opened:
            yield opened
        return
    if name != "duckdb":
        raise UsageError(
            f"there is no engine {name!r}", expected="duckdb or spark", fix="leave out --engine, or use --engine duckdb"
        )
    if master is not None:
        raise UsageError(
            f"the engine duckdb has no master (found {master!r})", fix="leave out --master, or add --engine spark"
        )
    ibis = require("ibis", extra="train", purpose="preparing a dataset")
    require("duckdb", extra="train", purpose="preparing a dataset")
    settings: dict[str, Any] = {"memory_limit": memory_limit, "temp_directory": str(folder / "spill")}
    if threads is not None:
        settings["threads"] = threads
    connection = ibis.duckdb.connect(str(folder / "tables.duckdb"), **settings)
    # The engine would draw its own bar on standard output, where `--json` answers.
    connection.raw_sql("SET enable_progress_bar = false")
    try:
        yield connection
    finally:
        connection.disconnect()


def is_spark(connection: Any) -> bool:
    """Whether the engine behind a connection is Spark."""
    return bool(connection.name == "pyspark")


def stage(connection: Any, batches: Iterable[Any], schema: Any) -> Any:
    """Write Arrow batches into a new table.

    Args:
        connection: of `open_engine`.
        batches: produced lazily; an error in them comes out as it is.
        schema: their columns.
    """
    import ibis
    import pyarrow as pa

    name, stream = ibis.util.gen_name("lifelong"), ibis.util.gen_name("lifelong_stream")
    if is_spark(connection):
        return spark.stage(connection, name, batches, schema)
    connection.con.register(stream, pa.RecordBatchReader.from_batches(schema, batches))
    try:
        connection.raw_sql(f'CREATE TABLE "{name}" AS SELECT * FROM "{stream}"')
    finally:
        connection.con.unregister(stream)
    return connection.table(name)


def materialise(connection: Any, name: str, expression: Any) -> Any:
    """Compute an expression once, into a new table."""
    if is_spark(connection):
        return spark.materialise(connection, name, expression)
    return connection.create_table(name, expression)


def read_parquet(connection: Any, path: Path) -> Any:
    """Rows of one parquet file, with `file_row_number`."""
    import ibis

    if is_spark(connection):
        return spark.read_parquet(connection, path, ibis.util.gen_name("lifelong_file"))
    # The engine's wildcards made plain.
    plain = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    return connection.read_parquet(plain, file_row_number=True)


def batches(connection: Any, table: Any, *, rows: int = 1 << 20) -> Iterator[Any]:
    """Rows of an Ibis table as Arrow record batches, in its order, without holding them all."""
    if is_spark(connection):
        import ibis

        yield from spark.batches(connection, table, name=ibis.util.gen_name("lifelong_sorted"), rows=rows)
        return
    relation = connection.con.sql(connection.compile(table))
    # Ibis' own stream goes through a call that newer DuckDB releases do not have.
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
    yield from read(rows)


def scalars(expression: Any) -> dict[str, Any]:
    """The single row of an aggregate, as a dict."""
    row: dict[str, Any] = expression.to_pyarrow().to_pylist()[0]
    return row


def kth_smallest(times: Any, place: int) -> int:
    """`sorted(times)[place]` of an Ibis integer column, without sorting the rows.

    The rows are counted per distinct value first, so the running sum goes over distinct values alone.
    """
    import ibis

    counted = times.name("time").as_table().group_by("time").aggregate(n=lambda table: table.count())
    up_to = ibis.window(order_by="time", preceding=None, following=0)
    summed = counted.mutate(below=counted["n"].sum().over(up_to))
    return int(
        scalars(summed.filter(summed["below"] > place).aggregate(time=lambda table: table["time"].min()))["time"]
    )


@contextlib.contextmanager
def clear_errors(folder: Path) -> Iterator[None]:
    """Say in plain words that the disk is full or the engine's memory too small.

    Raises:
        DataError: one of the two, instead of the engine's or the system's own error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder, str(error)) from error
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("duckdb", "_duckdb", "pyspark", "py4j")):
            raise
        text = str(error).splitlines()[0]
        if "no space left" in text.lower() or "max_temp_directory_size" in str(error):
            raise _full(folder, text) from error
        if "out of memory" in text.lower():
            raise DataError(
                f"the engine's memory limit is too small: {text}",
                fix="give it more with the setting memory_limit, or fewer threads with the setting threads",
            ) from error
        raise DataError(f"the engine could not work through the tables: {text}") from error


def _full(folder: Path, text: str) -> DataError:
    return DataError(
        f"the disk that holds {folder} is full: {text}",
        expected="room for about four times the raw files",
        fix="free some space, or choose an --out on another disk; nothing of this run was kept",
    )
