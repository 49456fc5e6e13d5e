"""How Tally's memory is laid out in a given number of bytes.

    state = slots, sums, clock, repeats (4 bytes a number) + cells (`CellPacking`)

Training, graphs, stores and services all take the plan of a model's settings from here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from lifelong.dtypes import IntArray
from lifelong.tally.spec import AGES, COUNTS, FEATURES, FIRST, GAPS, KEYS, NO_KEY, key_count

LEVEL_BITS, STEP_BITS = 4, 5
"""Bits of a cell's count and of its age."""
CELL_BITS = LEVEL_BITS + STEP_BITS
EXACT = 8
"""Counts below this one are exact."""
NUMBER_BYTES = 4
SUMS = 2
CLOCK_LEVELS = 17
"""Levels of the clock; the highest has a mark every 65,536 events."""
FEWEST = 8
"""Cells that a field may have although it has fewer values."""
WHOLE = 4096
"""Bytes of a state from which on factors have their whole width, and there are slots by default."""
Precision = Literal["exact", "about", "at_least"]


@dataclass(slots=True)
class Parts:
    """What Tally has besides its settings; a benchmark may change `PARTS` to see what a part is worth.

    Args:
        clock: whether the times of events are kept.
        repeats: whether repeated items are counted.
        factors: widths of the fixed factors of the first item fields; () for no sums.
        kind: width of the embedding of a kind of cell.
        products: whether the logit has products of the target's embedding with the context.
        steady: weight of the second head, which does not learn if it is 0; None to choose it on validation.
    """

    clock: bool = True
    repeats: bool = True
    factors: tuple[int, ...] = (32, 16)
    kind: int = 8
    products: bool = True
    steady: float | None = None


PARTS = Parts()


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

    >>> packing = CellPacking(cells_F=(8,), values_F=(64,))
    >>> packing.low_bits, packing.high_bits, packing.size
    ((3,), (16,), 14)
    """

    cells_F: tuple[int, ...]
    values_F: tuple[int, ...]

    @property
    def low_bits(self) -> tuple[int, ...]:
        """l: bits of a key of each field that are stored as they are."""
        pairs = zip(self.cells_F, self.values_F, strict=True)
        # The bit length less one is the logarithm rounded down, in whole numbers and so the same on every machine.
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
        cells = sum(count * (low + CELL_BITS) for count, low in zip(self.cells_F, self.low_bits, strict=True))
        return cells + sum(self.high_bits)

    @property
    def size(self) -> int:
        """Bytes of all fields together."""
        return (self.bits + 7) // 8


class Part(NamedTuple):
    """A part of a memory: `dtype[shape]`."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int16", "int32"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of a memory.

    Args:
        sizes_F: how many numbers each item field has.
        cells_F: cells of each field.
        levels: J of the clock; 1 where times are not known.
        widths_G: numbers of the factors of the first item fields.
        slots: S and the width of a slot; 0 of them for none.
        repeats: whether repeated items are counted.

    >>> plan = Plan(sizes_F=(9, 4), cells_F=(5, 2))
    >>> [part.name for part in plan.layout], plan.known
    (['clock', 'cell'], 28)
    """

    sizes_F: tuple[int, ...]
    cells_F: tuple[int, ...]
    levels: int = 1
    widths_G: tuple[int, ...] = ()
    slots: tuple[int, int] = (0, 0)
    repeats: bool = False

    @property
    def user(self) -> int:
        """How many numbers are known of the user: her events, how long they took, and shares of repeats."""
        return 1 + self.levels + 2 * self.repeats

    @property
    def affinities(self) -> int:
        """How many say how well a target fits the sums."""
        # A cosine and an amount of each sum, for each field that has factors.
        return 2 * SUMS * len(self.widths_G)

    @property
    def known(self) -> int:
        """Y: how many numbers are known of a target."""
        return len(self.sizes_F) * (FEATURES + 2) + self.user + self.affinities

    @property
    def layout(self) -> tuple[Part, ...]:
        """What is stored, in this order; parts without numbers are left out."""
        parts = (
            Part("slot", self.slots, "float32"),
            Part("sums", (SUMS, sum(self.widths_G)), "float32"),
            Part("clock", (self.levels, 2), "int32"),
            Part("repeats", (2 * self.repeats,), "int32"),
            Part("cell", (sum(self.cells_F), 2), "int16"),
        )
        return tuple(field for field in parts if all(field.shape))

    @property
    def packing(self) -> CellPacking:
        """How the cells are stored."""
        return CellPacking(self.cells_F, key_counts(self.sizes_F))


def plan_of(settings: Mapping[str, Any], sizes: Sequence[int], *, timed: bool) -> Plan:
    """The plan by a model's settings.

    Args:
        settings: `state`, `width` and `periods`.
        sizes: how many numbers each item field has.
        timed: whether events have times.

    Raises:
        ValueError: there are too few bytes.
    """
    state, widths = settings["state"], factor_widths(settings["state"], fields=len(sizes))
    slots = len(settings["periods"] or ()), settings["width"]
    levels, repeats = CLOCK_LEVELS if timed and PARTS.clock else 1, PARTS.repeats
    # Each level of the clock has two marks, and repeats have two counts.
    numbers = slots[0] * slots[1] + SUMS * sum(widths) + 2 * (levels + repeats)
    cells = _cells(state - NUMBER_BYTES * numbers, sizes, shares(len(sizes), state))
    return Plan(tuple(sizes), cells, levels, widths, slots, repeats)


def _cells(left: int, sizes: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """The largest numbers of cells of each field that fit into some bytes."""
    keys = key_counts(sizes)
    least = CellPacking((1,) * len(sizes), keys).size
    if left < least:
        raise ValueError(
            f"{left} bytes are left for counting {len(sizes)} item fields; expected at least {least}: "
            "set a larger state, or fewer or narrower slots"
        )

    # A user hardly ever meets more values of a field than training had; new ones have room in any field.
    values = tuple(min(KEYS, max(FEWEST, size - FIRST)) for size in sizes)

    def size(cells: int) -> int:
        return CellPacking(share_out(cells, values, weights), keys).size

    # Each field has one at least, and a cell takes more bits than its count and its age, which bounds the search.
    most = bisect_right(range(len(sizes), 8 * left // CELL_BITS), left, key=size)
    return share_out(len(sizes) + most - 1, values, weights)


def shares(fields: int, state: int) -> tuple[float, ...]:
    """How cells are shared out over item fields: the first has most.

    In a small state the later fields, which have few values, leave more to the first ones.

    >>> shares(2, 4096), [round(share, 2) for share in shares(3, 1024)]
    ((1.0, 0.5), [1.0, 0.35, 0.19])
    """
    power = 1.0 if state >= WHOLE else 1.5
    return tuple(1 / (rank + 1) ** power for rank in range(fields))


def key_counts(sizes: Sequence[int]) -> tuple[int, ...]:
    """How many keys each item field has, from how many numbers it has."""
    return tuple(key_count(size, first=not field) for field, size in enumerate(sizes))


def factor_widths(state: int, *, fields: int) -> tuple[int, ...]:
    """Numbers of the factors of the first item fields: in proportion to a state of fewer bytes than `WHOLE`.

    >>> factor_widths(4096, fields=1), factor_widths(1024, fields=3)
    ((32,), (8, 4))
    """
    return tuple(max(1, width * min(state, WHOLE) // WHOLE) for width in PARTS.factors[:fields])


def precision(times: int) -> Precision:
    """How well a cell's count says how often its value was met."""
    if times == COUNTS[-1]:
        return "at_least"
    # A cell stays at the last exact count until a later event raises it: from there on more may be true.
    return "exact" if times < EXACT else "about"


def middle_age(start: int) -> int:
    """The middle of the step of the scale of ages that begins at an age: what is shown to people.

    >>> [middle_age(start) for start in (0, 1, 2, 3, 5, 7, 11, 15)]
    [0, 1, 2, 4, 6, 9, 13, 19]
    """
    # The last step has no end; it is taken to be as long as all before it.
    ends = [*AGES[1:], 2 * AGES[-1]]
    return int(start + ends[AGES.index(start)]) // 2


def share_out(total: int, most: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """Divide `total` cells among fields in proportion to weights, from 1 up to a field's number of values.

    Args:
        total: at least one per field.
        most: values of each field.
        weights: above 0.

    >>> share_out(10, most=[2, 100, 100], weights=[1, 1, 1])
    (2, 4, 4)
    """
    cells, open_ = [1] * len(most), set(range(len(most)))
    # A field that is full leaves the rest of its share to the others, so they are divided again without it.
    while open_:
        weight = sum(weights[field] for field in open_)
        left = total - sum(cells[field] for field in range(len(most)) if field not in open_)
        # 1e-9: a product that is a whole number may come out slightly below it.
        share = {field: max(1, int(left * (weights[field] / weight) + 1e-9)) for field in open_}
        full = {field for field in open_ if share[field] >= most[field]}
        for field in full or open_:
            cells[field] = most[field] if full else share[field]
        open_ = open_ - full if full else set()
    # Rounding up to one cell for a field of a small share may have given out too many.
    while sum(cells) > total:
        cells[cells.index(max(cells))] -= 1
    return tuple(cells)


def keys_of(number: IntArray) -> IntArray:
    """Keys of values that have no ids and are told apart by their numbers: those of a batch that was made by hand.

    >>> keys_of(np.array([0, 1, 2, 65_539])).tolist()
    [-1, -1, 0, 1]
    """
    return np.where(number < FIRST, NO_KEY, (number - FIRST) % KEYS)


def seconds_of(number: IntArray) -> IntArray:
    """Whole seconds that the number of a gap stands for; 0 for the same moment, or no event before.

    >>> seconds_of(np.array([1, 2, 3, 14])).tolist()
    [0, 0, 1, 2969]
    """
    return _SECONDS[number]


_SECONDS = np.array([0] * FIRST + [*GAPS], np.int64)
