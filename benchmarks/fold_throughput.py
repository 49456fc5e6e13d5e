"""Events per CPU second of `lifelong.fold`: from a file of Parquet to the records of all users, in one process.

    python benchmarks/fold_throughput.py tally hpmn --log log.parquet [--per-user 40] [--repeats 3]

Artifacts fold in the same file, one after another, in turns. The log is ordered by user and time, with the columns
user, item and time, and those of item fields. `--per-user` cuts its histories into users of so many events, to see what
short ones cost. Reading alone, the same rows as checked tables of events, is the limit that is measured beside: a fold
cannot take less. What a process does once, such as opening an artifact and compiling, is done before the clock starts.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as arrow
from pyarrow import parquet

from lifelong import fold, open_artifact
from lifelong.artifact.folder import Artifact
from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.folding import EVENTS
from lifelong.online.ingestion.opened_file import opened
from lifelong.online.ingestion.task import batches_of


def cut(log: Path, out: Path, per_user: int) -> None:
    """The log with users of so many events each, a user's last ones excepted."""
    rows = parquet.read_table(log)
    user = rows.column("user").combine_chunks().dictionary_encode().indices.to_numpy()
    # Rows are ordered by user: an event's place less that of its user's first one is its place among hers.
    place = np.arange(len(user)) - np.searchsorted(user, user)
    number = np.cumsum((place % per_user) == 0)
    users = arrow.array([f"{one:09}" for one in number.tolist()])
    parquet.write_table(rows.set_column(rows.schema.get_field_index("user"), "user", users), out)


def seconds(work: Callable[[], None]) -> float:
    """CPU seconds."""
    started = time.process_time()
    work()
    return time.process_time() - started


def read(artifact: Artifact, log: Path) -> None:
    """All events, as checked tables."""
    with opened(log) as file:
        schema = artifact.config.dataset_schema
        for _ in batches_of(FileReader(file, schema, {}, size=EVENTS, last_line="complete"), None, skip=0):
            pass


def folded(artifact: Artifact, log: Path) -> None:
    """All records."""
    for _ in fold(artifact, log):
        pass


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--log", type=Path, required=True, help="Parquet, ordered by user and time")
    parser.add_argument("--per-user", type=int, help="events a user; without it as in the log")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    artifacts = {found.config.title: found for found in map(open_artifact, arguments.artifacts)}
    with tempfile.TemporaryDirectory() as folder:
        log, first = arguments.log, Path(folder) / "first.parquet"
        if arguments.per_user is not None:
            log = Path(folder) / "cut.parquet"
            cut(arguments.log, log, arguments.per_user)
        rows = parquet.read_table(log)
        parquet.write_table(rows.slice(0, 1_000), first)
        rates: dict[str, list[float]] = {}
        for turn in range(-1, arguments.repeats):
            for name, artifact in artifacts.items():
                for what, work in (("read alone", read), ("fold", folded)):
                    # The first turn compiles.
                    if turn < 0:
                        work(artifact, first)
                    else:
                        took = seconds(lambda work=work, artifact=artifact: work(artifact, log))
                        rates.setdefault(f"{name}, {what}", []).append(len(rows) / took)
    median = {name: round(float(np.median(found))) for name, found in rates.items()}
    for name, rate in median.items():
        print(f"{name}: {rate:,} events per CPU second")
    users = len(np.unique(rows.column("user").to_numpy(zero_copy_only=False)))
    print(json.dumps({"events": len(rows), "users": users, "events per CPU second": median}))


if __name__ == "__main__":
    main()
