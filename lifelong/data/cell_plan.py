"""How a bounded memory of counting cells is laid out: what training, the graphs and a service have to agree on.

`lifelong.nn.cells` says what the cells do. A memory of `state` bytes is divided into:

    state = slots, sums, clock, repeats (4 bytes a number) + faded bits (2 a word) + cells (`CellPacking`)

This module is free of torch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from lifelong.data.events import GAP_NUMBERS, InputSpec
from lifelong.data.vocabulary import FIRST_BUCKET
from lifelong.dtypes import IntArray

KEYS = 2**16
"""Keys of a field at most; numbers beyond share them."""
NO_KEY = -1
"""Key of padding and of unknown values, which are never counted: two of them need not be equal."""
AGES = 256
"""Steps of the finest scale of ages. In memory a cell's second number is 256 times the level of its count plus the step
of its age."""
SIZES = 16
"""Sizes of the steps of a scale of ages: 1, 2, 4 ... 2^15 events."""
WORD = 15
"""Bits of a word."""
WORD_BYTES, NUMBER_BYTES = 2, 4
AGE_KINDS = 2 * SIZES
"""Ranges of ages that make kinds of cells: two of each size of the steps of ages."""
SUMS = 2
"""Sums of factors: of all events, and a decayed one."""
WHOLE = 4096
"""Bytes of a state from which on factors have their whole width, and from which on there are slots by default."""
CLOCK_LEVELS = 17
"""Levels of the clock; the highest has a mark every 65,536 events."""
MARKS = 2
"""Marks of each level of the clock."""
RECENT_BITS, ONE = 6, 2**16
"""The recent share of repeats is a mean over 2^6 events, in parts of 2^16."""
HALVINGS = math.log2(2**RECENT_BITS / (2**RECENT_BITS - 1))
"""How often the weight of that mean's beginning halves in an event."""
LONGEST = 2**31 - 1
"""Seconds at which the clock stops: 68 years."""
GAP_SECONDS = (0, *(29 * 2**key // 20 for key in range(GAP_NUMBERS - FIRST_BUCKET)))
"""Seconds of each key of a gap: 1.45 times the least gap of its bucket; a bucket's ends are a factor of two apart."""


Precision = Literal["exact", "about", "at_least"]
"""How well a number of times is known."""


class CellScale(StrEnum):
    """How finely a cell keeps a count and an age.

    Counts are whole up to `exact`. Above it levels lie 2 apart, then 4, then 8 and so on, `exact` / 2 of each. Of the
    events that find a cell on a level with the next one 2^j above it, those with a number that is a multiple of 2^j
    raise it: one in 2^j on average, so that counts are right on average.

    Source: this package, after Morris, "Counting Large Numbers of Events in Small Registers", CACM 1978. Where Morris
    tosses a coin, the number of the event decides here, so that equal histories give equal memories.

    >>> CellScale.COARSE.counts()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28]
    >>> CellScale.COARSE.bits, CellScale("fine").bits
    (9, 15)
    """

    FINE = "fine"
    COARSE = "coarse"

    @property
    def count_bits(self) -> int:
        """Bits of a level; level 0 is an empty cell."""
        return 7 if self is CellScale.FINE else 4

    @property
    def exact(self) -> int:
        """Counts up to this one are exact; a power of two, or the highest level."""
        return 127 if self is CellScale.FINE else 8

    @property
    def age_steps(self) -> int:
        """Steps of each size of the scale of ages, see `ages`; a power of two from 2 to 16."""
        return 16 if self is CellScale.FINE else 2

    @property
    def age_bits(self) -> int:
        """Bits of an age."""
        return (SIZES * self.age_steps - 1).bit_length()

    @property
    def bits(self) -> int:
        """Bits of a count and an age together."""
        return self.count_bits + self.age_bits

    def counts(self) -> list[int]:
        """The count of each level."""
        found = [0]
        for rise in self.rises():
            found.append(found[-1] + rise)
        return found

    def precision(self, level: int) -> Precision:
        """How well a level says how often a value was met."""
        if level == 2**self.count_bits - 1:
            return "at_least"
        return "exact" if level <= self.exact else "about"

    def rises(self) -> list[int]:
        """For each level but the highest, how far above it the next one is: a power of two."""
        above = (level - self.exact for level in range(2**self.count_bits - 1))
        return [1 if over < 0 else 2 << over // (self.exact // 2) for over in above]

    def waits(self) -> list[int]:
        """For each level, the bits that are 0 in the numbers of those events that raise it; of the highest all bits."""
        return [*(rise - 1 for rise in self.rises()), 2**62 - 1]

    def ages(self) -> list[int]:
        """The smallest age, in events, of each step of the scale of ages.

        The first step of a size may be half of it, as the previous step ended at an odd multiple of that half.

        >>> CellScale.COARSE.ages()[:12]
        [0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63]
        >>> CellScale.FINE.ages()[:20]
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 21]
        """
        found, start = [], 0
        for level in range(SIZES):
            size = 2**level
            # Steps of this size, the first of which may be short; the next ones are twice the size.
            first = max(1, size // 2)
            found += [start, *(start + first + more * size for more in range(self.age_steps - 1))]
            start += first + (self.age_steps - 1) * size
        return found

    def middle_ages(self) -> list[int]:
        """The middle of each step of the scale of ages, in events: what is shown to people.

        >>> CellScale.COARSE.middle_ages()[:8]
        [0, 1, 2, 4, 6, 9, 13, 19]
        """
        start_A = self.ages()
        return [(start + end) // 2 for start, end in pairwise([*start_A, 2 * start_A[-1]])]


@dataclass(frozen=True, slots=True)
class CellPacking:
    """How a store packs cells: by ascending key within a field, so that a key costs only a few bits.

    The keys are coded by the method of Elias and Fano. Of n ascending keys below U, the lowest l = log2(U / n) bits are
    stored as they are. The higher bits are stored in unary: a one for each key, and a zero wherever they rise by one.
    That makes n (l + 1) + U / 2^l bits, whatever the keys.

    Source: Elias, "Efficient Storage and Retrieval by Content and Address of Static Files", JACM 1974; Fano, 1971.

    Args:
        cells_F: cells of each field.
        values_F: keys of each field are below this, which is 2^16 at most.
        scale: of counts and ages; fine where an artifact of an earlier release names none.

    >>> packing = CellPacking(cells_F=(8,), values_F=(64,))
    >>> packing.low_bits, packing.high_bits, packing.size
    ((3,), (16,), 20)
    """

    cells_F: tuple[int, ...]
    values_F: tuple[int, ...]
    scale: CellScale = CellScale.FINE

    @property
    def low_bits(self) -> tuple[int, ...]:
        """l: bits of a key of each field that are stored as they are."""
        pairs = zip(self.cells_F, self.values_F, strict=True)
        return tuple(max(0, (values // cells).bit_length() - 1) for cells, values in pairs)

    @property
    def high_bits(self) -> tuple[int, ...]:
        """Bits of each field for the rest of its keys."""
        # A one for each cell, a zero for each of the (values - 1) >> l rises, and a last one that ends the field.
        every = zip(self.cells_F, self.values_F, self.low_bits, strict=True)
        return tuple(cells + (values - 1 >> low) + 1 for cells, values, low in every)

    @property
    def bits(self) -> int:
        """Bits of all fields."""
        cells = sum(count * (low + self.scale.bits) for count, low in zip(self.cells_F, self.low_bits, strict=True))
        return cells + sum(self.high_bits)

    @property
    def size(self) -> int:
        """Bytes of all fields together."""
        return (self.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class CellPlan:
    """How large a memory of cells is.

    Args:
        cells_F: cells of each field.
        words: words of faded bits; 0 for none.
        patience: for how many events more a cell keeps its place when its count doubles.
        repeats: whether the clock has a first row with the counts of repeats, see `lifelong.nn.repeats`.
        scale: of counts and ages; fine where an artifact of an earlier release names none.
    """

    cells_F: tuple[int, ...]
    words: int
    patience: int
    repeats: bool = False
    scale: CellScale = CellScale.FINE

    @property
    def cells(self) -> int:
        """Cells of all fields."""
        return sum(self.cells_F)

    @property
    def bits(self) -> int:
        """Number of faded bits."""
        return self.words * WORD

    def bonuses(self) -> list[int]:
        """For each level of counts, by how many events its cell is treated as younger."""
        return [round(self.patience * math.log2(max(count, 1))) for count in self.scale.counts()]


def key_of(number: int) -> int:
    """The key of a number of a field."""
    return NO_KEY if number < FIRST_BUCKET else (number - FIRST_BUCKET) % KEYS


def keys_of(number: IntArray) -> IntArray:
    """The key of each number.

    >>> keys_of(np.array([0, 1, 2, 65_539])).tolist()
    [-1, -1, 0, 1]
    """
    return np.where(number < FIRST_BUCKET, NO_KEY, (number - FIRST_BUCKET) % KEYS)


def faded_bits(key: Any, field: int, bits: int) -> tuple[Any, Any]:
    """The two bits that are set for a key of a field: of a number, an array or a tensor of 64 bits."""
    # Two multiplicative hashes by different multipliers and primes: keys that share one bit rarely share both.
    code = key + field * KEYS
    return code * 40_503 % 1_000_003 % bits, code * 30_011 % 999_983 % bits


def first_kinds(times: Sequence[int]) -> IntArray:
    """The first kind of cell with each count up to the last of `times`, at which ranges of counts begin.

    Kinds are none, none but faded, and each pair of a range of counts and one of `AGE_KINDS` ranges of ages.

    >>> first_kinds([1, 2, 4]).tolist()
    [0, 2, 34, 34, 66]
    """
    step_T = np.searchsorted(times, np.arange(times[-1] + 1), side="right")
    return np.where(step_T > 0, 2 + (step_T - 1) * AGE_KINDS, 0)


def plan_cells(
    total: int,
    sizes: Sequence[int],
    *,
    faded: float,
    shares: Sequence[float] = (),
    patience: int = 400,
    repeats: bool = False,
    scale: CellScale = CellScale.FINE,
) -> CellPlan:
    """Cells and faded bits in `total` bytes.

    Args:
        total: bytes at most.
        sizes: how many numbers each field has.
        faded: share of the bytes for faded bits; there is at least one word.
        shares: how cells are divided among the fields; 1, 1/2, 1/3 ... if empty.
        patience: see `CellPlan`.
        repeats: see `CellPlan`.
        scale: of counts and ages.

    Raises:
        ValueError: there are too few bytes, or not as many shares as fields.
    """
    if shares and len(shares) != len(sizes):
        raise ValueError(f"{len(shares)} shares for {len(sizes)} item fields; expected as many, or none")
    words = max(1, int(total * faded) // WORD_BYTES)
    values, weights = values_of(sizes), shares or [1 / (rank + 1) for rank in range(len(sizes))]
    left = total - words * WORD_BYTES
    least = CellPacking((1,) * len(sizes), values, scale).size
    if left < least:
        raise ValueError(
            f"{total} bytes are left for counting {len(sizes)} item fields; expected at least "
            f"{least + WORD_BYTES}: set a larger state, or fewer or narrower slots"
        )

    def packed(cells: int) -> CellPacking:
        return CellPacking(share_out(cells, values, weights), values, scale)

    # The largest number of cells that fits. Each field has one at least, and a cell takes more bits than its
    # count and its age, which bounds the search.
    most = bisect_right(range(len(sizes), 8 * left // scale.bits), left, key=lambda cells: packed(cells).size)
    return CellPlan(packed(len(sizes) + most - 1).cells_F, words, patience, repeats, scale)


def default_shares(fields: int, state: int, scale: CellScale) -> tuple[float, ...]:
    """How cells are shared out over item fields where no shares are named: the first field has most.

    In a small state the later fields, which have few values, leave more to the first ones.

    >>> default_shares(3, 4096, CellScale.COARSE)
    (1.0, 0.5, 0.3333333333333333)
    >>> [round(share, 2) for share in default_shares(3, 1024, CellScale.COARSE)]
    [1.0, 0.35, 0.19]
    """
    # Artifacts of earlier releases, which are fine, have the same shares whatever their state.
    power = 1.5 if scale is CellScale.COARSE and state < WHOLE else 1.0
    return tuple(1 / (rank + 1) ** power for rank in range(fields))


def values_of(sizes: Sequence[int]) -> tuple[int, ...]:
    """How many keys each field has, from how many numbers it has."""
    return tuple(min(KEYS, max(1, size - FIRST_BUCKET)) for size in sizes)


def clock_levels(inputs: InputSpec) -> int:
    """Levels of the clock: one for events without times."""
    return CLOCK_LEVELS if "gap" in inputs.event else 1


def factor_widths(factors: Sequence[int], state: int, *, fields: int) -> tuple[int, ...]:
    """Numbers of the factors of the first item fields: in proportion to a state of fewer bytes than `WHOLE`.

    >>> factor_widths((32, 16), 4096, fields=1), factor_widths((32, 16), 1024, fields=3)
    ((32,), (8, 4))
    """
    return tuple(max(1, width * min(state, WHOLE) // WHOLE) for width in factors[:fields])


def plan_of(settings: Mapping[str, Any], inputs: InputSpec) -> CellPlan:
    """The plan by a model's settings, for the bytes of its state that its slots, its sums and its clock leave.

    Raises:
        ValueError: see `plan_cells`.
    """
    # Artifacts of earlier releases have no sums, no repeats and the fine scale, and do not say so.
    widths = factor_widths(settings.get("factors", ()), settings["state"], fields=len(inputs.item))
    sums = SUMS * sum(widths)
    repeats = bool(settings.get("repeats", False))
    rows = clock_levels(inputs) + repeats
    numbers = settings["width"] * len(settings["periods"]) + sums + rows * MARKS
    left, sizes = settings["state"] - NUMBER_BYTES * numbers, list(inputs.item.values())
    scale = CellScale(settings.get("scale", "fine"))
    shares = settings["shares"] or default_shares(len(sizes), settings["state"], scale)
    rest = {name: settings[name] for name in ("faded", "patience")}
    return plan_cells(left, sizes, shares=shares, repeats=repeats, scale=scale, **rest)


def share_out(total: int, most: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """Divide `total` cells among fields in proportion to weights, from 1 up to a field's number of values.

    Args:
        total: at least one per field.
        most: values of each field.
        weights: above 0.

    >>> share_out(10, most=[2, 100, 100], weights=[1, 1, 1])
    (2, 4, 4)
    """
    found, open_ = [1] * len(most), set(range(len(most)))
    # A field that is full leaves the rest of its share to the others, so they are divided again without it.
    while open_:
        weight = sum(weights[field] for field in open_)
        left = total - sum(found[field] for field in range(len(most)) if field not in open_)
        # 1e-9: a product that is a whole number may come out slightly below it.
        wanted = {field: max(1, int(left * (weights[field] / weight) + 1e-9)) for field in open_}
        full = {field for field in open_ if wanted[field] >= most[field]}
        for field in full or open_:
            found[field] = most[field] if full else wanted[field]
        open_ = open_ - full if full else set()
    # Rounding up to one cell for a field of a small share may have given out too many.
    while sum(found) > total:
        found[found.index(max(found))] -= 1
    return tuple(found)
