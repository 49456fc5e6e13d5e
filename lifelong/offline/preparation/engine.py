"""The table engine: Ibis on DuckDB, in a database file with a memory limit and a spill folder next to it.

All queries but those of a mapping are written in Ibis.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lifelong.atomic import full_disk
from lifelong.errors import DataError, require
from lifelong.tables import folder_columns


@contextlib.contextmanager
def open_engine(folder: Path, *, memory_limit: str, threads: int | None) -> Iterator[Any]:
    """An Ibis connection with its tables and spilled data in `folder`.

    Args:
        folder: an empty folder; its owner deletes it.
        memory_limit: how much the engine may hold in memory, such as "1500MB".
        threads: threads of the engine; None = one per core.

    Raises:
        MissingExtraError: it is not installed.
    """
    ibis = require("ibis", extra="train", purpose="preparing a dataset")
    require("duckdb", extra="train", purpose="preparing a dataset")
    settings: dict[str, Any] = {"memory_limit": memory_limit, "temp_directory": str(folder / "spill")}
    if threads is not None:
        settings["threads"] = threads
    connection = ibis.duckdb.connect(str(folder / "tables.duckdb"), **settings)
    try:
        # The engine would draw its own bar on standard output, where `--json` answers. In a notebook without the
        # package ipywidgets it draws none, and refuses the setting.
        if connection.raw_sql("SELECT current_setting('enable_progress_bar')").fetchall()[0][0]:
            connection.raw_sql("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.disconnect()


def stage(connection: Any, batches: Iterable[Any], schema: Any) -> Any:
    """Write Arrow batches or tables into a new table, one at a time, so that memory stays bounded.

    Args:
        connection: from `open_engine`.
        batches: produced lazily; an error in them comes out as it is.
        schema: their columns.

    Returns:
        The table as an Ibis expression.
    """
    import ibis
    import pyarrow as pa

    name, stream = ibis.util.gen_name("lifelong"), ibis.util.gen_name("lifelong_stream")
    failures: list[BaseException] = []

    def guarded() -> Iterator[Any]:
        try:
            for batch in batches:
                yield from batch.to_batches() if isinstance(batch, pa.Table) else (batch,)
        except GeneratorExit:
            # The engine has failed by itself, and lets go of the stream.
            raise
        except BaseException as error:
            failures.append(error)
            raise

    try:
        connection.con.register(stream, pa.RecordBatchReader.from_batches(schema, guarded()))
        try:
            connection.raw_sql(f'CREATE TABLE "{name}" AS SELECT * FROM "{stream}"')
        finally:
            connection.con.unregister(stream)
        return connection.table(name)
    except Exception:
        # The engine wraps what the generator raised; the caller wants the error itself.
        if failures:
            raise failures[0] from None
        raise


def materialise(connection: Any, name: str, expression: Any) -> Any:
    """Compute an expression once, into a new table with a name that begins with `name`."""
    import ibis

    return connection.create_table(ibis.util.gen_name(name), expression)


def read_parquet(connection: Any, path: Path) -> Any:
    """Rows of one parquet file, with their numbers as the column `file_row_number`, and the columns of its folders."""
    import ibis

    # A path is not a pattern: in brackets, the engine's wildcards are plain characters.
    plain = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    rows = connection.read_parquet(plain, file_row_number=True, hive_partitioning=False)
    # Not by the engine, which would make a number of `05`.
    texts = {name: text for name, text in folder_columns(path).items() if name not in rows.columns}
    rows = rows.mutate(**{name: ibis.literal(text) for name, text in texts.items()})
    # Nanoseconds with a zone, as pandas 2 writes all times, are of a type of DuckDB 2 that Ibis does not know.
    unknown = [name for name, kind in rows.schema().items() if "TIMESTAMPTZ_NS" in str(kind)]
    return rows.mutate(**{name: rows[name].cast("timestamp('UTC')") for name in unknown}) if unknown else rows


def batches(connection: Any, table: Any, *, rows: int = 1 << 20) -> Iterator[Any]:
    """Rows of an Ibis table as Arrow record batches, in its order, without holding them all."""
    relation = connection.con.sql(connection.compile(table))
    # The stream of Ibis uses a call that newer DuckDB releases do not have.
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
    yield from read(rows)


def scalars(expression: Any) -> dict[str, Any]:
    """The single row of an aggregate, as a dict."""
    row: dict[str, Any] = expression.to_pyarrow().to_pylist()[0]
    return row


def count(table: Any) -> int:
    """Number of rows."""
    return int(table.count().to_pyarrow().as_py())


def kth_smallest(times: Any, *places: int) -> tuple[int, ...]:
    """`sorted(times)[place]` of an Ibis integer column for each place, without sorting the rows.

    The rows are counted per distinct value first, so the running sum goes over distinct values alone.
    """
    import ibis

    counted = times.name("time").as_table().group_by("time").aggregate(n=lambda table: table.count())
    up_to = ibis.window(order_by="time", preceding=None, following=0)
    summed = counted.mutate(below=counted["n"].sum().over(up_to))
    # All of them in one pass over the rows.
    smallest = {f"at{at}": summed["time"].min(where=summed["below"] > place) for at, place in enumerate(places)}
    return tuple(int(time) for time in scalars(summed.aggregate(**smallest)).values())


@contextlib.contextmanager
def clear_errors(folder: Path) -> Iterator[None]:
    """Say in plain words that the disk is full or the engine's memory limit too small.

    Raises:
        DataError: instead of the engine's or the system's own error.
    """
    kept = "free some space, or choose an --out on another disk; nothing of this run was kept"
    with full_disk(folder, kept=kept, room="room for about four times the raw files"):
        try:
            yield
        except Exception as error:
            text, of_engine = str(error).partition("\n")[0], ("duckdb", "_duckdb")
            full = "no space left" in text.lower() or "max_temp_directory_size" in str(error)
            if full or not type(error).__module__.startswith(of_engine):
                raise
            if "out of memory" in text.lower():
                raise DataError(
                    f"the engine's memory limit is too small: {text}",
                    fix="give it more with the setting memory_limit, or fewer threads with the setting threads",
                ) from error
            raise DataError(
                f"the engine failed on the tables: {text}",
                fix="check the columns that the text names, and the free space of the disk",
            ) from error
