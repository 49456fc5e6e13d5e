"""What counts and sums say of targets, in one compiled pass: all that depends on no learned weight.

`CountMemory.features`, `clock.elapsed` and `Affinity.read` are the specification. They make a hundred arrays of all
targets and fields; a loop over the targets needs none of them.

Shapes: N targets, X moments, F fields, P features of a field, J levels of the clock, K sums, D numbers of all factors,
G fields with factors, A = 2 K G affinities.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lifelong.compiled import Array, jit
from lifelong.data.cell_plan import HALVINGS, ONE
from lifelong.nn.repeats import RECENT

Scales = tuple[Array, Array, Array, Array, Array]
"""scale_F; half-lives in events; half-lives in seconds; the ages' smallest numbers of events; where kinds begin."""
HOUR = 3_600.0


@jit
def _elapsed(clock_JX: Array, count: Any, ago: Any) -> Any:
    """Seconds from the event `ago` events before the last one to that last one; see `clock.elapsed`."""
    levels, event = len(clock_JX), max(count - ago, 0)
    end, after, begin, before = count, clock_JX[0, 0], np.int64(0), clock_JX[0, 1]
    for level in range(levels):
        begin, before = max((count >> level) - 1, 0) << level, clock_JX[level, 1]
        if event >= begin or level == levels - 1:
            break
        end, after = begin, before
    rest = (end - max(event, begin)) / max(end - begin, 1)
    return np.float64(clock_JX[0, 0] - after) + rest * np.float64(after - before)


@jit
def count_targets(
    found: tuple[Array, Array, Array],
    targets: tuple[Array, Array, Array],
    moments: tuple[Array, Array, Array],
    scales: Scales,
    age_steps: int,
    age_kinds: int,
    kinds: int,
    known_NY: Array,
    kind_NF: Array,
) -> None:
    """Fill what is known of each target, and its kind of cell in each field.

    Args:
        found: times_NF, age_NF and faded_NF of the targets' values, int64.
        targets: key_NF, popularity_NF and moment_N.
        moments: count_X, clock_XJX, and repeats_XRX with one row, none where they are not counted.
        scales: see `Scales`.
        age_steps: steps of the scale of ages of one kind.
        age_kinds: kinds that differ by their ages alone.
        kinds: kinds of a field.
        known_NY: filled: features of each field, popularity, what is more than popularity, activity, pace, shares of
            repeats; what follows is not touched.
        kind_NF: filled.
    """
    (times_NF, age_NF, faded_NF), (key_NF, popularity_NF, moment_N), (count_X, clock_XJX, repeats_XRX) = (
        found,
        targets,
        moments,
    )
    scale_F, half_life_E, half_life_S, age_A, first_T = scales
    fields, events = len(scale_F), len(half_life_E)
    size = 6 + events + len(half_life_S)
    for n in range(len(moment_N)):
        count, clock_JX, known_Y = count_X[moment_N[n]], clock_XJX[moment_N[n]], known_NY[n]
        for f in range(fields):
            times, at, popularity = times_NF[n, f], f * size, np.float64(popularity_NF[n, f])
            known_Y[at : at + size] = 0
            known_Y[at + 5] = math.log1p(np.float64(max(key_NF[n, f], 0))) / scale_F[f]
            known_Y[fields * size + f] = (popularity + scale_F[f]) / 3
            log_times = math.log1p(np.float64(times))
            expected = math.log1p(math.exp(popularity) * count)
            known_Y[fields * (size + 1) + f] = log_times - expected
            if times == 0:
                known_Y[at + 1] = faded_NF[n, f]
                kind_NF[n, f] = faded_NF[n, f] + f * kinds
                continue
            age = np.float64(age_A[age_NF[n, f]])
            seconds = _elapsed(clock_JX, count, age_A[age_NF[n, f]])
            known_Y[at], known_Y[at + 2] = 1, log_times
            known_Y[at + 3] = math.log1p(age) / 4
            known_Y[at + 4] = math.log1p(seconds / HOUR) / 4
            for x in range(events):
                known_Y[at + 6 + x] = log_times * 2.0 ** (-age / half_life_E[x])
            for x in range(len(half_life_S)):
                known_Y[at + 6 + events + x] = log_times * 2.0 ** (-seconds / half_life_S[x])
            step = -1
            for first in first_T:
                step += times >= first
            kind_NF[n, f] = 2 + step * age_kinds + age_NF[n, f] // age_steps + f * kinds
        at = fields * (size + 2)
        known_Y[at] = math.log1p(np.float64(count)) / 4
        for level in range(len(clock_JX)):
            span = np.float64(np.int64(clock_JX[0, 0]) - np.int64(clock_JX[level, 1]))
            known_Y[at + 1 + level] = math.log1p(span / HOUR) / 4
        at += 1 + len(clock_JX)
        for row in range(repeats_XRX.shape[1]):
            again, recent = repeats_XRX[moment_N[n], row, 0], repeats_XRX[moment_N[n], row, 1]
            weight = max(1 - 2.0 ** (-HALVINGS * count), 1 / RECENT)
            known_Y[at] = 2 * np.float64(again) / max(count, 1) - 1
            known_Y[at + 1] = 2 * np.float64(recent) / ONE / weight - 1
            at += 2


@jit
def number_targets(
    found: tuple[Array, Array], key_NF: Array, moments: tuple[Array, Array, Array], age_A: Array, number_NFX: Array
) -> None:
    """Fill what `CountMemory.numbers` says of targets: count, age in events and in hours, and rank of each value.

    Args:
        found: times_NF and age_NF of the targets' values, int64.
        key_NF: their keys.
        moments: moment_N, count_X and clock_XJX, without the rows before its levels.
        age_A: the ages' smallest numbers of events.
        number_NFX: zeros; filled.
    """
    (times_NF, age_NF), (moment_N, count_X, clock_XJX) = found, moments
    for n in range(len(moment_N)):
        count, clock_JX = count_X[moment_N[n]], clock_XJX[moment_N[n]]
        for f in range(key_NF.shape[1]):
            number_NFX[n, f, 3] = max(key_NF[n, f], 0)
            if times_NF[n, f] > 0:
                ago = age_A[age_NF[n, f]]
                number_NFX[n, f, 0], number_NFX[n, f, 1] = times_NF[n, f], ago
                number_NFX[n, f, 2] = _elapsed(clock_JX, count, ago) / HOUR


@jit
def fit_targets(
    sums_XKD: Array, factor_ND: Array, moment_N: Array, end_G: Array, shortest: float, known_NA: Array
) -> None:
    """Fill the affinities of each target: cosines of each field and sum, then amounts; see `Affinity.read`.

    Args:
        sums_XKD: at each moment.
        factor_ND: of the targets.
        moment_N: of each target.
        end_G: where the factor of each field ends.
        shortest: length that sums are treated as at least.
        known_NA: filled.
    """
    sums, fields = sums_XKD.shape[1], len(end_G)
    for n in range(len(moment_N)):
        first = 0
        for g in range(fields):
            for k in range(sums):
                product = square = np.float64(0)
                for d in range(first, end_G[g]):
                    one = np.float64(sums_XKD[moment_N[n], k, d])
                    product += one * factor_ND[n, d]
                    square += one * one
                known_NA[n, g * sums + k] = product / max(math.sqrt(square), shortest)
                amount = math.log1p(abs(product)) / 2
                known_NA[n, (fields + g) * sums + k] = amount if product >= 0 else -amount
            first = end_G[g]
