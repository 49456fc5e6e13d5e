"""Cells for tests of how they are stored."""

from __future__ import annotations

import numpy as np

from lifelong.data.cell_plan import AGES, KEYS, MOST, CellPacking
from lifelong.memory.packed_cells import Cells


def random_cells(packing: CellPacking, users: int, seed: int) -> Cells:
    """Distinct keys in any order, some of them the lowest and the highest there are; some cells are empty."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((users, sum(packing.cells_F), 2), np.int16)
    for user in range(users):
        start = 0
        for size, values in zip(packing.cells_F, packing.values_F, strict=True):
            near = np.array([*range(min(values, 9)), *range(max(0, values - 9), values)])
            keys = rng.permutation(np.unique(near) if rng.random() < 0.3 and size < 9 else values)[:size]
            filled = rng.permutation(size)[: rng.integers(0, len(keys) + 1)]
            packed = rng.integers(1, MOST + 1, len(filled)) * AGES + rng.integers(0, AGES, len(filled))
            cells[user, start + filled] = np.stack([keys[: len(filled)] - KEYS // 2, packed], axis=1)
            start += size
    return cells
