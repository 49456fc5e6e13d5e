"""The definition of Tally: what is kept of a user, how an event changes it, what a target reads, and the logit.

For each item field (the item itself, its category ...) a memory has cells: a key, how often the user met it, how many
events ago. Next to the cells there are small parts:

    clock     the time of every 2^j-th event, so that "n events ago" becomes "so many hours ago"
    repeats   how many of all and of the last events repeated an item
    sums      of fixed unit vectors of the events' values, with which a target's vector is compared
    slots     states of GRUs, stepped every 1, 9 ... events (Ren et al., SIGIR 2019)

    keys, gap, factors --Memory.write--> memory --Memory.known--> numbers of a target --.
    embedded event ------step----------> slots -----------------------------------------+--logits--> by trained weights

Counts, ages and times are whole numbers: every path to a memory gives the same bits. This module is plain and slow;
`lifelong.tally.kernel` is the same in compiled loops, and a test holds one to the other.

Shapes: F item fields, K cells, J levels of the clock, D numbers of all factors, S slots, Y
known numbers, P features of a field, E width of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lifelong.dtypes import FloatArray

# A value has a key, by which it is counted, and a number, by which it is embedded. Numbers are of the training period,
# by falling frequency: 0 is padding, 1 an unknown value, and rare values share numbers. The first keys of a field are
# of one known value each; all other values share the rest, by the hash of their ids (`dataset.vocabulary`).
FIRST = 2  # the first number that stands for a value
KEYS = 2**16  # keys of the first field, the item; no field has more
FEWEST_KEYS = 2**10  # keys of a field that has few values: new ones may be many
NO_KEY = -1  # of padding and missing values, which are never counted: two of them need not be equal


def key_count(size: int, *, first: bool) -> int:
    """How many keys a field of so many numbers has: half of them are for values that training did not know."""
    return KEYS if first else min(KEYS, max(FEWEST_KEYS, 2 * (size - FIRST)))


def own_keys(known: int, keys: int) -> int:
    """How many keys belong to one known value each: none where these would leave less than a quarter to the others."""
    return known if 4 * known < 3 * keys else 0


# A cell has 4 bits for its count, a level, and 5 for its age, a step. Counts are exact up to 7. From 8 on levels lie 2
# apart, then 4, and an event raises one by 2^j only if its number is a multiple of 2^j: one in 2^j on average, so that
# counts are right on average (after Morris, CACM 1978, where a coin decides).
COUNTS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28)  # the count of each level; level 0 is an empty cell
# A level is raised by the events with a number that is a multiple of:
WAITS = (*(above - count for count, above in pairwise(COUNTS)), 2**62)
# Ages have two steps of one event, two of two, two of four ... A step of 2^j events is taken when the number of the
# user's events is a multiple of 2^j: nothing but the step need be kept.
SIZES, STEPS = 16, 2  # sizes of steps, and how many steps there are of each
AGES = (0, *(age for size in range(SIZES) for age in (2 ** (size + 1) - 1, 3 * 2**size - 1)))[: SIZES * STEPS]
"""The smallest age, in events, of each step."""
PATIENCE = 400  # for how many events more a cell keeps its place when its count doubles
BONUSES = tuple(round(PATIENCE * math.log2(max(count, 1))) for count in COUNTS)
# Times. A model knows the gap between two events as a bucket, whose ends are a factor of two apart.
LONGEST = 2**31 - 1  # seconds at which the clock stops: 68 years
GAPS = (0, *(29 * 2**key // 20 for key in range(33)))
"""Seconds of each key of a gap: 1.45 times the least gap of its bucket; key 0 is the same moment."""
HOUR, DAY = 3_600.0, 86_400.0
RECENT, ONE = 64, 2**16  # repeats are also a moving mean over 64 events, in parts of 2^16
HALF_LIFE = 100.0  # in events: by how much an event weighs less in the second sum
SHORTEST = 1e-6  # length that a sum is treated as at least
# What a target's value is described by.
HALF_LIVES, DAYS = (10.0, 50.0, 250.0, 1250.0), (7.0, 60.0)  # half-lives of a decayed count, in events and in days
FEATURES = 5 + len(HALF_LIVES) + len(DAYS)
"""Has a cell, logarithms of count, age in events, age in hours and rank; then the decayed counts."""
TIMES = (1, 2, 3, 4, 6, 9, 14, 25, 60)
"""Where ranges of counts begin: each with each step of the ages is a kind of cell, which has an embedding."""
KINDS = 1 + len(TIMES) * SIZES * STEPS  # kinds of a field: no cell, and the pairs


@dataclass
class Cell:
    """One counter."""

    level: int = 1
    step: int = 0


class Look(NamedTuple):
    """What a memory knows of one value: how often and how long ago it was met, and its kind of cell."""

    times: int
    events: int
    hours: float
    kind: int


class Memory:
    """One user's memory, before her first event.

    Args: cells of each field, levels of the clock (1 where times are not known), and D.
    >>> memory = Memory((2, 1), levels=17, width=0)
    >>> for keys in ([5, 0], [6, 0], [5, 0], [7, 0]):
    ...     memory.write(keys, gap=3_600)
    >>> [memory.look(0, key).times for key in (5, 6, 7)], memory.look(1, 0).times
    ([2, 0, 1], 4)
    """

    def __init__(self, cells_F: Sequence[int], levels: int, width: int) -> None:
        self.cells_F: Sequence[int] = cells_F
        self.count: int = 0
        self.cells: list[dict[int, Cell]] = [{} for _ in cells_F]
        self.clock: list[tuple[int, int]] = [(0, 0)] * levels
        self.repeats: tuple[int, int] = 0, 0
        self.sums_XD: npt.NDArray[Any] = np.zeros((2, width), np.float32)

    def write(self, keys: Sequence[int], gap: int, factor_D: FloatArray | None = None) -> None:
        """Fold one event in: its keys, seconds since the user's event before, and its factors."""
        self.count += 1
        met = keys[0] in self.cells[0]
        for field, key in enumerate(keys):
            for cell in self.cells[field].values():
                if self.count % 2 ** (cell.step // STEPS) == 0:
                    cell.step = min(cell.step + 1, SIZES * STEPS - 1)
            if key != NO_KEY:
                self._count(field, key)
        now = min(self.clock[0][0] + gap, LONGEST)
        self.clock = [(now, mark[0]) if self.count % 2**level == 0 else mark for level, mark in enumerate(self.clock)]
        total, recent = self.repeats
        self.repeats = total + met, recent + ((met * ONE - recent) // RECENT)
        if factor_D is not None:
            keep_X1 = np.array([[1.0], [2 ** (-1 / HALF_LIFE)]], np.float32)
            self.sums_XD = self.sums_XD * keep_X1 + factor_D

    def _count(self, field: int, key: int) -> None:
        cells = self.cells[field]
        if key in cells:
            cell = cells[key]
            cells[key] = Cell(cell.level + (self.count % WAITS[cell.level] == 0), 0)
            return
        if len(cells) == self.cells_F[field]:
            # The stalest gives way; of equals the lowest key.
            del cells[min(cells, key=lambda other: (BONUSES[cells[other].level] - AGES[cells[other].step], other))]
        cells[key] = Cell()

    def look(self, field: int, key: int) -> Look:
        """What is known of a key."""
        cell = self.cells[field].get(key)
        if cell is None:
            return Look(0, 0, 0.0, 0)
        times, events = COUNTS[cell.level], AGES[cell.step]
        kind = 1 + (sum(times >= first for first in TIMES) - 1) * SIZES * STEPS + cell.step
        return Look(times, events, self._seconds(events) / HOUR, kind)

    def _seconds(self, ago: int) -> float:
        """From the event so many events ago to the last one, on the line between the nearest marks."""
        event, end, after = max(self.count - ago, 0), self.count, self.clock[0][0]
        for level, (_, before) in enumerate(self.clock):
            # The older mark of a level is that of the last but one multiple of 2^level.
            begin = max((self.count >> level) - 1, 0) << level
            if event >= begin or level == len(self.clock) - 1:
                break
            end, after = begin, before
        rest = (end - max(event, begin)) / max(end - begin, 1)
        return float(self.clock[0][0] - after) + rest * float(after - before)

    def fields(self) -> dict[str, npt.NDArray[Any]]:
        """What is stored: of each cell, by rising key, the key less 2^15, and 256 times the level plus the step."""
        cell_KX, first = np.zeros((sum(self.cells_F), 2), np.int16), 0
        for size, cells in zip(self.cells_F, self.cells, strict=True):
            for place, key in enumerate(sorted(cells), first):
                cell_KX[place] = key - KEYS // 2, 256 * cells[key].level + cells[key].step
            first += size
        whole = {name: np.array(marks, np.int32) for name, marks in (("clock", self.clock), ("repeats", self.repeats))}
        return whole | {"sums": self.sums_XD, "cell": cell_KX}

    def known(
        self,
        keys: Sequence[int],
        numbers: Sequence[int],
        sizes: Sequence[int],
        popularity_F: FloatArray,
        factors: Sequence[FloatArray],
    ) -> FloatArray:
        """What is known of a target by no trained weight: `[Y]`; popularity: the log of a value's share of targets."""
        features, above, more = list[float](), list[float](), list[float]()
        of_fields = zip(keys, numbers, sizes, popularity_F, strict=True)
        for field, (key, number, size, popularity) in enumerate(of_fields):
            look, log_size = self.look(field, key), math.log(size)
            times = math.log1p(look.times)
            features += [float(look.times > 0), times, math.log1p(look.events) / 4]
            features += [math.log1p(look.hours) / 4, math.log1p(max(number - FIRST, 0)) / log_size]
            features += [times * 2.0 ** (-look.events / half_life) for half_life in HALF_LIVES]
            features += [times * 2.0 ** (-look.hours / (24 * days)) for days in DAYS]
            # Against values that are all equally popular, and in as many events as the user had.
            above.append((popularity + log_size) / 3)
            more.append(times - math.log1p(math.exp(popularity) * self.count))
        pace = [math.log1p((self.clock[0][0] - older) / HOUR) / 4 for _, older in self.clock]
        total, recent = self.repeats
        # The moving mean begins at 0, so that its weights sum to less than 1.
        weight = max(1 - ((RECENT - 1) / RECENT) ** self.count, 1 / RECENT)
        shares = [2 * total / max(self.count, 1) - 1, 2 * recent / ONE / weight - 1]
        user = [math.log1p(self.count) / 4, *pace, *shares]
        return np.array([*features, *above, *more, *user, *self._affinities(factors)])

    def _affinities(self, factors: Sequence[FloatArray]) -> list[float]:
        """Cosines of each field's factor with both sums, then signed logarithms of the products."""
        cosines, products, first = list[float](), list[float](), 0
        for factor in factors:
            for sum_D in self.sums_XD[:, first : first + len(factor)].astype(np.float64):
                products.append(float(sum_D @ factor))
                cosines.append(products[-1] / max(math.sqrt(sum_D @ sum_D), SHORTEST))
            first += len(factor)
        return [*cosines, *(math.copysign(math.log1p(abs(product)) / 2, product) for product in products)]


Weights = Mapping[str, FloatArray]  # trained numbers by their names in an artifact's `weights.safetensors`


def step(weights: Weights, slot_SD: FloatArray, event_E: FloatArray, count: int, periods: Sequence[int]) -> FloatArray:
    """The slots after the event with this number: slot j is a GRU's state, stepped every `periods[j]` events."""
    given, slots = event_E, [*slot_SD]
    for place, period in enumerate(periods):
        if count % period == 0:
            name, state = f"memory.slots.layers.{place}", slots[place]
            of_input = weights[f"{name}.weight_ih_l0"] @ given + weights[f"{name}.bias_ih_l0"]
            of_state = weights[f"{name}.weight_hh_l0"] @ state + weights[f"{name}.bias_hh_l0"]
            (input_r, input_z, input_n), (state_r, state_z, state_n) = np.split(of_input, 3), np.split(of_state, 3)
            update, reset = 1 / (1 + np.exp(-input_z - state_z)), 1 / (1 + np.exp(-input_r - state_r))
            slots[place] = (1 - update) * np.tanh(input_n + reset * state_n) + update * state
        given = slots[place]
    return np.array(slots).reshape(slot_SD.shape)


def logit(
    weights: Weights,
    known_Y: FloatArray,
    kinds: Sequence[int],
    target_FE: FloatArray,
    weight_FP: FloatArray,
    context_C: FloatArray,
    slots: Sequence[FloatArray] = (),
) -> float:
    """The logit: of a head that sees all, and of one that sees counts, times and context alone.

    Of the target there are `Memory.known`, the kinds of cells by `Memory.look`, embeddings of its values and their
    trained weights of their features; of the moment the embedded hour, weekday and gap; of the slots those that were
    written at least once.
    """
    size = len(target_FE) * FEATURES
    kind_X = [weights["memory.kind.weight"][field * KINDS + kind] for field, kind in enumerate(kinds)]
    counted = np.concatenate([known_Y[:size], *kind_X, known_Y[size:]])
    weighted_F = (known_Y[:size].reshape(-1, FEATURES) * weight_FP).sum(axis=1)
    vector, interest = target_FE.ravel(), np.concatenate([counted, weighted_F])
    if (name := "memory.slots.reader.query") + ".weight" in weights:
        query = weights[f"{name}.weight"] @ np.concatenate([vector, interest]) + weights[f"{name}.bias"]
        found = _attend(weights, query, slots)
        interest = np.concatenate([found, query * found, interest])
    first = _mlp(weights, "head.head", np.concatenate([interest, vector, context_C]))
    first += float(weights["head.direct.weight"][0] @ weighted_F)
    if "head.match.wanted.weight" in weights:
        first += float(weights["head.match.wanted.weight"] @ context_C @ vector)
    second, steady = _mlp(weights, "head.counter", np.concatenate([counted, context_C])), float(weights["head.steady"])
    return (1 - steady) * first + steady * second


def _attend(weights: Weights, query: FloatArray, slots: Sequence[FloatArray]) -> FloatArray:
    """What a query finds in the slots."""
    score, name = np.zeros(len(slots)), "memory.slots.reader.scores.0"
    for place, slot in enumerate(slots):
        value = np.concatenate([query, slot, query - slot, query * slot])
        for layer in ("first", "second", "last"):
            value = weights[f"{name}.{layer}.weight"] @ value + weights[f"{name}.{layer}.bias"]
            value = value if layer == "last" else np.maximum(value, 0)
        score[place] = value[0]
    share = np.exp(score - score.max(initial=0))
    return np.asarray(sum((part / share.sum() * slot for part, slot in zip(share, slots, strict=True)), 0 * query))


def _mlp(weights: Weights, name: str, value: FloatArray) -> float:
    """Three layers with ELU; the first sees its inputs at mean 0 and deviation 1."""
    value = (value - weights[f"{name}.layers.0.mean_X"]) * weights[f"{name}.layers.0.scale_X"]
    for layer in (0, 3, 6):
        value = weights[f"{name}.layers.{layer}.weight"] @ value + weights[f"{name}.layers.{layer}.bias"]
        value = np.where(value > 0, value, np.expm1(np.minimum(value, 0))) if layer < 6 else value
    return float(value[0])
