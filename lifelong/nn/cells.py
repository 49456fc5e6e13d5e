"""Cells: a bounded table that counts the values of a field, and bits for the values that fell out of it.

    event's keys --same key?--> that cell: count + 1, age 0
                   `--no------> an empty cell, or the stalest one, whose own key leaves its mark in the faded bits
    target's keys --> count, age in events, faded?

A cell has 32 bits: a key of 16, a count of 7, and in 8 how many events ago it was last written, on a scale that is exact
up to 16 and then within 3 %. The stalest cell has the largest age less `patience` times log2 of its count: by a decayed
count, which gives nearly the same order, two paths to one memory could differ by a rounding. All numbers here are whole,
so that a memory is the same bit for bit on every path to it. A field with no more values than cells is never short of
them.

The scale of ages: 16 steps of one event, 16 of two, 16 of four, ...; a step of 2^j events is taken at multiples of 2^j of
the user's events, so that no more than the step itself need be kept.

What falls out is put into a Bloom filter (Bloom, CACM 1970) of two bits a value, shared by all fields: a target whose
key has no cell but both bits was, but for accidents, seen before. So that it never fills up, each entry also clears one
bit in turn, as in the stable filter (Deng and Rafiei, SIGMOD 2006).

`cell_replay.py` does the same for whole histories; this is the specification.

Shapes: B users, C targets per user, F counted fields, K cells of all fields together, W words of bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lifelong.data.vocabulary import FIRST_BUCKET

KEYS = 2**16
"""Keys of a field at most; numbers beyond share them."""
NO_KEY = -1
"""Of padding and of unknown values, which are never counted: two of them need not be the same."""
MOST = 127
"""Where counts stop."""
AGES = 256
"""Steps of the scale of ages; the last one stands for a million events and more."""
STEPS = 16
"""Steps of one size."""
WORD = 15
"""Bits of a word."""


@dataclass(frozen=True, slots=True)
class CellPlan:
    """How large a memory of cells is.

    Args:
        cells_F: cells of each field.
        words: words of faded bits; 0 for none.
        patience: events for which a doubled count holds a place.
    """

    cells_F: tuple[int, ...]
    words: int
    patience: int

    @property
    def cells(self) -> int:
        """K."""
        return sum(self.cells_F)

    @property
    def bits(self) -> int:
        """Faded bits."""
        return self.words * WORD

    def staleness(self) -> Tensor:
        """Of each packed count and age: events of the age less the bonus of the count; int64 `[2^15]`."""
        bonus = [round(self.patience * math.log2(max(count, 1))) for count in range(MOST + 1)]
        return (ages() - torch.tensor(bonus).unsqueeze(-1)).flatten()


def ages() -> Tensor:
    """Events that each step of the scale of ages stands for, at least: int64 `[AGES]`.

    The first step of a size may be half of it, as the step before ended at an odd multiple of that half.
    """
    found, start = [], 0
    for level in range(AGES // STEPS):
        size = 2**level
        first = max(1, size // 2)
        found += [start, *(start + first + more * size for more in range(STEPS - 1))]
        start += first + (STEPS - 1) * size
    return torch.tensor(found)


class Found(NamedTuple):
    """What the cells know of each target's value of each field; zeros where there is no cell."""

    count_BCF: Tensor
    """int64, at most `MOST`."""
    age_BCF: Tensor
    """int64: step of the scale of ages; 0 if it is the user's last event."""
    faded_BCF: Tensor
    """bool: no cell, but both bits."""


def key_table(size: int) -> Tensor:
    """The key of each number of a field: float32 `[size, 1]`, whole numbers."""
    number = torch.arange(size)
    return torch.where(number < FIRST_BUCKET, NO_KEY, (number - FIRST_BUCKET) % KEYS).float().unsqueeze(-1)


def empty_cells(users: int, plan: CellPlan, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cells `[B, K, 2]` and faded bits `[B, W]` of users without events: int16 zeros.

    A cell's first number is its key less 2^15, its second 256 times the count plus the age; 0 is an empty cell.
    """
    cell_BKX = torch.zeros(users, plan.cells, 2, dtype=torch.int16, device=device)
    return cell_BKX, torch.zeros(users, plan.words, dtype=torch.int16, device=device)


def write_cells(
    cell_BKX: Tensor, faded_BW: Tensor, key_BF: Tensor, count_B: Tensor, stale_N: Tensor, plan: CellPlan
) -> tuple[Tensor, Tensor]:
    """Count one event.

    Args:
        cell_BKX: int16.
        faded_BW: int16.
        key_BF: int64 keys of the event.
        count_B: int64 events so far, this one included.
        stale_N: `plan.staleness()`.
        plan: the sizes.
    """
    parts, faded_BW = [], faded_BW.long()
    for field, part in enumerate(cell_BKX.long().split(plan.cells_F, dim=1)):
        cell_BXX, gone_B = _write_field(part, key_BF[:, field], count_B, stale_N)
        parts.append(cell_BXX)
        if plan.words:
            faded_BW = _fade(faded_BW, gone_B, field, count_B, plan)
    return torch.cat(parts, dim=1).short(), faded_BW.short()


def _write_field(cell_BXX: Tensor, key_B: Tensor, count_B: Tensor, stale_N: Tensor) -> tuple[Tensor, Tensor]:
    """The field's cells after the event, and the key that lost its cell, `NO_KEY` where none did."""
    size = cell_BXX.shape[1]
    kept_BX, packed_BX = cell_BXX.unbind(-1)
    key_B1, real_B1 = key_B.unsqueeze(-1) - KEYS // 2, (key_B >= 0).unsqueeze(-1)
    filled_BX = packed_BX >= AGES
    packed_BX = _older(packed_BX, filled_BX, count_B)
    same_BX = filled_BX & (kept_BX == key_B1)
    stale_BX = torch.where(filled_BX, stale_N[packed_BX.clamp(min=0)], 2**31)
    # Of equals the first one: a rank that no two cells share.
    rank_BX = stale_BX * size - torch.arange(size, device=cell_BXX.device)
    hit_B1 = same_BX.any(dim=1, keepdim=True)
    chosen_BX = torch.where(hit_B1, same_BX, rank_BX == rank_BX.amax(dim=1, keepdim=True)) & real_B1
    lost_BX = chosen_BX & filled_BX & ~hit_B1
    gone_B = torch.where(lost_BX, kept_BX + KEYS // 2 - NO_KEY, 0).sum(dim=1) + NO_KEY
    count_BX = torch.where(hit_B1, (packed_BX // AGES + 1).clamp(max=MOST), 1)
    cell = (torch.where(chosen_BX, key_B1, kept_BX), torch.where(chosen_BX, count_BX * AGES, packed_BX))
    return torch.stack(cell, dim=-1), gone_B


def _older(packed_BX: Tensor, filled_BX: Tensor, count_B: Tensor) -> Tensor:
    """Cells one event later, `count` being its number."""
    age_BX = packed_BX % AGES
    due_BX = count_B.unsqueeze(-1) % 2 ** (age_BX // STEPS) == 0
    return packed_BX + (filled_BX & due_BX & (age_BX < AGES - 1)).long()


def _fade(faded_BW: Tensor, gone_B: Tensor, field: int, count_B: Tensor, plan: CellPlan) -> Tensor:
    """Clear one bit in turn, and set the two of a key that lost its cell."""
    steps = ((_turn(count_B, field, plan.bits), False), *((bit, True) for bit in _bits(gone_B, field, plan.bits)))
    for bit_B, wanted in steps:
        word_B, worth_B = bit_B // WORD, 2 ** (bit_B % WORD)
        here_BW = torch.arange(plan.words, device=bit_B.device) == word_B.unsqueeze(-1)
        is_set_BW = faded_BW // worth_B.unsqueeze(-1) % 2 == 1
        change_BW = here_BW & (is_set_BW != wanted) & (gone_B != NO_KEY).unsqueeze(-1)
        faded_BW = faded_BW + torch.where(change_BW, (1 if wanted else -1) * worth_B.unsqueeze(-1), 0)
    return faded_BW


def _bits(key: Tensor, field: int, bits: int) -> tuple[Tensor, Tensor]:
    """The two bits of a key of a field, which must be one."""
    code = key.clamp(min=0) + field * KEYS
    return code * 40_503 % 1_000_003 % bits, code * 30_011 % 999_983 % bits


def _turn(count: Tensor, field: int, bits: int) -> Tensor:
    """The bit that an event clears when it needs a cell."""
    return (count + field * 101) * 7_919 % bits


def find_cells(cell_BCKX: Tensor, faded_BCW: Tensor, key_BCF: Tensor, plan: CellPlan) -> Found:
    """What memories `[B, C, ...]` or `[B, 1, ...]` know of targets."""
    packs, faded = [], []
    for field, part in enumerate(cell_BCKX.long().split(plan.cells_F, dim=2)):
        kept, packed = part.unbind(-1)
        key_BC = key_BCF[..., field]
        same = (packed >= AGES) & (kept == key_BC.unsqueeze(-1) - KEYS // 2)
        packs.append(torch.where(same, packed, 0).sum(dim=-1))
        faded.append(_is_faded(faded_BCW, key_BC, field, plan) & ~same.any(dim=-1))
    packed_BCF = torch.stack(packs, dim=-1)
    return Found(packed_BCF // AGES, packed_BCF % AGES, torch.stack(faded, dim=-1))


def _is_faded(faded_BCW: Tensor, key_BC: Tensor, field: int, plan: CellPlan) -> Tensor:
    both = key_BC >= 0
    if not plan.words:
        return both & ~both
    wide = faded_BCW.long().expand(*key_BC.shape, -1)
    for bit_BC in _bits(key_BC, field, plan.bits):
        word_BC = wide.gather(-1, (bit_BC // WORD).unsqueeze(-1)).squeeze(-1)
        both = both & (word_BC // 2 ** (bit_BC % WORD) % 2 == 1)
    return both


def share_out(total: int, sizes: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """Cells of each field: `total` in proportion to weights, none more than its field has values, each at least 1."""
    found, open_ = [0] * len(sizes), set(range(len(sizes)))
    while open_:
        left, weight = total - sum(found), sum(weights[field] for field in open_)
        wanted = {field: max(1, int(left * weights[field] / weight)) for field in open_}
        full = {field for field in open_ if wanted[field] >= max(1, sizes[field] - FIRST_BUCKET)}
        for field in full or open_:
            found[field] = max(1, sizes[field] - FIRST_BUCKET) if full else wanted[field]
        open_ = open_ - full if full else set()
    return tuple(found)
