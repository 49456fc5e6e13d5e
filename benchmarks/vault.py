"""Two models in the vault, with several seeds each: how they differ, by what the user had before, and as served.

    python benchmarks/vault.py data --first tally0 tally1 tally2 --second gbdt0 gbdt1 gbdt2 \
        --claim "Tally has a higher AUC than LightGBM"
    python benchmarks/vault.py data --first tally0 tally1 tally2 --second gbdt0 gbdt1 gbdt2 --split test

Parts are by the number of events before the target, and by whether one of them has its item (repeat, explore).
Artifacts that have not read the vault do so now (`lifelong evaluate --split vault`), to decide the claim, which its
record keeps; with `--split test` nothing reads it. Values are means over seeds; intervals are those of
`lifelong compare`, over users and seeds, and differences are paired, first less second. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lifelong import evaluate, open_artifact
from lifelong.dataset.examples import VAULT, Examples
from lifelong.dataset.folder import Dataset
from lifelong.offline.evaluation.compare import ComparisonRow, Runs, compare
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.evaluation.ranking import had_before
from lifelong.offline.evaluation.vault import opening_of
from lifelong.offline.export.saving import load_model

METRICS = ("auc", "log_loss", "ece")
LENGTHS = 0, 50, 100, 300, 1000
Scores = tuple[list[Sample], list[Sample]]
"""Of each seed, as trained and as served."""


def scores(dataset: Dataset, held: Dataset, examples: Examples, paths: Sequence[Path], claim: str | None) -> Scores:
    """Scores by each artifact, without and with its calibrator."""
    trained, served = list[Sample](), list[Sample]()
    for path in paths:
        artifact = open_artifact(path)
        if held is not dataset and opening_of(dataset, artifact) is None:
            evaluate(artifact, dataset, split=VAULT, claim=claim)
        logit_N = predict(load_model(artifact), held, examples)[:, 0]
        calibrator = artifact.calibrator(dataset.schema.tasks[0])
        assert calibrator is not None, f"no calibrator of {path}"
        for of, logits in ((trained, logit_N), (served, calibrator.logit(logit_N))):
            of.append(Sample.of(examples.label_NT[:, 0], logits, examples.user_N))
        print(f"{path}: {len(logit_N):,} examples", flush=True)
    return trained, served


def figures(rows: Sequence[ComparisonRow]) -> dict[str, Any]:
    """Each model's measures and their difference: value, low and high."""
    found: dict[str, Mapping[str, Any]] = {row.model: row.metrics for row in rows}
    (differences,) = (row.differences for row in rows if row.differences is not None)
    found["first less second"] = differences
    return {
        name: {
            metric: [round(end, 4) for end in (of[metric].value, of[metric].low, of[metric].high)] for metric in METRICS
        }
        for name, of in found.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--first", type=Path, nargs="+", required=True, help="artifacts of one model")
    parser.add_argument("--second", type=Path, nargs="+", required=True, help="artifacts of the other")
    parser.add_argument("--split", choices=["validation", "test", VAULT], default=VAULT)
    parser.add_argument("--claim", help="a sentence: what this reading of the vault is to decide")
    arguments = parser.parse_args()
    dataset, split, claim = Dataset(arguments.data), arguments.split, arguments.claim
    held = dataset.holding(split, claim)
    examples = held.examples(split)
    both = {name: scores(dataset, held, examples, getattr(arguments, name), claim) for name in ("first", "second")}
    position_N, had_N = np.asarray(examples.position_N), had_before(held, examples)
    parts: dict[str, tuple[int, Any]] = {
        "all, as trained": (0, position_N >= 0),
        "all, as served": (1, position_N >= 0),
    }
    for low, high in zip(LENGTHS, (*LENGTHS[1:], np.inf), strict=True):
        parts[f"{low} events and more, below {high:g}"] = 0, (position_N >= low) & (position_N < high)
    parts |= {"repeat": (0, had_N), "explore": (0, ~had_N)}
    document: dict[str, Any] = {}
    for part, (form, chosen_N) in parts.items():
        if chosen_N.any():
            runs = {name: Runs(name, [one.take(chosen_N) for one in of[form]]) for name, of in both.items()}
            document[part] = figures(compare(runs, reference="second"))
            print(f"{part}: {json.dumps(document[part])}", flush=True)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
