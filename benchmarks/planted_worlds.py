"""What models know of the planted worlds, against what they can know (`KNOWN` of `support.planted`).

Trains each chosen model in each chosen world, prints a Markdown table, and JSON last. Without options: the whole table,
by the parts measured one to two hours on a free core.

    python benchmarks/planted_worlds.py --worlds lag --models hpmn,memn2n --seed 3 --world lag=45 --world users=4000
    python benchmarks/planted_worlds.py --worlds lag --models memn2n --set model.recent=20

`--world` changes a dial of the chosen worlds, `--set` a setting of the run or of the chosen models; what can be known
then is not in the table, and nothing has to hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from printed import last_line

from lifelong.config import load_config
from lifelong.offline.models import all_names
from lifelong.offline.preparation.sources.synthetic import world_settings
from lifelong.offline.preparation.sources.worlds import WorldSettings

# Servers, victims and tiny artifacts are shared with the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.planted import CHECKED, Measured, cells, measure, prepare_world

HEADER = "| world | model | AUC | best possible | share of the lift | can know | holds | seconds |"
WORDS = {True: "can", False: "cannot", None: "no bar"}


def row(found: Measured) -> str:
    model = " ".join([found.cell.model, *(f"{key}={value}" for key, value in found.cell.settings.items())])
    share, verdict = f"{found.share:.0%}", "yes" if found.holds else "**no**"
    return (
        f"| {found.cell.world.world} | {model} | {found.auc:.3f} | {found.best:.3f} | {share} "
        f"| {WORDS[found.cell.can]} | {verdict} | {found.seconds:.0f} |"
    )


def record(found: Measured) -> dict[str, Any]:
    cell = found.cell
    named = {"world": cell.world.world, "model": cell.model, "settings": dict(cell.settings), "can": cell.can}
    return {**named, "auc": found.auc, "best": found.best, "holds": found.holds, "seconds": round(found.seconds, 1)}


def chosen(arguments: argparse.Namespace) -> dict[str, WorldSettings]:
    """The worlds, with the dials that were given."""
    dials = dict(pair.split("=", 1) for pair in arguments.world)
    worlds = {}
    for name in arguments.worlds.split(","):
        options = {key: str(value) for key, value in asdict(CHECKED[name]).items()}
        worlds[name] = replace(world_settings({**options, **dials}), seed=arguments.seed)
    return worlds


def measured(arguments: argparse.Namespace, work: Path) -> Iterator[Measured]:
    """Each chosen cell, one after another."""
    models = arguments.models.split(",") if arguments.models else all_names()
    given = load_config(None, arguments.set).model
    for name, world in chosen(arguments).items():
        dataset = prepare_world(world, work / name)
        named = [replace(cell, settings={**cell.settings, **given}) for cell in cells({name: world})]
        if arguments.world or given:
            named = [replace(cell, can=None) for cell in named]
        for cell in {cell.name: cell for cell in named if cell.model in models}.values():
            yield measure(dataset, cell, work / cell.name, seed=arguments.seed, run=tuple(arguments.set))


def main() -> int:
    """Measure and print; 1 if a cell does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default=",".join(CHECKED))
    parser.add_argument("--models", help="names of models and forms; all if left out")
    parser.add_argument("--seed", type=int, default=0, help="of the world and of the training")
    parser.add_argument("--world", action="append", default=[], help="a dial of the worlds, such as lag=45")
    parser.add_argument("--set", action="append", default=[], help="such as train.max_examples=500000, model.width=48")
    arguments = parser.parse_args()
    print(HEADER)
    print("| --- " * HEADER.count(" | ") + "| --- |")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for one in measured(arguments, Path(folder)):
            found.append(one)
            print(row(one), flush=True)
    worlds = {name: asdict(world) for name, world in chosen(arguments).items()}
    print(last_line({"worlds": worlds, "cells": [record(one) for one in found]}))
    return 0 if all(one.holds for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
