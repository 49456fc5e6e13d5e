"""In worlds with known answers, every model knows what it can know, and nothing that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.planted import BUDGETS, CHECKED, KNOWN, NARROW, Cell, Measured, cells, measure, prepare_world

from lifelong.dataset.folder import Dataset
from lifelong.offline.models import all_names
from lifelong.offline.preparation.sources.worlds import WORLDS, WorldSettings

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
    Cell(NEAR["checkerboard"], "popularity", can=False),
    Cell(NEAR["checkerboard"], "mf", can=True),
    Cell(NEAR["markov"], "counts", can=False),
    Cell(NEAR["markov"], "fpmc", can=True),
    Cell(NEAR["markov"], "recanet", can=False),
    Cell(NEAR["period"], "counts", can=True),
    Cell(NEAR["period"], "mf", can=False),
    Cell(NEAR["period"], "recanet", can=True),
    Cell(NEAR["lag"], "gbdt", can=True),
    Cell(NEAR["lag"], "memn2n", False, {"recent": 9}),
    Cell(NEAR["lag"], "memn2n", True, {"recent": 10}),
    *(Cell(NEAR["daytime"], "mf", False, {"context": fields}) for fields in ([], ["gap"])),
    *(Cell(NEAR["daytime"], "mf", True, {"context": fields}) for fields in (["hour"], ["time_of_day"])),
    Cell(NEAR["daytime"], "counts", can=False),
    Cell(NEAR["noise"], "gbdt", can=False),
]
OTHER_SEED = {name: replace(world, seed=31) for name, world in CHECKED.items()}
FAR = [replace(CHECKED["lag"], lag=lag, spread=30, burst=5, events=3 * (lag + 45), seed=32) for lag in (60, 200)]
FARTHER = [
    Cell(FAR[0], "hpmn", can=True),
    Cell(FAR[0], "memn2n", can=False),
    Cell(FAR[1], "memn2n", False, {"recent": 20}),
    Cell(FAR[1], "sim", can=False),
    Cell(FAR[1], "gbdt", can=True),
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
    assert found.holds, f"AUC {found.auc:.4f} of at most {found.best:.4f}: it can know: {cell.can}"


def test_cells_are_every_model_in_every_world_and_narrow_windows_in_lag() -> None:
    assert list(CHECKED) == list(BUDGETS) == list(WORLDS) and set(KNOWN) == set(all_names())
    assert all(len(row) == len(CHECKED) and row[-1] == "-" for row in KNOWN.values())
    found = [cell.name for cell in cells()]
    assert len(set(found)) == len(found) == len(CHECKED) * len(KNOWN) + len(NARROW)
    assert {"noise-hpmn", "lag-caser", "lag-caser-recent=12", "markov-sim_cluster-near=64"} <= set(found)


@pytest.mark.parametrize("world", CHECKED.values(), ids=str)
def test_the_worlds_of_the_table_can_be_made(world: WorldSettings) -> None:
    assert world.problems() == []


@pytest.mark.parametrize(
    ("can", "auc", "holds"),
    [
        # Four fifths of the lift to .9.
        *((True, auc, holds) for auc, holds in ((0.821, True), (0.81, False), (0.9, True), (0.3, False))),
        *((False, auc, holds) for auc, holds in ((0.5, True), (0.519, True), (0.53, False), (0.47, False))),
        (None, 0.6, True),
    ],
)
def test_what_can_be_known_is_known_and_nothing_else(can: bool | None, auc: float, holds: bool) -> None:
    assert Measured(Cell(CHECKED["lag"], "hpmn", can), auc, best=0.9, seconds=1.0).holds is holds


@pytest.mark.slow
@pytest.mark.parametrize("cell", QUICK, ids=lambda cell: cell.name)
def test_a_near_answer_is_known_by_those_who_can(cell: Cell, prepared: Prepared, tmp_path: Path) -> None:
    check(prepared, cell, tmp_path / "artifact", "train.min_steps=100")


@pytest.mark.soak
@pytest.mark.parametrize("cell", [*cells(OTHER_SEED), *FARTHER], ids=lambda cell: cell.name)
def test_every_model_knows_what_it_can_and_nothing_else(cell: Cell, prepared: Prepared, tmp_path: Path) -> None:
    check(prepared, cell, tmp_path / "artifact")
