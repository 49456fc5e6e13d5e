"""A store that Spark fills, also where processes of its tasks are killed."""

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyspark", reason="pyspark is of the spark extra, and needs Java")
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import TaskContext, cloudpickle
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

from lifelong import Updater, backfill, ingest, open_store
from lifelong.cli import main
from lifelong.errors import SourceError, UsageError
from lifelong.online.ingestion import spark
from lifelong.online.store.contract import filled_until

# Spark leaves sockets to its processes for Python to close.
pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Said by Spark 4.3 of a library that only its own functions of pandas need.
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]
# Processes of Spark cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    """Two tasks at a time, each of which may fail three times."""
    builder = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")
    session = (
        builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1").getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Events of 60 users in the order of time, many at the same time."""
    rng = np.random.default_rng(4)
    return pa.table(
        {
            "user": [f"u{user:02}" for user in rng.integers(0, 60, 900)],
            "item": [f"i{item}" for item in rng.integers(0, 60, 900)],
            "time": np.arange(900) // 300 + 1_600_000_000,
            "event_type": rng.choice(["view", "buy"], 900),
        }
    )


@pytest.fixture
def log(table: pa.Table, tmp_path: Path) -> str:
    for at, place in enumerate(range(0, 900, 250)):
        pq.write_table(table.slice(place, 250), tmp_path / f"{at}.parquet")
    return str(tmp_path / "*.parquet")


def records_of(url: str) -> dict[str, bytes]:
    with closing(open_store(url)) as store:
        return dict(store.scan())


@pytest.fixture
def wanted(artifact: Any, table: pa.Table) -> dict[str, bytes]:
    store = open_store("memory://")
    ingest(artifact, store, table)
    return dict(store.scan())


def test_spark_fills_the_store_that_ingest_fills(session, artifact, log, table, wanted, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}?shards=4"
    report = backfill(artifact, log, url, engine="spark")
    assert (report.users, report.events, report.until) == (len(wanted), 900, 1_600_000_003)
    assert records_of(url) == wanted
    assert ingest(artifact, url, table).applied == 0


def test_spark_fills_a_server(session, artifact, log, table, wanted, redis_url):
    report = backfill(artifact, log, redis_url, engine="spark")
    assert (report.users, report.events, report.until) == (len(wanted), 900, 1_600_000_003)
    assert records_of(redis_url) == wanted
    assert ingest(artifact, redis_url, table).applied == 0


def test_parts_without_users_are_there_too(session, artifact, table, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}?shards=8"
    few = table.filter(pa.compute.is_in(table["user"], pa.array(["u01", "u02"])))
    pq.write_table(few, tmp_path / "few.parquet")
    assert backfill(artifact, tmp_path / "few.parquet", url, engine="spark").users == 2
    assert set(records_of(url)) == {"u01", "u02"}


class Dying(spark.FillTask):
    """Is killed in its first attempt, after some parts."""

    def __call__(self, batches: Any) -> Iterator[Any]:
        reports = super().__call__(batches)
        context = TaskContext.get()
        if context is not None and context.attemptNumber() == 0:
            yield from islice(reports, 1)
            os.kill(os.getpid(), signal.SIGKILL)
        yield from reports


def test_tasks_that_are_killed_once_leave_the_same_store(session, artifact, log, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(spark, "FillTask", Dying)
    session.sparkContext.setLogLevel("OFF")
    url = f"rocksdb://{tmp_path / 'store'}?shards=4"
    assert backfill(artifact, log, url, engine="spark").users == len(wanted)
    assert records_of(url) == wanted


def test_a_cluster_that_loses_an_executor_leaves_the_same_store(artifact, log, wanted, tmp_path):
    folder, root = tmp_path / "store", Path(__file__).parents[2]
    # In a process of its own: a session is of one cluster.
    done = subprocess.run(
        [sys.executable, "-m", "support.spark_cluster", artifact.path, log, f"rocksdb://{folder}?shards=4"],
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert (folder.parent / "killed").exists()
    assert (report["users"], report["until"]) == (len(wanted), 1_600_000_003)
    assert records_of(f"rocksdb://{folder}?shards=4") == wanted
    print(f"the driver's Python held {report['driver_bytes'] / 1e6:.0f} MB")
    assert report["driver_bytes"] < 200e6


def test_the_command_names_columns_as_every_other(session, artifact, log, table, wanted, tmp_path):
    pq.write_table(table.rename_columns(["uid", "item", "time", "event_type"]), tmp_path / "named")
    url = f"rocksdb://{tmp_path / 'store'}?shards=2"
    options = ["--store", url, "--engine", "spark", "--column", "user=uid"]
    assert main(["backfill", str(artifact.path), str(tmp_path / "named"), *options]) == 0
    assert records_of(url) == wanted


@pytest.mark.parametrize("shards", [1, 3])
def test_a_batch_that_comes_again_counts_nothing_twice(session, artifact, table, shards, tmp_path, monkeypatch):
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "spark_events.py"))
    untyped = table.drop_columns(["event_type"])
    for at in range(3):
        path = tmp_path / f"{at}.parquet"
        pq.write_table(untyped.slice(at * 300, 300), path)
        # Spark reads files in the order of their times.
        os.utime(path, (1_700_000_000 + at,) * 2)
    store, alone = open_store(f"rocksdb://{tmp_path / 'store'}?shards={shards}"), open_store("memory://")
    fold, killed = example["folding"](Updater(artifact, store)), []

    def dying(batch: DataFrame, number: int) -> None:
        if number != 1 or killed:
            fold(batch, number)
            return
        killed.append(number)
        with monkeypatch.context() as patch:
            if shards > 1:
                # Two of the shards have applied the batch, and the third has not.
                patch.setattr(store._shards[2], "commit", lambda change: 1 / 0)
            fold(batch, number)
        # Applied, and Spark has not noted it: what a kill between the two leaves behind.
        raise RuntimeError

    with pytest.raises(StreamingQueryException):
        example["follow"](session, tmp_path, dying, tmp_path / "checkpoint")
    example["follow"](session, tmp_path, dying, tmp_path / "checkpoint")
    assert killed == [1]
    ingest(artifact, alone, untyped.sort_by([(name, "ascending") for name in ("time", "user", "item")]))
    with closing(store):
        assert dict(store.scan()) == dict(alone.scan())


@pytest.fixture
def frame(session: SparkSession, log: str) -> DataFrame:
    return session.read.parquet(log)


def test_a_row_that_is_no_event_is_named_and_can_be_left_out(session, artifact, frame, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}?shards=2"
    wrong = frame.selectExpr("user", "if(user = 'u07', null, item) item", "time")
    with pytest.raises(SourceError, match=r"^part \d, its rows .*, line \d+, column item: item is ''") as caught:
        backfill(artifact, wrong, url, engine="spark")
    assert "skip_invalid" in caught.value.fix
    backfill(artifact, wrong, url, engine="spark", mapping={"skip_invalid": True})
    users = {row.user for row in frame.select("user").distinct().collect()}
    assert set(records_of(url)) == users - {"u07"}


def test_a_server_that_lacks_users_does_not_say_until_when_it_is_filled(session, artifact, frame, redis_url):
    wrong = frame.selectExpr("user", "if(user = 'u59', null, item) item", "time")
    session.conf.set("spark.sql.shuffle.partitions", "4")
    # Four tasks: those without the wrong row end, and could note it.
    session.conf.set("spark.sql.adaptive.enabled", "false")
    try:
        with pytest.raises(SourceError, match=r"^part 0, its rows"):
            backfill(artifact, wrong, redis_url, engine="spark")
    finally:
        session.conf.set("spark.sql.adaptive.enabled", "true")
    assert len(records_of(redis_url)) > 30
    with closing(open_store(redis_url)) as store:
        assert filled_until(store) is None


@pytest.mark.parametrize("option", ["own=0", "partitioner=murmur2"])
def test_a_node_is_refused_before_anything_is_read(session, artifact, log, tmp_path, option):
    with pytest.raises(UsageError, match=r"these are what Spark fills.*--part K/2"):
        backfill(artifact, log, f"rocksdb://{tmp_path / 'store'}?shards=2&{option}", engine="spark")
    assert not (tmp_path / "store").exists()


def test_a_store_that_is_complete_is_refused_before_anything_is_read(session, artifact, log, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}?shards=2"
    backfill(artifact, log, url, engine="spark")
    with pytest.raises(UsageError, match="is a store already"):
        backfill(artifact, "nowhere", url, engine="spark")


def test_times_that_are_text_are_refused(session, artifact, frame, tmp_path):
    with pytest.raises(UsageError, match="column 'time' is string") as caught:
        backfill(
            artifact,
            frame.selectExpr("user", "item", "cast(time as string) time"),
            f"rocksdb://{tmp_path}/s?shards=2",
            engine="spark",
        )
    assert "cast it in Spark" in str(caught.value)


def test_a_column_that_is_missing_is_named(session, artifact, frame, tmp_path):
    with pytest.raises(UsageError, match="column 'customer' is not there"):
        backfill(artifact, frame, f"rocksdb://{tmp_path}/s?shards=2", engine="spark", user="customer")


def test_a_folder_needs_a_number_of_parts(session, artifact, frame, tmp_path):
    with pytest.raises(UsageError, match="does not say how many parts"):
        backfill(artifact, frame, f"rocksdb://{tmp_path}/s", engine="spark")
