"""What a second hour of an expert adds: crossed fields, variety, hours of the week, likeness to single events.

    pairs       what was seen of the target's values of two fields together (`repeats.OF_VALUE`)
    variety     of the items within the target's kind, and of all the user's items              `VARIETY`
    match       whether the target's values, and the user's kind, belong to this part of the week
    likeness    cosines of the target's vector with those of the last events                    `affinity.LIKENESS`

No field is named here: which fields are crossed, and which one says of what *kind* an item is, follows from how evenly
their values are met in the training period (`chosen`). The first three could be kept in a memory of fixed size; the
last one needs the events themselves.

Shapes: N events, or targets; V catalogue rows, or numbers of a field; P parts of the week; X features.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from lifelong.compiled import compiled
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import Float32Array, FloatArray, IntArray
from lifelong.zoo.inputs.repeats import DAY, NEVER

Family = Literal["pairs", "variety", "match", "likeness"]
PAIRS = 4
"""Pairs of fields at most."""
BITS = 0.5
"""How much a pair must tell beyond each of its fields, and an item beyond the pair; of a kind twice as much."""
PARTS = 16
"""Of the week: working days and weekends by three hours, UTC."""
STRENGTH = 10.0
"""Events of the average week that every value is given beforehand."""
WEEK = " by the part of the week"
"""Ending of the name of a field's table of log odds, `[V, P]`."""
VARIETY = {
    "items": "Different items of the kind.",
    "items_share": "These, divided by the events of the kind.",
    "item_share": "Share of the item in the events of the kind.",
    "item_over_most": "Events of the item, divided by those of the kind's most frequent item.",
    "item_last": "Whether the kind's last event has the item.",
    "events_since_new": "Events of the user since an item of the kind was new to her, that one included.",
    "kind_since_item": "Events of the kind since the item's last one, that one included.",
    "repeats_64": "Share of events with an item that the user had before; an event counts half every 64 events.",
    "repeats_256": "The same with 256.",
}
"""Name -> definition; `NEVER` where there is no such event. The user's own share of repeats is of all kinds."""


@dataclass(frozen=True, slots=True)
class Further:
    """Which families of inputs are computed, and of which fields.

    Args:
        families: of inputs.
        pairs: places of the fields that are crossed.
        kind: place of the field that says of what kind an item is; 0 where no field does.
    """

    families: tuple[Family, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    kind: int = 0

    def crossed(self) -> tuple[tuple[int, int], ...]:
        """The pairs, if they are asked for."""
        return self.pairs if "pairs" in self.families else ()

    def asks(self, family: Family) -> bool:
        """Whether a family is computed that needs a kind."""
        return self.kind > 0 and family in self.families


def chosen(dataset: Dataset, families: tuple[Family, ...]) -> Further:
    """The fields to look at: pairs that tell most of an item, and the kind, by entropy of the training targets.

    A pair counts where it tells `BITS` more than either field and less than the item; of those the finest are taken.
    The kind is the finest field that is coarser than the item.
    """
    number_VF = np.asarray(dataset.catalogue.number_VF, np.int64)
    row_N = np.asarray(dataset.examples("train").row_N)
    count_V = np.bincount(row_N, minlength=len(number_VF)).astype(float)
    # The item by its row: rare items share a number.
    bits_F = [_bits(np.arange(len(number_VF)), count_V), *(_bits(value_V, count_V) for value_V in number_VF.T[1:])]
    found = []
    for left, right in combinations(range(1, len(bits_F)), 2):
        bits = _bits(crossed(number_VF, left, right), count_V)
        if bits - max(bits_F[left], bits_F[right]) >= BITS and bits_F[0] - bits >= BITS:
            found.append((bits, (left, right)))
    kinds = [(bits, place) for place, bits in enumerate(bits_F) if place and bits_F[0] - bits >= 2 * BITS]
    pairs = tuple(pair for _, pair in sorted(found, reverse=True)[:PAIRS])
    return Further(families, pairs, max(kinds, default=(0.0, 0))[1])


def crossed(number_VF: IntArray, left: int, right: int) -> IntArray:
    """One number for two fields' numbers of each catalogue row."""
    pair_V: IntArray = number_VF[:, left] * (int(number_VF[:, right].max(initial=0)) + 1) + number_VF[:, right]
    return pair_V


def _bits(value_V: IntArray, count_V: FloatArray) -> float:
    """Entropy of values that occur so often."""
    _, own_V = np.unique(value_V, return_inverse=True)
    share_Q = np.bincount(own_V, count_V) / max(count_V.sum(), 1.0)
    share_Q = share_Q[share_Q > 0]
    return float(-(share_Q * np.log2(share_Q)).sum())


def week_part(time_N: IntArray) -> IntArray:
    """Part of the week of times in seconds, below `PARTS`.

    >>> week_part(np.array([0, 11 * 3600, 2 * DAY])).tolist()  # a Thursday, and the Saturday after it
    [0, 3, 8]
    """
    # The first of January 1970 was a Thursday; days 5 and 6 from Monday are the weekend.
    return (time_N // DAY + 3) % 7 // 5 * 8 + time_N // 3600 % 24 // 3


def week_odds(dataset: Dataset, before: int | None = None) -> dict[str, Float32Array]:
    """Field + `WEEK` -> smoothed log odds of the parts of the week for each number, `[V, P]`, over all users.

    Args:
        dataset: its training targets are counted; labels are not looked at.
        before: only targets with an earlier time; None = all of them. See `affinity.unit_vectors`.
    """
    examples = dataset.examples("train")
    time_N = np.asarray(examples.time_N, np.int64)
    kept_N = np.flatnonzero(time_N < before) if before is not None else np.arange(len(time_N))
    part_N = week_part(time_N[kept_N])
    usual_P = (np.bincount(part_N, minlength=PARTS) + 1) / (len(part_N) + PARTS)
    found = {}
    for place, (field, size) in enumerate(dataset.inputs.item.items()):
        number_N = np.asarray(dataset.catalogue.number_VF[np.asarray(examples.row_N)[kept_N], place], np.int64)
        count_VP = np.bincount(number_N * PARTS + part_N, minlength=size * PARTS).reshape(size, PARTS)
        share_VP = (count_VP + STRENGTH * usual_P) / (count_VP.sum(axis=1, keepdims=True) + STRENGTH)
        found[field + WEEK] = np.log(share_VP / usual_P).astype(np.float32)
    return found


@compiled()
def variety(
    start_U: IntArray,
    row_N: IntArray,
    kind_V: IntArray,
    asked_user_N: IntArray,
    position_N: IntArray,
    wanted_N: IntArray,
) -> tuple[FloatArray, IntArray]:
    """The features of `VARIETY` of targets, `[N, X]`, and the row of the last event of each target's kind, or -1.

    Args:
        start_U: where each user's events begin.
        row_N: catalogue row of each event, one user after another, oldest first.
        kind_V: kind of each row, -1 where it is unknown.
        asked_user_N: user of each target; targets are sorted by user and position.
        position_N: how many of the user's events are seen.
        wanted_N: row of the target.
    """
    found_NX, last_N = np.full((len(wanted_N), 9), NEVER), np.full(len(wanted_N), -1)
    count_V, ordinal_V = np.zeros(len(kind_V)), np.zeros(len(kind_V))
    kinds = kind_V.max() + 1
    events_K, items_K, most_K, new_K = np.zeros(kinds), np.zeros(kinds), np.zeros(kinds), np.zeros(kinds)
    last_K, repeats_H, weight_H = np.zeros(kinds, np.int64), np.zeros(2), np.zeros(2)
    user, at = -1, 0
    for target in range(len(wanted_N)):
        if asked_user_N[target] != user:
            # Only what the user before has touched is set back: the catalogue may be much larger than a history.
            for place in range(start_U[max(user, 0)], at):
                count_V[row_N[place]] = 0
                kind = kind_V[row_N[place]]
                if kind >= 0:
                    events_K[kind], items_K[kind], most_K[kind] = 0, 0, 0
            user = asked_user_N[target]
            at = start_U[user]
            repeats_H[:] = 0.0
            weight_H[:] = 0.0
        while at < start_U[user] + position_N[target]:
            row, kind = row_N[at], kind_V[row_N[at]]
            for place, half_life in enumerate((64.0, 256.0)):
                fade = 2.0 ** (-1 / half_life)
                repeats_H[place] = repeats_H[place] * fade + (count_V[row] > 0)
                weight_H[place] = weight_H[place] * fade + 1
            count_V[row] += 1
            at += 1
            if kind >= 0:
                if count_V[row] == 1:
                    items_K[kind] += 1
                    new_K[kind] = at - start_U[user]
                events_K[kind] += 1
                ordinal_V[row] = events_K[kind]
                most_K[kind] = max(most_K[kind], count_V[row])
                last_K[kind] = row
        row, kind, found = wanted_N[target], kind_V[wanted_N[target]], found_NX[target]
        if position_N[target] > 0:
            found[7], found[8] = repeats_H[0] / weight_H[0], repeats_H[1] / weight_H[1]
        if kind < 0 or events_K[kind] == 0:
            found[0] = 0
            continue
        found[0], found[1] = items_K[kind], items_K[kind] / events_K[kind]
        found[2], found[3] = count_V[row] / events_K[kind], count_V[row] / most_K[kind]
        found[4], found[5] = last_K[kind] == row, position_N[target] - new_K[kind] + 1
        if count_V[row] > 0:
            found[6] = events_K[kind] - ordinal_V[row] + 1
        last_N[target] = last_K[kind]
    return found_NX, last_N
