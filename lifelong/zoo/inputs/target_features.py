"""Everything that an expert would tell boosted trees about a user and a target, from the events before the target.

    of the user       events, trips, sizes of baskets, rhythm of trips                          `OF_USER`
    of the moment     hour, weekday, hour of the week                                           `OF_MOMENT`
    of the target     for every item field, what was seen of the target's value                 `repeats.OF_VALUE`
    of both           agreement of the target's vector with those of the user's events          `affinity.AFFINITIES`
    further           crossed fields, variety, parts of the week, single events                 `further`

Every feature has a name and its definition in a docstring or table. Times in seconds are needed by some; without them
these are left out. Memory is bounded by the events of a group of users, whatever the size of the log. Targets of one
moment share what is said of the user, and what is said of values that were not met: a catalogue is cheap to ask about.

Shapes: N events, or targets; M moments; Q different answers; K features; V numbers of a field; D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lifelong.dataset.arrays import is_first, ranges
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.events import Schema
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.histories import count_earlier
from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.dtypes import BoolArray, Float32Array, FloatArray, IntArray
from lifelong.offline.data.counts import chunks_of_users
from lifelong.zoo.inputs.affinity import AFFINITIES, HALF_LIFE, LIKENESS, affinities, likeness
from lifelong.zoo.inputs.further import (
    PARTS,
    VARIETY,
    WEEK,
    Further,
    crossed,
    variety,
    week_part,
)
from lifelong.zoo.inputs.repeats import DAY, NEVER, Events, Moments, Seen, seen_before, value_features

_EVENTS_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True)
class UserSeen:
    """What was seen of the user before each target.

    Args:
        asked: the targets' moments.
        distinct_N: items among the events.
        last_basket_N: events of the last trip.
        first_time_N: time of the first event.
        last_time_N: time of the last one.
        recent_N: days -> events in this many days before the target.
    """

    asked: Moments
    distinct_N: FloatArray
    last_basket_N: FloatArray
    first_time_N: FloatArray
    last_time_N: FloatArray
    recent_N: Mapping[int, FloatArray]


ACTIVITY_DAYS = (1, 7, 30)
"""The user's events are counted over these numbers of days."""
_OfUser = Callable[[UserSeen], FloatArray]


def _some(seen: UserSeen, value_N: FloatArray, *, trips: int = 1) -> FloatArray:
    return np.where(seen.asked.trips_N >= trips, value_N, NEVER)


def events(seen: UserSeen) -> FloatArray:
    """Events of the user."""
    return seen.asked.position_N.astype(float)


def trips(seen: UserSeen) -> FloatArray:
    """Trips of the user."""
    return seen.asked.trips_N.astype(float)


def distinct_share(seen: UserSeen) -> FloatArray:
    """Different items, divided by events."""
    return _some(seen, seen.distinct_N / np.maximum(seen.asked.position_N, 1))


def mean_basket(seen: UserSeen) -> FloatArray:
    """Events of a trip, on average."""
    return _some(seen, seen.asked.position_N / np.maximum(seen.asked.trips_N, 1))


def last_basket(seen: UserSeen) -> FloatArray:
    """Events of the last trip."""
    return _some(seen, seen.last_basket_N)


def mean_trip_gap(seen: UserSeen) -> FloatArray:
    """Days between trips, on average; from two trips on."""
    span_N = (seen.last_time_N - seen.first_time_N) / DAY
    return _some(seen, span_N / np.maximum(seen.asked.trips_N - 1, 1), trips=2)


def days_since_trip(seen: UserSeen) -> FloatArray:
    """Days since the last trip."""
    return _some(seen, (seen.asked.time_N - seen.last_time_N) / DAY)


def since_trip_over_gap(seen: UserSeen) -> FloatArray:
    """Days since the last trip, divided by the mean gap of trips."""
    gap_N = mean_trip_gap(seen)
    return np.where(gap_N > 0, days_since_trip(seen) / np.where(gap_N > 0, gap_N, 1.0), NEVER)


def days_since_first(seen: UserSeen) -> FloatArray:
    """Days since the user's first event."""
    return _some(seen, (seen.asked.time_N - seen.first_time_N) / DAY)


def _active(days: int) -> _OfUser:
    def active(seen: UserSeen) -> FloatArray:
        return seen.recent_N[days]

    active.__doc__ = f"Events of the user in the {days} days before the target."
    return active


OF_USER: dict[str, _OfUser] = {
    function.__name__: function for function in (events, trips, distinct_share, mean_basket, last_basket)
}
"""Name -> feature of the user."""
OF_USER_TIMED: dict[str, _OfUser] = {
    **{
        function.__name__: function
        for function in (mean_trip_gap, days_since_trip, since_trip_over_gap, days_since_first)
    },
    **{f"events_{days}_days": _active(days) for days in ACTIVITY_DAYS},
}
"""Those that need times in seconds."""


def hour(time_N: IntArray) -> IntArray:
    """Hour of the day, UTC."""
    return time_N // 3600 % 24


def weekday(time_N: IntArray) -> IntArray:
    """Day of the week, UTC, from Monday = 0."""
    # The first of January 1970 was a Thursday.
    return (time_N // DAY + 3) % 7


def week_hour(time_N: IntArray) -> IntArray:
    """Hour of the week, UTC."""
    return weekday(time_N) * 24 + hour(time_N)


OF_MOMENT: dict[str, Callable[[IntArray], IntArray]] = {"hour": hour, "weekday": weekday, "week_hour": week_hour}
"""Name -> feature of the target's time; all need seconds."""


def feature_names(
    schema: Schema, with_vectors: tuple[str, ...] = (), further: Further | None = None
) -> tuple[str, ...]:
    """Names of the columns of `fill_features`.

    Args:
        schema: of the dataset.
        with_vectors: item fields with a vector for each value.
        further: families of inputs beyond the first ones.
    """
    further = further or Further()
    further_names = _further_names(schema, with_vectors, further)
    timed = schema.time_unit == "seconds"
    of_user = [f"user.{name}" for name in _of_user(timed=timed)]
    of_moment = [f"moment.{name}" for name in OF_MOMENT] if timed else []
    of_values = [f"{field}.{name}" for field in schema.item_fields for name in value_features(timed=timed)]
    of_both = [f"{field}.{name}" for field in with_vectors for name in AFFINITIES]
    return (*of_user, *of_moment, *of_values, *of_both, *further_names)


def _further_names(schema: Schema, with_vectors: tuple[str, ...], further: Further) -> list[str]:
    fields, timed = schema.item_fields, schema.time_unit == "seconds"
    found = [
        f"{fields[left]} x {fields[right]}.{name}"
        for left, right in further.crossed()
        for name in value_features(timed=timed)
    ]
    if further.asks("variety"):
        kind = fields[further.kind]
        others = [field for field in fields[1:] if field != kind]
        found += [f"{kind}.{name}" for name in VARIETY] + [f"{kind}.last_{other}" for other in others]
    if timed and "match" in further.families:
        found += [field + WEEK for field in fields]
        found += [f"{fields[further.kind]}.count{WEEK}"] if further.kind else []
    return found + [f"{field}.{name}" for field in _compared(with_vectors, further, fields) for name in LIKENESS]


def _compared(with_vectors: Iterable[str], further: Further, fields: Sequence[str]) -> list[str]:
    """Fields whose vectors are compared with those of single events: the item and its kind."""
    wanted = {fields[0], fields[further.kind]} if "likeness" in further.families else set()
    return [field for field in with_vectors if field in wanted]


def _of_user(*, timed: bool) -> dict[str, _OfUser]:
    return {**OF_USER, **OF_USER_TIMED} if timed else OF_USER


def fill_features(
    value_NK: Float32Array,
    dataset: Dataset,
    examples: Examples,
    vectors: Mapping[str, Float32Array],
    further: Further | None = None,
    week: Mapping[str, Float32Array] | None = None,
) -> None:
    """Write all features of examples into an array.

    Args:
        value_NK: float32, columns as in `feature_names`.
        dataset: with the histories.
        examples: in any order; each sees the first `position` events of its user.
        vectors: item field -> vectors of its numbers, `[V, D]`.
        further: families of inputs beyond the first ones.
        week: `further.week_odds`, where the family `match` is among them.
    """
    further = further or Further()
    for chosen_N, user_U in chunks_of_users(dataset, np.asarray(examples.user_N), _EVENTS_AT_ONCE):
        # Sorted by user and position, so that one pass over the events serves all targets; equal moments lie together.
        columns = (examples.time_N, examples.position_N, examples.user_N)
        chosen_N = chosen_N[np.lexsort([np.asarray(column)[chosen_N] for column in columns])]
        chunk = _Chunk.of(dataset, examples.take(chosen_N), user_U)
        place = _fill(value_NK, chosen_N, chunk, vectors, further)
        if place < value_NK.shape[1]:
            more = _further_columns(chunk, vectors, further, week or {})
            value_NK[chosen_N, place:] = np.stack(more, axis=1, dtype=np.float32, casting="unsafe")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Events of a group of users, and the targets that ask about them."""

    dataset: Dataset
    events: Events
    row_N: IntArray
    offset_U: IntArray
    asked: Moments
    """The different moments at which targets ask."""
    moment_N: IntArray
    """Which of them each target has."""
    target_N: IntArray
    """Catalogue row of each target."""

    @classmethod
    def of(cls, dataset: Dataset, examples: Examples, user_U: IntArray) -> _Chunk:
        histories = dataset.histories
        start_U = np.asarray(histories.offset_U)[user_U]
        length_U = np.asarray(histories.offset_U)[user_U + 1] - start_U
        offset_U = np.concatenate([[0], np.cumsum(length_U)])
        event_N = ranges(start_U, length_U)
        events_ = Events.of(np.repeat(np.arange(len(user_U)), length_U), np.asarray(histories.time_N)[event_N])
        new_N = is_first(examples.user_N, examples.position_N, examples.time_N)
        user_M, position_M, time_M = (
            np.asarray(column, np.int64)[new_N] for column in (examples.user_N, examples.position_N, examples.time_N)
        )
        user_M = np.searchsorted(user_U, user_M)
        trips_M = _before(events_.trip_N, offset_U[user_M], position_M) + 1
        asked = Moments(user_M, position_M, trips_M, time_M)
        row_N = np.asarray(histories.row_N)[event_N].astype(np.int64)
        target_N = np.asarray(examples.row_N, np.int64)
        return cls(dataset, events_, row_N, offset_U, asked, np.cumsum(new_N) - 1, target_N)

    def last(self, column_N: IntArray) -> IntArray:
        """The value at the last event before each moment, 0 if there is none."""
        return _before(column_N, self.offset_U[self.asked.user_N], self.asked.position_N, nothing=0)


def _before(column_N: IntArray, start_N: IntArray, position_N: IntArray, *, nothing: int = -1) -> IntArray:
    """The value at the last of the first `position` events from `start`."""
    if not len(column_N):
        return np.full(len(start_N), nothing)
    return np.where(position_N > 0, column_N[np.maximum(start_N + position_N - 1, 0)], nothing)


def _fill(
    value_NK: Float32Array,
    chosen_N: IntArray,
    chunk: _Chunk,
    vectors: Mapping[str, Float32Array],
    further: Further,
) -> int:
    """Write all features but those of `_further_columns`; how many columns these are."""
    timed, place = chunk.dataset.schema.time_unit == "seconds", 0

    def put(columns: Sequence[FloatArray | IntArray], of_N: IntArray) -> None:
        """Columns of different answers, and which answer each target has."""
        nonlocal place
        block_QX = np.stack(columns, axis=1, dtype=np.float32, casting="unsafe")
        value_NK[chosen_N, place : place + len(columns)] = block_QX[of_N]
        place += len(columns)

    of_user = _user_seen(chunk)
    put([feature(of_user) for feature in _of_user(timed=timed).values()], chunk.moment_N)
    if timed:
        put([at_moment(chunk.asked.time_N) for at_moment in OF_MOMENT.values()], chunk.moment_N)
    number_VF = np.asarray(chunk.dataset.catalogue.number_VF, np.int64)
    # Items are compared by row instead of number, since rare items share a number with others.
    row_V = np.arange(len(number_VF))
    values: list[tuple[IntArray, BoolArray]] = [(row_V, row_V >= FIRST_ROW)]
    values += [(number_V, number_V > UNKNOWN) for number_V in number_VF.T[1:]]
    for value_V, known_V in values:
        seen, answer_N = _seen(chunk, value_V, known_V)
        put([of_value(seen) for of_value in value_features(timed=timed).values()], answer_N)
    for field, vector_VD in vectors.items():
        number_V = number_VF[:, chunk.dataset.schema.item_fields.index(field)]
        value_NK[chosen_N, place : place + len(AFFINITIES)] = _affinities(chunk, number_V, vector_VD)
        place += len(AFFINITIES)
    for left, right in further.crossed():
        seen, answer_N = _seen(
            chunk, crossed(number_VF, left, right), np.min(number_VF[:, [left, right]], axis=1) > UNKNOWN
        )
        put([of_value(seen) for of_value in value_features(timed=timed).values()], answer_N)
    return place


def _seen(chunk: _Chunk, value_V: IntArray, known_V: BoolArray, *, by_week: bool = False) -> tuple[Seen, IntArray]:
    """What was seen of each target's value, by the values of catalogue rows; `by_week` in its part of the week."""
    value_N, wanted_N = value_V[chunk.row_N], value_V[chunk.target_N]
    if by_week:
        value_N = value_N * PARTS + week_part(chunk.events.time_N)
        wanted_N = wanted_N * PARTS + week_part(chunk.asked.time_N)[chunk.moment_N]
    wanted_N = np.where(known_V[chunk.target_N], wanted_N, -1)
    return seen_before(chunk.events, value_N, chunk.asked, chunk.moment_N, wanted_N)


def _further_columns(
    chunk: _Chunk, vectors: Mapping[str, Float32Array], further: Further, week: Mapping[str, Float32Array]
) -> list[FloatArray | IntArray]:
    """Columns of variety, match and likeness, as `_further_names` has them."""
    fields, number_VF = chunk.dataset.schema.item_fields, np.asarray(chunk.dataset.catalogue.number_VF, np.int64)
    user_N, position_N = chunk.asked.user_N[chunk.moment_N], chunk.asked.position_N[chunk.moment_N]
    columns: list[FloatArray | IntArray] = []
    kind_V = number_VF[:, further.kind]
    if further.asks("variety"):
        known_V = np.where(kind_V > UNKNOWN, kind_V, -1)
        found_NX, last_N = variety(chunk.offset_U, chunk.row_N, known_V, user_N, position_N, chunk.target_N)
        others = [place for place in range(1, len(fields)) if place != further.kind]
        same_NF = number_VF[last_N][:, others] == number_VF[chunk.target_N][:, others]
        columns += [*found_NX.T, *np.where(last_N[:, None] >= 0, same_NF, NEVER).T]
    if week:
        part_N = week_part(chunk.asked.time_N)[chunk.moment_N]
        columns += [week[field + WEEK][number_VF[chunk.target_N, place], part_N] for place, field in enumerate(fields)]
        if further.kind:
            seen, answer_N = _seen(chunk, kind_V, kind_V > UNKNOWN, by_week=True)
            columns.append(seen.count_N[answer_N])
    for field in _compared(vectors, further, fields):
        number_V = number_VF[:, fields.index(field)]
        of_events, of_targets = number_V[chunk.row_N], number_V[chunk.target_N]
        columns += [*likeness(vectors[field], chunk.offset_U, of_events, user_N, position_N, of_targets).T]
    return columns


def _user_seen(chunk: _Chunk) -> UserSeen:
    events_, asked = chunk.events, chunk.asked
    # User and item as one number: an event is new where its number comes first among the user's.
    key_N = events_.user_N * (int(chunk.row_N.max(initial=0)) + 1) + chunk.row_N
    order_N = np.argsort(key_N, kind="stable")
    new_N = np.zeros(len(key_N), np.int64)
    new_N[order_N] = is_first(key_N[order_N])
    # Counted over all users of the chunk: what came before the user is taken off again.
    distinct_N = np.append(np.cumsum(new_N), 0)
    before_N = distinct_N[chunk.offset_U[asked.user_N] - 1]
    trip_start_N = np.maximum.accumulate(np.where(is_first(events_.user_N, events_.trip_N), np.arange(len(key_N)), 0))
    first_N = events_.time_N[np.minimum(chunk.offset_U[asked.user_N], len(key_N) - 1)] if len(key_N) else asked.time_N
    basket_N = events_.place_N - events_.place_N[trip_start_N] + 1
    return UserSeen(
        asked,
        np.where(asked.position_N > 0, chunk.last(distinct_N[: len(key_N)]) - before_N, 0).astype(float),
        chunk.last(basket_N).astype(float),
        first_N.astype(float),
        chunk.last(events_.time_N).astype(float),
        {days: _since(chunk, asked.time_N - days * DAY) for days in ACTIVITY_DAYS},
    )


def _since(chunk: _Chunk, time_N: IntArray) -> FloatArray:
    """How many of the seen events have at least such a time."""
    earlier_N = count_earlier(chunk.offset_U, chunk.events.time_N, chunk.asked.user_N, time_N)
    # Fewer may be seen than are earlier, where the youngest events are hidden.
    seen_N: FloatArray = np.maximum(chunk.asked.position_N - earlier_N, 0).astype(float)
    return seen_N


def _affinities(chunk: _Chunk, number_V: IntArray, vector_VD: Float32Array) -> FloatArray:
    found_NA: FloatArray = affinities(
        vector_VD,
        chunk.offset_U,
        number_V[chunk.row_N],
        chunk.events.trip_N,
        chunk.events.time_N,
        chunk.asked.user_N[chunk.moment_N],
        chunk.asked.position_N[chunk.moment_N],
        number_V[chunk.target_N],
        HALF_LIFE if chunk.dataset.schema.time_unit == "seconds" else 0.0,
    )
    return found_NA
