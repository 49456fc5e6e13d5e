"""What it costs that a commit waits for a replica, or for disks: a primary and its replica on this machine.

Batches of events are applied to a store on Valkey, each acknowledged before the next one is made: memories of Tally and
of HPMN (default settings, initial weights), and the log of events. The first two ways of waiting take turns, so that
what else runs on the machine meets both of them; those that wait for a disk, which may take a second, come after them,
with a tenth of the batches each, and with `--sync always` only (`docs/store.md` says why).

    nothing            the primary has it
    replicas=1         the replica has it, too
    fsync=true         it is on the primary's disk
    both               ... and on the replica's

    python benchmarks/replicas.py --batches 200 [--model tally]

Replicas on other machines add the time of a message there and back. The last line is JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ingest_throughput import ITEMS, MODELS, START, make_artifact
from printed import last_line

from lifelong.artifact.folder import Artifact
from lifelong.online.background import Patience
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.store.opening import open_store

# Servers are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.valkey import replica, server

WAYS = {"nothing": "", "replicas=1": "&replicas=1", "fsync=true": "&fsync=true", "both": "&replicas=1&fsync=true"}
"""Name -> options of the URL."""


def seconds(updaters: dict[str, Updater], batches: int, size: int, users: int) -> dict[str, np.ndarray]:
    """Of each way, of its batches, from giving one to its acknowledgement; the first tenth is left out."""
    rng, found = np.random.default_rng(size), {name: list[float]() for name in updaters}
    quick = [name for name in updaters if "fsync" not in WAYS[name]]
    turns = [name for _ in range(batches) for name in rng.permutation(quick).tolist()]
    turns += [name for name in updaters if name not in quick for _ in range(batches // 10)]
    for turn, name in enumerate(turns):
        places = zip(rng.integers(0, users, size).tolist(), rng.integers(0, ITEMS, size).tolist(), strict=True)
        events = [UserEvent(f"u{user}", f"i{item}", START + turn, "view") for user, item in places]
        offsets = range(turn * size, (turn + 1) * size)
        began = time.perf_counter()
        updaters[name].apply(events, source=f"batches of {size}", offsets=offsets)
        found[name].append(time.perf_counter() - began)
    return {name: np.array(second[len(second) // 10 :]) for name, second in found.items()}


def table(found: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Milliseconds of a batch, and how many times as long it takes as where nothing is waited for."""
    return {
        name: {
            "median ms": round(1e3 * float(np.median(second)), 2),
            "p95 ms": round(1e3 * float(np.percentile(second, 95)), 2),
            "times nothing": round(float(np.median(second) / np.median(found["nothing"])), 2),
        }
        for name, second in found.items()
    }


def of_model(artifact: Artifact, folder: Path, arguments: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """The table of each size of batch."""
    folder.mkdir()
    found, logged = {}, ("--appendonly", "yes", "--appendfsync", arguments.sync)
    with server(folder / "one", *logged) as one, replica(folder / "other", one, *logged):
        place = f"redis://127.0.0.1:{one.port}?timeout=20"
        stores = {
            way: open_store(f"{place}&prefix=way-{number}{options}{'&replica_timeout=10' if options else ''}")
            for number, (way, options) in enumerate(WAYS.items())
            if arguments.sync == "always" or "fsync" not in options
        }
        updaters = {way: Patience(60)(lambda store=store: Updater(artifact, store)) for way, store in stores.items()}
        for size in map(int, arguments.sizes.split(",")):
            rows = found[f"batches of {size}"] = table(seconds(updaters, arguments.batches, size, arguments.users))
            for way, row in rows.items():
                print(f"{size:6d} {way:18s}", *(f"{key}: {value:>8.2f}" for key, value in row.items()), flush=True)
        for store in stores.values():
            store.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, nargs="+", default=MODELS)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--sizes", default="1,100,4096", help="events of a batch, comma-separated")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument(
        "--sync", choices=["everysec", "always"], default="everysec", help="appendfsync of both servers"
    )
    parser.add_argument("--dir", type=Path, default=None, help="where to put the temporary folder: a real disk")
    arguments = parser.parse_args()
    document: dict[str, object] = {"sync": arguments.sync, "batches": arguments.batches, "users": arguments.users}
    with tempfile.TemporaryDirectory(prefix="replicas-", dir=arguments.dir) as name:
        for model in arguments.model:
            print(model)
            artifact = make_artifact(Path(name) / f"{model} artifact", model)
            document[model] = of_model(artifact, Path(name) / model, arguments)
    print(last_line(document))


if __name__ == "__main__":
    sys.exit(main())
