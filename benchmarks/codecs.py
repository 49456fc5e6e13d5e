"""What a smaller memory costs: bytes per user, and how far scores and AUC move, for each codec.

Writes the events of some test users into a store, one by one as a service would; in the test period each moment is
scored before it is written. fp32 is what the others are compared with, on the same examples. Beside it, how far the
memories at the start of that period, and scores from them, are from those of a backfill, which folds users in other
batches. Without an artifact, a short hpmn is trained on the dataset given, or on the planted world
`lag`.

    python benchmarks/codecs.py --artifact ARTIFACT --data DATA --users 150

The last line is JSON.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from printed import last_line

from lifelong.artifact.folder import Artifact
from lifelong.cli.served_replay import replay, user_events
from lifelong.config import load_config
from lifelong.dataset.examples import Examples, Split
from lifelong.dataset.folder import Dataset
from lifelong.dataset.histories import Histories
from lifelong.offline.evaluation.compare import Runs
from lifelong.offline.evaluation.compare import compare as compare_runs
from lifelong.offline.evaluation.metrics import Sample, auc
from lifelong.offline.evaluation.significance import bootstrap, interval
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.preparation.settings import PrepareSettings
from lifelong.offline.training.trainer import train
from lifelong.online.memory.codec import CODECS
from lifelong.online.memory.filling import backfill
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import VerifyReport, verify
from lifelong.online.store.rocksdb import RocksDbStore

HEADER = (
    "| codec | bytes per user | logit, largest difference | mean | AUC | AUC - AUC of fp32 "
    "| backfill against one by one: memory | logit |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
)
SHORT = ("train.threads=1", "train.max_minutes=2")


class SomeUsers(Dataset):
    """A dataset of which only some users with test examples have events and examples.

    Args:
        folder: the whole.
        users: how many of them.
        seed: of the draw.
    """

    def __init__(self, folder: Path, users: int, seed: int) -> None:
        super().__init__(folder)
        able = np.unique(super().examples("test").user_N)
        chosen = np.random.default_rng(seed).choice(able, min(users, len(able)), replace=False)
        whole = Histories.open(folder / "histories")
        self.chosen_U = np.isin(np.arange(len(whole.offset_U) - 1), chosen)
        length_U = np.diff(whole.offset_U)
        self.kept_N = np.repeat(self.chosen_U, length_U)
        # Stands in for the mapped arrays of the whole.
        self.histories = Histories(
            np.r_[0, np.cumsum(length_U * self.chosen_U)],
            whole.row_N[self.kept_N],
            whole.time_N[self.kept_N],
            whole.sequence_N[self.kept_N],
            None if whole.event_type_N is None else whole.event_type_N[self.kept_N],
        )

    def examples(self, split: Split) -> Examples:
        """Those of the chosen users."""
        whole = super().examples(split)
        kept = self.chosen_U[whole.user_N]
        return Examples(
            whole.user_N[kept], whole.row_N[kept], whole.time_N[kept], whole.position_N[kept], whole.label_NT[kept]
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """One codec: bytes of a memory, scores of the test examples, and a backfill against the events one by one."""

    bytes: int
    sample: Sample
    drift: VerifyReport


def measure(artifact: Artifact, dataset: SomeUsers, codec: str, folder: Path) -> Measured:
    """Replay with one codec."""
    cut, examples = dataset.manifest.cut_times[-1], dataset.examples("test")
    filled = RocksDbStore(folder / "filled", sync=False)
    report = backfill(artifact, dataset, filled, until=cut, codec=codec)
    drift = verify(artifact, dataset, filled, until=cut)
    filled.close()

    def online() -> RocksDbStore:
        return RocksDbStore(folder / "online", sync=False)

    store = online()
    before = np.flatnonzero(dataset.histories.time_N < cut)
    Updater(artifact, store, codec=codec, event_log=False).apply(user_events(dataset, before))
    store.close()
    logit_N = replay(artifact, dataset, online).logit_N
    sample = Sample.of(examples.label_NT[:, 0], logit_N, examples.user_N)
    return Measured(report.bytes // report.users, sample, drift)


def compare(exact: Measured, found: Measured) -> dict[str, Any]:
    """What is printed of a codec."""
    runs = {"found": Runs("found", [found.sample]), "exact": Runs("exact", [exact.sample])}
    pair = compare_runs(runs, reference="exact")[0].differences["auc"]
    apart_N = np.abs(found.sample.logit - exact.sample.logit)
    return {
        "bytes": found.bytes,
        "largest": float(apart_N.max()),
        "mean": float(apart_N.mean()),
        "auc": [auc(found.sample.label, found.sample.logit), *interval(bootstrap({"it": found.sample})["it"]["auc"])],
        "difference": [pair.value, pair.low, pair.high],
        "drift": {"memory": found.drift.memory_difference, "score": found.drift.score_difference},
    }


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    value, low, high = row["auc"]
    apart, least, most = row["difference"]
    drift = row["drift"]
    return (
        f"| {name} | {row['bytes']} | {row['largest']:.2g} | {row['mean']:.2g} | {value:.4f} ({low:.4f} to {high:.4f}) "
        f"| {apart:+.5f} ({least:+.5f} to {most:+.5f}) | {drift['memory']:.2g} | {drift['score']:.2g} |"
    )


def opened(arguments: argparse.Namespace, work: Path) -> tuple[Artifact, SomeUsers]:
    """What is measured: given, or made."""
    data = arguments.data or work / "data"
    if arguments.data is None:
        prepare("synthetic", [], data, settings=PrepareSettings(options={"world": "lag", "seed": "11"}, threads=1))
    if arguments.artifact is not None:
        artifact = Artifact.open(arguments.artifact)
    else:
        artifact = train(Dataset(data), "hpmn", work / "artifact", config=load_config(None, SHORT))
    return artifact, SomeUsers(data, arguments.users, arguments.seed)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="of a memory model; without it a short hpmn is trained")
    parser.add_argument("--data", type=Path, help="its prepared dataset; without it the planted world `lag`")
    parser.add_argument("--users", type=int, default=150, help="test users, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        artifact, dataset = opened(arguments, Path(folder))
        found = {name: measure(artifact, dataset, name, Path(folder) / name) for name in CODECS}
    rows = {name: compare(found["fp32"], part) for name, part in found.items()}
    print("\n".join([HEADER, *(line(name, row) for name, row in rows.items())]))
    counts = {"users": int(dataset.chosen_U.sum()), "examples": len(found["fp32"].sample)}
    print(last_line({"artifact": artifact.id, "model": artifact.config.model, **counts, "codecs": rows}))


if __name__ == "__main__":
    main()
