"""Cells of a counting memory as few bytes: `lifelong.data.cell_plan.CellPacking`, for many users at once.

    bits 0 ..   lowest bits of each key, then 15 of each count and age, all by field and rising key
          ..    of each field, ones for its keys and zeros where they rise

Empty cells come last. The order of a field's cells means nothing (`lifelong.nn.cells`), so that none of it is kept.

Shapes: N users, K cells of all fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.data.cell_plan import AGES, COUNT_BITS, KEYS, CellPacking

Cells = npt.NDArray[np.int16]
"""`[N, K, 2]`: the key less 2^15, and 256 times the count plus the age; zeros are an empty cell."""
Bits = npt.NDArray[np.uint8]
_WORD = 16


class PackedCells:
    """Packs cells, and unpacks them again.

    Args:
        packing: the sizes.
    """

    def __init__(self, packing: CellPacking) -> None:
        cells_F = np.array(packing.cells_F)

        def of_cells(values: Any) -> npt.NDArray[np.int32]:
            return np.repeat(np.asarray(values, np.int32), cells_F)

        self.size, self._bits = packing.size, packing.bits
        self._values_K, self._low_K = of_cells(packing.values_F), of_cells(packing.low_bits)
        self._begin_K, place_K = of_cells(range(len(cells_F))) * (2 * KEYS), np.arange(sum(packing.cells_F))
        self._cells, self._high = len(place_K), sum(packing.high_bits)
        # Where the one of a field's first key would stand if its rest were zero, less the place of that key.
        before = np.cumsum([0, *packing.high_bits[:-1]]) - np.cumsum([0, *cells_F[:-1]])
        self._one_K = (of_cells(before) + place_K).astype(np.int32)
        self._low_place = np.flatnonzero((np.arange(_WORD) < self._low_K[:, None]).ravel())

    def sorted(self, cell_NKX: Cells) -> Cells:
        """The same cells as they would come back: of each field by rising key, empty ones last."""
        key_NK = np.where(cell_NKX[..., 1] >= AGES, cell_NKX[..., 0].astype(np.int32) + KEYS // 2, KEYS)
        key_NK += self._begin_K
        if (key_NK[:, 1:] >= key_NK[:, :-1]).all():
            return cell_NKX
        # Cells that were sorted once and then written are nearly sorted, which a stable sort makes use of.
        order_NK = np.argsort(key_NK, axis=1, kind="stable")
        return np.take_along_axis(cell_NKX, order_NK[..., None], axis=1)

    def pack(self, cell_NKX: Cells) -> Bits:
        """`[N, size]` bytes."""
        users = len(cell_NKX)
        kept_NK, packed_NK = np.moveaxis(self.sorted(cell_NKX), -1, 0)
        key_NK = np.where(packed_NK >= AGES, kept_NK.astype(np.int32) + KEYS // 2, self._values_K - 1)
        high_NH = np.zeros((users, self._high), np.uint8)
        np.put_along_axis(high_NH, (key_NK >> self._low_K) + self._one_K, 1, axis=1)
        low_NX = _bits_of(key_NK)[:, self._low_place]
        word_NKW = _bits_of(packed_NK).reshape(users, self._cells, _WORD)
        count_NX = word_NKW[..., :COUNT_BITS].reshape(users, self._cells * COUNT_BITS)
        return np.packbits(np.concatenate([low_NX, count_NX, high_NH], axis=1), axis=1, bitorder="little")

    def unpack(self, stored: Bits) -> Cells:
        """The cells, sorted.

        Raises:
            ValueError: these bytes are not what `pack` makes.
        """
        bits = np.unpackbits(stored, axis=1, count=self._bits, bitorder="little")
        users, low = len(stored), len(self._low_place)
        low_NX, count_NX, high_NH = np.split(bits, [low, low + self._cells * COUNT_BITS], axis=1)
        if (np.count_nonzero(high_NH, axis=1) != self._cells).any():
            raise ValueError(f"other than {self._cells} keys")
        one_NK = np.flatnonzero(high_NH).astype(np.int32).reshape(users, self._cells)
        one_NK -= np.arange(users, dtype=np.int32)[:, None] * self._high + self._one_K
        every = np.zeros((users, self._cells * _WORD), np.uint8)
        every[:, self._low_place] = low_NX
        key_NK = (one_NK << self._low_K) + _words(every)
        every = np.zeros((users, self._cells, _WORD), np.uint8)
        every[..., :COUNT_BITS] = count_NX.reshape(users, self._cells, COUNT_BITS)
        packed_NK = _words(every.reshape(users, self._cells * _WORD))
        if ((key_NK < 0) | (key_NK >= self._values_K)).any():
            raise ValueError("a key beyond its field's")
        cell_NKX = np.empty((users, self._cells, 2), np.int16)
        cell_NKX[..., 0] = np.where(packed_NK >= AGES, key_NK - KEYS // 2, 0)
        cell_NKX[..., 1] = packed_NK
        return cell_NKX


def _words(bits_NX: Bits) -> npt.NDArray[np.uint16]:
    """The inverse of `_bits_of`."""
    words: npt.NDArray[np.uint16] = np.packbits(bits_NX, axis=1, bitorder="little").view("<u2")
    return words


def _bits_of(value_NK: npt.NDArray[Any]) -> Bits:
    """The lowest 16 bits of each number, the lowest first: `[N, 16 K]`."""
    return np.unpackbits(value_NK.astype("<u2").view(np.uint8), axis=1, bitorder="little")
