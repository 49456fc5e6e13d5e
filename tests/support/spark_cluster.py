"""Fills a store by a Spark cluster of two executors, one of which is killed; prints the driver's memory.

python -m support.spark_cluster ARTIFACT LOG STORE
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyspark
from pyspark.sql import SparkSession

from lifelong import backfill
from lifelong.online.ingestion import spark


class KillingTask(spark.FillTask):
    """Kills the executor that it runs in after its first part, whoever of all tasks is first to do so."""

    def __call__(self, batches: Any) -> Iterator[Any]:
        reports = super().__call__(batches)
        yield from islice(reports, 1)
        assert isinstance(self.store, Path)
        try:
            # Spark numbers attempts anew where it runs a stage again, so that they do not tell.
            (self.store.parent / "killed").touch(exist_ok=False)
        except FileExistsError:
            yield from reports
            assert "torch" not in sys.modules
        else:
            # The parent forks Python's workers; its own parent is the executor.
            executor = parent_of(os.getppid())
            assert b"CoarseGrainedExecutorBackend" in Path(f"/proc/{executor}/cmdline").read_bytes()
            os.kill(executor, signal.SIGKILL)
            signal.pause()


def parent_of(process: int) -> int:
    """The process that started another one."""
    (line,) = (line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("PPid:"))
    return int(line.split()[1])


def peak_bytes() -> int:
    """The most memory that this process has held; `getrusage` would count what its parent held, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main(artifact: str, log: str, store: str) -> None:
    """Fill the store, and print what was done as JSON."""
    os.environ["SPARK_HOME"] = str(Path(pyspark.__file__).parent)
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    session = builder.config("spark.sql.shuffle.partitions", "4").getOrCreate()
    spark.FillTask = KillingTask  # type: ignore[misc]
    try:
        report = backfill(artifact, log, store, engine="spark")
    finally:
        session.stop()
    print(json.dumps({"users": report.users, "until": report.until, "driver_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
