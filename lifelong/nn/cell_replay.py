"""Cells over whole histories: what they know at each target, and what they are there, in compiled loops.

Bit for bit what folding `cells.write_cells` gives, which is the specification. Nothing here depends on learned weights,
so no gradient passes. Ages are kept as the event of the last write, and a table says in which cell a key is: a write
that finds its key takes one step, whatever the number of cells.

Source: this package; bits of values that lost their cell after Bloom, CACM 1970.

Shapes: B users, L padded history length, C targets per user, F counted fields, K cells, W words, V keys of all fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.compiled import Array, jit
from lifelong.data.cell_plan import (
    AGES,
    KEYS,
    MARKS,
    ONE,
    RECENT_BITS,
    SIZES,
    WORD,
    CellPlan,
)
from lifelong.nn.cells import Found

Cells = tuple[Array, Array, Array]
"""key_K, level_K of the counts, and last_K: the event of the last write."""
Places = tuple[Array, Array, Array, Array]
"""start_F, the first cell of each field; used_F, how many of its cells are filled; base_F, where its keys begin in
place_V; place_V, the cell of each key, -1 for none."""
Scale = tuple[Array, Array, Array, int]
"""stale_N, see `cells.staleness`; count_N and wait_N of each level of counts; steps of each size of ages."""


@jit
def _bit(key: Any, field: Any, which: Any, bits: Any) -> Any:
    code = np.int64(key) + field * KEYS
    return code * 40_503 % 1_000_003 % bits if which == 0 else code * 30_011 % 999_983 % bits


@jit
def _age(n: Any, last: Any, most: Any) -> Any:
    """The step of the scale of ages at event n for what was written at event `last`; `most` steps of each size."""
    # On level j a step is 2^j events and taken at their multiples, so that steps are a difference of quotients. After
    # the steps of a level, the age continues from there on the next one.
    for level in range(SIZES):
        steps = (n >> level) - (last >> level)
        if steps < most:
            return level * most + steps
        last = ((last >> level) + most) << level
    return np.int64(SIZES * most - 1)


@jit
def _stalest(cells: Cells, first: Any, end: Any, n: Any, scale: Scale) -> Any:
    """The cell in `[first, end)` that is replaced at event n; of equally stale ones that of the lowest key.

    All of these cells are filled. A step of the scale stands for at least as many events as it has: what is no staler
    by its true age need not be looked up.
    """
    (key_K, level_K, last_K), (stale_N, _, _, steps) = cells, scale
    best, chosen = np.int64(-(2**60)), first
    for k in range(first, end):
        packed = level_K[k] * AGES
        if n - last_K[k] + stale_N[packed] >= best:
            stale = stale_N[packed + _age(n, last_K[k], steps)]
            if stale > best or (stale == best and key_K[k] < key_K[chosen]):
                best, chosen = stale, k
    return chosen


@jit
def _write(key_F: Array, n: Any, cells: Cells, places: Places, bit_N: Array, scale: Scale) -> Any:
    """Count the n-th event, from 1; returns whether its item was met before."""
    met, bits = 0, len(bit_N)
    (key_K, level_K, last_K), (start_F, used_F, base_F, place_V), wait_N = cells, places, scale[2]
    for f in range(len(key_F)):
        key = key_F[f]
        if key < 0:
            continue
        at = place_V[base_F[f] + key]
        if f == 0:
            met = 1 if at >= 0 else (bit_N[_bit(key, f, 0, bits)] & bit_N[_bit(key, f, 1, bits)] if bits else 0)
        if at >= 0:
            if wait_N[level_K[at]] & n == 0:
                level_K[at] += 1
            last_K[at] = n
            continue
        if used_F[f] < start_F[f + 1] - start_F[f]:
            at = start_F[f] + used_F[f]
            used_F[f] += 1
        else:
            at = _stalest(cells, start_F[f], start_F[f + 1], n, scale)
            gone = key_K[at]
            place_V[base_F[f] + gone] = -1
            if bits:
                # One bit is cleared in turn, so that the bits never fill up; see `cells._fade`.
                bit_N[(n + f * 101) * 7_919 % bits] = 0
                bit_N[_bit(gone, f, 0, bits)] = 1
                bit_N[_bit(gone, f, 1, bits)] = 1
        key_K[at], level_K[at], last_K[at] = key, 1, n
        place_V[base_F[f] + key] = at
    return met


@jit
def _find(asked_F: Array, n: Any, cells: Cells, places: Places, bit_N: Array, scale: Scale, found_FX: Array) -> None:
    """Fill count, age and faded of each key asked for after n events; zeros are there already."""
    (_, level_K, last_K), (_, _, base_F, place_V), bits = cells, places, len(bit_N)
    _, count_N, _, steps = scale
    for f in range(len(asked_F)):
        key = asked_F[f]
        if key < 0:
            continue
        at = place_V[base_F[f] + key]
        if at >= 0:
            found_FX[f, 0], found_FX[f, 1] = count_N[level_K[at]], _age(n, last_K[at], steps)
        elif bits:
            found_FX[f, 2] = bit_N[_bit(key, f, 0, bits)] & bit_N[_bit(key, f, 1, bits)]


@jit
def _pack(n: Any, cells: Cells, places: Places, bit_N: Array, steps: Any, cell_KX: Array, faded_W: Array) -> None:
    """Fill the memory after n events; zeros are there already."""
    (key_K, level_K, last_K), (start_F, used_F, _, _) = cells, places
    for f in range(len(used_F)):
        for k in range(start_F[f], start_F[f] + used_F[f]):
            cell_KX[k, 0] = key_K[k] - KEYS // 2
            cell_KX[k, 1] = level_K[k] * AGES + _age(n, last_K[k], steps)
    for bit in range(len(bit_N)):
        faded_W[bit // WORD] += bit_N[bit] << (bit % WORD)


@jit
def _replay(
    key_BLF: Array,
    order_BC: Array,
    position_BC: Array,
    asked_BCF: Array,
    plan: tuple[Array, Array, int, Scale],
    found_BCFX: Array,
    row_BCRX: Array,
    memories: tuple[Array, Array],
) -> None:
    """Fill `found` (count, age, faded) if any keys are asked for, else the memories.

    Args:
        key_BLF: keys of the events.
        order_BC: each user's targets by rising position: one pass over a history serves them all.
        position_BC: events before each target.
        asked_BCF: keys asked for; F = 0 for memories.
        plan: start_F, the first cell of each field, and the end; base_F, the first place of each field in the table of
            keys, and the end; how many faded bits; of counts and ages.
        found_BCFX: zeros.
        row_BCRX: zeros; repeats; is filled, whatever else is wanted.
        memories: cell_BCKX and faded_BCW, zeros; without targets if memories are not wanted.
    """
    (start_F, base_F, bits, scale), (cell_BCKX, faded_BCW) = plan, memories
    fields, size = len(start_F) - 1, start_F[-1]
    cells = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int64)
    used_F, place_V, bit_N = np.zeros(fields, np.int64), np.full(base_F[-1], -1, np.int64), np.zeros(bits, np.int64)
    places = start_F, used_F, base_F, place_V
    for b in range(len(key_BLF)):
        n, total, recent = 0, 0, 0
        for c in order_BC[b]:
            while n < position_BC[b, c]:
                n += 1
                met = _write(key_BLF[b, n - 1], n, cells, places, bit_N, scale)
                total, recent = total + met, recent + ((met * ONE - recent) >> RECENT_BITS)
            row_BCRX[b, c, 0, 0], row_BCRX[b, c, 0, 1] = total, recent
            _find(asked_BCF[b, c], n, cells, places, bit_N, scale, found_BCFX[b, c])
            if cell_BCKX.shape[1]:
                _pack(n, cells, places, bit_N, scale[3], cell_BCKX[b, c], faded_BCW[b, c])
        # Only the places in use are cleared for the next user: the table may be far larger than the memory.
        for f in range(fields):
            for k in range(start_F[f], start_F[f] + used_F[f]):
                place_V[base_F[f] + cells[0][k]] = -1
        used_F[:] = 0
        bit_N[:] = 0


def cells_found(
    key_BLF: Tensor, position_BC: Tensor, asked_BCF: Tensor, stale_N: Tensor, plan: CellPlan
) -> tuple[Found, Tensor]:
    """What the memory after `position` events knows of each target; and the row of repeats, `[B, C, R, 2]`.

    Args:
        key_BLF: int64 keys of the events; anything valid in padding, which is not read.
        position_BC: int64, at most L.
        asked_BCF: int64 keys of the targets.
        stale_N: `cells.staleness(plan)`.
        plan: the sizes.

    >>> from lifelong.nn.cells import staleness
    >>> plan = CellPlan(cells_F=(2,), words=1, patience=0, repeats=True)
    >>> key_BLF = torch.tensor([[[5], [6], [5], [7]]])
    >>> position_BC, asked_BCF = torch.tensor([[3, 4]]), torch.tensor([[[5], [6]]])
    >>> found, row_BCRX = cells_found(key_BLF, position_BC, asked_BCF, staleness(plan), plan)
    >>> found.count_BCF.tolist(), found.age_BCF.tolist(), found.faded_BCF.tolist()
    ([[[2], [0]]], [[[0], [0]]], [[[False], [True]]])
    >>> row_BCRX[..., 0, 0].tolist()
    [[1, 1]]
    """
    found = np.zeros((*asked_BCF.shape, 3), np.int64)
    rows = _run(key_BLF, position_BC, asked_BCF, stale_N, plan, found, _memories(len(asked_BCF), 0, plan))
    count, age, faded = torch.from_numpy(found).to(asked_BCF.device).unbind(-1)
    return Found(count, age, faded.bool()), rows.to(asked_BCF.device)


def cells_at(key_BLF: Tensor, position_BC: Tensor, stale_N: Tensor, plan: CellPlan) -> tuple[Tensor, Tensor, Tensor]:
    """The memories after `position` events: cells `[B, C, K, 2]` and faded bits `[B, C, W]`, int16; rows.

    The rows are those before the levels of the clock, see `cells_found`.
    """
    users, targets = position_BC.shape
    nothing, memories = position_BC.new_zeros(users, targets, 0), _memories(users, targets, plan)
    found = np.zeros((users, targets, 0, 3), np.int64)
    rows = _run(key_BLF, position_BC, nothing, stale_N, plan, found, memories)
    cell, faded = (torch.from_numpy(part).to(position_BC.device) for part in memories)
    return cell, faded, rows.to(position_BC.device)


def _memories(users: int, targets: int, plan: CellPlan) -> tuple[Array, Array]:
    return np.zeros((users, targets, plan.cells, 2), np.int16), np.zeros((users, targets, plan.words), np.int16)


def _run(
    key_BLF: Tensor,
    position_BC: Tensor,
    asked_BCF: Tensor,
    stale_N: Tensor,
    plan: CellPlan,
    found: Array,
    memories: tuple[Array, Array],
) -> Tensor:
    keys, asked, position = (value.cpu().numpy() for value in (key_BLF, asked_BCF, position_BC))
    # The table of places is as long as the largest keys of this batch, and not as 2^16 keys a field: where a field has
    # few values it is small, and soon filled again.
    highest_F = keys.max(axis=(0, 1), initial=0)
    if asked.shape[-1]:
        highest_F = np.maximum(highest_F, asked.max(axis=(0, 1), initial=0))
    base_F = np.concatenate([[0], np.cumsum(highest_F + 1)]).astype(np.int64)
    start_F = np.concatenate([[0], np.cumsum(plan.cells_F)]).astype(np.int64)
    order = np.argsort(position, axis=1, kind="stable")
    rows = np.zeros((*position.shape, 1, MARKS), np.int32)
    levels = (np.array(values, np.int64) for values in (plan.scale.counts(), plan.scale.waits()))
    rules = start_F, base_F, plan.bits, (stale_N.cpu().numpy(), *levels, plan.scale.age_steps)
    _replay(keys, order, position, asked, rules, found, rows, memories)
    return torch.from_numpy(rows if plan.repeats else rows[..., 1:, :])
