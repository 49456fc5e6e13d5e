"""The compiled loops over cells and the clock against their specification in torch, bit for bit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lifelong.data.cell_plan import LONGEST, SIZES, CellPlan, CellScale
from lifelong.data.vocabulary import FIRST_BUCKET
from lifelong.memory import cell_kernel
from lifelong.memory.counting import Counting, rules_of
from lifelong.memory.state import States
from lifelong.nn.cells import empty_cells, find_cells, staleness, write_cells
from lifelong.nn.clock import elapsed, empty_clock, tick
from lifelong.nn.repeats import repeat
from lifelong.nn.tally import TIMES, CountMemory, Counts

pytestmark = pytest.mark.torch

PLAN = CellPlan((5, 3, 9), words=3, patience=20, repeats=True)
KINDS = (30, 6, 8)
"""Keys of each field: far more than cells, a few more, and fewer."""
WHERE = torch.device("cpu")


class Fields(NamedTuple):
    """One user's memory, as the specification has it."""

    cell: torch.Tensor
    faded: torch.Tensor
    clock: torch.Tensor


def empty(plan: CellPlan, levels: int) -> Fields:
    return Fields(*empty_cells(1, plan, device=WHERE), empty_clock(1, levels + plan.repeats, device=WHERE))


def specified(before: Fields, key_LF: np.ndarray, gap_L: np.ndarray, plan: CellPlan, first: int = 1) -> Fields:
    stale_N = staleness(plan)
    for count, (key_F, gap) in enumerate(zip(torch.tensor(key_LF), torch.tensor(gap_L), strict=True), start=first):
        count_B = torch.tensor([count])
        clock = [tick(before.clock[:, plan.repeats :], gap[None], count_B)]
        found = find_cells(before.cell[:, None], before.faded[:, None], key_F[None, None], plan)
        if plan.repeats:
            clock.insert(0, repeat(before.clock[:, 0], found)[:, None])
        cells = write_cells(before.cell, before.faded, key_F[None], count_B, stale_N, plan)
        before = Fields(*cells, torch.cat(clock, dim=1))
    return before


def written(before: Fields, key_LF: np.ndarray, gap_L: np.ndarray, plan: CellPlan, first: int = 1) -> Fields:
    memory = tuple(part.numpy().copy() for part in before)
    cell_kernel.sort(memory[0], rules_of(plan)[0])
    count_L = np.arange(first, first + len(gap_L))
    cell_kernel.write(memory, np.zeros(len(gap_L), np.int64), key_LF, gap_L, count_L, rules_of(plan), LONGEST)
    return Fields(*map(torch.from_numpy, memory))


def check_equal(found: Fields, wanted: Fields, plan: CellPlan) -> None:
    sorted_cells = wanted.cell.numpy().copy()
    cell_kernel.sort(sorted_cells, rules_of(plan)[0])
    assert np.array_equal(found.cell.numpy(), sorted_cells)
    assert torch.equal(found.faded, wanted.faded) and torch.equal(found.clock, wanted.clock)


def check_reads(memory: Fields, count: int, asked_CF: np.ndarray, plan: CellPlan) -> None:
    """What is found, and the seconds since the last event of what is found."""
    asked_BCF, count_B = torch.tensor(asked_CF)[None], torch.tensor([count])
    wanted = find_cells(memory.cell[:, None], memory.faded[:, None], asked_BCF, plan)
    ago_BCF = torch.tensor(plan.scale.ages())[wanted.age_BCF]
    seconds_BCF = elapsed(memory.clock[:, None, plan.repeats :], count_B[:, None], ago_BCF, torch.float32)
    found = tuple(np.zeros(asked_BCF.shape, kind) for kind in (np.int64, np.int64, np.bool_, np.float32))
    arrays = tuple(part.numpy() for part in memory)
    no_numbers = np.zeros((0, 0, 0, 4), np.float32), np.zeros((0, 0, 0, 2), np.float32), np.zeros((0, 0, 0), np.int64)
    no_kinds = np.zeros(1, np.int64), 0
    cell_kernel.find(arrays, count_B.numpy(), asked_BCF.numpy(), rules_of(plan), no_kinds, found, no_numbers)
    for name, part, value in zip(("times", "age", "faded"), found, wanted, strict=False):
        assert np.array_equal(part, value.numpy()), name
    assert np.array_equal(found[3], np.where(wanted.count_BCF > 0, seconds_BCF, 0))
    check_numbers(memory, count, asked_CF, plan)


def check_numbers(memory: Fields, count: int, asked_CF: np.ndarray, plan: CellPlan) -> None:
    """What a read graph is given of it."""
    fields, levels = dict(zip(Fields._fields, (part.numpy() for part in memory), strict=True)), memory.clock.shape[1]
    states = States(np.array([count]), np.array([0]), fields)
    number_BCF = np.where(asked_CF < 0, 0, asked_CF + FIRST_BUCKET)[None]
    found = Counting(plan, ["item"], TIMES).find(states, slice(0, 1), number_BCF)
    counts = CountMemory([9] * asked_CF.shape[1], scale=plan.scale, levels=levels - plan.repeats)
    counts.plan = plan
    whole = Counts(torch.tensor([[count]]), memory.clock[:, None], memory.cell[:, None], memory.faded[:, None])
    asked_BCF = torch.tensor(asked_CF)[None]
    wanted = counts.numbers(counts.look(whole, asked_BCF), asked_BCF)
    for name, part in zip(("number", "flag", "kind", "user"), wanted, strict=True):
        np.testing.assert_allclose(found[name], part, rtol=1e-6, atol=1e-6, err_msg=name)


def history(seed: int, length: int, kinds: tuple[int, ...], unknown: float) -> tuple[np.ndarray, np.ndarray]:
    """Random keys, some of them unknown, and gaps, some of them so long that the clock stops."""
    rng = np.random.default_rng(seed)
    key_LF = rng.integers(0, kinds, (length, len(kinds)))
    key_LF[rng.random(key_LF.shape) < unknown] = -1
    return key_LF, rng.choice([0, 1, 60, 86_400, 3 * 10**8], length, p=[0.2, 0.3, 0.3, 0.19, 0.01])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length=st.integers(0, 200),
    unknown=st.sampled_from([0.0, 0.2, 1.0]),
    patience=st.sampled_from([0, 20, 10_000]),
    words=st.sampled_from([0, 1, 3]),
    levels=st.sampled_from([1, 4, 17]),
    repeats=st.booleans(),
    scale=st.sampled_from(CellScale),
)
@example(seed=1, length=200, unknown=0.0, patience=20, words=3, levels=17, repeats=True, scale=CellScale.FINE)
@example(seed=1, length=200, unknown=0.0, patience=20, words=3, levels=17, repeats=True, scale=CellScale.COARSE)
def test_a_history_gives_the_specified_memory(
    seed: int,
    length: int,
    unknown: float,
    patience: int,
    words: int,
    levels: int,
    repeats: bool,
    scale: CellScale,
) -> None:
    plan = CellPlan(PLAN.cells_F, words=words, patience=patience, repeats=repeats, scale=scale)
    key_LF, gap_L = history(seed, length, KINDS, unknown)
    wanted = specified(empty(plan, levels), key_LF, gap_L, plan)
    found = written(empty(plan, levels), key_LF, gap_L, plan)
    check_equal(found, wanted, plan)
    asked_CF = np.random.default_rng(seed).integers(-1, [kinds + 2 for kinds in KINDS], (20, 3))
    check_reads(found, length, asked_CF, plan)


@pytest.mark.parametrize("scale", CellScale)
@pytest.mark.parametrize("count", [2**12, 2**15 - 3, 2**16, 2**20, 2**20 + 2**19])
def test_the_oldest_cells_age_as_specified(count: int, scale: CellScale) -> None:
    """Cells of all ages, at counts where steps of many sizes are due."""
    rng, plan = np.random.default_rng(count), CellPlan((256, 3), words=2, patience=400, scale=scale)
    memory = empty(plan, 17)
    steps = SIZES * scale.age_steps
    age_K = np.r_[rng.permutation(256) % steps, [steps - 1, 0, scale.age_steps]]
    memory.cell[0, :, 0] = torch.tensor(np.r_[rng.permutation(65_536)[:256], [7, 9, 8]] - 2**15)
    memory.cell[0, :, 1] = torch.tensor(rng.integers(1, 2**scale.count_bits, 259) * 256 + age_K)
    memory.clock[0] = torch.tensor(np.sort(rng.integers(0, 10**8, (17, 2)))[::-1, ::-1].copy())
    key_LF, gap_L = history(count, 40, (65_536, 12), 0.0)
    wanted = specified(memory, key_LF, gap_L, plan, first=count)
    found = written(memory, key_LF, gap_L, plan, first=count)
    check_equal(found, wanted, plan)
    check_reads(found, count + 39, np.r_[key_LF, rng.integers(0, (65_536, 12), (40, 2))], plan)


def test_of_equally_stale_cells_the_lowest_key_gives_way_wherever_the_new_one_goes() -> None:
    plan = CellPlan((3,), words=1, patience=0)
    for new in (5, 15, 25, 35):
        key_LF = np.array([[20], [10], [30], *[[-1]] * 400, [new]])
        gap_L = np.zeros(len(key_LF), np.int64)
        check_equal(written(empty(plan, 1), key_LF, gap_L, plan), specified(empty(plan, 1), key_LF, gap_L, plan), plan)


def test_events_of_several_users_in_any_order_change_their_own_memory_alone() -> None:
    key_LF, gap_L = history(5, 90, KINDS, 0.1)
    user_N = np.random.default_rng(5).integers(0, 3, 90)
    memory = tuple(part.numpy().repeat(3, axis=0) for part in empty(PLAN, 4))
    count_N = np.array([1 + (user_N[:at] == user).sum() for at, user in enumerate(user_N)])
    cell_kernel.write(memory, user_N, key_LF, gap_L, count_N, rules_of(PLAN), LONGEST)
    for user in range(3):
        mine = user_N == user
        wanted = specified(empty(PLAN, 4), key_LF[mine], gap_L[mine], PLAN)
        check_equal(Fields(*(torch.from_numpy(part[[user]]) for part in memory)), wanted, PLAN)
