"""The table engine: Ibis on DuckDB, in a database file with a memory limit and a spill folder beside it.

What is asked of it is written in Ibis alone, so that another Ibis backend can answer; only `open_engine` and `batches`
know which engine it is.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lifelong.errors import DataError, UsageError, require


@contextlib.contextmanager
def open_engine(name: str, folder: Path, *, memory_limit: str, threads: int | None) -> Iterator[Any]:
    """An Ibis connection whose tables and spilled data live in `folder`.

    Args:
        name: "duckdb".
        folder: an empty folder; its owner deletes it.
        memory_limit: what the engine may hold in memory, such as "1500MB".
        threads: of the engine; None = one per core.

    Raises:
        UsageError: there is no such engine.
        MissingExtraError: it is not installed.
    """
    if name != "duckdb":
        raise UsageError(
            f"the engine {name!r} is not available", expected="duckdb", fix="leave out --engine, or use --engine duckdb"
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


def batches(connection: Any, table: Any, *, rows: int = 1 << 20) -> Iterator[Any]:
    """Rows of an Ibis table as Arrow record batches, in its order, without holding them all."""
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
        if not type(error).__module__.startswith(("duckdb", "_duckdb")):
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
