"""How well a target's vector agrees with the vectors of what the user had: all of it, recently, and last time.

Each value of an item field has a vector of unit length, made of which users had which values in the training period
(`lifelong.offline.data.cooccurrence`). A user's vectors are sums over her events, which a service could keep up to date
at constant cost; an affinity is the cosine of such a sum and the target's vector.

Shapes: N events, or targets; V numbers of a field; D width of a vector; A affinities.
"""

from __future__ import annotations

import numpy as np

from lifelong.compiled import compiled
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import Float32Array, FloatArray, Int32Array, IntArray
from lifelong.offline.data.cooccurrence import cooccurrence_vectors

HALF_LIFE = 30 * 86_400.0
"""Of the decayed sum, in seconds."""
AFFINITIES = {
    "affinity": "Cosine of the target's vector with the sum of the vectors of all events.",
    "affinity_30_days": "The same with a sum in which an event weighs half as much every 30 days.",
    "affinity_last_trip": "The same with the sum over the user's last trip.",
}
"""Name -> definition; 0 where there is no such event, or a vector is unknown."""
LIKENESS = {
    "likest": "Largest cosine of the target's vector with that of one of the last 100 events.",
    "likest_20": "The same of the last 20.",
    "likeness": "Mean cosine with the last 100 events.",
    "alike": "How many of these cosines are above .5.",
    "much_alike": "How many of these cosines are above .8.",
    "soft_likeness": "Logarithm of the mean of exp(6 cosine).",
}
"""Name -> definition; -1 for the largest, and 0 for the others, where there is no event."""


def unit_vectors(dataset: Dataset, width: int, *, seed: int, before: int | None = None) -> dict[str, Float32Array]:
    """Item field -> a vector of unit length for each number, `[V, D]`; zeros where nothing is known of a number.

    Fields with no more values than the width have none.

    Args:
        dataset: its training period is read.
        width: D.
        seed: of the choice of users in a very long log.
        before: only training targets with an earlier time count; None = all of them. A learner needs vectors that were
            made before its examples: an item that few users had lies where these users are, the target's own included.
    """
    vectors = cooccurrence_vectors(dataset, width, seed=seed, before=before)
    return {
        field: vector_VD / np.float32(np.sqrt(width)) for field, vector_VD in vectors.items() if len(vector_VD) > width
    }


@compiled()
def affinities(
    vector_VD: Float32Array,
    start_U: IntArray,
    number_N: Int32Array,
    trip_N: IntArray,
    time_N: IntArray,
    asked_user_N: IntArray,
    position_N: IntArray,
    wanted_N: Int32Array,
    half_life: float,
) -> FloatArray:
    """The affinities of targets, `[N, A]`, in the order of `AFFINITIES`.

    Args:
        vector_VD: vectors of the field's numbers.
        start_U: where each user's events begin.
        number_N: number of each event, one user after another, oldest first.
        trip_N: trip of each event.
        time_N: its time.
        asked_user_N: user of each target; targets are sorted by user and position.
        position_N: how many of the user's events are seen.
        wanted_N: number of the target.
        half_life: in the unit of the times; 0 where times have none.
    """
    width = vector_VD.shape[1]
    cosine_NA = np.zeros((len(wanted_N), 3))
    sum_AD, norm_A = np.zeros((3, width)), np.zeros(3)
    user, at, trip = -1, 0, -1
    for target in range(len(wanted_N)):
        # Targets are sorted by user and position, so that sums only ever grow and each event is read once.
        if asked_user_N[target] != user:
            user = asked_user_N[target]
            at, trip = start_U[user], -1
            sum_AD[:] = 0.0
            norm_A[:] = 0.0
        end = start_U[user] + position_N[target]
        if at < end:
            while at < end:
                # Later events weigh more, instead of earlier ones less: a cosine does not change with the scale.
                weight = 1.0
                if half_life > 0:
                    weight = 2.0 ** ((time_N[at] - time_N[start_U[user]]) / half_life)
                if trip_N[at] != trip:
                    trip = trip_N[at]
                    sum_AD[2] = 0.0
                for place in range(width):
                    value = vector_VD[number_N[at], place]
                    sum_AD[0, place] += value
                    sum_AD[1, place] += weight * value
                    sum_AD[2, place] += value
                at += 1
            for kind in range(3):
                norm_A[kind] = np.sqrt((sum_AD[kind] ** 2).sum())
        for kind in range(3):
            # Without events, or with unknown values alone, there is no direction; the affinity stays 0.
            if norm_A[kind] > 0:
                dot = 0.0
                for place in range(width):
                    dot += sum_AD[kind, place] * vector_VD[wanted_N[target], place]
                cosine_NA[target, kind] = dot / norm_A[kind]
    return cosine_NA


@compiled()
def likeness(
    vector_VD: Float32Array,
    start_U: IntArray,
    number_N: Int32Array,
    asked_user_N: IntArray,
    position_N: IntArray,
    wanted_N: Int32Array,
) -> FloatArray:
    """Cosines of targets with single events, `[N, X]` in the order of `LIKENESS`; arguments as in `affinities`."""
    found_NX = np.zeros((len(wanted_N), 6))
    for target in range(len(wanted_N)):
        found, start = found_NX[target], start_U[asked_user_N[target]]
        end, wanted_D = start + position_N[target], vector_VD[wanted_N[target]]
        found[0], found[1] = -1.0, -1.0
        first = max(start, end - 100)
        for at in range(first, end):
            cosine = 0.0
            for place in range(len(wanted_D)):
                cosine += vector_VD[number_N[at], place] * wanted_D[place]
            found[0] = max(found[0], cosine)
            if at >= end - 20:
                found[1] = max(found[1], cosine)
            found[2] += cosine
            found[3] += cosine > 0.5
            found[4] += cosine > 0.8
            found[5] += np.exp(6 * cosine)
        if end > first:
            found[2], found[5] = found[2] / (end - first), np.log(found[5] / (end - first))
    return found_NX
