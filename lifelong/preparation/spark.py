"""The table engine Spark: runs the Ibis expressions on one machine or on a cluster.

Here is what does not go through Ibis: the session, tables that are written once, row numbers of a parquet file, rows in
order. Tables are parquet files in the folder of the preparation, which every machine of a cluster must be able to
access. No Python runs on the workers.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lifelong.errors import MissingExtraError, UsageError, require

MASTER = "LIFELONG_SPARK_MASTER"
"""Environment variable with the address of a cluster's master."""
_ROWS_OF_A_FILE = 1 << 20
_FUNCTIONS = (
    # Under the names that they have in DuckDB.
    "epoch_us(moment TIMESTAMP) RETURNS BIGINT RETURN unix_micros(moment)",
    "try_strptime(text STRING, layout STRING) RETURNS TIMESTAMP RETURN try_to_timestamp(text, layout)",
)
_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
}
_DIRECTIVES = {"%Y": "yyyy", "%m": "M", "%d": "d", "%H": "H", "%M": "m", "%S": "s"}


@contextlib.contextmanager
def open_spark(folder: Path, *, master: str | None, memory_limit: str, threads: int | None) -> Iterator[Any]:
    """An Ibis connection with files in `folder` as tables.

    A session that already runs in this process is used and left running, so that a notebook on a cluster needs no
    settings.

    Args:
        folder: an empty folder; its owner deletes it.
        master: such as "spark://host:7077", "yarn" or "local[4]"; None = the environment variable, or this machine.
        memory_limit: memory of the process, on this machine only; a cluster has its own settings (spark-defaults.conf).
        threads: threads on this machine; None = one per core.

    Raises:
        MissingExtraError: pyspark or Java is not installed.
        UsageError: the session cannot be started, such as when the master does not answer.
    """
    ibis = require("ibis", extra="train", purpose="preparing a dataset")
    spark = require("pyspark.sql", extra="spark", purpose="the engine spark").SparkSession
    running = spark.getActiveSession()
    started = running or _start(spark, folder, master or os.environ.get(MASTER), memory_limit, threads)
    try:
        session = started.newSession()
        for name, value in _SETTINGS.items():
            session.conf.set(name, value)
        for function in _FUNCTIONS:
            session.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {function}")
        connection = ibis.pyspark.connect(session)
        connection.lifelong_folder = folder.resolve()
        yield connection
    finally:
        if running is None:
            started.stop()


def _start(spark: Any, folder: Path, master: str | None, memory_limit: str, threads: int | None) -> Any:
    _require_java()
    settings = {
        "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(folder / "spill"),
    }
    local = master is None or master.startswith("local")
    if local:
        settings |= {
            "spark.driver.memory": re.sub(r"\s*([KMGT])i?B$", lambda unit: unit[1].lower(), memory_limit),
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": str(2 * (threads or os.cpu_count() or 1)),
        }
    builder = spark.builder.appName("lifelong prepare").master(master or f"local[{threads or '*'}]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        # The first line of a Java error says only where it was called from.
        lines = [line.lstrip(": ") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[1] if len(lines) > 1 and lines[0].startswith("An error occurred while calling") else lines[0]
        raise UsageError(
            f"Spark did not start with the master {master or 'local'}: {reason}",
            expected="the address of a master that answers, such as spark://host:7077, and Java 17 or 21",
            fix=f"check --master (or {MASTER}), or leave out --engine spark",
        ) from error
    return session


def _require_java() -> None:
    """Check that Java is installed."""
    home = os.environ.get("JAVA_HOME")
    if not shutil.which("java", path=f"{home}/bin" if home else None):
        raise MissingExtraError(
            "the engine spark needs Java, and there is none" + (f" in JAVA_HOME = {home}" if home else " in the PATH"),
            fix="apt-get install openjdk-17-jre-headless, or leave out --engine spark",
        )


def stage(connection: Any, name: str, batches: Iterable[Any], schema: Any) -> Any:
    """Write batches into files of about a million rows, which together are a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = connection.lifelong_folder / name
    folder.mkdir()
    held: list[Any] = []
    rows = files = 0

    def flush() -> None:
        nonlocal rows, files
        pq.write_table(pa.Table.from_batches(held, schema), folder / f"part-{files:06}.parquet")
        held.clear()
        rows, files = 0, files + 1

    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= _ROWS_OF_A_FILE:
            flush()
    if held or not files:
        flush()
    return _view(connection, connection._session.read.parquet(f"file:{folder}"), name)


def materialise(connection: Any, name: str, expression: Any) -> Any:
    """Compute an expression once, into files."""
    folder = connection.lifelong_folder / name
    _frame(connection, expression).write.parquet(f"file:{folder}")
    return _view(connection, connection._session.read.parquet(f"file:{folder}"), name)


def read_parquet(connection: Any, path: Path, name: str) -> Any:
    """Rows of a file, with their numbers as the column `file_row_number`."""
    plain = re.sub(r"([\\*?\[\]{}])", r"\\\1", str(path.resolve()))
    frame = connection._session.read.parquet(f"file:{plain}")
    return _view(connection, frame.selectExpr("*", "_metadata.row_index AS file_row_number"), name)


def batches(connection: Any, table: Any, *, name: str, rows: int) -> Iterator[Any]:
    """Rows of a table in its order: the cluster writes them into files, and the files' names are in that order."""
    import pyarrow.parquet as pq

    folder = connection.lifelong_folder / name
    _frame(connection, table).write.parquet(f"file:{folder}")
    for path in sorted(folder.glob("part-*")):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(rows)
        path.unlink()
    shutil.rmtree(folder)


def java_layout(layout: str) -> str:
    """A strptime layout in the notation of Java.

    Raises:
        UsageError: it has a directive that Java lacks.

    >>> java_layout("%d/%m/%Y at %H:%M")
    "d'/'M'/'yyyy' at 'H':'m"
    """
    parts = re.split(r"(%.)", layout)
    unknown = sorted({part for part in parts[1::2] if part not in _DIRECTIVES})
    if unknown:
        raise UsageError(
            f"time_format = {layout!r} holds {', '.join(unknown)}, which the engine spark does not read",
            expected=f"{', '.join(_DIRECTIVES)} and plain characters",
            fix="leave out --engine spark, or write the times as ISO texts or seconds",
        )
    plain = ("'" + part.replace("'", "''") + "'" if part else "" for part in parts[0::2])
    return "".join(text + _DIRECTIVES.get(part, "") for text, part in zip(plain, [*parts[1::2], ""], strict=True))


def unfit(schema: Any, columns: Mapping[str, str]) -> tuple[str, str] | None:
    """The first wanted column of a type that Spark does not read, or write as text, as DuckDB does; and that type."""
    import pyarrow as pa

    for name, kind in columns.items():
        found = schema.field(name).type
        inner = found.value_type if hasattr(found, "value_type") else found
        plain = pa.types.is_integer(inner) or pa.types.is_string(inner) or pa.types.is_large_string(inner)
        nanoseconds = pa.types.is_timestamp(inner) and inner.unit == "ns"
        if nanoseconds or (
            kind in ("any", "value", "moment")
            and not (plain or pa.types.is_timestamp(inner) or pa.types.is_date(inner))
        ):
            return name, str(found)
    return None


def _frame(connection: Any, expression: Any) -> Any:
    return connection._session.sql(connection.compile(expression))


def _view(connection: Any, frame: Any, name: str) -> Any:
    frame.createOrReplaceTempView(name)
    return connection.table(name)
