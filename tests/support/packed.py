"""Cells for tests of how they are stored, and a second form of packing, which works on single bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.online.memory.state import Bits, Cells, PackedCells
from lifelong.tally.plan import CELL_BITS, LEVEL_BITS, STEP_BITS, CellPacking
from lifelong.tally.spec import KEYS

_WORD = 16


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
    found = np.empty((len(stored), cells, 2), np.int16)
    packed.take(stored, 0, found, np.arange(len(stored)))
    return found


class BitByBit:
    """`PackedCells` as its module says what is stored."""

    def __init__(self, packing: CellPacking) -> None:
        cells_F = np.array(packing.cells_F)

        def of_cells(values: Any) -> npt.NDArray[np.int32]:
            return np.repeat(np.asarray(values, np.int32), cells_F)

        self.size, self._bits = packing.size, packing.bits
        self._both, self._age = CELL_BITS, STEP_BITS
        self._values_K, self._low_K = of_cells(packing.values_F), of_cells(packing.low_bits)
        self._begin_K, place_K = of_cells(range(len(cells_F))) * (2 * KEYS), np.arange(sum(packing.cells_F))
        self._cells, self._high = len(place_K), sum(packing.high_bits)
        # A one is at (start of its field's stretch + place of the cell in its field + high part). `before` is that
        # start less the number of cells in earlier fields: adding the place among all cells then gives the first two.
        before = np.cumsum([0, *packing.high_bits[:-1]]) - np.cumsum([0, *cells_F[:-1]])
        self._one_K = (of_cells(before) + place_K).astype(np.int32)
        self._low_place = np.flatnonzero((np.arange(_WORD) < self._low_K[:, None]).ravel())

    def pack(self, cell_NKX: Cells) -> Bits:
        """`[N, size]` bytes."""
        users = len(cell_NKX)
        kept_NK, packed_NK = np.moveaxis(cell_NKX, -1, 0)
        # Empty cells are written with the largest key of the field: keys must not fall.
        key_NK = np.where(packed_NK >= 256, kept_NK.astype(np.int32) + KEYS // 2, self._values_K - 1)
        high_NH = np.zeros((users, self._high), np.uint8)
        np.put_along_axis(high_NH, (key_NK >> self._low_K) + self._one_K, 1, axis=1)
        low_NX = _bits_of(key_NK)[:, self._low_place]
        word_NKW = _bits_of(packed_NK).reshape(users, self._cells, _WORD)
        # The age is in the lower half of a word, the level of the count in the upper one.
        level_NKW = word_NKW[..., _WORD // 2 : _WORD // 2 + self._both - self._age]
        both_NKW = np.concatenate([word_NKW[..., : self._age], level_NKW], axis=-1)
        count_NX = both_NKW.reshape(users, self._cells * self._both)
        return np.packbits(np.concatenate([low_NX, count_NX, high_NH], axis=1), axis=1, bitorder="little")

    def unpack(self, stored: Bits) -> Cells:
        """The cells, sorted.

        Raises:
            ValueError: these bytes are not what `pack` makes.
        """
        bits = np.unpackbits(stored, axis=1, count=self._bits, bitorder="little")
        users, low = len(stored), len(self._low_place)
        low_NX, count_NX, high_NH = np.split(bits, [low, low + self._cells * self._both], axis=1)
        if (np.count_nonzero(high_NH, axis=1) != self._cells).any():
            raise ValueError(f"other than {self._cells} keys")
        # Every user has as many ones as cells, so that their places form a matrix; less where each would be with a
        # high part of zero, what remains is the high part.
        one_NK = np.flatnonzero(high_NH).astype(np.int32).reshape(users, self._cells)
        one_NK -= np.arange(users, dtype=np.int32)[:, None] * self._high + self._one_K
        every = np.zeros((users, self._cells * _WORD), np.uint8)
        every[:, self._low_place] = low_NX
        key_NK = (one_NK << self._low_K) + _words(every)
        every = np.zeros((users, self._cells, _WORD), np.uint8)
        both_NKX = count_NX.reshape(users, self._cells, self._both)
        every[..., : self._age] = both_NKX[..., : self._age]
        every[..., _WORD // 2 : _WORD // 2 + self._both - self._age] = both_NKX[..., self._age :]
        packed_NK = _words(every.reshape(users, self._cells * _WORD))
        if ((key_NK < 0) | (key_NK >= self._values_K)).any():
            raise ValueError("a key beyond its field's")
        cell_NKX = np.empty((users, self._cells, 2), np.int16)
        cell_NKX[..., 0] = np.where(packed_NK >= 256, key_NK - KEYS // 2, 0)
        cell_NKX[..., 1] = packed_NK
        return cell_NKX


def _words(bits_NX: Bits) -> npt.NDArray[np.uint16]:
    """The inverse of `_bits_of`."""
    words: npt.NDArray[np.uint16] = np.packbits(bits_NX, axis=1, bitorder="little").view("<u2")
    return words


def _bits_of(value_NK: npt.NDArray[Any]) -> Bits:
    """The lowest 16 bits of each number, the lowest first: `[N, 16 K]`."""
    return np.unpackbits(value_NK.astype("<u2").view(np.uint8), axis=1, bitorder="little")
