"""Latency of one request: 100 candidates of one user, through `Scorer.score` and through `POST /v1/score`.

Tally and HPMN with default settings and initial weights. In process, the time is split: memory from the store,
decoding, look-ups of the items, read and head graphs, the rest. Over loopback an open-loop generator in a process of
its own sends requests at a set rate, and each is measured from the moment at which it was due, so that none is left out
while the service is slow. Asked are users with 100 events, then one with `--long` events that were really written, then
users with 100 events while events come in at half the rate that the service can take. Targets on two quiet cores: 1 ms
in process, over HTTP p50 under 3 ms and p99 under 10 ms at 200 requests a second, and the long history at most 1.1
times the short one.

    python benchmarks/latency.py --rate 200 --seconds 15 --long 1000000 [--model tally]

The last line is JSON; with both models it has Tally's p50 as shares of HPMN's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ingest_throughput import ITEMS, MODELS, START, make_artifact
from load import Load, result, start
from printed import last_line

from lifelong.artifact.folder import Artifact
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.rocksdb import RocksDbStore

# Servers, victims and tiny artifacts are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

USERS, EVENTS, CANDIDATES, LONG = 1_000, 100, 100, "long"


def fill(artifact: Artifact, folder: Path, long: int) -> None:
    """Write the events of all users."""
    store, rng = RocksDbStore(folder), np.random.default_rng(0)
    updater = Updater(artifact, store, event_log=False)
    for step in range(EVENTS):
        users, times = [f"u{user}" for user in range(USERS)], np.full(USERS, START + 60 * step)
        updater.apply_table(EventTable(users, _items(rng, USERS), times, ["view"] * USERS))
    for first in range(0, long, 50_000):
        count = min(50_000, long - first)
        times = START + np.arange(first, first + count) // 200
        updater.apply_table(EventTable([LONG] * count, _items(rng, count), times, ["view"] * count))
    store.close()


def _items(rng: np.random.Generator, number: int) -> list[str]:
    return [f"i{item}" for item in rng.integers(0, ITEMS, number).tolist()]


def median_ms(work: Callable[[int], Any], number: int = 300) -> float:
    """Median of single calls; a tenth as many come first."""
    took = []
    for k in range(-number // 10, number):
        started = time.perf_counter()
        work(k)
        took.append(1e3 * (time.perf_counter() - started))
    return round(statistics.median(took[number // 10 :]), 3)


def in_process(artifact: Artifact, folder: Path) -> dict[str, float]:
    """Milliseconds of `Scorer.score`, and of its parts."""
    store, rng = RocksDbStore(folder, read_only=True), np.random.default_rng(1)
    scorer = Scorer(artifact, store)
    runtime, asked = scorer.runtime, [_items(rng, CANDIDATES) for _ in range(50)]
    records = store.read_many([f"u{user}" for user in range(USERS)])
    states = runtime.decode(records[:1])
    number_BCF, time_B = scorer.online_items.numbers(asked[0])[None], np.array([START + 10_000])
    context_BCF = scorer.context([ScoreRequest("u0", asked[0])], time_B, states.last_time_B)
    logit_CT = np.zeros((CANDIDATES, 1), np.float32)
    found = {
        "whole": median_ms(lambda k: scorer.score(f"u{k % USERS}", asked[k % 50], time=START + 10_000)),
        "store get": median_ms(lambda k: store.read_many([f"u{k % USERS}"])),
        "decode": median_ms(lambda k: runtime.decode([records[k % USERS]])),
        "look-ups": median_ms(lambda k: scorer.online_items.numbers(asked[k % 50])),
        "graphs": median_ms(lambda k: runtime.score(states, number_BCF, context_BCF, time_B)),
        "answers": median_ms(lambda k: scorer._scores(asked[0], [True] * CANDIDATES, logit_CT)),
    }
    found["rest"] = round(found["whole"] - sum(value for name, value in found.items() if name != "whole"), 3)
    eight = [
        [ScoreRequest(f"u{(8 * k + j) % USERS}", asked[(k + j) % 50], START + 10_000) for j in range(8)]
        for k in range(50)
    ]
    found["one of eight together"] = round(median_ms(lambda k: scorer.answer(eight[k % 50])) / 8, 3)
    store.close()
    return found


@contextlib.contextmanager
def service(artifact: Artifact, folder: Path, workers: int = 1) -> Iterator[str]:
    """`lifelong serve` on a free port; its address."""
    command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--json", "--port", "0"]
    command += ["--workers", str(workers)]
    process = subprocess.Popen([*command, "--store", f"rocksdb://{folder}"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = json.loads(process.stdout.readline())["address"]
        # The socket is bound before the first process listens: this waits for it.
        urllib.request.urlopen(f"{address}/readyz").close()
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def bodies(user: Callable[[int], str], number: int = 200) -> list[dict[str, object]]:
    """Requests for 100 candidates each."""
    rng = np.random.default_rng(3)
    return [{"user": user(k), "items": _items(rng, CANDIDATES), "time": START + 10_000_000} for k in range(number)]


def event_bodies(size: int = 1_000, number: int = 50) -> list[dict[str, object]]:
    """Batches of events of users that nobody asks about."""
    rng = np.random.default_rng(4)
    made = []
    for batch in range(number):
        rows = zip(rng.integers(0, 100_000, size).tolist(), _items(rng, size), strict=True)
        made.append({"events": [{"user": f"w{user}", "item": item, "time": START + batch} for user, item in rows]})
    return made


def over_http(address: str, folder: Path, rate: float, seconds: float, incoming: float | None) -> dict[str, Any]:
    """Percentiles of the three runs, and the rate at which events came in during the last one.

    `incoming` events a second, or half of what the service can take.
    """
    url, short = f"{address}/v1/score", bodies(lambda k: f"u{k}")

    def ask(some: list[dict[str, object]], seed: int) -> Load:
        return result(start(url, some, folder, rate=rate, seconds=seconds, seed=seed))

    # The two are interleaved, so that neither has the quieter machine.
    pairs = [(ask(short, 1), ask(bodies(lambda k: LONG), 2)) for _ in range(3)]
    best = [min((pair[at] for pair in pairs), key=lambda load: load.p50_ms) for at in (0, 1)]
    events, batches = f"{address}/v1/events", event_bodies()
    most = result(start(events, batches, folder, rate=0, seconds=4, connections=2, seed=3)).rate
    batches_per_second = most / 2 if incoming is None else incoming / 1_000
    writing = start(events, batches, folder, rate=batches_per_second, seconds=seconds + 2, seed=4)
    time.sleep(1)
    beside = ask(short, 5)
    return {
        "short": asdict(best[0]),
        "long": asdict(best[1]),
        "long : short, p50": round(best[1].p50_ms / best[0].p50_ms, 3),
        "beside events": asdict(beside),
        "events/s meanwhile": round(1_000 * result(writing).rate),
        "events/s at most": round(1_000 * most),
    }


def of_model(model: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model."""
    artifact, store = make_artifact(folder, model), folder / "store"
    started = time.perf_counter()
    fill(artifact, store, arguments.long)
    found: dict[str, Any] = {"seconds to write the long history": round(time.perf_counter() - started, 1)}
    found["in process"] = in_process(artifact, store)
    with service(artifact, store, arguments.workers) as address:
        found["http"] = over_http(address, folder, arguments.rate, arguments.seconds, arguments.events)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, nargs="+", default=MODELS)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--events", type=float, help="events a second meanwhile (default: half of what it can take)")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--workers", type=int, default=1, help="processes of the service that score")
    parser.add_argument("--long", type=int, default=1_000_000, help="events of the long history")
    parser.add_argument("--dir", type=Path, default=None, help="where to put the temporary folder: a real disk")
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "rate": arguments.rate,
        "long": arguments.long,
        "workers": arguments.workers,
        "cores": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory(prefix="latency-", dir=arguments.dir) as name:
        folder = Path(name)
        for model in arguments.model:
            document[model] = of_model(model, folder / model, arguments)
    if set(MODELS) <= set(document):
        tally, hpmn = document["tally"], document["hpmn"]
        document["tally : hpmn, p50"] = {
            "in process": round(tally["in process"]["whole"] / hpmn["in process"]["whole"], 3),
            "http": round(tally["http"]["short"]["p50_ms"] / hpmn["http"]["short"]["p50_ms"], 3),
        }
    for name, part in document.items():
        print(f"{name}: {json.dumps(part)}")
    print(last_line(document))


if __name__ == "__main__":
    main()
