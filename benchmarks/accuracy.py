"""Test accuracy of every model of the first comparison on the real data set, beside LightGBM on exact counts.

Prepares the Complete Journey log (temporal protocol, popularity negatives), fits the floors, LightGBM (counts of every
item field with several windows and decays, recency, and the item fields themselves), and trains `hpmn` for a stated
time; all are measured on the same stored test examples.

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

import numpy as np
import numpy.typing as npt

from lifelong.data.counts import count_features, feature_names
from lifelong.data.dataset import Dataset
from lifelong.data.examples import Examples
from lifelong.data.labelled import labelled_training_examples
from lifelong.errors import require

MAIN = ("auc", "gauc", "log_loss")


def lightgbm_logits(dataset: Dataset, *, examples: int, threads: int) -> npt.NDArray[np.float64]:
    """Test logits of LightGBM: early stopping on validation, test read once."""
    lightgbm = require("lightgbm", extra="gbdt", purpose="the LightGBM baseline")
    names = [*feature_names(dataset.schema), *dataset.schema.item_fields[1:]]

    def inputs(part: Examples) -> npt.NDArray[np.float32]:
        fields = dataset.catalogue.number_VF[part.row_N][:, 1:].astype(np.float32)
        return np.concatenate([count_features(dataset, part), fields], axis=1)

    few = [field for field in dataset.schema.item_fields[1:] if dataset.inputs.item[field] < 1000]
    train = labelled_training_examples(dataset, seed=0, limit=examples)
    validation = dataset.examples("validation")
    data = lightgbm.Dataset(inputs(train), train.label_NT[:, 0], feature_name=names, categorical_feature=few)
    settings = {
        "objective": "binary",
        "learning_rate": 0.1,
        "num_leaves": 127,
        "min_data_in_leaf": 100,
        "num_threads": threads,
        "verbose": -1,
    }
    held = lightgbm.Dataset(inputs(validation), validation.label_NT[:, 0], reference=data)
    stop = lightgbm.early_stopping(20, verbose=False)
    booster = lightgbm.train(settings, data, 500, valid_sets=[held], callbacks=[stop])
    logits: npt.NDArray[np.float64] = booster.predict(inputs(dataset.examples("test")), raw_score=True)
    return logits[:, None]


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
    parser.add_argument("--models", default="popularity,counts,hpmn")
    parser.add_argument("--data", type=Path, help="a prepared dataset; without it one is made")
    parser.add_argument("--set", action="append", default=[], help="settings of hpmn, such as model.width=48")
    arguments = parser.parse_args()

    from lifelong.config import load_config
    from lifelong.data.prepare import prepare
    from lifelong.evaluation.evaluate import Origin, Scored, evaluate, record
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
            artifact = train(dataset, model, work / model, config=load_config(None, limits))
            found[model] = measured(evaluate(artifact, dataset, threads=arguments.threads), time.monotonic() - started)
            print(f"{model:12} {found[model]}", flush=True)
        started = time.monotonic()
        logit_NT = lightgbm_logits(dataset, examples=arguments.gbdt_examples, threads=arguments.threads)
        scored = Scored(dataset, "test", dataset.examples("test"), logit_NT)
        found["lightgbm"] = measured(record(scored, Origin("lightgbm", "LightGBM")), time.monotonic() - started)
        print(f"{'lightgbm':12} {found['lightgbm']}", flush=True)
    print(json.dumps({"data_hash": dataset.manifest.data_hash, "threads": arguments.threads, "models": found}))


if __name__ == "__main__":
    main()
