"""After how many events items come again: lists and loops against all three paths to the memory, and what is read."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lifelong.data.cell_plan import LONGEST, CellPlan
from lifelong.memory import cell_kernel
from lifelong.memory.counting import rules_of
from lifelong.nn.cell_replay import cells_at
from lifelong.nn.cells import empty_cells, staleness
from lifelong.nn.rhythm import bytes_of, returned, rhythm_of

pytestmark = pytest.mark.torch

PLAN = CellPlan((5,), words=1, patience=20, rhythm=True)


def naive(keys: list[int]) -> tuple[list[int], list[int]]:
    """Marks by the number of their event modulo 128, and how often items came again at each lag, from 1."""
    mark_L, returns = [0 if key < 0 else key * (key + 40_503) % 65_537 % 127 + 1 for key in keys], [0] * 128
    for at, mark in enumerate(mark_L):
        for lag in range(1, min(at, 128) + 1):
            returns[lag - 1] += mark > 0 and mark_L[at - lag] == mark
        if max(returns) > 127:
            returns = [count // 2 for count in returns]
    places = [0] * 128
    for at, mark in enumerate(mark_L):
        places[at % 128] = mark
    return places, returns


def history(seed: int, length: int, kinds: int) -> list[int]:
    """Keys, a tenth of them unknown; with few kinds some returns exceed what a byte holds."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(length) < 0.1, -1, rng.integers(0, kinds, length)).tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(0, 300), kinds=st.sampled_from([1, 3, 40, 65_536]))
@example(seed=0, length=300, kinds=1)
@example(seed=0, length=300, kinds=40)
def test_all_paths_count_what_lists_and_loops_count(seed: int, length: int, kinds: int) -> None:
    keys = history(seed, length, kinds)
    rows_BRX = torch.zeros(1, PLAN.rows, 2, dtype=torch.int32)
    for count, key in enumerate(keys, start=1):
        rows_BRX = returned(rows_BRX, torch.tensor([key]), torch.tensor([count]))
    assert [part[0].tolist() for part in bytes_of(rows_BRX)] == list(naive(keys))

    key_BLF = torch.tensor(keys, dtype=torch.int64).reshape(1, -1, 1)
    *_, replayed_BCRX = cells_at(key_BLF, torch.tensor([[length]]), staleness(PLAN), PLAN)
    assert torch.equal(replayed_BCRX[:, 0], rows_BRX)

    cells = (part.numpy() for part in empty_cells(1, PLAN, device=torch.device("cpu")))
    memory = (*cells, np.zeros((1, PLAN.rows + 1, 2), np.int32))
    user_N, nothing_N = np.zeros(length, np.int64), np.zeros(length, np.int64)
    cell_kernel.write(memory, user_N, key_BLF[0].numpy(), nothing_N, np.arange(1, length + 1), rules_of(PLAN), LONGEST)
    assert np.array_equal(memory[2][:, : PLAN.rows], rows_BRX.numpy())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(0, 300), kinds=st.sampled_from([1, 3, 40]))
def test_a_read_finds_the_lags_of_the_target(seed: int, length: int, kinds: int) -> None:
    keys = history(seed, length, kinds)
    places, returns = naive(keys)
    key_BLF, asked = torch.tensor(keys, dtype=torch.int64).reshape(1, -1, 1), [-1, 0, 1, 50]
    *_, row_BCRX = cells_at(key_BLF, torch.tensor([[length]]), staleness(PLAN), PLAN)
    found = rhythm_of(row_BCRX, torch.tensor([asked]), torch.tensor([[length]]), torch.float64)
    for key, numbers in zip(asked, found[0].tolist(), strict=True):
        mark = naive([key])[0][0]
        lags = [lag for lag in range(1, 129) if mark and places[(length - lag) % 128] == mark]
        mine = [returns[lag - 1] for lag in lags]
        wanted = max(mine, default=0), sum(mine), max(returns), sum(returns)
        assert numbers == pytest.approx([math.log(1 + count) / 2 for count in wanted])


def test_an_item_that_is_due_stands_out_from_one_of_about_the_same_age() -> None:
    """Every 61 events the same item comes; a cell gives it about the same age ten events before."""
    keys = [7 if at % 61 == 0 else 100 + at for at in range(61 * 6)]
    key_BLF = torch.tensor(keys).reshape(1, -1, 1)
    position_BC = torch.arange(61 * 6 - 10, 61 * 6 + 1).unsqueeze(0)
    *_, row_BCRX = cells_at(key_BLF, position_BC, staleness(PLAN), PLAN)
    found = rhythm_of(row_BCRX, torch.full_like(position_BC, 7), position_BC, torch.float64)
    *early, due = found[0, :, 0].tolist()
    # It came again five times. Marks of other items are sometimes equal to its own, and have been.
    assert due >= math.log(1 + 5) / 2
    assert sum(number < due for number in early) >= 8
