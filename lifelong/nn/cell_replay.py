"""Cells over whole histories: what they know at each target, and what they are there, in compiled loops.

The same as folding `cells.write_cells`, which is the specification, bit for bit. Nothing here depends on learned
weights, so that no gradient passes. Ages are kept as the event of the last write, and a key finds its cell in a table
of places: a write that finds its key takes one step, whatever the number of cells.

Shapes: B users, L padded history length, C targets per user, F counted fields, K cells, W words, V keys of all fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.data.cell_plan import AGES, KEYS, MOST, STEPS, WORD, CellPlan
from lifelong.nn.cells import Found
from lifelong.nn.compiled import Array, jit


@jit
def _bit(key: Any, field: Any, which: Any, bits: Any) -> Any:
    code = np.int64(key) + field * KEYS
    return code * 40_503 % 1_000_003 % bits if which == 0 else code * 30_011 % 999_983 % bits


@jit
def _age(n: Any, last: Any) -> Any:
    """The step of the scale of ages at event n for what was written at event `last`."""
    for level in range(AGES // STEPS):
        steps = (n >> level) - (last >> level)
        if steps < STEPS:
            return level * STEPS + steps
        last = ((last >> level) + STEPS) << level
    return np.int64(AGES - 1)


@jit
def _stalest(key_K: Array, count_K: Array, last_K: Array, first: Any, end: Any, n: Any, stale_N: Array) -> Any:
    """The cell that gives way, of equals that of the lowest key; all are filled.

    A step of the scale stands for as many events as it has at least: what is no staler by its true age need not be
    looked up.
    """
    best, chosen = np.int64(-(2**60)), first
    for k in range(first, end):
        packed = count_K[k] * AGES
        if n - last_K[k] + stale_N[packed] >= best:
            stale = stale_N[packed + _age(n, last_K[k])]
            if stale > best or (stale == best and key_K[k] < key_K[chosen]):
                best, chosen = stale, k
    return chosen


@jit
def _write(
    key_F: Array,
    n: Any,
    start_F: Array,
    base_F: Array,
    used_F: Array,
    place_V: Array,
    key_K: Array,
    count_K: Array,
    last_K: Array,
    bit_N: Array,
    stale_N: Array,
) -> None:
    """Count the n-th event, from 1."""
    for f in range(len(key_F)):
        key = key_F[f]
        if key < 0:
            continue
        at = place_V[base_F[f] + key]
        if at >= 0:
            count_K[at] = min(count_K[at] + 1, MOST)
            last_K[at] = n
            continue
        if used_F[f] < start_F[f + 1] - start_F[f]:
            at = start_F[f] + used_F[f]
            used_F[f] += 1
        else:
            at = _stalest(key_K, count_K, last_K, start_F[f], start_F[f + 1], n, stale_N)
            gone = key_K[at]
            place_V[base_F[f] + gone] = -1
            if len(bit_N):
                bit_N[(n + f * 101) * 7_919 % len(bit_N)] = 0
                bit_N[_bit(gone, f, 0, len(bit_N))] = 1
                bit_N[_bit(gone, f, 1, len(bit_N))] = 1
        key_K[at], count_K[at], last_K[at] = key, 1, n
        place_V[base_F[f] + key] = at


@jit
def _replay(
    key_BLF: Array,
    order_BC: Array,
    position_BC: Array,
    asked_BCF: Array,
    start_F: Array,
    base_F: Array,
    bits: Any,
    stale_N: Array,
    found_BCFX: Array,
    cell_BCKX: Array,
    faded_BCW: Array,
) -> None:
    """Fill what is wanted: `found` (count, age, faded) if there are keys asked for, else the memories."""
    fields, cells = len(start_F) - 1, start_F[-1]
    place_V = np.full(base_F[-1], -1, np.int64)
    key_K, count_K, last_K = np.zeros(cells, np.int64), np.zeros(cells, np.int64), np.zeros(cells, np.int64)
    bit_N, used_F = np.zeros(bits, np.int64), np.zeros(fields, np.int64)
    for b in range(len(key_BLF)):
        n = 0
        for c in order_BC[b]:
            while n < position_BC[b, c]:
                n += 1
                _write(key_BLF[b, n - 1], n, start_F, base_F, used_F, place_V, key_K, count_K, last_K, bit_N, stale_N)
            for f in range(asked_BCF.shape[2]):
                key = asked_BCF[b, c, f]
                if key < 0:
                    continue
                at = place_V[base_F[f] + key]
                if at >= 0:
                    found_BCFX[b, c, f, 0] = count_K[at]
                    found_BCFX[b, c, f, 1] = _age(n, last_K[at])
                elif bits:
                    found_BCFX[b, c, f, 2] = bit_N[_bit(key, f, 0, bits)] & bit_N[_bit(key, f, 1, bits)]
            if cell_BCKX.shape[1]:
                for f in range(fields):
                    for k in range(start_F[f], start_F[f] + used_F[f]):
                        cell_BCKX[b, c, k, 0] = key_K[k] - KEYS // 2
                        cell_BCKX[b, c, k, 1] = count_K[k] * AGES + _age(n, last_K[k])
                for bit in range(bits):
                    faded_BCW[b, c, bit // WORD] += bit_N[bit] << (bit % WORD)
        for f in range(fields):
            for k in range(start_F[f], start_F[f] + used_F[f]):
                place_V[base_F[f] + key_K[k]] = -1
        used_F[:] = 0
        bit_N[:] = 0


def cells_found(key_BLF: Tensor, position_BC: Tensor, asked_BCF: Tensor, stale_N: Tensor, plan: CellPlan) -> Found:
    """What the memory after `position` events knows of each target.

    Args:
        key_BLF: int64 keys of the events; anything valid in padding, which is not read.
        position_BC: int64, at most L.
        asked_BCF: int64 keys of the targets.
        stale_N: `cells.staleness(plan)`.
        plan: the sizes.
    """
    found = np.zeros((*asked_BCF.shape, 3), np.int64)
    shape = (asked_BCF.shape[0], 0, plan.cells, 2)
    _run(
        key_BLF, position_BC, asked_BCF, stale_N, plan, found, np.zeros(shape, np.int16), np.zeros(shape[:3], np.int16)
    )
    count, age, faded = torch.from_numpy(found).to(asked_BCF.device).unbind(-1)
    return Found(count, age, faded.bool())


def cells_at(key_BLF: Tensor, position_BC: Tensor, stale_N: Tensor, plan: CellPlan) -> tuple[Tensor, Tensor]:
    """The memories after `position` events: cells `[B, C, K, 2]` and faded bits `[B, C, W]`, int16."""
    cell = np.zeros((*position_BC.shape, plan.cells, 2), np.int16)
    faded = np.zeros((*position_BC.shape, plan.words), np.int16)
    asked_BCF = position_BC.new_zeros(*position_BC.shape, 0)
    _run(key_BLF, position_BC, asked_BCF, stale_N, plan, np.zeros((*position_BC.shape, 0, 3), np.int64), cell, faded)
    return torch.from_numpy(cell).to(position_BC.device), torch.from_numpy(faded).to(position_BC.device)


def _run(
    key_BLF: Tensor,
    position_BC: Tensor,
    asked_BCF: Tensor,
    stale_N: Tensor,
    plan: CellPlan,
    found: Array,
    cell: Array,
    faded: Array,
) -> None:
    keys, asked = key_BLF.cpu().numpy(), asked_BCF.cpu().numpy()
    # Keys of a batch are few where a field has few values: a table of their places is soon cleared.
    highest_F = keys.max(axis=(0, 1), initial=0)
    if asked.shape[-1]:
        highest_F = np.maximum(highest_F, asked.max(axis=(0, 1), initial=0))
    base_F = np.concatenate([[0], np.cumsum(highest_F + 1)]).astype(np.int64)
    start_F = np.concatenate([[0], np.cumsum(plan.cells_F)]).astype(np.int64)
    position = position_BC.cpu().numpy()
    order = np.argsort(position, axis=1, kind="stable")
    _replay(keys, order, position, asked, start_F, base_F, plan.bits, stale_N.cpu().numpy(), found, cell, faded)
