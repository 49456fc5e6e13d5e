"""How often, and how long ago, the target's item, category, ... occurs in the history before the target.

    Dataset, Examples --count_features--> raw counts --count_inputs--> logs and flags, for linear and neural learners

Exact and causal: the features of a target come from its user's first `position` events alone. One stable sort brings
the events of each (user, value) pair together, oldest first:

    key       (u0, tea)   (u0, milk)   (u1, tea)          pair of user and value, as one number
    place     0  2  5     1  3  4      0  1               place of the event in its user's history

so that a count before a position is the difference of two binary searches, and nothing loops over events. Only events
of users who are asked about are read.

Shapes: N events, or queries; U users; V catalogue rows; G groups of events with equal (user, value); K features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import is_first, ranges
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.events import Schema
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.dtypes import BoolArray, Float32Array, FloatArray, Int32Array, IntArray

WINDOWS = (5, 20, 100)
"""How many of the last events a count looks at."""
EVENT_HALF_LIVES = (10.0, 100.0)
"""Half-lives of decayed counts, in events."""
SECOND_HALF_LIVES = {"7d": 7 * 86400.0, "60d": 60 * 86400.0}
"""Half-lives of decayed counts, in seconds."""
NEVER = -1.0
"""Events or seconds since the last occurrence, where there is none."""
# A bound on memory: sorted keys, places, times and running sums of these events are held together.
_EVENTS_AT_ONCE = 4_000_000


def feature_names(schema: Schema) -> tuple[str, ...]:
    """Names of the columns of `count_features`."""
    return _feature_names(schema.item_fields, timed=schema.time_unit == "seconds")


def count_input_names(item_fields: Sequence[str], *, timed: bool) -> tuple[str, ...]:
    """Names of the columns of `count_inputs`; `timed` where times are seconds."""
    names = _feature_names(item_fields, timed=timed)
    return names + tuple(f"{name} > 0" for name in names if ".count" in name)


def _feature_names(item_fields: Sequence[str], *, timed: bool) -> tuple[str, ...]:
    measures = ["count", *(f"count_{window}" for window in WINDOWS)]
    measures += [f"decay_{half_life:.0f}" for half_life in EVENT_HALF_LIVES]
    measures += [f"decay_{name}" for name in SECOND_HALF_LIVES] if timed else []
    measures += ["events_since", "seconds_since"] if timed else ["events_since"]
    general = ("events", "seconds_since_any") if timed else ("events",)
    return general + tuple(f"{field}.{measure}" for field in item_fields for measure in measures)


def count_features(dataset: Dataset, examples: Examples) -> Float32Array:
    """Raw counts and distances of each example, float32 `[N, K]`, columns as in `feature_names`.

    Items are equal if their catalogue rows are; values of other fields are equal if their numbers are, and known.
    Memory is bounded by the events of a group of users, whatever the size of the log.
    """
    value_NK = np.zeros((len(examples), len(feature_names(dataset.schema))), np.float32)
    for chosen_N, user_U in chunks_of_users(dataset, np.asarray(examples.user_N), _EVENTS_AT_ONCE):
        value_NK[chosen_N] = _chunk_features(dataset, examples.take(chosen_N), user_U)
    return value_NK


def count_inputs(dataset: Dataset, examples: Examples) -> FloatArray:
    """Logs of counts and distances, and for each count whether it is above 0: `[N, K]`.

    Columns are as in `count_input_names`. A distance of `NEVER` becomes 0, which the flag of its count tells apart.
    """
    raw_NK = count_features(dataset, examples)
    flagged = [column for column, name in enumerate(feature_names(dataset.schema)) if ".count" in name]
    log_NK = np.log1p(np.where(raw_NK == NEVER, 0.0, np.maximum(raw_NK, 0.0)).astype(np.float64))
    return np.concatenate([log_NK, raw_NK[:, flagged] > 0], axis=1)


def standardising(value_NK: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and reciprocal standard deviation of each column, `[K]`; the latter is 0 where a column never varies.

    Such a column carries no information, and must not become huge when it varies later.
    """
    deviation_K = value_NK.std(axis=0)
    return value_NK.mean(axis=0), np.where(deviation_K > 1e-9, 1 / np.maximum(deviation_K, 1e-9), 0.0)


def chunks_of_users(dataset: Dataset, user_N: Int32Array, most: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Groups of examples, and their users in order: as many as have about `most` events together."""
    offset_U = np.asarray(dataset.histories.offset_U)
    user_U, owner_N = np.unique(user_N, return_inverse=True)
    # Users stay whole, since a count needs all of a user's earlier events. The running total, in steps of `most`, says
    # which chunk a user belongs to.
    chunk_U = np.cumsum(offset_U[user_U + 1] - offset_U[user_U]) // most
    for chunk in np.unique(chunk_U):
        yield np.flatnonzero(chunk_U[owner_N] == chunk), user_U[chunk_U == chunk].astype(np.int64)


def _chunk_features(dataset: Dataset, examples: Examples, user_U: IntArray) -> Float32Array:
    """Features of examples; all their users are in `user_U`, which is in order."""
    histories, number_VF = dataset.histories, dataset.catalogue.number_VF
    start_U = np.asarray(histories.offset_U)[user_U]
    length_U = np.asarray(histories.offset_U)[user_U + 1] - start_U
    offset_U = np.concatenate([[0], np.cumsum(length_U)])
    owner_N = np.repeat(np.arange(len(user_U), dtype=np.int64), length_U)
    place_N, event_N = ranges(np.zeros_like(length_U), length_U), ranges(start_U, length_U)
    row_N, time_N = np.asarray(histories.row_N)[event_N], np.asarray(histories.time_N)[event_N]
    query = _Query(
        np.searchsorted(user_U, examples.user_N), examples.position_N.astype(np.int64), np.asarray(examples.time_N)
    )
    timed = dataset.schema.time_unit == "seconds"
    columns = _general(query, time_N, offset_U, timed=timed)
    for column in range(len(dataset.schema.item_fields)):
        # Items are compared by row instead of number, since rare items share a number with others.
        value_V = np.arange(len(number_VF)) if column == 0 else np.asarray(number_VF[:, column], np.int64)
        nothing = FIRST_ROW if column == 0 else UNKNOWN + 1
        groups = _Groups(owner_N, value_V[row_N], place_N, time_N)
        columns += groups.features(query, value_V[examples.row_N], nothing=nothing, timed=timed)
    return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Query:
    """N questions: the events of `user_N` before `position_N`, seen at `time_N`."""

    user_N: npt.NDArray[np.integer]
    position_N: IntArray
    time_N: IntArray


def _general(query: _Query, time_N: IntArray, offset_U: IntArray, *, timed: bool) -> list[FloatArray]:
    """Length of the history, and seconds since its last event."""
    length = query.position_N.astype(np.float64)
    if not timed:
        return [length]
    if not len(time_N):
        return [length, np.full(len(length), NEVER)]
    # In an empty history this is not an event of the user. Its time is replaced below.
    last_N = np.maximum(offset_U[query.user_N] + query.position_N - 1, 0)
    return [length, np.where(length > 0, query.time_N - time_N[last_N], NEVER)]


class _Groups:
    """Events sorted by (user, value, place in the user's history).

    Args:
        user_N: user of each event.
        value_N: value of each event, such as its category number.
        place_N: place of each event in its user's history, from 0.
        time_N: time of each event.
    """

    def __init__(self, user_N: IntArray, value_N: IntArray, place_N: IntArray, time_N: IntArray) -> None:
        self.num_values = int(value_N.max(initial=0)) + 1
        # Values are below `num_values`, so that (user, value) is one number and a stable sort keeps events in order.
        key_N = user_N * self.num_values + value_N
        order_N = np.argsort(key_N, kind="stable")
        key_N, self.place_N, self.time_N = key_N[order_N], place_N[order_N], time_N[order_N]
        self.first_N = is_first(key_N)
        self.start_G = np.flatnonzero(self.first_N)
        self.key_G = key_N[self.start_G]
        # (group, place) as one ascending number, so that one binary search over all events finds a place in a group.
        # The span has room for a position after the last event of the longest history.
        self.span = int(place_N.max(initial=0)) + 2
        self.joint_N = (np.cumsum(self.first_N) - 1) * self.span + self.place_N

    def features(self, query: _Query, value_N: IntArray, *, nothing: int, timed: bool) -> list[FloatArray]:
        """The columns of one field for queries about `value_N`; values below `nothing` are equal to none."""
        askable_N = (value_N >= nothing) & (value_N < self.num_values)
        # A value above the largest one would have a key of the next user. No event has the key -1.
        key_N = np.where(askable_N, query.user_N.astype(np.int64) * self.num_values + value_N, -1)
        group_N = np.searchsorted(self.key_G, key_N)
        met_N = (group_N < len(self.key_G)) & askable_N
        # A search gives the place where a key would be; whether it is there has to be looked up.
        met_N[met_N] = self.key_G[group_N[met_N]] == key_N[met_N]
        user_query = _Query(query.user_N[met_N], query.position_N[met_N], query.time_N[met_N])
        of_met = self._of_known(user_query, group_N[met_N], timed=timed)
        columns = []
        for number, values in enumerate(of_met):
            # The distances are the last columns; all others are counts.
            distance = number >= len(of_met) - (2 if timed else 1)
            column = np.full(len(value_N), NEVER if distance else 0.0)
            column[met_N] = values
            columns.append(column)
        return columns

    def _of_known(self, query: _Query, group_N: npt.NDArray[np.intp], *, timed: bool) -> list[FloatArray]:
        # The events of the group before the position are the sorted events from its start up to `end_N`.
        end_N = self._before(group_N, query.position_N)
        count_N = end_N - self.start_G[group_N] if len(group_N) else end_N
        # Without an event before the position this is an event of another group, or none. All columns below replace it.
        last_N = np.maximum(end_N - 1, 0)
        occurred_N = count_N > 0
        columns = [count_N.astype(np.float64)]
        columns += [(end_N - self._before(group_N, query.position_N - size)).astype(np.float64) for size in WINDOWS]
        events_since = np.where(occurred_N, query.position_N - self.place_N[last_N], NEVER).astype(np.float64)
        columns += [
            np.where(occurred_N, self._decayed(self.place_N, half_life, last_N, events_since), 0.0)
            for half_life in EVENT_HALF_LIVES
        ]
        if not timed:
            return [*columns, events_since]
        seconds_since = np.where(occurred_N, query.time_N - self.time_N[last_N], NEVER).astype(np.float64)
        columns += [
            np.where(occurred_N, self._decayed(self.time_N, half_life, last_N, seconds_since), 0.0)
            for half_life in SECOND_HALF_LIVES.values()
        ]
        return [*columns, events_since, seconds_since]

    def _before(self, group_N: npt.NDArray[np.intp], position_N: IntArray) -> npt.NDArray[np.intp]:
        """Place, among the sorted events, of the group's first event at or after `position`."""
        joint_N = group_N * self.span + np.clip(position_N, 0, self.span - 1)
        return np.searchsorted(self.joint_N, joint_N)

    def _decayed(
        self, clock_N: IntArray, half_life: float, last_N: npt.NDArray[np.intp], since_N: FloatArray
    ) -> FloatArray:
        """Count in which an event weighs half as much every `half_life` on the clock."""
        decayed: FloatArray = segmented_decay(clock_N, self.first_N, half_life)[last_N] * np.exp2(-since_N / half_life)
        return decayed


def segmented_decay(clock_N: IntArray, first_N: BoolArray, half_life: float) -> FloatArray:
    """D[i] = 1 + D[i - 1] * 2^(-(clock[i] - clock[i - 1]) / half_life), and D[i] = 1 where `first_N` is True.

    A scan by doubling: log2(longest segment) rounds over the whole array.

    >>> segmented_decay(np.array([0, 1, 2, 9]), np.array([True, False, False, True]), half_life=1).tolist()
    [1.0, 1.5, 1.75, 1.0]
    """
    factor_N = np.zeros(len(clock_N))
    # From one user to the next the clock may run backwards. Those factors are set to 0 below, but must not overflow
    # before.
    factor_N[1:] = np.exp2(-np.maximum(np.diff(clock_N), 0) / half_life)
    factor_N[first_N] = 0.0
    sum_N = np.ones(len(clock_N))
    # After each round, sum_N[i] covers `shift` places up to i, and factor_N[i] decays whatever comes before them. Where
    # a segment's start has been reached the factor is 0 and nothing more is added, so that few places stay open.
    open_ = np.flatnonzero(factor_N)
    shift = 1
    while len(open_):
        factor, behind = factor_N[open_], open_ - shift
        sum_N[open_] += factor * sum_N[behind]
        factor_N[open_] = factor * factor_N[behind]
        open_ = open_[factor_N[open_] > 0]
        shift *= 2
    return sum_N


def target_counts(dataset: Dataset) -> dict[str, FloatArray]:
    """Item field -> how many training targets have each number, `[V]`; labels are not looked at.

    The count of a hash bucket, which rare items share, is the mean over its items.
    """
    number_VF, row_N = dataset.catalogue.number_VF, dataset.examples("train").row_N
    counts = {}
    for column, (field, size) in enumerate(dataset.inputs.item.items()):
        count_V = np.bincount(number_VF[row_N, column], minlength=size).astype(np.float64)
        if column == 0:
            count_V /= np.maximum(np.bincount(number_VF[FIRST_ROW:, column], minlength=size), 1)
        counts[field] = count_V
    return counts
