"""Models trained in planted worlds, and whether they know what they can, by what each sees of a history.

    cell = world x model x settings --prepare, train, evaluate--> AUC --against what is possible--> verdict

A model that can know reaches at least `SHARE` of the possible lift in AUC, given time to train. One that cannot is at
AUC .5: in these worlds nothing that it sees depends on the answer, so it stays within `MARGIN` of that.

Worlds and runs are made to be checked in seconds to a minute: short histories of few items; so many users that an AUC
of chance stays within the margin (its standard error is about .005); learning rates and batches as they come, but for
smaller batches in the two worlds that are learnt on a plateau.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.config import load_config
from lifelong.offline.evaluation.evaluate import evaluate
from lifelong.offline.models import all_names
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.preparation.settings import PrepareSettings
from lifelong.offline.preparation.sources.worlds import WorldSettings
from lifelong.offline.training.trainer import train

if TYPE_CHECKING:
    from lifelong.dataset.folder import Dataset

SHARE = 0.8
"""Of the lift in AUC that is possible: what a model that can know has at least."""
MARGIN = 0.02
"""In AUC: how far from .5 a model that cannot know is at most."""
CHECKED: dict[str, WorldSettings] = {
    "checkerboard": WorldSettings(world="checkerboard", users=2000, events=100, items=40, asked=4),
    "markov": WorldSettings(world="markov", users=10_000, events=60, items=20, asked=1),
    "period": WorldSettings(world="period", users=10_000, events=162, items=40, period=24, burst=4, asked=2),
    "lag": WorldSettings(world="lag", users=8000, events=160, items=40, lag=16, spread=16, burst=4, asked=2),
    "daytime": WorldSettings(world="daytime", users=10_000, events=60, items=40, asked=1),
    "noise": WorldSettings(world="noise", users=10_000, events=60, items=40, asked=1),
}
"""The worlds of the table."""
CUTS = (0.5, 0.7)
"""Shares of the questions before validation and before test: many are for the test, where chance needs numbers."""
RUN = (
    "train.threads=1",
    # The question is what a model learns from nothing.
    "train.initial_vectors=random",
    "train.batch_events=4096",
    "train.validate_every=10000",
    "train.validation_examples=3000",
    "train.calibration_examples=1",
    "train.patience=3",
)
"""Settings of every run."""
BUDGETS: dict[str, tuple[str, ...]] = {
    "checkerboard": ("train.max_examples=600000", "train.min_steps=100"),
    "markov": ("train.max_examples=120000", "train.min_steps=300"),
    "period": ("train.batch_events=2048", "train.max_examples=150000", "train.min_steps=600"),
    "lag": ("train.batch_events=2048", "train.max_examples=150000", "train.min_steps=600"),
    "daytime": ("train.max_examples=60000", "train.min_steps=100"),
    "noise": ("train.max_examples=60000", "train.min_steps=0"),
}
"""Further settings by world: it takes some hundred steps before anything is learnt where the deciding event is far."""
CHOSEN: dict[tuple[str, str], dict[str, Any]] = {
    ("markov", "attrec"): {"window": 1},
    ("markov", "sim_cluster"): {"near": 64},
    # Attention over a hundred events begins even, and lets each move the state by a hundredth.
    ("period", "dien"): {"recent": 20},
    ("markov", "dien"): {"recent": 10},
    # So do the weights of twenty features.
    ("markov", "rum_feature"): {"slots": 1},
}
"""(world, model) -> settings of the table, where defaults allow no bar to be given, or nothing to be learnt in time."""
SLOW: dict[tuple[str, str], tuple[str, ...]] = {
    ("lag", "lstm"): ("train.patience=15",),
    ("markov", "mimn"): ("train.patience=20", "train.max_examples=300000"),
    ("markov", "rum_feature"): ("train.patience=40", "train.max_examples=300000"),
    ("markov", "twin"): ("train.patience=20", "train.max_examples=400000"),
    ("markov", "dien"): ("train.patience=40", "train.max_examples=400000"),
}
"""(world, model) -> further settings of the run, of those that stay at chance for longer."""
KNOWN = {
    # Sees nothing of the user.
    "popularity": "------",
    # Rank by a formula that no training changes: it fits a world or does not.
    "topfreq": "?????-",
    "topfreq_personal": "?????-",
    "upcf": "?????-",
    "tifu_knn": "?????-",
    # How many baskets lay between the last ones with the target's item, if it was there at all.
    "recanet": "?-+?+-",
    # How often, and how long ago, the target's own values were there; `gbdt` has the last moment and the hour, too.
    "counts": "+-++--",
    "gbdt": "+++++-",
    # The whole history, or a long window of it, without order.
    "lr": "+---+-",
    "fm": "+---+-",
    "dnn": "+---+-",
    "svdpp": "+---+-",
    "din": "+---+-",
    "ubr4ctr": "+---+-",
    "eta": "+---+-",
    "sdim": "+---+-",
    # A vector of the user, the last basket, or both.
    "mf": "+---+-",
    "fpmc": "++--+-",
    "fpmc_users": "++--+-",
    # A short window without order.
    "shan": "+-+++-",
    "rum_item": "+-+++-",
    # Events with their ages in powers of two.
    "sim": "+++++-",
    "sim_soft": "+++++-",
    "sim_cluster": "+++++-",
    "twin": "+++++-",
    # The last events, or all of them, in order; the authors' form reads no hour.
    "caser": "+++++-",
    "hstu": "+++++-",
    "memn2n": "+++++-",
    "attrec": "+++++-",
    "dien": "+++++-",
    "hpmn_authors": "++++--",
    "gru4rec": "+++++-",
    "lstm": "+++++-",
    "mingru": "+++++-",
    "gated_delta": "+++++-",
    "hpmn": "+++++-",
    "hpmn_dynamic": "+++++-",
    "tally": "+++++-",
    "mimn": "+++++-",
    "rum_feature": "+++++-",
}
"""Model or form -> for each world of `CHECKED`, with the settings `CHOSEN`: can know (+), cannot (-), or sees what
decides in some cases only, so that no bar holds (?)."""
NARROW: dict[str, dict[str, Any]] = {
    "shan": {"short": 12},
    "caser": {"recent": 12},
    "hstu": {"recent": 12},
    "memn2n": {"recent": 12},
    "attrec": {"window": 12},
    "dien": {"recent": 12},
    "sim": {"recent": 12},
    "rum_item": {"slots": 12},
}
"""Settings of models in `lag` once more, with which none can know: windows that end before what decides."""


@dataclass(frozen=True)
class Cell:
    """One model in one world; whether it can know the answer is None where no bar holds."""

    world: WorldSettings
    model: str
    can: bool | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as `lag-caser-recent=12`."""
        return "-".join([self.world.world, self.model, *(f"{key}={value}" for key, value in self.settings.items())])


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model knows.

    Args:
        cell: which.
        auc: on the test questions.
        best: AUC of an oracle.
        seconds: of training and evaluation.
    """

    cell: Cell
    auc: float
    best: float
    seconds: float

    @property
    def share(self) -> float:
        """Of the lift that is possible; 0 where none is."""
        return (self.auc - 0.5) / (self.best - 0.5) if self.best > 0.5 else 0.0

    @property
    def holds(self) -> bool:
        """Whether the model knows what it can and nothing that it cannot."""
        if self.cell.can is None:
            return True
        return self.share >= SHARE if self.cell.can else abs(self.auc - 0.5) <= MARGIN


def cells(worlds: Mapping[str, WorldSettings] = CHECKED) -> Iterator[Cell]:
    """Every model in every world, and in `lag` some once more with another window."""
    for name, world in worlds.items():
        for model in all_names():
            can = {"+": True, "-": False, "?": None}[KNOWN[model][list(CHECKED).index(name)]]
            yield Cell(world, model, can, CHOSEN.get((name, model), {}))
        if name == "lag":
            yield from (Cell(world, model, False, settings) for model, settings in NARROW.items())


def prepare_world(world: WorldSettings, out: Path) -> Dataset:
    """The world as a prepared dataset, with `CUTS`."""
    options = {field.name: str(getattr(world, field.name)) for field in fields(world)}
    return prepare("synthetic", [], out, settings=PrepareSettings(options=options, cuts=CUTS, threads=1))


def measure(dataset: Dataset, cell: Cell, out: Path, *, seed: int = 0, run: tuple[str, ...] = ()) -> Measured:
    """Train and evaluate.

    Args:
        dataset: `prepare_world(cell.world)`.
        cell: what to measure.
        out: folder of the artifact.
        seed: of the training.
        run: further settings of the run or the model, as `--set` takes them.
    """
    world = cell.world.world
    slow = SLOW.get((world, cell.model), ())
    config = load_config(None, [*RUN, *BUDGETS[world], *slow, f"train.seed={seed}", *run])
    config = config.model_copy(update={"model": {**cell.settings, **config.model}})
    started = time.monotonic()
    artifact = train(dataset, cell.model, out, config=config, progress=False)
    auc = evaluate(artifact, dataset, threads=1).metrics["auc"].value
    assert auc is not None
    return Measured(cell, auc, dataset.manifest.record["read"]["best_auc"], time.monotonic() - started)
