"""Cells against a transcription of their rules with lists and loops, and the replay against the folded writes."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.data.cell_plan import CellPacking, CellPlan, CellScale, key_of, plan_cells, share_out, values_of
from lifelong.nn.cell_replay import cells_at, cells_found
from lifelong.nn.cells import empty_cells, find_cells, key_table, staleness, write_cells
from lifelong.nn.repeats import repeat

pytestmark = pytest.mark.torch


LEVELS = {CellScale.FINE: list(range(128)), CellScale.COARSE: [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28]}
STEPS = {CellScale.FINE: 16, CellScale.COARSE: 2}
scales = st.sampled_from(CellScale)


@dataclass
class Cell:
    key: int
    count: int = 1
    age: int = 0


@dataclass
class NaiveCells:
    """One user's memory, by the rules as written."""

    plan: CellPlan
    tables: list[list[Cell]] = field(default_factory=list)
    faded: set[int] = field(default_factory=set)
    events: int = 0

    def write(self, keys: list[int]) -> None:
        self.events += 1
        self.tables = self.tables or [[] for _ in keys]
        for place, key in enumerate(keys):
            for cell in self.tables[place]:
                steps = STEPS[self.plan.scale]
                if self.events % 2 ** (cell.age // steps) == 0:
                    cell.age = min(cell.age + 1, 16 * steps - 1)
            if key >= 0:
                self._count(place, key)

    def _count(self, place: int, key: int) -> None:
        table = self.tables[place]
        for cell in table:
            if cell.key == key:
                cell.age = 0
                above = [level for level in LEVELS[self.plan.scale] if level > cell.count]
                if above and self.events % (above[0] - cell.count) == 0:
                    cell.count = above[0]
                return
        if len(table) < self.plan.cells_F[place]:
            table.append(Cell(key))
            return
        ages = self.plan.scale.ages()
        staleness = [ages[cell.age] - round(self.plan.patience * math.log2(cell.count)) for cell in table]
        stalest = min(
            (place for place in range(len(table)) if staleness[place] == max(staleness)),
            key=lambda place: table[place].key,
        )
        self.faded.discard((self.events + place * 101) * 7_919 % self.plan.bits)
        self.faded |= self._bits(place, table[stalest].key)
        table[stalest] = Cell(key)

    def _bits(self, place: int, key: int) -> set[int]:
        code = key + place * 65_536
        return {code * 40_503 % 1_000_003 % self.plan.bits, code * 30_011 % 999_983 % self.plan.bits}

    def find(self, place: int, key: int) -> tuple[int, int, bool]:
        for cell in self.tables[place] if self.tables else []:
            if cell.key == key:
                return cell.count, cell.age, False
        return 0, 0, key >= 0 and self._bits(place, key) <= self.faded


PLAN = CellPlan((5, 3, 9), words=3, patience=20)
KINDS = (30, 6, 8)


def random_keys(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(-1, kinds, shape, generator=generator) for kinds in KINDS], dim=-1)


def folded(key_BLF: torch.Tensor, plan: CellPlan) -> tuple[torch.Tensor, torch.Tensor]:
    """Memories after 0, 1, 2, ... events, along the second axis."""
    memory = empty_cells(len(key_BLF), plan, device=torch.device("cpu"))
    steps = [memory]
    for place, key_BF in enumerate(key_BLF.unbind(1), start=1):
        memory = write_cells(*memory, key_BF, torch.full((len(key_BF),), place), stale_N=staleness(plan), plan=plan)
        steps.append(memory)
    cells, faded = zip(*steps, strict=True)
    return torch.stack(cells, dim=1), torch.stack(faded, dim=1)


def rows_folded(key_BLF: torch.Tensor, every: tuple[torch.Tensor, torch.Tensor], plan: CellPlan) -> torch.Tensor:
    """Repeats after 0, 1, 2, ... events, from the memories before each."""
    steps = [torch.zeros(len(key_BLF), int(plan.repeats), 2, dtype=torch.int32)]
    for place, key_BF in enumerate(key_BLF.unbind(1)):
        parts = []
        if plan.repeats:
            before = [part[:, place : place + 1] for part in every]
            parts.append(repeat(steps[-1][:, 0], find_cells(*before, key_BF.unsqueeze(1), plan)).unsqueeze(1))
        steps.append(torch.cat(parts, dim=1) if parts else steps[-1])
    return torch.stack(steps, dim=1)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), events=st.integers(0, 150), patience=st.integers(0, 60), scale=scales)
def test_what_is_found_is_what_lists_and_loops_find(seed: int, events: int, patience: int, scale: CellScale) -> None:
    plan = CellPlan(PLAN.cells_F, PLAN.words, patience, scale=scale)
    key_LF, naive = random_keys(seed, events), NaiveCells(plan)
    for key_F in key_LF:
        naive.write(key_F.tolist())
    cell, faded = folded(key_LF.unsqueeze(0), plan)
    for key in range(-1, max(KINDS)):
        asked = torch.full((1, 1, 3), key)
        found = find_cells(cell[:, -1:], faded[:, -1:], asked, plan)
        for place in range(3):
            assert tuple(part[0, 0, place].item() for part in found) == naive.find(place, key)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length=st.integers(0, 300),
    words=st.integers(1, 6),
    scale=scales,
    repeats=st.booleans(),
)
def test_the_replay_is_the_folded_writes_bit_for_bit(
    seed: int, length: int, words: int, scale: CellScale, repeats: bool
) -> None:
    plan = CellPlan(PLAN.cells_F, words, 20, repeats, scale)
    key_BLF, asked_BCF = random_keys(seed, 3, length), random_keys(seed + 1, 3, 4)
    position_BC = torch.randint(0, length + 1, (3, 4), generator=torch.Generator().manual_seed(seed))
    every = folded(key_BLF, plan)
    wanted = [part[torch.arange(3).unsqueeze(1), position_BC] for part in every]
    *memory, row_BCRX = cells_at(key_BLF, position_BC, staleness(plan), plan)
    assert all(torch.equal(one, other) for one, other in zip(memory, wanted, strict=True))
    found, same_BCRX = cells_found(key_BLF, position_BC, asked_BCF, staleness(plan), plan)
    assert torch.equal(row_BCRX, same_BCRX)
    assert torch.equal(row_BCRX, rows_folded(key_BLF, every, plan)[torch.arange(3).unsqueeze(1), position_BC])
    again = find_cells(*memory, asked_BCF, plan)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize(("scale", "exact", "short"), [(CellScale.FINE, 16, 1 / 8), (CellScale.COARSE, 2, 0.6)])
def test_an_age_is_exact_at_first_and_then_short_by_less_than_a_share(
    scale: CellScale, exact: int, short: float
) -> None:
    plan = CellPlan((2,), 1, 0, scale=scale)
    key_BLF = torch.zeros(1, 5_000, 1, dtype=torch.int64)
    key_BLF[:, 37:] = 1
    position_BC = torch.arange(38, 5_001).unsqueeze(0)
    asked_BCF = torch.zeros(1, position_BC.shape[1], 1, dtype=torch.int64)
    found, _ = cells_found(key_BLF, position_BC, asked_BCF, staleness(plan), plan)
    true, kept = position_BC[0] - 37, torch.tensor(scale.ages())[found.age_BCF[0, :, 0]]
    assert torch.equal(kept[:exact], true[:exact])
    assert bool((kept <= true).all()) and float(((true - kept) / true).max()) < short
    # The middle of a step is nearer to the truth on average.
    middle = torch.tensor(scale.middle_ages())[found.age_BCF[0, :, 0]]
    assert float((true - middle).abs().double().mean()) < float((true - kept).double().mean())


def test_a_coarse_count_is_exact_up_to_eight_and_right_on_average_above() -> None:
    generator, users = torch.Generator().manual_seed(0), 2_000
    # Every event counts one of two values, so that which events count the first is as good as drawn.
    key_BLF = torch.randint(0, 2, (users, 40, 1), generator=generator)
    plan = CellPlan((2,), 1, 0, scale=CellScale.COARSE)
    asked_BCF = torch.zeros(users, 1, 1, dtype=torch.int64)
    found, _ = cells_found(key_BLF, torch.full((users, 1), 40), asked_BCF, staleness(plan), plan)
    true, kept = (key_BLF == 0).sum(dim=1).flatten(), found.count_BCF.flatten()
    few = true <= 8
    assert torch.equal(kept[few], true[few])
    for times in range(12, 25):
        same = true == times
        if int(same.sum()) > 50:
            assert float(kept[same].double().mean()) == pytest.approx(times, rel=0.08)
    assert int(kept.max()) == 28


def test_a_field_with_as_many_cells_as_values_is_counted_exactly() -> None:
    key_BLF = random_keys(4, 1, 100)[..., 2:]
    plan = CellPlan((8,), 1, 20)
    asked_BCF = torch.arange(8).view(1, 8, 1)
    found, _ = cells_found(key_BLF, torch.full((1, 8), 100), asked_BCF, staleness(plan), plan)
    assert found.count_BCF[0, :, 0].tolist() == [int((key_BLF == key).sum()) for key in range(8)]
    assert not found.faded_BCF.any()


def test_a_value_that_lost_its_cell_is_faded_and_one_that_never_was_is_not() -> None:
    plan = CellPlan((2,), 100, 20)
    key_BLF = torch.tensor([7, 8, 9]).view(1, 3, 1)
    asked_BCF = torch.tensor([7, 8, 9, 10, -1]).view(1, 5, 1)
    found, _ = cells_found(key_BLF, torch.full((1, 5), 3), asked_BCF, staleness(plan), plan)
    assert found.faded_BCF.flatten().tolist() == [True, False, False, False, False]
    assert found.count_BCF.flatten().tolist() == [0, 1, 1, 0, 0]


def test_what_is_met_often_keeps_its_cell_when_patience_is_long() -> None:
    history = [1] * 8 + [2, 3, 4]
    kept = []
    for patience in (0, 100):
        plan = CellPlan((2,), 1, patience)
        key_BLF, asked = torch.tensor(history).view(1, -1, 1), torch.ones(1, 1, 1, dtype=torch.int64)
        found, _ = cells_found(key_BLF, torch.tensor([[len(history)]]), asked, staleness(plan), plan)
        kept.append(int(found.count_BCF))
    assert kept == [0, 8]


def test_faded_bits_never_fill_up() -> None:
    plan = CellPlan((4,), 20, 0)
    key_BLF = torch.arange(20_000).view(1, -1, 1)
    _, faded, _ = cells_at(key_BLF, torch.tensor([[20_000]]), staleness(plan), plan)
    share = sum(bin(word).count("1") for word in faded.flatten().tolist()) / plan.bits
    assert 0.5 < share < 0.8


def test_padding_and_unknown_values_have_no_key_and_numbers_beyond_share_keys() -> None:
    assert [key_of(number) for number in (0, 1, 2, 3, 2 + 65_536)] == [-1, -1, 0, 1, 0]
    assert key_table(4).flatten().tolist() == [-1.0, -1.0, 0.0, 1.0]


@settings(max_examples=50, deadline=None)
@given(data=st.data(), fields=st.integers(1, 6), total=st.integers(6, 900))
def test_cells_are_shared_out_within_the_total_and_no_field_has_more_than_values(
    data: st.DataObject, fields: int, total: int
) -> None:
    most = data.draw(st.lists(st.integers(1, 400), min_size=fields, max_size=fields))
    weights = data.draw(st.lists(st.floats(0.01, 9), min_size=fields, max_size=fields))
    cells = share_out(total, most, weights)
    assert all(1 <= cell <= limit for cell, limit in zip(cells, most, strict=True))
    assert sum(cells) <= total
    assert sum(cells) > min(total, sum(most)) - fields


def test_a_plan_that_has_no_room_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="set a larger state"):
        plan_cells(6, [10, 10], faded=0.3)
    with pytest.raises(ValueError, match="3 shares for 2 item fields"):
        plan_cells(4096, [10, 10], faded=0.3, shares=(1, 2, 3))


def test_a_plan_stays_within_its_bytes() -> None:
    sizes = [70_000, 900, 40]
    for total in np.arange(64, 5_000, 37).tolist():
        for scale in CellScale:
            plan = plan_cells(total, sizes, faded=0.33, scale=scale)
            packing = CellPacking(plan.cells_F, values_of(sizes), scale)
            assert total - 16 < packing.size + 2 * plan.words <= total
