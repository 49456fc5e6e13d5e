"""The highest rate of requests at which 99 in 100 are answered in time: MLPerf's server scenario.

Requests for `--candidates` scores of one user come at the times of a Poisson process, whether answers come or not, and
each is measured from the moment at which it was due. A rate passes if the 99th percentile of `--seconds` of it is at
most `--bound` milliseconds and every request was answered. Rates are doubled until one fails; then the gap between the
highest that passed and the lowest that failed is halved, `--steps` times. Service and load share the machine: on two
cores the load takes its part of them.

Tally and HPMN with default settings and initial weights, or artifacts of your own (`--artifact`). All services run
during the whole measurement, and take turns at being asked, so that none has the quieter machine. Seconds are few by
default: at 100 requests a second two of them hold 200, and the 99th percentile is the second slowest. Take 60 for a
figure to be quoted.

    python benchmarks/server_scenario.py --seconds 2 --candidates 100 1000 [--model tally] [--workers 1 2]

With `--rates`, no rate is searched for: each is tried `--repeats` times, and the percentiles are those of the trial
with the median p99. One slow moment of the machine then spoils one trial, and not the whole search.

The last line is JSON: per number of candidates and service the rate, the percentiles at it, and every trial.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from load import Load, result, start
from printed import last_line

from lifelong.artifact.folder import Artifact
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.updater import Updater
from lifelong.online.store.rocksdb import RocksDbStore

# Tiny artifacts are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

START = 1_700_000_000
_BODIES = 200


@dataclass(slots=True)
class Search:
    """Finds the highest rate that passes, by doubling and then halving the gap.

    >>> search = Search(first=10.0, steps=3)
    >>> while (rate := search.next_rate()) is not None:
    ...     search.note(rate, passed=rate <= 70)
    >>> search.best, search.tried
    (70.0, [10.0, 20.0, 40.0, 80.0, 60.0, 70.0, 75.0])

    Args:
        first: the first rate.
        steps: how many times the gap is halved.
        most: no higher rate is tried: then the load is what is measured.
    """

    first: float
    steps: int
    most: float = 10_000.0
    best: float = 0.0
    lowest_failed: float | None = None
    tried: list[float] = field(default_factory=list)

    def next_rate(self) -> float | None:
        """What to try next; None at the end."""
        if self.lowest_failed is None:
            return None if self.best >= self.most else min(self.most, 2 * self.best or self.first)
        if self.steps == 0:
            return None
        self.steps -= 1
        return (self.best + self.lowest_failed) / 2

    def note(self, rate: float, *, passed: bool) -> None:
        """Note how a rate went."""
        self.tried.append(rate)
        if passed:
            self.best = rate
        else:
            self.lowest_failed = rate


def fill(artifact: Artifact, folder: Path, given: argparse.Namespace) -> None:
    """Write the events of all users."""
    store, rng = RocksDbStore(folder), np.random.default_rng(0)
    updater, users = Updater(artifact, store, event_log=False), [f"u{user}" for user in range(given.users)]
    for step in range(given.events):
        items = [f"i{item}" for item in rng.integers(0, given.items, given.users).tolist()]
        updater.apply_table(EventTable(users, items, np.full(given.users, START + 60 * step)))
    store.close()


def bodies(given: argparse.Namespace, candidates: int) -> list[dict[str, object]]:
    """Requests of different users."""
    rng = np.random.default_rng(3)
    asked = rng.integers(0, given.items, (_BODIES, candidates)).tolist()
    moment = START + 10_000_000
    return [
        {"user": f"u{place % given.users}", "items": [f"i{item}" for item in items], "time": moment}
        for place, items in enumerate(asked)
    ]


def scenario(
    addresses: dict[str, str], folder: Path, given: argparse.Namespace, candidates: int
) -> dict[str, dict[str, Any]]:
    """The highest rate of each service, and how it went."""
    asked = bodies(given, candidates)
    searches = {model: Search(given.rate, given.steps, given.most) for model in addresses}
    trials: dict[str, list[Load]] = {model: [] for model in addresses}
    going = dict(searches)
    while going:
        for model, search in list(going.items()):
            rate = search.next_rate()
            if rate is None:
                del going[model]
                continue
            options = {"seconds": given.seconds, "connections": 64, "seed": len(search.tried)}
            load = result(start(f"{addresses[model]}/v1/score", asked, folder, rate=rate, **options))
            trials[model].append(load)
            search.note(rate, passed=load.p99_ms <= given.bound and not load.failed)
    return {model: _summary(search, trials[model]) for model, search in searches.items()}


def at_rates(
    addresses: dict[str, str], folder: Path, given: argparse.Namespace, candidates: int
) -> dict[str, dict[str, Any]]:
    """How each rate of `--rates` went, of each service: the trial with the median p99."""
    asked = bodies(given, candidates)
    trials: dict[str, dict[float, list[Load]]] = {name: {rate: [] for rate in given.rates} for name in addresses}
    for repeat in range(given.repeats):
        for rate in given.rates:
            for name, address in addresses.items():
                options = {"seconds": given.seconds, "connections": 64, "seed": repeat}
                trials[name][rate].append(result(start(f"{address}/v1/score", asked, folder, rate=rate, **options)))
    found: dict[str, dict[str, Any]] = {}
    for name, of in trials.items():
        middle = {rate: sorted(some, key=lambda load: load.p99_ms)[len(some) // 2] for rate, some in of.items()}
        found[name] = {
            f"{rate:g}": {**asdict(load), "p99_ms of each": [one.p99_ms for one in of[rate]]}
            for rate, load in middle.items()
        }
    return found


def _summary(search: Search, trials: list[Load]) -> dict[str, Any]:
    tried = list(zip(search.tried, trials, strict=True))
    at = next((asdict(load) for rate, load in tried if rate == search.best), None)
    return {
        "rate": round(search.best, 1),
        "at it": at,
        "p99_ms of each": {f"{one:.1f}": of.p99_ms for one, of in tried},
    }


def _artifacts(folder: Path, given: argparse.Namespace) -> dict[str, Artifact]:
    if given.artifact:
        return {path.name: Artifact.open(path) for path in given.artifact}
    from ingest_throughput import make_artifact

    return {model: make_artifact(folder / model, model) for model in given.model}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tally", "hpmn"), nargs="+", default=["tally", "hpmn"])
    parser.add_argument("--artifact", type=Path, nargs="+", default=[], help="artifacts instead of models")
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 1_000])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each trial")
    parser.add_argument("--bound", type=float, default=10.0, help="milliseconds of the 99th percentile")
    parser.add_argument("--rate", type=float, default=25.0, help="requests a second of the first trial")
    parser.add_argument("--steps", type=int, default=4, help="times that the gap is halved")
    parser.add_argument("--most", type=float, default=10_000.0, help="requests a second that are not exceeded")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="a service with as many processes for each")
    parser.add_argument("--rates", type=float, nargs="+", default=[], help="requests a second, in place of a search")
    parser.add_argument("--repeats", type=int, default=3, help="trials of each of --rates")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--events", type=int, default=50, help="events of each user")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--dir", type=Path, default=None, help="where to put the temporary folder: a real disk")
    given = parser.parse_args()
    from latency import service

    document: dict[str, Any] = {"cores": os.cpu_count(), "load before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="scenario-", dir=given.dir) as place, contextlib.ExitStack() as running:
        folder, addresses = Path(place), {}
        for model, artifact in _artifacts(folder, given).items():
            for workers in given.workers:
                name = model if workers == 1 else f"{model}, {workers} workers"
                fill(artifact, folder / f"store {name}", given)
                addresses[name] = running.enter_context(service(artifact, folder / f"store {name}", workers))
        measure = at_rates if given.rates else scenario
        for candidates in given.candidates:
            document[f"{candidates} candidates"] = measure(addresses, folder, given, candidates)
    for part, found in document.items():
        print(f"{part}: {json.dumps(found)}")
    print(last_line(document))


if __name__ == "__main__":
    main()
