"""Items that come again after a number of events that each user has for herself: who reads it off?

A made-up world. Each user has a lag, drawn from 20 to 120. Three in ten of her events repeat the item of exactly that
many events ago; all others are drawn by popularity from `--items`. For each model, `NAME` or `NAME:setting=value`, the
AUC of the repeats of the test period against all negatives, and of all test targets.

    python benchmarks/private_lags.py --users 400 --events 400 [--models gbdt tally:rhythm=false tally]

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lifelong import Dataset, prepare, train
from lifelong.artifact.export import load_model
from lifelong.config import load_config
from lifelong.evaluation.evaluate import predict
from lifelong.evaluation.metrics import auc

SHARE, SHORTEST, LONGEST = 0.3, 20, 120
"""Of the events that repeat, and the bounds of the lags."""


def world(users: int, events: int, items: int, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """A row for each event, by user and time; and which of them repeat the one of the user's lag before."""
    rng = np.random.default_rng(seed)
    popularity_I = 1 / (np.arange(items) + 10.0) ** 0.8
    item_UE = rng.choice(items, (users, events), p=popularity_I / popularity_I.sum())
    repeats_UE = np.zeros((users, events), bool)
    for user, lag in enumerate(rng.integers(SHORTEST, LONGEST + 1, users).tolist()):
        repeats_UE[user, lag:] = rng.random(events - lag) < SHARE
        for event in np.flatnonzero(repeats_UE[user]).tolist():
            item_UE[user, event] = item_UE[user, event - lag]
    time_UE = 1_600_000_000 + np.cumsum(rng.integers(600, 40_000, (users, events)), axis=1)
    # Names in their order, so that users and events are numbered as they are here.
    columns = {
        "user": [f"u{user:05}" for user in range(users) for _ in range(events)],
        "item": [f"i{item}" for item in item_UE.ravel().tolist()],
        "time": time_UE.ravel(),
    }
    return pl.DataFrame(columns), repeats_UE


def measured(model: str, data: Dataset, repeats_UE: np.ndarray, folder: Path) -> dict[str, float]:
    """AUC of the repeats, and of all targets."""
    name, *settings = model.split(":")
    config = load_config(overrides=[f"model.{setting}" for setting in settings])
    artifact = train(data, name, folder / model.replace(":", "-"), config=config, threads=1)
    examples = data.examples("test")
    score_N, positive_N = predict(load_model(artifact), data, examples, threads=1)[:, 0], examples.label_NT[:, 0] > 0
    user_N = np.array([int(user[1:]) for user in data.users.ids()])[examples.user_N]
    planted_N = positive_N & repeats_UE[user_N, np.minimum(examples.position_N, repeats_UE.shape[1] - 1)]
    chosen_N = planted_N | ~positive_N
    of_repeats = auc(positive_N[chosen_N], score_N[chosen_N])
    return {"repeats": round(of_repeats, 4), "all": round(auc(positive_N, score_N), 4)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["gbdt", "tally:rhythm=false", "tally"])
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--events", type=int, default=400, help="of each user")
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table, repeats_UE = world(arguments.users, arguments.events, arguments.items, arguments.seed)
    document: dict[str, Any] = {**vars(arguments), "auc": {}}
    with tempfile.TemporaryDirectory(prefix="lags-") as name:
        folder = Path(name)
        table.write_csv(folder / "log.csv")
        data = prepare(folder / "log.csv", out=folder / "data", user="user", item="item", time="time", time_unit="s")
        for model in arguments.models:
            document["auc"][model] = found = measured(model, data, repeats_UE, folder)
            print(f"{model}: repeats {found['repeats']:.4f}, all {found['all']:.4f}", flush=True)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
