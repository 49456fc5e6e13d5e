"""In worlds with known answers, every model knows what it can know, and nothing that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.planted import CHECKED, Cell, cells, measure, prepare_world

from lifelong.dataset.folder import Dataset
from lifelong.offline.preparation.sources.worlds import WorldSettings

Prepared = Callable[[WorldSettings], Dataset]

NEAR = {
    "checkerboard": replace(CHECKED["checkerboard"], groups=4, seed=7),
    "markov": replace(CHECKED["markov"], items=16, seed=7),
    "period": replace(CHECKED["period"], period=20, burst=3, events=130, seed=7),
    "lag": replace(CHECKED["lag"], lag=10, spread=10, burst=4, events=100, seed=7),
    "daytime": replace(CHECKED["daytime"], users=4000, seed=7),
    "noise": replace(CHECKED["noise"], seed=7),
}
"""Worlds whose deciding events are near, so that they are learnt in seconds."""
QUICK = [
    *(Cell(NEAR["checkerboard"], model) for model in ("popularity", "mf")),
    *(Cell(NEAR["markov"], model) for model in ("counts", "fpmc")),
    Cell(NEAR["markov"], "recanet"),
    *(Cell(NEAR["period"], model) for model in ("counts", "mf", "recanet")),
    Cell(NEAR["lag"], "gbdt"),
    Cell(NEAR["lag"], "memn2n", {"recent": 9}),
    Cell(NEAR["lag"], "memn2n", {"recent": 10}),
    *(Cell(NEAR["daytime"], "mf", {"context": fields}) for fields in ([], ["gap"], ["hour"], ["time_of_day"])),
    Cell(NEAR["daytime"], "counts"),
    Cell(NEAR["noise"], "gbdt"),
]
OTHER_SEED = {name: replace(world, seed=31) for name, world in CHECKED.items()}
FAR = [replace(CHECKED["lag"], lag=lag, spread=30, burst=5, events=3 * (lag + 45), seed=32) for lag in (60, 200)]
FARTHER = [
    Cell(FAR[0], "hpmn"),
    Cell(FAR[0], "memn2n"),
    Cell(FAR[1], "memn2n", {"recent": 20}),
    Cell(FAR[1], "sim"),
    Cell(FAR[1], "gbdt"),
]
"""Lags that some models' windows and clocks do not reach."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Prepares a world once."""
    datasets: dict[WorldSettings, Dataset] = {}

    def open_(world: WorldSettings) -> Dataset:
        if world not in datasets:
            datasets[world] = prepare_world(world, tmp_path_factory.mktemp("worlds") / world.world)
        return datasets[world]

    return open_


def check(prepared: Prepared, cell: Cell, out: Path, *run: str) -> None:
    found = measure(prepared(cell.world), cell, out, seed=cell.world.seed, run=run)
    assert found.holds, f"AUC {found.auc:.4f} of at most {found.best:.4f}: {cell.knowledge}"


@pytest.mark.slow
@pytest.mark.parametrize("cell", QUICK, ids=lambda cell: cell.name)
def test_a_near_answer_is_known_by_those_who_can(cell: Cell, prepared: Prepared, tmp_path: Path) -> None:
    check(prepared, cell, tmp_path / "artifact", "train.min_steps=100")


@pytest.mark.soak
@pytest.mark.parametrize("cell", [*cells(OTHER_SEED), *FARTHER], ids=lambda cell: cell.name)
def test_every_model_knows_what_it_can_and_nothing_else(cell: Cell, prepared: Prepared, tmp_path: Path) -> None:
    check(prepared, cell, tmp_path / "artifact")
