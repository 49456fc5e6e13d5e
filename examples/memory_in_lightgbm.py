# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["lifelong[train,serve,gbdt,report]"]
#
# [tool.uv.sources]
# lifelong = { path = ".." }
# ///
"""What the memory says, as features of somebody's LightGBM: exported for training, asked for when serving.

uv run examples/memory_in_lightgbm.py
"""

import lightgbm
import numpy as np
import pandas as pd

import lifelong
from lifelong.offline.evaluation.metrics import auc


def main() -> None:
    """Export, fit, measure; then rank one user's candidates with the same columns."""
    dataset = lifelong.prepare("synthetic", out="data", world="lag", users=60, overwrite=True)
    artifact = lifelong.train(dataset, "tally", epochs=1, threads=1, progress=False, overwrite=True)
    frames = {}
    for split in ("train", "test"):
        lifelong.export_features(artifact, dataset, f"{split}.parquet", split=split)
        frames[split] = pd.read_parquet(f"{split}.parquet")
    columns = [name for name in frames["train"] if name not in ("example", "user", "item", "time", "label")]
    rows = lightgbm.Dataset(frames["train"][columns].to_numpy(np.float64), frames["train"]["label"].to_numpy())
    settings = {"objective": "binary", "num_leaves": 15, "verbosity": -1, "num_threads": 1, "seed": 0}
    ranker = lightgbm.train(settings, rows, num_boost_round=50)
    chances = ranker.predict(frames["test"][columns].to_numpy(np.float64))
    print(f"LightGBM on the memory's columns: AUC {auc(frames['test']['label'], chances):.3f}")
    print(f"the model's own score:            AUC {auc(frames['test']['label'], frames['test']['score']):.3f}")

    store = lifelong.open_store("memory://")
    lifelong.backfill(artifact, dataset, store)
    asked = pd.DataFrame(
        lifelong.features(lifelong.Scorer(artifact, store), dataset.users.id_at(0), ["i1", "i2", "i3"])
    )
    order = np.argsort(-ranker.predict(asked[columns].to_numpy(np.float64)))
    print("ranked:", asked["item"].iloc[order].tolist())
    store.close()


if __name__ == "__main__":
    main()
