# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["lifelong[serve,spark]"]
#
# [tool.uv.sources]
# lifelong = { path = ".." }
# ///
"""Spark as the source of events: of Kinesis, Delta, Iceberg, Event Hubs or files, each event once, whatever is killed.

uv run examples/spark_events.py        (needs Java)
"""

from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

import lifelong

COLUMNS = "user string, item string, time bigint"


def folding(updater: lifelong.Updater):
    """What `foreachBatch` calls with each batch and its number; a batch that comes again changes nothing."""

    def fold(batch: DataFrame, number: int) -> None:
        # A repeated batch has the same rows, in any order: sorted, each row has the same place again. Memory and place
        # are one commit, and one for each shard if there are several: what was applied before a kill is left out.
        rows = batch.sort("time", "user", "item").toLocalIterator()
        events = [lifelong.UserEvent(row.user, row.item, row.time) for row in rows]
        places = [(number << 32) + place for place in range(len(events))]
        print(f"batch {number}:", updater.apply(events, source="spark", offsets=places))

    return fold


def follow(session: SparkSession, folder: Path, fold, checkpoint: Path) -> None:
    """Fold in the files of a folder that were not folded in yet; without the trigger, also those to come."""
    stream = session.readStream.schema(COLUMNS).option("maxFilesPerTrigger", 1).parquet(str(folder))
    writer = stream.writeStream.foreachBatch(fold).option("checkpointLocation", str(checkpoint))
    writer.trigger(availableNow=True).start().awaitTermination()


def main() -> None:
    """Two files of purchases, one after the other."""
    folder, store = Path("purchases"), lifelong.open_store("rocksdb://spark-store")
    folder.mkdir()
    updater = lifelong.Updater(lifelong.open_artifact(str(files("lifelong.cli.shop") / "artifact")), store)
    session = SparkSession.builder.master("local[1]").getOrCreate()
    for day, item in enumerate(["coffee", "cola"]):
        rows = {"user": ["Ada", "Ben"], "item": [item] * 2, "time": [1_750_000_000 + 86_400 * day] * 2}
        pq.write_table(pa.table(rows), folder / f"{day}.parquet")
        follow(session, folder, folding(updater), Path("checkpoint"))
    print("events of Ada:", len(store.events("Ada")))
    session.stop()
    store.close()


if __name__ == "__main__":
    main()
