"""The compiled form of `lifelong.tally.spec`: write, read, replay; and cells out of the bytes of a record and back.

    record --unpack--> memory --write--> memory --pack--> record           a service, event by event
    memory --read--> what is known of targets                              a service, verification, explanations
    histories --replay--> memories, or what is known of targets            training, backfill

The first four steps work on the same arrays: a replay is writes from an empty memory on. Cells of a field are sorted by
key, empty ones last, so that a key is found by halving, and nothing has to be sorted when it is stored.

Shapes: N records, events or targets; B users; F fields; K cells; J levels of the clock; D
numbers of all factors; G fields with factors; Y known numbers; U of them of the user; L events of a history.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from lifelong.compiled import Array, compiled, jit
from lifelong.tally import spec
from lifelong.tally.plan import CELL_BITS, STEP_BITS, CellPacking, Plan
from lifelong.tally.spec import (
    DAY,
    FEATURES,
    FIRST,
    HOUR,
    KEYS,
    KINDS,
    LONGEST,
    ONE,
    RECENT,
    SHORTEST,
    SIZES,
    STEPS,
)

_COUNTS, _AGES, _BONUSES = (np.array(values, np.int64) for values in (spec.COUNTS, spec.AGES, spec.BONUSES))
# The bits that are 0 in the numbers of those events that raise a level.
_WAITS = np.array(spec.WAITS, np.int64) - 1
# What follows from a level or a step alone is looked up: logarithms, decays in events, the first kind of a count.
_LOG_COUNTS, _LOG_AGES = (np.array([math.log1p(one) for one in values]) for values in (spec.COUNTS, spec.AGES))
_DECAYS = np.array([[2.0 ** (-age / half_life) for half_life in spec.HALF_LIVES] for age in spec.AGES])
_FIRST_KINDS = np.array([1 + (sum(one >= first for first in spec.TIMES) - 1) * SIZES * STEPS for one in spec.COUNTS])
_RATES = -math.log(2) / (DAY / HOUR * np.array(spec.DAYS))
"""Of the decays in hours."""
# A byte for each, so that one comparison with `_LEVEL` says whether a cell is empty.
_LEVEL = 256
"""A cell's second number is this times the level of its count, plus the step of its age."""
_PIECE, _ONES = 32, 2**32 - 1
TOO_MANY, TOO_HIGH, UNSORTED = 1, 2, 3
"""What can be wrong: other than K keys in a record, a key that its field does not have, cells that are not sorted."""


class Memory(NamedTuple):
    """Memories of users; the parts that a plan lacks have no numbers."""

    cell_BKX: Array
    clock_BJX: Array
    repeats_BX: Array
    sums_BXD: Array


class Targets(NamedTuple):
    """What is asked about: N targets, each of a user."""

    row_N: Array
    key_NF: Array
    """int64, of each item field; negative where a value is missing."""
    number_NF: Array
    popularity_NF: Array
    factor_ND: Array


class Found(NamedTuple):
    """What is known of N targets; arrays that are filled."""

    known_NY: Array
    kind_NF: Array
    """int64: row of the table of embedded kinds, which lie field after field."""
    length_GX: Array
    """Lengths of the sums of the user that was looked at last."""
    number_NFX: Array
    """Of each value its count, its age in events and in hours, and its rank; the first three are 0 without a cell."""
    hours_SX: Array
    """Of the user that was looked at last, for each step: hours, and what follows from them; NaN if not yet needed."""


class Rules(NamedTuple):
    """A plan as the loops take it."""

    start_F: Array
    """The first cell of each field, and the end."""
    log_size_F: Array
    end_G: Array
    """Where the factor of each field ends."""
    keep_X: Array
    """What of both sums is kept at an event, in their type."""
    known: int
    """Y."""


def rules_of(plan: Plan, dtype: Any = np.float32) -> Rules:
    """The rules of a plan, for sums of a type."""
    return Rules(
        np.cumsum([0, *plan.cells_F], dtype=np.int64),
        np.log(np.array(plan.sizes_F, np.float64)),
        np.cumsum(plan.widths_G, dtype=np.int64),
        np.array([1.0, 2.0 ** (-1 / spec.HALF_LIFE)]).astype(np.float32).astype(dtype),
        plan.known,
    )


def empty(plan: Plan, users: int, dtype: Any = np.float32) -> Memory:
    """Memories of users without events."""
    return Memory(
        np.zeros((users, sum(plan.cells_F), 2), np.int16),
        np.zeros((users, plan.levels, 2), np.int32),
        np.zeros((users, 2 * plan.repeats), np.int32),
        np.zeros((users, 2, sum(plan.widths_G)), dtype),
    )


def unknown(rules: Rules, targets: int, dtype: Any = np.float32) -> Found:
    """Room for what is known of targets."""
    fields = len(rules.log_size_F)
    known_NY, number_NFX = np.empty((targets, rules.known), dtype), np.empty((targets, fields, 4))
    kind_NF, length_GX = np.empty((targets, fields), np.int64), np.empty((len(rules.end_G), 2))
    return Found(known_NY, kind_NF, length_GX, number_NFX, np.empty((len(_AGES), 2 + len(_RATES))))


def _count_zeros(typing: Any, value: Any) -> Any:
    """How many zeros a number that is not 0 ends in."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.int64(types.int64), generate


# Parts of a loop: calls would copy tuples of many arrays.
_inlined = compiled(forceinline=True)
# One instruction of the processor, which Numba has no name for.
_lowest: Any = intrinsic(_count_zeros)


# Write


@_inlined
def _rank(cell_BKX: Array, b: Any, k: Any) -> Any:
    """By what cells are sorted: their keys, and empty ones after all of them."""
    return np.int32(cell_BKX[b, k, 0]) if cell_BKX[b, k, 1] >= _LEVEL else np.int32(KEYS)


@_inlined
def _place(cell_BKX: Array, b: Any, first: Any, end: Any, kept: Any) -> Any:
    """The first cell of a field with a key not below a given one; an empty cell or the end if there is none."""
    while first < end:
        middle = (first + end) >> 1
        if _rank(cell_BKX, b, middle) < kept:
            first = middle + 1
        else:
            end = middle
    return first


@_inlined
def _age(cell_BKX: Array, b: Any, first: Any, end: Any, due: Any) -> None:
    """One event more for the cells with a step below `due`; none of them is empty."""
    # Both numbers of a cell as one, the second in the upper half, and places from 0 on: then one instruction of the
    # processor takes many cells, 30 times as fast.
    whole_KX = cell_BKX[b, first:end].view(np.int32)
    for k in range(len(whole_KX)):
        both = whole_KX[k, 0]
        whole_KX[k, 0] = np.int32(both + np.int32((both >> 16 & (_LEVEL - 1)) < due) * np.int32(1 << 16))


@_inlined
def _stalest(cell_KX: Array, first: Any, end: Any) -> Any:
    """The cell of a full field that gives way; of equals the first, which has the lowest key."""
    best, chosen = -(2**62), first
    for k in range(first, end):
        packed = cell_KX[k, 1]
        stale = _AGES[packed & (_LEVEL - 1)] - _BONUSES[packed >> 8]
        if stale > best:
            best, chosen = stale, k
    return chosen


@_inlined
def _count(memory: Memory, b: Any, key_NF: Array, n: Any, count: Any, start_F: Array) -> Any:
    """Count the event with this number, from 1. 1 if its item was met before, else 0."""
    cell_BKX, met = memory.cell_BKX, np.int64(0)
    cell_KX = cell_BKX[b]
    # Steps of 2^j events are due where 2^j divides the count: those of all sizes up to the largest that does.
    due = np.int16(min((1 + min(_lowest(count), SIZES - 1)) * STEPS, SIZES * STEPS - 1))
    for f in range(len(start_F) - 1):
        key = key_NF[n, f]
        # A key has 16 bits without a sign and a cell's number has one: keys are held less half of their range, in the
        # same order.
        first, end, held_key = start_F[f], start_F[f + 1], key - KEYS // 2
        # The first empty cell, which is where those that age end.
        free = _place(cell_BKX, b, first, end, KEYS)
        _age(cell_BKX, b, first, free, due)
        if key < 0:
            continue
        at = _place(cell_BKX, b, first, free, held_key)
        held = at < free and _rank(cell_BKX, b, at) == held_key
        if held:
            met = np.int64(1) if f == 0 else met
            level = np.int64(cell_KX[at, 1]) >> 8
            # Also sets the age back to 0, which is the lower byte. The number of the event decides whether the level
            # rises, so that the same history always gives the same memory.
            cell_KX[at, 1] = (level + (_WAITS[level] & count == 0)) * _LEVEL
            continue
        # The place that becomes free: the first empty cell, or that of the key that gives way.
        if free == end:
            free = _stalest(cell_KX, first, end)
        # All cells between it and the place of the new key move by one.
        while free > at:
            cell_KX[free, 0], cell_KX[free, 1] = cell_KX[free - 1, 0], cell_KX[free - 1, 1]
            free -= 1
        # The cell that gives way lies before `at`: those between move down, so that the new key comes to `at - 1`.
        while free < at - 1:
            cell_KX[free, 0], cell_KX[free, 1] = cell_KX[free + 1, 0], cell_KX[free + 1, 1]
            free += 1
        cell_KX[free, 0], cell_KX[free, 1] = held_key, _LEVEL
    return met


@_inlined
def _write(memory: Memory, b: Any, key_NF: Array, gap: Any, factor_ND: Array, n: Any, count: Any, rules: Rules) -> None:
    """Fold one event of one user in; `spec.Memory.write`."""
    clock_JX, sums_XD = memory.clock_BJX[b], memory.sums_BXD[b]
    met = _count(memory, b, key_NF, n, count, rules.start_F)
    # The clock has 32 bits: it stops at its end, as wrapping round would make ages negative.
    now = min(clock_JX[0, 0] + gap, LONGEST)
    # Level j has a mark at each multiple of 2^j events: the zeros at the count's end say which levels these are.
    for j in range(min(len(clock_JX), _lowest(count) + 1)):
        clock_JX[j, 1], clock_JX[j, 0] = clock_JX[j, 0], now
    if memory.repeats_BX.shape[1]:
        recent = np.int64(memory.repeats_BX[b, 1])
        memory.repeats_BX[b, 0] += met
        # `//` rounds down, as does the specification's.
        memory.repeats_BX[b, 1] = recent + (met * ONE - recent) // RECENT
    for x in range(2):
        for d in range(sums_XD.shape[1]):
            sums_XD[x, d] = sums_XD[x, d] * rules.keep_X[x] + factor_ND[n, d]


@jit
def write(
    memory: Memory, row_N: Array, key_NF: Array, gap_N: Array, factor_ND: Array, count_N: Array, rules: Rules
) -> None:
    """Fold events in, one after another, in place.

    Args:
        memory: is changed.
        row_N: the user of each event.
        key_NF: int64 keys of the item fields; negative where a value is missing.
        gap_N: int64 seconds since the user's event before.
        factor_ND: of the first fields, in the type of the sums.
        count_N: int64 number of the event among all of its user's, from 1.
        rules: of the plan.
    """
    for n in range(len(row_N)):
        _write(memory, row_N[n], key_NF, gap_N[n], factor_ND, n, count_N[n], rules)


# Read


@_inlined
def _elapsed(clock_BJX: Array, b: Any, count: Any, ago: Any) -> Any:
    """Seconds from the event `ago` events before the last one to that last one."""
    levels, event, now = clock_BJX.shape[1], max(count - ago, 0), np.int64(clock_BJX[b, 0, 0])
    end, after, begin, before = count, now, np.int64(0), np.int64(clock_BJX[b, 0, 1])
    for level in range(levels):
        # The older mark of a level is that of the last but one multiple of 2^level.
        begin, before = max((count >> level) - 1, 0) << level, np.int64(clock_BJX[b, level, 1])
        # From the finest level on, so that the first one that reaches back to the event has the marks nearest to it.
        if event >= begin or level == levels - 1:
            break
        end, after = begin, before
    # Between two marks events are taken to be evenly spaced. 1: without events both marks are the same.
    rest = (end - max(event, begin)) / max(end - begin, 1)
    return np.float64(now - after) + rest * np.float64(after - before)


@_inlined
def _of_user(memory: Memory, b: Any, count: Any, user_U: Array) -> None:
    """Fill what is known of the user: her events, how long they took, shares of repeats."""
    clock_JX = memory.clock_BJX[b]
    user_U[0] = math.log1p(np.float64(count)) / 4
    for level in range(len(clock_JX)):
        span = np.float64(np.int64(clock_JX[0, 0]) - np.int64(clock_JX[level, 1]))
        user_U[1 + level] = math.log1p(span / HOUR) / 4
    if memory.repeats_BX.shape[1]:
        # The running share begins at 0. It is divided by the weight that the events so far have in it, or new users
        # would all seem to repeat nothing.
        at, weight = 1 + len(clock_JX), max(1 - ((RECENT - 1) / RECENT) ** count, 1 / RECENT)
        user_U[at] = 2 * np.float64(memory.repeats_BX[b, 0]) / max(count, 1) - 1
        user_U[at + 1] = 2 * np.float64(memory.repeats_BX[b, 1]) / ONE / weight - 1


@_inlined
def _look(memory: Memory, b: Any, count: Any, f: Any, key: Any, rules: Rules, found: Found, n: Any) -> Any:
    """Fill the numbers of a field's value; its cell's second number, or 0."""
    first, end, held_key = rules.start_F[f], rules.start_F[f + 1], key - KEYS // 2
    number_NFX, hours_SX = found.number_NFX, found.hours_SX
    number_NFX[n, f, 0] = number_NFX[n, f, 1] = number_NFX[n, f, 2] = 0.0
    if key < 0:
        return np.int64(0)
    at = _place(memory.cell_BKX, b, first, end, held_key)
    if at == end or _rank(memory.cell_BKX, b, at) != held_key:
        return np.int64(0)
    packed = np.int64(memory.cell_BKX[b, at, 1])
    level, step = packed >> 8, packed & (_LEVEL - 1)
    number_NFX[n, f, 0], number_NFX[n, f, 1] = _COUNTS[level], _AGES[step]
    # Cells of one user share few steps, and logarithms and powers take longest here.
    if math.isnan(hours_SX[step, 0]):
        hours = _elapsed(memory.clock_BJX, b, count, _AGES[step]) / HOUR
        hours_SX[step, 0], hours_SX[step, 1] = hours, math.log1p(hours) / 4
        for x in range(len(_RATES)):
            hours_SX[step, 2 + x] = math.exp(hours * _RATES[x])
    number_NFX[n, f, 2] = hours_SX[step, 0]
    return packed


@_inlined
def _of_target(memory: Memory, b: Any, count: Any, targets: Targets, n: Any, rules: Rules, found: Found) -> None:
    """Fill what is known of one target; `spec.Memory.known` but for what is known of the user."""
    # Numbers are written where they belong: of views, references would be counted.
    known_NY, fields, events = found.known_NY, len(rules.log_size_F), _DECAYS.shape[1]
    for f in range(fields):
        at, log_size, rank = f * FEATURES, rules.log_size_F[f], max(targets.number_NF[n, f] - FIRST, 0)
        popularity = np.float64(targets.popularity_NF[n, f])
        packed = _look(memory, b, count, f, targets.key_NF[n, f], rules, found, n)
        found.number_NFX[n, f, 3] = rank
        level, step = packed >> 8, packed & (_LEVEL - 1)
        # Of level 0 there is no cell.
        found.kind_NF[n, f] = f * KINDS + (_FIRST_KINDS[level] + step if level else 0)
        log_times = _LOG_COUNTS[level]
        for x in range(FEATURES):
            known_NY[n, at + x] = 0
        known_NY[n, at + 4] = math.log1p(np.float64(rank)) / log_size
        known_NY[n, fields * FEATURES + f] = (popularity + log_size) / 3
        known_NY[n, fields * (FEATURES + 1) + f] = log_times - math.log1p(math.exp(popularity) * count)
        if level == 0:
            continue
        known_NY[n, at], known_NY[n, at + 1] = 1, log_times
        known_NY[n, at + 2], known_NY[n, at + 3] = _LOG_AGES[step] / 4, found.hours_SX[step, 1]
        for x in range(events):
            known_NY[n, at + 5 + x] = log_times * _DECAYS[step, x]
        for x in range(len(_RATES)):
            known_NY[n, at + 5 + events + x] = log_times * found.hours_SX[step, 2 + x]
    _fit(memory.sums_BXD, b, targets.factor_ND, n, rules.end_G, found)


@_inlined
def _fit(sums_BXD: Array, b: Any, factor_ND: Array, n: Any, end_G: Array, found: Found) -> None:
    """Fill how well a target fits the sums, the last known numbers: cosines of each field and sum, then amounts."""
    known_NY, first, fields = found.known_NY, np.int64(0), len(end_G)
    # A cosine and an amount for each of the two sums.
    begin = known_NY.shape[1] - 4 * fields
    for g in range(fields):
        whole = late = np.float64(0)
        for d in range(first, end_G[g]):
            whole += np.float64(sums_BXD[b, 0, d]) * factor_ND[n, d]
            late += np.float64(sums_BXD[b, 1, d]) * factor_ND[n, d]
        for x in range(2):
            product = late if x else whole
            amount = math.log1p(abs(product)) / 2
            known_NY[n, begin + 2 * g + x] = product / found.length_GX[g, x]
            known_NY[n, begin + 2 * (fields + g) + x] = amount if product >= 0 else -amount
        first = end_G[g]


@_inlined
def _begin(sums_XD: Array, end_G: Array, found: Found) -> None:
    """Fill the lengths of each field's sums; no hours are known yet."""
    length_GX = found.length_GX
    # Hours depend on the user's clock: those of the user before must not be taken for hers.
    for step in range(len(found.hours_SX)):
        found.hours_SX[step, 0] = math.nan
    for x in range(2):
        first = np.int64(0)
        for g in range(len(end_G)):
            square = np.float64(0)
            for d in range(first, end_G[g]):
                square += np.float64(sums_XD[x, d]) * np.float64(sums_XD[x, d])
            # An empty sum has the length 0, by which cosines would be divided.
            length_GX[g, x] = max(math.sqrt(square), SHORTEST)
            first = end_G[g]


@_inlined
def _repeat(known_NY: Array, n: Any, to: Any, begin: Any, end: Any) -> None:
    """Copy some numbers of a row to another one; between slices it would be compiled for seconds."""
    for y in range(begin, end):
        known_NY[to, y] = known_NY[n, y]


@_inlined
def _copy(memory: Memory, b: Any, to: Memory, n: Any) -> None:
    """Copy a memory."""
    for x in range(2):
        for k in range(memory.cell_BKX.shape[1]):
            to.cell_BKX[n, k, x] = memory.cell_BKX[b, k, x]
        for j in range(memory.clock_BJX.shape[1]):
            to.clock_BJX[n, j, x] = memory.clock_BJX[b, j, x]
        for d in range(memory.sums_BXD.shape[2]):
            to.sums_BXD[n, x, d] = memory.sums_BXD[b, x, d]
    for x in range(memory.repeats_BX.shape[1]):
        to.repeats_BX[n, x] = memory.repeats_BX[b, x]


@jit
def read(memory: Memory, count_B: Array, targets: Targets, rules: Rules, found: Found) -> None:
    """Fill what memories know of targets; those of one user that follow each other share what is known of her."""
    begin = len(rules.log_size_F) * (FEATURES + 2)
    end = found.known_NY.shape[1] - 4 * len(rules.end_G)
    for n in range(len(targets.row_N)):
        b = targets.row_N[n]
        if n and b == targets.row_N[n - 1]:
            _repeat(found.known_NY, n - 1, n, begin, end)
        else:
            _of_user(memory, b, count_B[b], found.known_NY[n, begin:end])
            _begin(memory.sums_BXD[b], rules.end_G, found)
        _of_target(memory, b, count_B[b], targets, n, rules, found)


@jit
def replay(
    nobody: Memory,
    one: Memory,
    key_BLF: Array,
    gap_BL: Array,
    factor_BLD: Array,
    order_N: Array,
    position_N: Array,
    targets: Targets,
    rules: Rules,
    found: Found,
    kept: Memory,
) -> None:
    """Fold whole histories in; fill what is known of targets on the way, or keep the memories there.

    Args:
        nobody: an empty memory of one user.
        one: another one, to work with.
        key_BLF: int64 keys of the events, left-aligned; padding is not read.
        gap_BL: int64 seconds since the event before.
        factor_BLD: of the events.
        order_N: the targets by user and position: one pass over a history serves all of them.
        position_N: how many events come before each target.
        targets: what is asked; `row_N` is the user. Without fields nothing is asked.
        rules: of the plan.
        found: is filled.
        kept: is filled, a row for each target; without rows if memories are not wanted.
    """
    begin = len(rules.log_size_F) * (FEATURES + 2)
    end = found.known_NY.shape[1] - 4 * len(rules.end_G)
    user, count, last = np.int64(-1), np.int64(0), np.int64(-1)
    for n in order_N:
        if targets.row_N[n] != user:
            user, count, last = targets.row_N[n], np.int64(0), np.int64(-1)
            _copy(nobody, 0, one, 0)
        # `last` is a target at this same position: what is known of the user holds until the next event.
        if count < position_N[n]:
            last = np.int64(-1)
        while count < position_N[n]:
            count += 1
            _write(one, 0, key_BLF[user], gap_BL[user, count - 1], factor_BLD[user], count - 1, count, rules)
        if len(kept.cell_BKX):
            _copy(one, 0, kept, n)
        if targets.key_NF.shape[1]:
            if last >= 0:
                _repeat(found.known_NY, last, n, begin, end)
            else:
                _of_user(one, 0, count, found.known_NY[n, begin:end])
                _begin(one.sums_BXD[0], rules.end_G, found)
            _of_target(one, 0, count, targets, n, rules, found)
            last = n


# Bytes: bits 0 .. are the lowest bits of each key, then come each count and age, all by field and rising key; then of
# each field ones for its keys and zeros where they rise: the k-th key has its one at (high part + k). Numbers are cut
# out of two neighbouring pieces of 32 bits at once. An empty cell has the largest key of its field, since keys must not
# fall, and zeros; as empty cells are a field's last ones, the loops only touch what is filled.


class Packing(NamedTuple):
    """`CellPacking` as the loops take it."""

    start_F: Array
    values_F: Array
    low_F: Array
    high_F: Array
    counts: int
    """The bit at which counts and ages begin."""
    highs: int
    """The bit at which the high parts begin."""
    end: int
    empty_I: Array
    """The bits of a memory without a filled cell, in pieces: two more than they take, as `_at` reads ahead."""


def packing_of(packing: CellPacking) -> Packing:
    """The sizes of a packing."""
    values_F, low_F, high_F = packing.values_F, packing.low_bits, packing.high_bits
    arrays = np.array(values_F, np.int64), np.array(low_F, np.int64), np.array(high_F, np.int64)
    counts = sum(low * cells for low, cells in zip(packing.low_bits, packing.cells_F, strict=True))
    start_F = np.cumsum([0, *packing.cells_F], dtype=np.int64)
    bits, bit, begin = 0, 0, counts + CELL_BITS * sum(packing.cells_F)
    highs = begin
    for cells, values, low, high in zip(packing.cells_F, values_F, low_F, high_F, strict=True):
        for _ in range(cells):
            bits, bit = bits | (values - 1 & (1 << low) - 1) << bit, bit + low
        # The ones of equal keys are neighbours.
        bits, begin = bits | (1 << cells) - 1 << begin + (values - 1 >> low), begin + high
    empty_I = np.frombuffer(bits.to_bytes(packing.size // 4 * 4 + 12, "little"), np.uint32)
    return Packing(start_F, *arrays, counts, highs, packing.bits, empty_I)


@_inlined
def _at(piece_I: Array, bit: Any, mask: Any) -> Any:
    """The number of up to 32 bits that begins at a bit."""
    piece = bit >> 5
    # The shift may fill in ones from the sign; the mask removes them.
    return (np.int64(piece_I[piece]) | np.int64(piece_I[piece + 1]) << _PIECE) >> (bit & 31) & mask


@_inlined
def _put(piece_I: Array, bit: Any, mask: Any, number: Any) -> None:
    """Replace the number that begins at a bit; see `_at`."""
    piece = bit >> 5
    both = np.int64(piece_I[piece]) | np.int64(piece_I[piece + 1]) << _PIECE
    both = both & ~(mask << (bit & 31)) | number << (bit & 31)
    piece_I[piece], piece_I[piece + 1] = both & _ONES, both >> _PIECE & _ONES


@_inlined
def _next(piece_I: Array, bit: Any, end: Any) -> Any:
    """The place of the first one from a bit on; `end` or behind it if there is none before."""
    while bit < end:
        value = _at(piece_I, bit, _ONES)
        if value:
            return bit + _lowest(value)
        bit += _PIECE
    return end


@_inlined
def _equal(piece_I: Array, other_I: Array, bit: Any, end: Any) -> Any:
    """Whether the bits from one to before another are the same in two memories."""
    if bit >= end:
        return True
    first, last = bit >> 5, (end - 1) >> 5
    differ = np.uint32(0)
    for at in range(first + 1, last):
        differ |= piece_I[at] ^ other_I[at]
    # Of the first piece the bits from `bit` on count, of the last one those before `end`.
    head = np.int64(piece_I[first] ^ other_I[first]) & _ONES << (bit & 31)
    tail = np.int64(piece_I[last] ^ other_I[last]) & _ONES >> (31 - ((end - 1) & 31))
    return differ == 0 and (head & tail == 0 if first == last else head | tail == 0)


@jit
def unpack(
    record_NR: Array, offset: Any, packing: Packing, row_N: Array, cell_BKX: Array, scratch: tuple[Array, Array]
) -> Any:
    """Fill the cells of the users at `row_N` from records; their cells begin at a byte.

    Args:
        record_NR: bytes.
        offset: of the cells in a record.
        packing: sizes.
        row_N: which users.
        cell_BKX: zeros; what is filled in a record is filled.
        scratch: as many pieces as an empty memory has, zeros, so that the last number can be cut out of two, too; and
            the same as bytes. Loops that make arrays take longer to compile.

    Returns:
        0, or what is wrong with one of the records.
    """
    piece_I, byte_R = scratch
    for n in range(len(record_NR)):
        # Places from 0 on: then many bytes are copied at once.
        stored_R = record_NR[n, offset : offset + (packing.end + 7) // 8]
        for at in range(len(stored_R)):
            byte_R[at] = stored_R[at]
        bit, begin = 0, packing.highs
        cell_KX = cell_BKX[row_N[n]]
        for f in range(len(packing.values_F)):
            low, first, one, before = packing.low_F[f], packing.start_F[f], begin, np.int64(-1)
            begin, end, filled = begin + packing.high_F[f], packing.start_F[f + 1], packing.start_F[f + 1]
            for k in range(first, end):
                both = _at(piece_I, packing.counts + k * CELL_BITS, (1 << CELL_BITS) - 1)
                # A record has 4 bits for a count and 5 for an age; in RAM each has a byte.
                packed = both >> STEP_BITS << 8 | both & ((1 << STEP_BITS) - 1)
                if packed < _LEVEL:
                    filled = k
                    break
                one = _next(piece_I, one, begin)
                # Less where the one would be with a high part of zero.
                high = one - (begin - packing.high_F[f]) - (k - first)
                key = (high << low) | _at(piece_I, bit + (k - first) * low, (1 << low) - 1)
                if one >= begin or key >= packing.values_F[f]:
                    return TOO_HIGH
                if key < before:
                    return UNSORTED
                before = key
                cell_KX[k, 0], cell_KX[k, 1] = key - KEYS // 2, packed
                one += 1
            empty_I, after = packing.empty_I, bit + (end - first) * low
            if not _equal(piece_I, empty_I, packing.counts + filled * CELL_BITS, packing.counts + end * CELL_BITS):
                return UNSORTED
            # The ones of empty cells are a field's last bits but one. Behind the last filled cell's there is none else.
            ones = begin - 1 - (end - filled)
            if _next(piece_I, one, ones) < ones or not _equal(piece_I, empty_I, ones, begin):
                return TOO_MANY
            if not _equal(piece_I, empty_I, bit + (filled - first) * low, after):
                return TOO_MANY
            bit = after
    return 0


@jit
def pack(cell_NKX: Array, packing: Packing, record_NR: Array, offset: Any, scratch: tuple[Array, Array]) -> Any:
    """Fill the bytes of cells in records; zeros are there already. See `unpack` for `scratch`.

    Returns:
        0, or what is wrong with the cells of one of them: then some records are not filled.
    """
    piece_I, byte_R = scratch
    for n in range(len(cell_NKX)):
        cell_KX, bit, begin = cell_NKX[n], 0, packing.highs
        for at in range(len(piece_I)):
            piece_I[at] = packing.empty_I[at]
        for f in range(len(packing.values_F)):
            low, first, top = packing.low_F[f], packing.start_F[f], packing.values_F[f] - 1
            before, mask, end = np.int64(-1), (1 << packing.low_F[f]) - 1, packing.start_F[f + 1]
            for k in range(first, end):
                packed = np.int64(cell_KX[k, 1])
                if packed < _LEVEL:
                    # None may follow that is filled.
                    rest_KX, rest = cell_KX[k:end].view(np.int32), np.int32(0)
                    for at in range(len(rest_KX)):
                        rest |= rest_KX[at, 0]
                    if rest:
                        return UNSORTED
                    break
                key = np.int64(cell_KX[k, 0]) + KEYS // 2
                if key > top:
                    return TOO_HIGH
                if key < before:
                    return UNSORTED
                before = key
                _put(piece_I, bit + (k - first) * low, mask, key & mask)
                count = packed >> 8 << STEP_BITS | packed & (_LEVEL - 1)
                _put(piece_I, packing.counts + k * CELL_BITS, (1 << CELL_BITS) - 1, count & ((1 << CELL_BITS) - 1))
                # First the empty cell's one: that of an earlier cell, which is set already, is another bit.
                _put(piece_I, begin + (top >> low) + (k - first), 1, 0)
                _put(piece_I, begin + (key >> low) + (k - first), 1, 1)
            bit += (end - first) * low
            begin += packing.high_F[f]
        stored_R = record_NR[n, offset : offset + (packing.end + 7) // 8]
        for at in range(len(stored_R)):
            stored_R[at] = byte_R[at]
    return 0
