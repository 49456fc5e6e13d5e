"""Cells of a counting memory in few bytes: `lifelong.data.cell_plan.CellPacking`, for many users at once.

    bits 0 ..   lowest bits of each key, then each count and age, all by field and rising key
          ..    of each field, ones for its keys and zeros where they rise

The keys are in Elias-Fano code: sorted, each is cut into low bits, which are written as they are, and a high part,
which is written in unary. The k-th key of a field puts a one at place (high part + k) of that field's stretch; so there
is one one per key, and one zero per step by which the high parts rise.

Empty cells come last. The order of a field's cells has no meaning (`lifelong.nn.cells`), so it is not kept.

Shapes: N users, K cells of all fields, H bits of all high parts, W bits of a word, X bits of a part.
Source: Elias 1974, "Efficient storage and retrieval by content and address of static files"; Fano 1971.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lifelong.data.cell_plan import CellPacking
from lifelong.dtypes import IntArray
from lifelong.errors import require

Cells = npt.NDArray[np.int16]
"""`[N, K, 2]`: the key less 2^15, and 256 times the level of the count plus the step of the age; zeros are an empty
cell."""
Bits = npt.NDArray[np.uint8]


class PackedCells:
    """Packs cells, and unpacks them again, in compiled loops: `lifelong.memory.cell_kernel`.

    Args:
        packing: the sizes.

    >>> packed = PackedCells(CellPacking(cells_F=(2,), values_F=(9,)))
    >>> cell_NKX = np.array([[[7 - 2**15, 256], [3 - 2**15, 513]]], np.int16)
    >>> packed.unpack(packed.pack(cell_NKX))[0].tolist()
    [[-32765, 513], [-32761, 256]]
    """

    size: int
    keys: tuple[int, ...]
    """How many keys there are in each field."""

    def __init__(self, packing: CellPacking) -> None:
        require("numba", extra="serve", purpose="a memory that counts")
        # Only memories that count need Numba, which takes half a second to import.
        from lifelong.memory import cell_kernel

        self.size, self.keys, self._kernel = packing.size, packing.values_F, cell_kernel
        self._start_F = np.cumsum([0, *packing.cells_F], dtype=np.int64)
        sizes = (packing.values_F, packing.low_bits, packing.high_bits)
        counts = sum(low * cells for low, cells in zip(packing.low_bits, packing.cells_F, strict=True))
        bits = packing.scale.bits, packing.scale.age_bits
        begins = counts, counts + bits[0] * sum(packing.cells_F), packing.bits
        self._packing = (self._start_F, *(np.array(values, np.int64) for values in sizes), begins, bits)

    def sorted(self, cell_NKX: Cells) -> Cells:
        """The cells as they would come back from a store: each field's by rising key, empty ones last."""
        cell_NKX = np.ascontiguousarray(cell_NKX)
        if self._kernel.is_sorted(cell_NKX, self._start_F):
            return cell_NKX
        cell_NKX = cell_NKX.copy()
        self._kernel.sort(cell_NKX, self._start_F)
        return cell_NKX

    def pack(self, cell_NKX: Cells) -> Bits:
        """`[N, size]` bytes.

        Raises:
            ValueError: a field does not have one of the keys.
        """
        found = np.zeros((len(cell_NKX), self.size), np.uint8)
        self.put(cell_NKX, found, 0)
        return found

    def put(self, cell_NKX: Cells, record_NR: Bits, offset: int) -> None:
        """Pack cells into records, from a byte on.

        Raises:
            ValueError: a field does not have one of the keys.
        """
        cell_NKX = np.ascontiguousarray(cell_NKX)
        scratch = self._scratch()
        wrong = self._kernel.pack(cell_NKX, self._packing, record_NR, offset, scratch)
        if wrong == self._kernel.UNSORTED:
            wrong = self._kernel.pack(self.sorted(cell_NKX), self._packing, record_NR, offset, scratch)
        if wrong:
            raise ValueError("a key beyond its field's")

    def _scratch(self) -> tuple[npt.NDArray[np.uint32], Bits, IntArray]:
        """Room for the loops; of each call its own, since threads share what is here."""
        piece_I = np.zeros(self.size // 4 + 3, np.uint32)
        return piece_I, piece_I.view(np.uint8), np.zeros(self._start_F[-1], np.int64)

    def unpack(self, stored: Bits) -> Cells:
        """The cells, sorted.

        Raises:
            ValueError: these bytes are not what `pack` makes.
        """
        cell_NKX = np.empty((len(stored), int(self._start_F[-1]), 2), np.int16)
        self.take(stored, 0, cell_NKX, np.arange(len(stored)))
        return cell_NKX

    def take(self, record_NR: Bits, offset: int, cell_BKX: Cells, row_N: IntArray) -> None:
        """Unpack the cells of records, which begin at a byte, into some rows.

        Raises:
            ValueError: these bytes are not what `pack` makes.
        """
        # The kernel is compiled once, for bytes that cannot be written: those that came from a store.
        fixed_NR = record_NR.view()
        fixed_NR.flags.writeable = False
        wrong = self._kernel.unpack(fixed_NR, offset, self._packing, row_N, cell_BKX, self._scratch())
        if wrong == self._kernel.TOO_MANY:
            raise ValueError(f"other than {self._start_F[-1]} keys")
        if wrong == self._kernel.TOO_HIGH:
            raise ValueError("a key beyond its field's")
