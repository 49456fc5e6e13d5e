"""Counting cells in compiled loops: out of the bytes of a record and back, one event further, and read for candidates.

    record --unpack--> cells, each field's by rising key --write--> cells --pack--> record
                                                         `-find---> what read graphs take of each candidate's keys

Bit for bit what `lifelong.nn.cells` and `lifelong.nn.clock` say, which are the specification; `packed_cells` says what
is stored. There the order of cells has no meaning. Here they stay sorted, empty ones last: a key is found by halving,
and nothing has to be sorted when it is stored.

All numbers are whole but the seconds. Numbers of several words are cut out of two neighbouring words at once.

Shapes: N records or events, B users, C candidates of each, F counted fields, K cells, W words of faded bits, J levels
of the clock, X the two parts of a cell or of a mark, R bytes of a record.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from lifelong.compiled import Array, jit
from lifelong.data.cell_plan import (
    AGES,
    HALVINGS,
    KEYS,
    ONE,
    RECENT_BITS,
    SIZES,
    WORD,
)

Packing = tuple[Array, Array, Array, Array, tuple[int, int, int], tuple[int, int]]
"""start_F, the first cell of each field, and the end; values_F; low_F and high_F, see `CellPacking`; the bits at which
the counts begin, the high parts, and nothing more; and how many bits a count and an age take together, and the age."""
Rules = tuple[Array, Array, tuple[Array, Array, Array], int, int, int]
"""start_F; age_A, events of each step of the scale of ages; of each level of counts the count, the bonus, and for which
events it waits, see `CellScale.waits`; steps of each size of ages; number of faded bits; whether the first row of the
clock counts repeats. Tables are as long as any second number of a cell needs, whatever a store returned."""

TOO_MANY, TOO_HIGH, UNSORTED = 1, 2, 3
"""What can be wrong: other than K keys in a record, a key that its field does not have, cells that are not sorted."""
_PIECE, _ONES = 32, 2**32 - 1
_HOUR = 3_600.0
_GAPS = (301, 132, 57, 23, 10, 4, 1)


def _count_zeros(typing: Any, value: Any) -> Any:
    """How many zeros a number that is not 0 ends in."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.int64(types.int64), generate


# One instruction of the processor, which Numba has no name for.
_lowest: Any = intrinsic(_count_zeros)


@jit
def _at(piece_I: Array, bit: Any, mask: Any) -> Any:
    """The number of up to 32 bits that begins at a bit."""
    place = bit >> 5
    return (np.int64(piece_I[place]) | np.int64(piece_I[place + 1]) << _PIECE) >> (bit & 31) & mask


@jit
def unpack(
    record_NR: Array, offset: Any, packing: Packing, row_N: Array, cell_BKX: Array, scratch: tuple[Array, Array, Array]
) -> Any:
    """Fill the cells of the users at `row_N` from records; their cells begin at a byte.

    Args:
        record_NR: bytes.
        offset: of the cells in a record.
        packing: sizes.
        row_N: which users.
        cell_BKX: is filled.
        scratch: two pieces more than the cells take, zeros, so that the last number can be cut out of two, too; the
            same as bytes; and an int64 for each cell. Loops that make arrays take longer to compile.

    Returns:
        0, or what is wrong with one of the records.
    """
    start_F, values_F, low_F, high_F, (counts, highs, end), (bits, age_bits) = packing
    fields, size = len(values_F), (end + 7) // 8
    piece_I, byte_R, place_K = scratch
    for n in range(len(record_NR)):
        for at in range(size):
            byte_R[at] = record_NR[n, offset + at]
        if not _ones(piece_I, highs, end, place_K):
            return TOO_MANY
        bit, begin = 0, 0
        cell_KX, wrong = cell_BKX[row_N[n]], False
        for f in range(fields):
            low, first, mask = low_F[f], start_F[f], (1 << low_F[f]) - 1
            for k in range(first, start_F[f + 1]):
                # Less where the one would be with a high part of zero.
                high = place_K[k] - begin - (k - first)
                key = (high << low) | _at(piece_I, bit + (k - first) * low, mask)
                both = _at(piece_I, counts + k * bits, (1 << bits) - 1)
                packed = both >> age_bits << 8 | both & ((1 << age_bits) - 1)
                wrong |= (high < 0) | (key >= values_F[f])
                cell_KX[k, 0] = key - KEYS // 2 if packed >= AGES else 0
                cell_KX[k, 1] = packed
            bit += (start_F[f + 1] - first) * low
            begin += high_F[f]
        if wrong:
            return TOO_HIGH
    return 0


@jit
def _ones(piece_I: Array, begin: Any, end: Any, place_K: Array) -> Any:
    """Fill the places, less `begin`, of the ones from one bit to before another; whether there are K of them."""
    found = 0
    for bit in range(begin, end, _PIECE):
        value = _at(piece_I, bit, _ONES)
        if end - bit < _PIECE:
            value &= (1 << (end - bit)) - 1
        while value:
            if found == len(place_K):
                return False
            place_K[found] = bit - begin + _lowest(value)
            value &= value - 1
            found += 1
    return found == len(place_K)


@jit
def pack(cell_NKX: Array, packing: Packing, record_NR: Array, offset: Any, scratch: tuple[Array, Array, Array]) -> Any:
    """Fill the bytes of cells in records; zeros are there already. See `unpack` for `scratch`.

    Returns:
        0, or what is wrong with the cells of one of them: then some records are not filled.
    """
    start_F, values_F, low_F, high_F, (_, _, end), (bits, age_bits) = packing
    fields, size = len(values_F), (end + 7) // 8
    piece_I, byte_R, _ = scratch
    for n in range(len(cell_NKX)):
        cell_KX = cell_NKX[n]
        for at in range(len(piece_I)):
            piece_I[at] = 0
        # Whole pieces are put down; `rest` holds the bits that have not filled one yet.
        place, rest, held = 0, np.int64(0), 0
        for f in range(fields):
            mask, before, falls, wrong = (1 << low_F[f]) - 1, np.int64(-1), False, False
            for k in range(start_F[f], start_F[f + 1]):
                filled = cell_KX[k, 1] >= AGES
                # Of an empty cell the largest key of its field is stored: keys must not fall.
                key = np.int64(cell_KX[k, 0]) + KEYS // 2 if filled else values_F[f] - 1
                rank = key if filled else np.int64(KEYS)
                falls, wrong = bool(falls or rank < before), bool(wrong or key >= values_F[f])
                before = rank
                rest |= (key & mask) << held
                held += low_F[f]
                if held >= _PIECE:
                    piece_I[place] = rest & _ONES
                    place, rest, held = place + 1, rest >> _PIECE, held - _PIECE
            if wrong:
                return TOO_HIGH
            if falls:
                return UNSORTED
        for k in range(start_F[fields]):
            packed = np.int64(cell_KX[k, 1])
            rest |= ((packed >> 8 << age_bits | packed & (AGES - 1)) & ((1 << bits) - 1)) << held
            held += bits
            if held >= _PIECE:
                piece_I[place] = rest & _ONES
                place, rest, held = place + 1, rest >> _PIECE, held - _PIECE
        piece_I[place] = rest
        begin = place * _PIECE + held
        for f in range(fields):
            for k in range(start_F[f], start_F[f + 1]):
                key = np.int64(cell_KX[k, 0]) + KEYS // 2 if cell_KX[k, 1] >= AGES else values_F[f] - 1
                bit = begin + (key >> low_F[f]) + (k - start_F[f])
                piece_I[bit >> 5] |= 1 << (bit & 31)
            begin += high_F[f]
        for at in range(size):
            record_NR[n, offset + at] = byte_R[at]
    return 0


@jit
def _rank(cell_KX: Array, k: Any) -> Any:
    """By what cells are sorted: their keys, and empty ones after all of them."""
    return np.int32(cell_KX[k, 0]) if cell_KX[k, 1] >= AGES else np.int32(KEYS)


@jit
def is_sorted(cell_BKX: Array, start_F: Array) -> Any:
    """Whether each field's cells are sorted, of all users."""
    for b in range(len(cell_BKX)):
        cell_KX, falls = cell_BKX[b], False
        for f in range(len(start_F) - 1):
            # Without a way out of the loop, many cells are compared by one instruction.
            for k in range(start_F[f] + 1, start_F[f + 1]):
                falls |= _rank(cell_KX, k) < _rank(cell_KX, k - 1)
        if falls:
            return False
    return True


@jit
def sort(cell_BKX: Array, start_F: Array) -> None:
    """Sort each field's cells in place.

    Source: Shell, "A High-Speed Sorting Procedure", CACM 1959; steps of Ciura, 2001.
    """
    for b in range(len(cell_BKX)):
        cell_KX = cell_BKX[b]
        for f in range(len(start_F) - 1):
            for gap in _GAPS:
                for k in range(start_F[f] + gap, start_F[f + 1]):
                    rank, kept, packed, at = _rank(cell_KX, k), cell_KX[k, 0], cell_KX[k, 1], k
                    while at - gap >= start_F[f] and _rank(cell_KX, at - gap) > rank:
                        cell_KX[at, 0], cell_KX[at, 1] = cell_KX[at - gap, 0], cell_KX[at - gap, 1]
                        at -= gap
                    cell_KX[at, 0], cell_KX[at, 1] = kept, packed


@jit
def _place(cell_KX: Array, first: Any, end: Any, kept: Any) -> Any:
    """The first cell of a field with a key not below a given one; an empty cell or the end if there is none."""
    while first < end:
        middle = (first + end) >> 1
        if _rank(cell_KX, middle) < kept:
            first = middle + 1
        else:
            end = middle
    return first


@jit
def _bit(key: Any, field: Any, which: Any, bits: Any) -> Any:
    """One of `cell_plan.faded_bits`."""
    code = np.int64(key) + field * KEYS
    return code * 40_503 % 1_000_003 % bits if which == 0 else code * 30_011 % 999_983 % bits


@jit
def _age(cell_KX: Array, first: Any, end: Any, due: Any) -> None:
    """One event more for the cells with an age below `due`; none of them is empty."""
    for k in range(first, end):
        packed = cell_KX[k, 1]
        cell_KX[k, 1] = packed + np.int16((packed & (AGES - 1)) < due)


@jit
def _stalest(cell_KX: Array, first: Any, end: Any, age_A: Array, bonus_N: Array) -> Any:
    """The cell of a full field that gives way; of equals the first, which has the lowest key."""
    best, chosen = -(2**62), first
    for k in range(first, end):
        packed = cell_KX[k, 1]
        stale = age_A[packed & (AGES - 1)] - bonus_N[packed >> 8]
        if stale > best:
            best, chosen = stale, k
    return chosen


@jit
def _fade(faded_W: Array, gone: Any, field: Any, count: Any, bits: Any) -> None:
    """Clear one bit in turn, and set the two of a key that lost its cell."""
    turn = (count + field * 101) * 7_919 % bits
    faded_W[turn // WORD] &= ~(1 << turn % WORD)
    for which in range(2):
        bit = _bit(gone, field, which, bits)
        faded_W[bit // WORD] |= 1 << bit % WORD


@jit
def _is_faded(faded_W: Array, key: Any, field: Any, bits: Any) -> Any:
    """1 if both bits of a key are set, else 0."""
    one, other = _bit(key, field, 0, bits), _bit(key, field, 1, bits)
    return faded_W[one // WORD] >> one % WORD & faded_W[other // WORD] >> other % WORD & 1


@jit
def _repeat(repeats_X: Array, met: Any) -> None:
    """One event further; see `lifelong.nn.repeats`."""
    recent = np.int64(repeats_X[1])
    repeats_X[0] += met
    repeats_X[1] = recent + ((met * ONE - recent) >> RECENT_BITS)


@jit
def _count(cell_KX: Array, faded_W: Array, key_F: Array, count: Any, rules: Rules) -> Any:
    """Count one event; `count` is its number, from 1. 1 if its item was met before, else 0."""
    (start_F, age_A, (_, bonus_N, wait_N), steps, bits, _), met = rules, 0
    # Steps of 2^j events are due where 2^j divides the count: those of all sizes up to the largest that does.
    due = np.int16(min((1 + min(_lowest(count), SIZES - 1)) * steps, SIZES * steps - 1))
    for f in range(len(key_F)):
        first, end, kept = start_F[f], start_F[f + 1], key_F[f] - KEYS // 2
        # The first empty cell, which is where those that age end.
        free = _place(cell_KX, first, end, KEYS)
        _age(cell_KX, first, free, due)
        if key_F[f] < 0:
            continue
        at = _place(cell_KX, first, free, kept)
        known = at < free and _rank(cell_KX, at) == kept
        if f == 0 and (known or (bits and _is_faded(faded_W, key_F[f], f, bits))):
            met = 1
        if known:
            level = np.int64(cell_KX[at, 1]) >> 8
            cell_KX[at, 1] = (level + (wait_N[level] & count == 0)) * AGES
            continue
        # The place that becomes free: the first empty cell, or that of the key that gives way.
        if free == end:
            free = _stalest(cell_KX, first, end, age_A, bonus_N)
            if bits:
                _fade(faded_W, np.int64(cell_KX[free, 0]) + KEYS // 2, f, count, bits)
        while free > at:
            cell_KX[free, 0], cell_KX[free, 1] = cell_KX[free - 1, 0], cell_KX[free - 1, 1]
            free -= 1
        while free < at - 1:
            cell_KX[free, 0], cell_KX[free, 1] = cell_KX[free + 1, 0], cell_KX[free + 1, 1]
            free += 1
        cell_KX[free, 0], cell_KX[free, 1] = kept, AGES
    return met


@jit
def _tick(clock_JX: Array, gap: Any, count: Any, longest: Any) -> None:
    """Mark one event on the clock: on the levels with a size that divides its number."""
    now = min(clock_JX[0, 0] + gap, longest)
    for j in range(min(len(clock_JX), _lowest(count) + 1)):
        clock_JX[j, 1], clock_JX[j, 0] = clock_JX[j, 0], now


@jit
def write(
    memory: tuple[Array, Array, Array],
    row_N: Array,
    key_NF: Array,
    gap_N: Array,
    count_N: Array,
    rules: Rules,
    longest: Any,
) -> None:
    """Count events, one after another, in place.

    Args:
        memory: cell_BKX, sorted; faded_BW; clock_BJX.
        row_N: the user of each event.
        key_NF: int64 keys; what is negative is not counted.
        gap_N: int64 seconds since the user's event before.
        count_N: int64 number of the event among all of its user's, from 1.
        rules: by which cells age and give way.
        longest: seconds at which the clock stops.
    """
    (cell_BKX, faded_BW, clock_BJX), repeats = memory, rules[5]
    for n in range(len(row_N)):
        b = row_N[n]
        met = _count(cell_BKX[b], faded_BW[b], key_NF[n], count_N[n], rules)
        _tick(clock_BJX[b, repeats:], gap_N[n], count_N[n], longest)
        if repeats:
            _repeat(clock_BJX[b, 0], met)


@jit
def _elapsed(clock_JX: Array, count: Any, ago: Any) -> Any:
    """Seconds from the event `ago` events before the last one to that; see `lifelong.nn.clock`."""
    event, level = max(count - ago, 0), 0
    begin, end, after = max(count - 1, 0), count, np.int64(clock_JX[0, 0])
    # The older mark of the first level that reaches back to the event lies before it.
    while event < begin and level < len(clock_JX) - 1:
        end, after = begin, np.int64(clock_JX[level, 1])
        level += 1
        begin = max((count >> level) - 1, 0) << level
    whole = np.float32(np.int64(clock_JX[0, 0]) - after)
    part = np.float32(end - max(event, begin)) / np.float32(max(end - begin, 1))
    return whole + part * np.float32(after - np.int64(clock_JX[level, 1]))


@jit
def find(
    memory: tuple[Array, Array, Array],
    count_B: Array,
    key_BCF: Array,
    rules: Rules,
    kinds: tuple[Array, int],
    found: tuple[Array, Array, Array, Array],
    numbers: tuple[Array, Array, Array],
) -> None:
    """What memories know of each candidate's keys, and the numbers that a read graph takes of it.

    Args:
        memory: cell_BKX, sorted; faded_BW; clock_BJX.
        count_B: int64 events so far.
        key_BCF: int64 keys.
        rules: see `write`.
        kinds: kind_T, the first kind of cell with each count; how many kinds a field has, 0 for no numbers.
        found: times, age, faded and seconds, each `[B, C, F]`; are filled.
        numbers: number_BCFX and flag_BCFX, float32; kind_BCF, int64; are filled. See
            `lifelong.nn.tally.CountMemory.numbers`.
    """
    (cell_BKX, faded_BW, clock_BJX), (start_F, age_A, (count_N, _, _), steps, bits, repeats) = memory, rules
    (times_BCF, age_BCF, faded_BCF, seconds_BCF), (number_BCFX, flag_BCFX, kind_BCF) = found, numbers
    (kind_T, every), most, half = kinds, len(kinds[0]) - 1, steps // 2
    for b in range(len(cell_BKX)):
        for c in range(key_BCF.shape[1]):
            for f in range(key_BCF.shape[2]):
                key, times, age, faded, seconds = key_BCF[b, c, f], np.int64(0), np.int64(0), np.int64(0), np.float32(0)
                kept = key - KEYS // 2
                at = _place(cell_BKX[b], start_F[f], start_F[f + 1], kept)
                if key >= 0 and at < start_F[f + 1] and _rank(cell_BKX[b], at) == kept:
                    packed = np.int64(cell_BKX[b, at, 1])
                    times, age = count_N[packed >> 8], packed & (AGES - 1)
                    seconds = _elapsed(clock_BJX[b, repeats:], count_B[b], age_A[age])
                elif key >= 0 and bits:
                    faded = np.int64(_is_faded(faded_BW[b], key, f, bits))
                times_BCF[b, c, f], age_BCF[b, c, f] = times, age
                faded_BCF[b, c, f], seconds_BCF[b, c, f] = faded, seconds
                if every:
                    number_X, flag_X = number_BCFX[b, c, f], flag_BCFX[b, c, f]
                    number_X[0], number_X[1], number_X[2], number_X[3] = times, age_A[age], seconds / _HOUR, max(key, 0)
                    flag_X[0], flag_X[1] = times > 0, faded
                    # A value without a cell has an age of 0.
                    kind = kind_T[times if times < most else most]
                    kind_BCF[b, c, f] = kind + f * every + age // half + faded


@jit
def describe(count_B: Array, clock_BJX: Array, repeats: Any, user_BCX: Array) -> None:
    """Fill what is known of each target's user; see `lifelong.nn.tally.SeenNumbers`.

    Args:
        count_B: int64 events so far.
        clock_BJX: with the row before its levels, if there is one.
        repeats: whether there is one, which counts repeats.
        user_BCX: is filled.
    """
    levels = clock_BJX.shape[1] - repeats
    # Of no targets there is no first one.
    for b in range(len(count_B) if user_BCX.shape[1] else 0):
        count, clock_JX, user_CX = count_B[b], clock_BJX[b], user_BCX[b]
        user_CX[0, 0] = math.log1p(count) / 4
        for level in range(levels):
            span = np.int64(clock_JX[repeats, 0]) - np.int64(clock_JX[repeats + level, 1])
            user_CX[0, 1 + level] = math.log1p(span / _HOUR) / 4
        if repeats:
            weight = max(1 - 2.0 ** (-HALVINGS * count), 1 / 2**RECENT_BITS)
            user_CX[0, 1 + levels] = 2 * clock_JX[0, 0] / max(count, 1) - 1
            user_CX[0, 2 + levels] = 2 * clock_JX[0, 1] / ONE / weight - 1
        for c in range(1, len(user_CX)):
            for x in range(1 + levels + 2 * repeats):
                user_CX[c, x] = user_CX[0, x]
