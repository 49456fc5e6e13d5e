"""How a bounded memory of counting cells is laid out: what training, the graphs and a service have to agree on.

`lifelong.nn.cells` says what the cells do. Torch-free.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lifelong.data.vocabulary import FIRST_BUCKET

if TYPE_CHECKING:
    from lifelong.data.events import InputSpec

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
COUNT_BITS = 15
"""Bits of a cell's count and age together."""
WORD_BYTES, NUMBER_BYTES = 2, 4
CLOCK_LEVELS = 17
"""Of the clock beside the cells; the highest has a mark every 65,536 events."""
MARKS = 2
"""Of each level of the clock."""


@dataclass(frozen=True, slots=True)
class CellPacking:
    """How a store keeps cells: those of a field by rising key, so that a key costs few bits more than its place.

    Of n keys below U the lowest l = log2(U / n) bits stand as they are; what is above is told by a one for each
    key and a zero wherever it rises by one (Elias, JACM 1974; Fano 1971): n (l + 1) + U / 2^l bits, whatever the keys.

    Args:
        cells_F: cells of each field.
        values_F: keys of each field are below it; 2^16 at most.
    """

    cells_F: tuple[int, ...]
    values_F: tuple[int, ...]

    @property
    def low_bits(self) -> tuple[int, ...]:
        """l: bits of a key that stand as they are."""
        pairs = zip(self.cells_F, self.values_F, strict=True)
        return tuple(max(0, (values // cells).bit_length() - 1) for cells, values in pairs)

    @property
    def high_bits(self) -> tuple[int, ...]:
        """Bits that tell the rest of a field's keys."""
        every = zip(self.cells_F, self.values_F, self.low_bits, strict=True)
        return tuple(cells + (values - 1 >> low) + 1 for cells, values, low in every)

    @property
    def bits(self) -> int:
        """Of all fields."""
        cells = sum(count * (low + COUNT_BITS) for count, low in zip(self.cells_F, self.low_bits, strict=True))
        return cells + sum(self.high_bits)

    @property
    def size(self) -> int:
        """Bytes of all fields."""
        return (self.bits + 7) // 8


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

    def bonuses(self) -> list[int]:
        """For each count, by how many events its cell counts as younger."""
        return [round(self.patience * math.log2(max(count, 1))) for count in range(MOST + 1)]


def ages() -> list[int]:
    """Events that each step of the scale of ages stands for, at least.

    The first step of a size may be half of it, as the step before ended at an odd multiple of that half.
    """
    found, start = [], 0
    for level in range(AGES // STEPS):
        size = 2**level
        first = max(1, size // 2)
        found += [start, *(start + first + more * size for more in range(STEPS - 1))]
        start += first + (STEPS - 1) * size
    return found


def key_of(number: int) -> int:
    """The key of a number of a field."""
    return NO_KEY if number < FIRST_BUCKET else (number - FIRST_BUCKET) % KEYS


def faded_bits(key: Any, field: int, bits: int) -> tuple[Any, Any]:
    """The two bits of a key of a field, which must be one: of a number, an array or a tensor of 64 bits."""
    code = key + field * KEYS
    return code * 40_503 % 1_000_003 % bits, code * 30_011 % 999_983 % bits


def plan_cells(
    total: int, sizes: Sequence[int], *, faded: float, shares: Sequence[float] = (), patience: int = 400
) -> CellPlan:
    """Cells and faded bits in `total` bytes.

    Args:
        total: bytes at most.
        sizes: how many numbers each field has.
        faded: share of the bytes that are bits; there is one word at least.
        shares: how cells are shared out over the fields; 1, 1/2, 1/3 ... if empty.
        patience: see `CellPlan`.

    Raises:
        ValueError: too few bytes, or shares of another number of fields.
    """
    if shares and len(shares) != len(sizes):
        raise ValueError(f"{len(shares)} shares for {len(sizes)} item fields; expected as many, or none")
    words = max(1, int(total * faded) // WORD_BYTES)
    values, weights = values_of(sizes), shares or [1 / (rank + 1) for rank in range(len(sizes))]
    left = total - words * WORD_BYTES
    least = CellPacking((1,) * len(sizes), values).size
    if left < least:
        raise ValueError(
            f"{total} bytes are left for counting {len(sizes)} item fields; expected at least "
            f"{least + WORD_BYTES}: set a larger state, or fewer or narrower slots"
        )

    def packed(cells: int) -> CellPacking:
        return CellPacking(share_out(cells, values, weights), values)

    # A cell takes more than `COUNT_BITS`; with one a field at first, as many more as there is room for.
    most = bisect_right(range(len(sizes), 8 * left // COUNT_BITS), left, key=lambda cells: packed(cells).size)
    return CellPlan(packed(len(sizes) + most - 1).cells_F, words, patience)


def values_of(sizes: Sequence[int]) -> tuple[int, ...]:
    """How many keys each field has, of fields of so many numbers."""
    return tuple(min(KEYS, max(1, size - FIRST_BUCKET)) for size in sizes)


def clock_levels(inputs: InputSpec) -> int:
    """J: levels of the clock; of events without times, one."""
    return CLOCK_LEVELS if "gap" in inputs.event else 1


def plan_of(settings: Mapping[str, Any], inputs: InputSpec) -> CellPlan:
    """The plan of a model's settings: what its slots and its clock leave of its state.

    Raises:
        ValueError: as `plan_cells`.
    """
    numbers = settings["width"] * len(settings["periods"]) + clock_levels(inputs) * MARKS
    left, sizes = settings["state"] - NUMBER_BYTES * numbers, list(inputs.item.values())
    return plan_cells(left, sizes, faded=settings["faded"], shares=settings["shares"], patience=settings["patience"])


def share_out(total: int, most: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """`total` cells in proportion to weights, each field 1 at least and no more than it has values.

    Args:
        total: at least one a field.
        most: values of each field.
        weights: above 0.
    """
    found, open_ = [1] * len(most), set(range(len(most)))
    while open_:
        weight = sum(weights[field] for field in open_)
        left = total - sum(found[field] for field in range(len(most)) if field not in open_)
        # A whole number of cells may come out a rounding below itself.
        wanted = {field: max(1, int(left * (weights[field] / weight) + 1e-9)) for field in open_}
        full = {field for field in open_ if wanted[field] >= most[field]}
        for field in full or open_:
            found[field] = most[field] if full else wanted[field]
        open_ = open_ - full if full else set()
    # Each field has one cell, however small its share.
    while sum(found) > total:
        found[found.index(max(found))] -= 1
    return tuple(found)
