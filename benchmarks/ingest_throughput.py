"""Events a second of `lifelong ingest` into RocksDB, beside the limits of its parts, measured in the same run.

Tally and HPMN (six layers of width 32) with default settings and initial weights, on a synthetic catalogue; a csv of
events over many users, drawn uniformly or by Zipf's law. Every commit waits for the disk. The limits, each measured
alone:

    cells    `Runtime.write`, in batches of the size that suits it, on the slots that are due
    writes   memories put into RocksDB in batches of 4,096, one fsync a batch
    reads    memories got from RocksDB, 4,096 keys at a time

Their serial composition, 1 / (sum of the times of one event), is what a program would reach that did nothing else and
one thing after another. End to end there are parsing, look-ups, the log of events and all checks, too; but parts
overlap, and a user's events of a batch are written once. Where other programs use the machine, too, the time of the
processor tells more than the clock; waiting for the disk is not in it.

The same with a worker process for each of some shards (`--shards`, 0 leaves it out), on as many cores, twice: with the
start of the workers, as the command takes, and from when they are ready, as the one process begins with an opened
artifact: less what a file without events took just before. How long that is, is said, too.

With `--topic` the same events come from a topic of one partition, too, on a broker that runs on the same cores and
keeps messages in RAM: from opening the store until the last event is in it, memories and log (`lifelong[dev]`).

    python benchmarks/ingest_throughput.py --events 1000000 --users 100000 --repeats 3 [--model tally] [--topic]

The last line is JSON; with both models it has Tally's rates as shares of HPMN's.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from printed import last_line

from lifelong.artifact.folder import Artifact
from lifelong.launch import collect_rarely
from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.writer import fold, make_rounds
from lifelong.online.store.opening import open_store

# Tiny artifacts are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

START, ITEMS = 1_700_000_000, 50_000
BATCH = 4_096
MODELS = ("tally", "hpmn")
START_OF_WORKERS = "start of workers, seconds"


def make_artifact(folder: Path, model: str = "hpmn") -> Artifact:
    """A model with its default settings and initial weights."""
    # Workers import this file, too, and need no torch.
    from support.artifacts import tiny_artifact

    from lifelong.testing.datasets import tiny_dataset

    dataset = tiny_dataset(folder / "data", num_users=500, num_items=ITEMS, mean_events=20)
    return tiny_artifact(folder / "artifact", dataset, model=model, settings={})


def write_log(path: Path, events: int, users: int, skew: str, seed: int = 0) -> None:
    """A csv of events in the order of time."""
    rng = np.random.default_rng(seed)
    if skew == "uniform":
        user_N = rng.integers(0, users, events)
    else:
        share = 1 / np.arange(1, users + 1)
        user_N = rng.choice(users, events, p=share / share.sum())
    item_N, time_N = (ITEMS * rng.random(events) ** 2).astype(np.int64), START + np.arange(events) // 50
    with path.open("w") as file:
        file.write("user,item,time,event_type\n")
        rows = zip(user_N.tolist(), item_N.tolist(), time_N.tolist(), rng.random(events).tolist(), strict=True)
        file.writelines(
            f"u{user},i{item},{second},{'view' if kind < 0.9 else 'buy'}\n" for user, item, second, kind in rows
        )


def timed(work: Callable[[], Any]) -> np.ndarray:
    """Seconds by the clock, and of the processor over all threads and the processes that have ended."""

    def now() -> np.ndarray:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return np.array([time.perf_counter(), time.process_time() + ended.ru_utime + ended.ru_stime])

    started = now()
    work()
    return now() - started


def cells(artifact: Artifact) -> np.ndarray:
    """Both kinds of seconds an event: every memory at its own count, as in a batch of users."""
    runtime, rng = Runtime(artifact), np.random.default_rng(1)
    states = runtime.empty(BATCH)
    states.count_B[:] = rng.integers(0, 1_000, BATCH)
    schema = artifact.config.dataset_schema
    # Numbers of the fields, and keys of the items' fields.
    number_BF = np.ones((BATCH, len(schema.history_fields) + len(schema.item_fields)), np.int64)
    plan = make_rounds(np.arange(BATCH), states.count_B, states.last_time_B, refuse=False)
    runs = [timed(lambda: fold(runtime, states, plan, number_BF)) for _ in range(5)]
    return np.min(runs, axis=0) / BATCH


def writes_and_reads(folder: Path, users: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Both kinds of seconds a row of synced batches, and of multi-gets, through rocksdict alone."""
    import rocksdict

    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    database, sync = rocksdict.Rdict(str(folder), options), rocksdict.WriteOptions()
    sync.sync = True
    keys, rng = [f"su{user}".encode() for user in range(users)], np.random.default_rng(2)
    rows = [rng.bytes(size) for _ in range(64)]

    def put(some: list[bytes]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for place, key in enumerate(some):
            batch.put(key, rows[place % 64])
        database.write(batch, sync)

    parts = [keys[at : at + BATCH] for at in range(0, users, BATCH)]
    writes = np.sum([timed(lambda part=part: put(part)) for part in parts], axis=0) / users  # type: ignore[misc]
    asked = [[keys[place] for place in rng.integers(0, users, BATCH)] for _ in range(10)]
    reads = np.median([timed(lambda some=some: database.get(some)) for some in asked], axis=0) / BATCH  # type: ignore[misc]
    database.close()
    return writes, reads


def end_to_end(artifact: Artifact, log: Path, url: str, events: int, *, event_log: bool, workers: int) -> np.ndarray:
    """Both kinds of seconds, from opening the store to the last commit."""

    def run() -> None:
        store = open_store(url)
        applied = ingest(artifact, store, log, event_log=event_log, workers=workers)
        assert applied.applied == events, applied
        store.close()

    return timed(run)


def from_topic(artifact: Artifact, topic: str, url: str, events: int) -> np.ndarray:
    """Both kinds of seconds, from opening the store to the last commit; without the wait that ends the run."""
    from lifelong.online.ingestion.kafka import FILLING, Followed, Stream, StreamSettings
    from lifelong.online.ingestion.kafka_client import parse
    from lifelong.online.memory.updater import Updater

    def run() -> None:
        store = open_store(url)
        schema, settings = artifact.config.dataset_schema, StreamSettings(batch=FILLING)
        stream = Stream(parse(topic), store, Updater(artifact, store).apply_table, schema, settings=settings)

        def until_all(followed: Followed) -> None:
            if followed.applied.applied == events:
                stream.stop()

        found = stream.run(until_all).applied
        assert found.applied == events, found
        store.close()

    return timed(run)


@contextlib.contextmanager
def topic_of(log: Path, folder: Path) -> Iterator[str]:
    """The URL of a topic with the events of a csv."""
    from support.kafka import Broker
    from support.valkey import free_port

    broker = Broker(folder, free_port())
    broker.start()
    try:
        broker.make(log.stem, 1)
        with log.open(newline="") as file:
            broker.send(log.stem, ({**row, "time": int(row["time"])} for row in csv.DictReader(file)))
        yield broker.url(log.stem)
    finally:
        broker.kill()


def measure(artifact: Artifact, log: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """Both kinds of seconds an event: the limits, and both ways of keeping events; once."""
    folder.mkdir()
    size = Runtime(artifact).codec.size
    found = {"cells": cells(artifact)}
    found["writes"], found["reads"] = writes_and_reads(folder / "limits", arguments.users, size)
    found["serial composition"] = np.sum(list(found.values()), axis=0)
    for shards in (1, arguments.shards) if arguments.shards > 1 else (1,):
        for name, event_log in (("memories and log", True), ("memories", False)):
            title = name if shards == 1 else f"{name}, {shards} shards"
            url = f"rocksdb://{folder / title.replace(' ', '-')}?shards={shards}"
            start = start_of_workers(artifact, folder / f"start {title}", shards) if shards > 1 else None
            took = end_to_end(artifact, log, url, arguments.events, event_log=event_log, workers=shards)
            found[title] = took / arguments.events
            if start is not None:
                found[f"{title}, ready"] = (took - start) / arguments.events
                found[START_OF_WORKERS] = start
    if arguments.topic:
        with topic_of(log, folder / "broker") as topic:
            took = from_topic(artifact, topic, f"rocksdb://{folder / 'topic'}", arguments.events)
            found["memories and log, from a topic"] = took / arguments.events
    return found


def start_of_workers(artifact: Artifact, folder: Path, shards: int) -> np.ndarray:
    """Both kinds of seconds of a file without events."""
    folder.mkdir()
    log = folder / "empty.csv"
    log.write_text("user,item,time\n")
    return end_to_end(
        artifact, log, f"rocksdb://{folder / 'store'}?shards={shards}", 0, event_log=False, workers=shards
    )


def table(runs: list[dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Medians of the runs as rates and processor time, and the shares of the composition's rate."""
    middle = {name: np.median([run[name] for run in runs], axis=0) for name in runs[0]}
    limit = middle["serial composition"]
    return {
        name: {
            "events/s": round(1 / wall),
            "processor us an event": round(1e6 * cpu, 2),
            "share of the composition": round(limit[0] / wall, 2),
            "by processor time": round(limit[1] / cpu, 2),
        }
        for name, (wall, cpu) in middle.items()
        if name != START_OF_WORKERS
    }


def of_models(artifacts: dict[str, Artifact], log: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The table of each model; they take turns, so that none has the quieter machine."""
    runs: dict[str, list[dict[str, np.ndarray]]] = {model: [] for model in artifacts}
    for repeat in range(arguments.repeats):
        for model, artifact in artifacts.items():
            runs[model].append(measure(artifact, log, folder / f"{model}-{log.stem}-{repeat}", arguments))
    found: dict[str, Any] = {}
    for model, some in runs.items():
        found[model] = table(some)
        if arguments.shards > 1:
            start = np.median([run[START_OF_WORKERS] for run in some], axis=0)
            found[f"{model}, {START_OF_WORKERS}"] = {
                "by the clock": round(start[0], 2),
                "processor": round(start[1], 2),
            }
        for name, row in found[model].items():
            values = (f"{key}: {value:>10,}" for key, value in row.items())
            print(f"{model:6s} {log.stem:8s} {name:34s}", *values, flush=True)
    if set(MODELS) <= set(found):
        found["tally : hpmn"] = {
            name: round(row["events/s"] / found["hpmn"][name]["events/s"], 3) for name, row in found["tally"].items()
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", choices=MODELS, nargs="+", default=MODELS)
    parser.add_argument("--skew", choices=["uniform", "zipf", "both"], default="both")
    parser.add_argument("--shards", type=int, default=2 if (os.cpu_count() or 1) > 1 else 0)
    parser.add_argument("--topic", action="store_true", help="also from a topic")
    parser.add_argument("--dir", type=Path, default=None, help="where to put the temporary folder: a real disk")
    arguments = parser.parse_args()
    # As the command does.
    collect_rarely()
    document: dict[str, Any] = {"events": arguments.events, "users": arguments.users, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="ingest-", dir=arguments.dir) as name:
        folder = Path(name)
        artifacts = {model: make_artifact(folder / model, model) for model in arguments.model}
        for skew in ("uniform", "zipf") if arguments.skew == "both" else (arguments.skew,):
            log = folder / f"{skew}.csv"
            write_log(log, arguments.events, arguments.users, skew)
            document[skew] = of_models(artifacts, log, folder, arguments)
    print(last_line(document))


if __name__ == "__main__":
    sys.exit(main())
