"""How long a request with 100 candidates takes, for every model that a service can run.

    lifelong prepare completejourney --out data
    python benchmarks/model_latency.py data --config benchmarks/completejourney.toml

In process, on a store in RAM, for one user with 100, 1,000 and 10,000 events: what `lifelong compare` measures after a
training. Here nothing is trained. Each model has the settings of the file, its initial embeddings and random weights,
which take as long as trained ones. Each model takes turns with Tally, and times are medians over the rounds, so that
every row has a ratio from its own minute. The last line is JSON.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from printed import last_line

from lifelong.artifact.folder import Artifact
from lifelong.cli.model_settings import model_configs, without_unmet
from lifelong.cli.serving_cost import EVENTS, serving_of
from lifelong.config import RunConfig
from lifelong.dataset.folder import Dataset
from lifelong.offline.export.saving import write_artifact
from lifelong.offline.models import all_names, check_config, is_served
from lifelong.offline.models.base import Model
from lifelong.offline.training.settings import build_model, initialised, with_recipe

TALLY, AT = "tally", 1_000
"""What the others are compared with, and after how many events."""


def untrained(dataset: Dataset, name: str, config: RunConfig, folder: Path) -> Artifact | None:
    """The artifact of a model with random weights, or None if no service can run it."""
    config = with_recipe(config, name, dataset)
    torch.manual_seed(config.train.seed)
    model = build_model(dataset, name, config.model)
    if not isinstance(model, Model) or not is_served(model):
        return None
    initialised(model, dataset, config.train, say=lambda line: None)
    settings = check_config(name, config.model)
    return write_artifact(folder, model, dataset, run={"model": settings}, metrics={}, calibrator=None)


def milliseconds(artifact: Artifact, events: tuple[int, ...] = EVENTS) -> dict[int, float]:
    """Number of events -> median milliseconds of a request, measured now."""
    artifact.path.with_name("serving.json").unlink(missing_ok=True)
    found = serving_of(artifact, events=events)
    assert found is not None
    return dict(found.latency_ms)


def in_turn(artifact: Artifact, tally: Artifact, rounds: int) -> dict[str, Any]:
    """Milliseconds of a model by number of events, those of Tally between them, and their ratio."""
    taken = [(milliseconds(artifact), milliseconds(tally, (AT,))[AT]) for _ in range(rounds)]
    took = {count: statistics.median(own[count] for own, _ in taken) for count in EVENTS}
    others = statistics.median(other for _, other in taken)
    return {
        "ms": {count: round(median, 2) for count, median in took.items()},
        "tally_ms": round(others, 2),
        "of_tally": round(took[AT] / others, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that `lifelong prepare` wrote")
    parser.add_argument("--config", type=Path, nargs="+", default=[], help="settings, as of `lifelong compare`")
    parser.add_argument("--models", nargs="+", help="default: all that can be served")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each model, and of Tally after each")
    arguments = parser.parse_args()
    dataset = Dataset(arguments.data)
    names = [name for name in arguments.models or all_names() if name != TALLY]
    configs, left_out = without_unmet(dataset, model_configs([TALLY, *names], arguments.config, []))
    for reason in left_out:
        print(reason)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="model-latency-") as folder:
        tally = untrained(dataset, TALLY, configs[TALLY], Path(folder, TALLY, "artifact"))
        assert tally is not None
        for name, config in configs.items():
            artifact = tally if name == TALLY else untrained(dataset, name, config, Path(folder, name, "artifact"))
            if artifact is not None:
                found[name] = in_turn(artifact, tally, arguments.rounds)
                print(f"{name}: {found[name]}", flush=True)
    print(last_line(found))


if __name__ == "__main__":
    main()
