"""Bytes of a user in Valkey: what the server needs more when users are there, divided by their number.

Memories of Tally and of HPMN (default settings, initial weights) after some events, with and without the log of events,
in a server that keeps nothing on disk. Ids of users have 12 bytes, those of items up to 6. `used_memory` has all:
records, keys, the log, what the allocator rounds up, and the tables of keys; not what a replica's buffers take.

    python benchmarks/server_bytes.py --users 5000 [--events 100 300]
    python benchmarks/server_bytes.py --users 120 --artifact ARTIFACT --data DATA

With a dataset: the first events of users who have so many there, folded by an artifact that was trained on it; else
events drawn at random, which compress better.

The last line is JSON: model -> events -> bytes with the log ("logged"), without it ("alone"), and of the record itself.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ingest_throughput import ITEMS, MODELS, START, make_artifact
from printed import last_line

from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.errors import require
from lifelong.online.ingestion.folding import fill_log
from lifelong.online.store.opening import open_store

# Servers are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.valkey import Server, server

WAYS = {"logged": True, "alone": False}
"""Name -> whether the events are kept."""


def events(users: int, each: int) -> Any:
    """A table of users in the order of their ids, who have equally many events, an hour apart."""
    pyarrow, rng = require("pyarrow", extra="train", purpose="a table of events"), np.random.default_rng(each)
    names, total = [f"user-{user:07d}" for user in range(users)], users * each
    return pyarrow.table(
        {
            "user": np.repeat(names, each),
            "item": [f"i{item}" for item in rng.integers(0, ITEMS, total).tolist()],
            "time": np.tile(START + 3_600 * np.arange(each), users),
            "event_type": rng.choice(["view", "buy"], total, p=[0.9, 0.1]),
        }
    )


def logged(dataset: Dataset, users: int, each: int) -> Any:
    """The same of the first users of a dataset who have as many events."""
    pyarrow = require("pyarrow", extra="train", purpose="a table of events")
    offset_U = dataset.histories.offset_U
    enough = np.flatnonzero(np.diff(offset_U) >= each)[:users].tolist()
    rows = [
        (dataset.users.id_at(user), *dataset.event(int(offset_U[user]) + place))
        for user in sorted(enough, key=dataset.users.id_at)
        for place in range(each)
    ]
    columns = dict(zip(("user", "item", "time", "event_type"), zip(*rows, strict=True), strict=True))
    # A log without types has none in any event.
    return pyarrow.table({name: column for name, column in columns.items() if any(column)})


def used(one: Server) -> int:
    """Bytes that the server has allocated."""
    (found,) = re.findall(r"^used_memory:(\d+)", one.call("info", "memory"), re.MULTILINE)
    return int(found)


def measure(artifact: Artifact, folder: Path, log: Any, each: int) -> dict[str, int]:
    """Bytes of a user: in a server, and of the record alone."""
    found = {}
    for way, event_log in WAYS.items():
        with server(folder / f"{each} {way}") as one:
            taken = []
            # One user is there before: what is the store's own is not counted.
            for rows in (log.slice(0, each), log.slice(each)):
                # Closed before memory is read: buffers of connections are 20 KB and more.
                with contextlib.closing(open_store(f"redis://127.0.0.1:{one.port}?timeout=60")) as store:
                    report = fill_log(artifact, rows, store, event_log=event_log)
                taken.append(used(one))
            found[way] = round((taken[1] - taken[0]) / report.users)
            found["record"] = round(report.bytes / report.users)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--events", type=int, nargs="+", default=[100, 300], help="of each user")
    parser.add_argument("--artifact", type=Path, help="in place of the two models")
    parser.add_argument("--data", type=Path, help="the dataset that it was trained on")
    arguments = parser.parse_args()
    dataset = None if arguments.data is None else Dataset(arguments.data)
    document: dict[str, dict[int, dict[str, int]]] = {}

    def log(each: int) -> Any:
        return events(arguments.users, each) if dataset is None else logged(dataset, arguments.users, each)

    with tempfile.TemporaryDirectory(prefix="bytes-") as name:
        given = None if arguments.artifact is None else Artifact.open(arguments.artifact)
        for model in MODELS if given is None else [given.config.model]:
            folder, counts = Path(name) / model, arguments.events
            artifact = given or make_artifact(folder, model)
            folder.mkdir(exist_ok=True)
            document[model] = {each: measure(artifact, folder, log(each), each) for each in counts}
            for each, found in document[model].items():
                print(
                    f"{model:6s} {each:5d} events", *(f"{key}: {value:>6,}" for key, value in found.items()), flush=True
                )
    print(last_line(document))


if __name__ == "__main__":
    main()
