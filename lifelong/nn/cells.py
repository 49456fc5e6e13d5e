"""Cells: a bounded table that counts the values of a field, and bits for the values that lost their cell.

    event's keys --same key?--> that cell: count + 1, age 0
                   `--no------> an empty cell, or the stalest one: its own key leaves its mark in the faded bits
    target's keys --> count, age in events, faded?

A cell has a key of up to 16 bits, a count, and its age: how many events ago it was last written, both on a scale
(`CellScale`). The coarse one has 4 bits for counts, which are exact up to 8 and right on average above, and 5 for ages,
two steps for each doubling; the bytes that this saves hold 40 % more cells. The fine one has 7 and 8 bits.
The stalest cell is the one with the largest age less `patience` times log2 of its count. A decayed count would give
nearly the same order, but two paths to one memory could then differ by a rounding. All numbers here are whole, so that
a memory is the same bit for bit on every path to it. A field with no more values than cells never loses one.

The scale of ages has as many steps of one event as of two, of four, and so on. A step of 2^j events is taken when the
number of the user's events is a multiple of 2^j, so that nothing but the step need be kept. In the same way a count
that lacks 2^j to the next level is raised by the events with a number that is a multiple of 2^j.

The key of a value that loses its cell is put into a Bloom filter of two bits a key, shared by all fields: a target
key without a cell but with both bits was seen before, barring collisions. So that the filter never fills up, each entry
also clears one bit in turn, as in the stable filter.

This is the specification; `cell_replay.py` does it for whole histories.

Source: this package; Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", CACM 1970; Deng and Rafiei,
"Approximately Detecting Duplicates for Streaming Data using Stable Bloom Filters", SIGMOD 2006.

Shapes: B users, C targets per user, F counted fields, K cells of all fields together, W words of bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.data.cell_plan import AGES, KEYS, NO_KEY, SIZES, WORD, CellPlan, CellScale, faded_bits, key_of


def staleness(plan: CellPlan) -> Tensor:
    """For each second number of a cell, the events of the age less the bonus of the count: int64 `[256 levels]`."""
    age_A = torch.zeros(AGES, dtype=torch.int64)
    age_A[: SIZES * plan.scale.age_steps] = torch.tensor(plan.scale.ages())
    return (age_A - torch.tensor(plan.bonuses()).unsqueeze(-1)).flatten()


class Found(NamedTuple):
    """What the cells know of each target's value of each field; zeros where there is no cell."""

    count_BCF: Tensor
    """int64, see `CellScale.counts`."""
    age_BCF: Tensor
    """int64: step of the scale of ages; 0 if it is the user's last event."""
    faded_BCF: Tensor
    """bool: there is no cell, but both bits are set."""


def key_table(size: int) -> Tensor:
    """The key of each number of a field: float32 `[size, 1]`, whole numbers."""
    return torch.tensor([key_of(number) for number in range(size)], dtype=torch.float32).unsqueeze(-1)


def empty_cells(users: int, plan: CellPlan, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cells `[B, K, 2]` and faded bits `[B, W]` of users without events: int16 zeros.

    A cell's first number is its key less 2^15, its second 256 times the level of the count plus the step of the age; 0
    in an empty cell.
    """
    cell_BKX = torch.zeros(users, plan.cells, 2, dtype=torch.int16, device=device)
    return cell_BKX, torch.zeros(users, plan.words, dtype=torch.int16, device=device)


def write_cells(
    cell_BKX: Tensor, faded_BW: Tensor, key_BF: Tensor, count_B: Tensor, stale_N: Tensor, plan: CellPlan
) -> tuple[Tensor, Tensor]:
    """Count one event.

    Args:
        cell_BKX: int16 cells, as `empty_cells` has them.
        faded_BW: int16 bits.
        key_BF: int64 keys of the event; `NO_KEY` is not counted.
        count_B: int64 events so far, this one included.
        stale_N: `staleness(plan)`.
        plan: the sizes.

    >>> plan = CellPlan(cells_F=(2,), words=1, patience=0)
    >>> memory = empty_cells(1, plan, device=torch.device("cpu"))
    >>> for place, key in enumerate([5, 6, 5, 7], start=1):
    ...     memory = write_cells(*memory, torch.tensor([[key]]), torch.tensor([place]), staleness(plan), plan)
    >>> found = find_cells(*(part.unsqueeze(1) for part in memory), torch.tensor([[[5], [6]]]), plan)
    >>> found.count_BCF.tolist(), found.age_BCF.tolist(), found.faded_BCF.tolist()
    ([[[2], [0]]], [[[1], [0]]], [[[False], [True]]])
    """
    parts, faded_BW = [], faded_BW.long()
    for field, part in enumerate(torch.split(cell_BKX.long(), list(plan.cells_F), dim=1)):
        cell_BXX, gone_B = _write_field(part, key_BF[:, field], count_B, stale_N, plan.scale)
        parts.append(cell_BXX)
        if plan.words:
            faded_BW = _fade(faded_BW, gone_B, field, count_B, plan)
    return torch.cat(parts, dim=1).short(), faded_BW.short()


def _write_field(
    cell_BXX: Tensor, key_B: Tensor, count_B: Tensor, stale_N: Tensor, scale: CellScale
) -> tuple[Tensor, Tensor]:
    """The field's cells after the event, and the key that lost its cell, `NO_KEY` where none did."""
    size = cell_BXX.shape[1]
    kept_BX, packed_BX = cell_BXX.unbind(-1)
    key_B1, real_B1 = key_B.unsqueeze(-1) - KEYS // 2, (key_B >= 0).unsqueeze(-1)
    filled_BX = packed_BX >= AGES
    packed_BX = _older(packed_BX, filled_BX, count_B, scale.age_steps)
    same_BX = filled_BX & (kept_BX == key_B1)
    # An empty cell is staler than any filled one.
    stale_BX = torch.where(filled_BX, stale_N[packed_BX.clamp(min=0)], 2**31)
    # The rank of a cell, which no two share: of equals the lowest key gives way, wherever in the table it is.
    place_X = torch.arange(size, device=cell_BXX.device)
    rank_BX = stale_BX * 2 * KEYS - torch.where(filled_BX, kept_BX, place_X)
    hit_B1 = same_BX.any(dim=1, keepdim=True)
    stalest_BX = ~hit_B1 & (rank_BX == rank_BX.amax(dim=1, keepdim=True))
    chosen_BX = (same_BX | stalest_BX) & real_B1
    lost_BX = chosen_BX & filled_BX & ~hit_B1
    # One cell at most loses its key, so that the sum is this key; `NO_KEY` where none does.
    gone_B = torch.where(lost_BX, kept_BX + KEYS // 2 - NO_KEY, 0).sum(dim=1) + NO_KEY
    level_BX = packed_BX // AGES
    wait_BX = torch.tensor(scale.waits(), device=count_B.device)[level_BX]
    raised_BX = level_BX + (wait_BX & count_B.unsqueeze(-1) == 0).long()
    level_BX = torch.where(hit_B1, raised_BX, 1)
    cell = (torch.where(chosen_BX, key_B1, kept_BX), torch.where(chosen_BX, level_BX * AGES, packed_BX))
    return torch.stack(cell, dim=-1), gone_B


def _older(packed_BX: Tensor, filled_BX: Tensor, count_B: Tensor, steps: int) -> Tensor:
    """Cells one event later; `count` is the number of that event.

    Steps of 2^j events are due where 2^j divides the count: those of all sizes up to the largest that does.
    """
    age_BX = packed_BX % AGES
    size_J = 2 ** torch.arange(1, SIZES, device=count_B.device)
    sizes_B = 1 + (count_B.unsqueeze(-1) % size_J == 0).sum(dim=-1)
    due_BX = age_BX < (sizes_B * steps).clamp(max=SIZES * steps - 1).unsqueeze(-1)
    return packed_BX + (filled_BX & due_BX).long()


def _fade(faded_BW: Tensor, gone_B: Tensor, field: int, count_B: Tensor, plan: CellPlan) -> Tensor:
    """Clear one bit in turn, and set the two of a key that lost its cell."""
    steps = (
        (_turn(count_B, field, plan.bits), False),
        *((bit, True) for bit in faded_bits(gone_B.clamp(min=0), field, plan.bits)),
    )
    for bit_B, wanted in steps:
        word_B1, worth_B = (bit_B // WORD).unsqueeze(-1), 2 ** (bit_B % WORD)
        value_B = faded_BW.gather(1, word_B1).squeeze(-1)
        change_B = (value_B // worth_B % 2 != int(wanted)) & (gone_B != NO_KEY)
        value_B = value_B + torch.where(change_B, worth_B if wanted else -worth_B, 0)
        faded_BW = faded_BW.scatter(1, word_B1, value_B.unsqueeze(-1))
    return faded_BW


def _turn(count: Tensor, field: int, bits: int) -> Tensor:
    """The bit that an event clears when it needs a cell."""
    return (count + field * 101) * 7_919 % bits


def find_cells(cell_BCKX: Tensor, faded_BCW: Tensor, key_BCF: Tensor, plan: CellPlan) -> Found:
    """What memories `[B, C, ...]` or `[B, 1, ...]` know of targets."""
    packs, faded = [], []
    for field, part in enumerate(torch.split(cell_BCKX.long(), list(plan.cells_F), dim=2)):
        kept, packed = part.unbind(-1)
        key_BC = key_BCF[..., field]
        same = (packed >= AGES) & (kept == key_BC.unsqueeze(-1) - KEYS // 2)
        packs.append(torch.where(same, packed, 0).sum(dim=-1))
        faded.append(_is_faded(faded_BCW, key_BC, field, plan) & ~same.any(dim=-1))
    packed_BCF = torch.stack(packs, dim=-1)
    count_N = torch.tensor(plan.scale.counts(), device=packed_BCF.device)
    return Found(count_N[packed_BCF // AGES], packed_BCF % AGES, torch.stack(faded, dim=-1))


def _is_faded(faded_BCW: Tensor, key_BC: Tensor, field: int, plan: CellPlan) -> Tensor:
    both = key_BC >= 0
    if not plan.words:
        return both & ~both
    wide = faded_BCW.long().expand(*key_BC.shape, -1)
    for bit_BC in faded_bits(key_BC.clamp(min=0), field, plan.bits):
        word_BC = wide.gather(-1, (bit_BC // WORD).unsqueeze(-1)).squeeze(-1)
        both = both & (word_BC // 2 ** (bit_BC % WORD) % 2 == 1)
    return both
