"""Test accuracy of every model of the first comparison on the real data set, beside LightGBM on exact counts.

Prepares the Complete Journey log (temporal protocol, popularity negatives), fits the floors and `gbdt`, and trains
`hpmn` for a stated time; all are measured on the same stored test examples.

    python benchmarks/accuracy.py --minutes 60 --threads 2

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from lifelong.data.dataset import Dataset

MAIN = ("auc", "gauc", "log_loss")


def measured(result: Any, seconds: float) -> dict[str, Any]:
    """What is printed of a result record."""
    values = {name: result.metrics[name] for name in MAIN}
    return {
        **{name: [value.value, value.low, value.high] for name, value in values.items()},
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="of training hpmn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gbdt-examples", type=int, default=1_000_000)
    parser.add_argument("--models", default="popularity,counts,gbdt,hpmn")
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    parser.add_argument("--set", action="append", default=[], help="settings of hpmn, such as model.width=48")
    arguments = parser.parse_args()

    from lifelong.config import load_config
    from lifelong.evaluation.evaluate import evaluate
    from lifelong.preparation.prepare import prepare
    from lifelong.training.trainer import train

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        dataset = Dataset(arguments.data) if arguments.data else prepare("completejourney", [], work / "data")
        for model in filter(None, arguments.models.split(",")):
            started = time.monotonic()
            limits = [f"train.threads={arguments.threads}"]
            if model == "hpmn":
                limits += [f"train.max_minutes={arguments.minutes}", *arguments.set]
            if model == "gbdt":
                limits.append(f"model.max_examples={arguments.gbdt_examples}")
            artifact = train(dataset, model, work / model, config=load_config(None, limits))
            found[model] = measured(evaluate(artifact, dataset, threads=arguments.threads), time.monotonic() - started)
            print(f"{model:12} {found[model]}", flush=True)
    print(json.dumps({"data_hash": dataset.manifest.data_hash, "threads": arguments.threads, "models": found}))


if __name__ == "__main__":
    main()
