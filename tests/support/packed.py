"""Cells for tests of how they are stored, and the bytes that a loop over single bits makes of them."""

from __future__ import annotations

import numpy as np

from lifelong.online.memory.codec import Bits, Cells, PackedCells
from lifelong.tally.plan import CELL_BITS, LEVEL_BITS, STEP_BITS, CellPacking
from lifelong.tally.spec import KEYS


def random_cells(packing: CellPacking, users: int, seed: int) -> Cells:
    """Distinct keys, sorted, some of them the lowest and the highest there are; some cells are empty."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((users, sum(packing.cells_F), 2), np.int16)
    for user in range(users):
        start = 0
        for size, values in zip(packing.cells_F, packing.values_F, strict=True):
            near = np.array([*range(min(values, 9)), *range(max(0, values - 9), values)])
            keys = rng.permutation(np.unique(near) if rng.random() < 0.3 and size < 9 else values)[:size]
            filled = rng.integers(0, len(keys) + 1)
            packed = rng.integers(1, 2**LEVEL_BITS, filled) * 256 + rng.integers(0, 2**STEP_BITS, filled)
            cells[user, start : start + filled] = np.stack([np.sort(keys[:filled]) - KEYS // 2, packed], axis=1)
            start += size
    return cells


def pack(packed: PackedCells, cell_NKX: Cells) -> Bits:
    """Cells as bytes, `[N, size]`."""
    found = np.zeros((len(cell_NKX), packed.size), np.uint8)
    packed.put(cell_NKX, found, 0)
    return found


def unpack(packed: PackedCells, stored: Bits, cells: int) -> Cells:
    """The cells of bytes."""
    found = np.zeros((len(stored), cells, 2), np.int16)
    packed.take(stored, 0, found, np.arange(len(stored)))
    return found


def bit_by_bit(packing: CellPacking, cell_NKX: Cells) -> Bits:
    """What is stored, `[N, size]`: the low bits of all keys, ages and counts, then the high bits of each field."""
    field_K, found = np.repeat(np.arange(len(packing.cells_F)), packing.cells_F).tolist(), []
    for user in cell_NKX.tolist():
        low, both, high = list[int](), list[int](), [[0] * bits for bits in packing.high_bits]
        for field, (kept, packed) in zip(field_K, user, strict=True):
            # Empty cells are written with the largest key of the field: keys must not fall.
            key = kept + KEYS // 2 if packed >= 256 else packing.values_F[field] - 1
            low += _bits_of(key, packing.low_bits[field])
            both += [*_bits_of(packed % 256, STEP_BITS), *_bits_of(packed // 256, CELL_BITS - STEP_BITS)]
            high[field][(key >> packing.low_bits[field]) + sum(high[field])] = 1
        found.append(np.packbits([*low, *both, *(bit for bits in high for bit in bits)], bitorder="little"))
    return np.array(found, np.uint8).reshape(-1, packing.size)


def _bits_of(number: int, bits: int) -> list[int]:
    """The lowest bit first."""
    return [number >> bit & 1 for bit in range(bits)]
