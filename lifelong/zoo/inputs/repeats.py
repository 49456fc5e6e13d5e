"""What a user's history says of one value, such as the target's item: how often, how regularly, how long ago.

    events sorted by (user, value, place) --running--> state after each event --state before a target--> `Seen`
    `Seen` --`OF_VALUE`--> one column per feature

Exact and causal: a target sees its user's first `position` events alone. One compiled pass over the sorted events keeps
running sums, so that a target costs one look-up, however long the history is.

A *trip* is one moment: all events of a user with one time. A trip that holds a value several times counts once in what
is said of trips. Distances count from 1: the last event before a target is 1 event ago, its trip 1 trip ago.

Shapes: N events, or targets; H half-lives; G groups of events with equal (user, value).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lifelong.compiled import compiled
from lifelong.dataset.arrays import is_first
from lifelong.dtypes import BoolArray, FloatArray, IntArray

NEVER = -1.0
"""A feature that is not defined: no event, or too few trips."""
DAY = 86_400
EVENT_HALF_LIVES = (5.0, 25.0, 50.0, 250.0, 1250.0)
"""Half-lives of decayed counts, in events of the user."""
DAY_HALF_LIVES = (3.0, 14.0, 30.0, 120.0, 360.0)
"""Half-lives of decayed counts, in days."""
TRIP_HALF_LIVES = (2.0, 5.0, 15.0, 50.0)
"""Half-lives of decayed counts, in trips; a trip counts once."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events of some users, one user after another, oldest first.

    Args:
        user_N: user of each event, ascending.
        place_N: place in the user's history, from 0.
        trip_N: the user's trip, from 0.
        time_N: seconds, or ordinals.
    """

    user_N: IntArray
    place_N: IntArray
    trip_N: IntArray
    time_N: IntArray

    @classmethod
    def of(cls, user_N: IntArray, time_N: IntArray) -> Events:
        """The events of users and times, with their places and trips.

        >>> Events.of(np.array([0, 0, 0, 1]), np.array([7, 7, 9, 9])).trip_N.tolist()
        [0, 0, 1, 0]
        """
        new_user_N, new_trip_N = is_first(user_N), is_first(user_N, time_N)
        # The running maximum carries the index of each user's first event to all of hers.
        start_N = np.maximum.accumulate(np.where(new_user_N, np.arange(len(user_N)), 0))
        # Trips count through all users first; less the number at a user's start they are her own.
        trip_N = np.cumsum(new_trip_N) - 1
        return cls(user_N, np.arange(len(user_N)) - start_N, trip_N - trip_N[start_N], time_N)


@dataclass(frozen=True, slots=True)
class Moments:
    """When N targets ask.

    Args:
        user_N: as in `Events`.
        position_N: how many of the user's events are seen.
        trips_N: how many trips these are.
        time_N: the targets' time.
    """

    user_N: IntArray
    position_N: IntArray
    trips_N: IntArray
    time_N: IntArray

    def take(self, place_N: IntArray) -> Moments:
        """Some of them."""
        return Moments(*(column[place_N] for column in (self.user_N, self.position_N, self.trips_N, self.time_N)))


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of each target's value before it; fields of targets without any event of it mean nothing.

    Args:
        asked: the targets' moments.
        count_N: events that hold the value.
        trips_N: trips that hold it.
        last_N: place of the last of these events.
        last_trip_N: its trip.
        last_time_N: its time.
        first_time_N: time of the first.
        last_gap_N: time between the last two trips that hold it.
        square_N: sum of the squares of the times between trips that hold it.
        by_event_NH: decayed counts at the last event, by `EVENT_HALF_LIVES`.
        by_day_NH: by `DAY_HALF_LIVES`.
        by_trip_NH: by `TRIP_HALF_LIVES`.
    """

    asked: Moments
    count_N: FloatArray
    trips_N: FloatArray
    last_N: FloatArray
    last_trip_N: FloatArray
    last_time_N: FloatArray
    first_time_N: FloatArray
    last_gap_N: FloatArray
    square_N: FloatArray
    by_event_NH: FloatArray
    by_day_NH: FloatArray
    by_trip_NH: FloatArray


Feature = Callable[[Seen], FloatArray]
OF_VALUE: dict[str, Feature] = {}
"""Name -> feature of the target's value of a field; its docstring is its definition."""
TIMED: set[str] = set()
"""Features that need times in seconds."""


def _feature(*, timed: bool = False) -> Callable[[Feature], Feature]:
    def add(feature: Feature) -> Feature:
        OF_VALUE[feature.__name__] = feature
        if timed:
            TIMED.add(feature.__name__)
        return feature

    return add


def _where(defined_N: BoolArray, value_N: FloatArray) -> FloatArray:
    return np.where(defined_N, value_N, NEVER)


@_feature()
def count(seen: Seen) -> FloatArray:
    """Events that hold the value."""
    return seen.count_N


@_feature()
def trips(seen: Seen) -> FloatArray:
    """Trips that hold the value."""
    return seen.trips_N


@_feature(timed=True)
def days_since(seen: Seen) -> FloatArray:
    """Days since the last event that holds the value."""
    return _where(seen.count_N > 0, (seen.asked.time_N - seen.last_time_N) / DAY)


@_feature()
def events_since(seen: Seen) -> FloatArray:
    """Events of the user since then, that one included."""
    return _where(seen.count_N > 0, seen.asked.position_N - seen.last_N)


@_feature()
def trips_since(seen: Seen) -> FloatArray:
    """Trips of the user since then, that one included."""
    return _where(seen.count_N > 0, seen.asked.trips_N - seen.last_trip_N)


@_feature(timed=True)
def days_since_first(seen: Seen) -> FloatArray:
    """Days since the first event that holds the value."""
    return _where(seen.count_N > 0, (seen.asked.time_N - seen.first_time_N) / DAY)


@_feature(timed=True)
def mean_gap(seen: Seen) -> FloatArray:
    """Mean number of days between trips that hold the value, from two trips on."""
    span_N = (seen.last_time_N - seen.first_time_N) / DAY
    return _where(seen.trips_N > 1, span_N / np.maximum(seen.trips_N - 1, 1))


@_feature(timed=True)
def last_gap(seen: Seen) -> FloatArray:
    """Days between the last two trips that hold the value, from two trips on."""
    return _where(seen.trips_N > 1, seen.last_gap_N / DAY)


@_feature(timed=True)
def gap_deviation(seen: Seen) -> FloatArray:
    """Standard deviation of the days between trips that hold the value, from three trips on."""
    # A difference of two nearly equal squares may come out below 0 by rounding, and its root would be NaN.
    mean_square_N = seen.square_N / DAY**2 / np.maximum(seen.trips_N - 1, 1)
    return _where(seen.trips_N > 2, np.sqrt(np.maximum(mean_square_N - mean_gap(seen) ** 2, 0)))


@_feature(timed=True)
def since_over_gap(seen: Seen) -> FloatArray:
    """Days since the last event that holds the value, divided by the mean gap."""
    gap_N = mean_gap(seen)
    return _where(gap_N > 0, days_since(seen) / np.where(gap_N > 0, gap_N, 1.0))


@_feature()
def share(seen: Seen) -> FloatArray:
    """Share of the user's events that hold the value."""
    return seen.count_N / np.maximum(seen.asked.position_N, 1)


@_feature()
def trip_share(seen: Seen) -> FloatArray:
    """Share of the user's trips that hold the value."""
    return seen.trips_N / np.maximum(seen.asked.trips_N, 1)


def _decayed(kind: str, at: int) -> Feature:
    unit, since, half_lives = _CLOCKS[kind]

    def decayed(seen: Seen) -> FloatArray:
        weight_N = np.exp2(-since(seen) / half_lives[at])
        return np.where(seen.count_N > 0, getattr(seen, f"by_{kind}_NH")[:, at] * weight_N, 0.0)

    once = ", each trip once" if kind == "trip" else ""
    decayed.__doc__ = f"Count of the value that halves every {half_lives[at]:g} {unit}{once}."
    return decayed


_CLOCKS: dict[str, tuple[str, Feature, tuple[float, ...]]] = {
    "event": ("events", events_since, EVENT_HALF_LIVES),
    "day": ("days", days_since, DAY_HALF_LIVES),
    "trip": ("trips", trips_since, TRIP_HALF_LIVES),
}
for _kind, (_unit, _since, _half_lives) in _CLOCKS.items():
    for _at, _half_life in enumerate(_half_lives):
        OF_VALUE[f"decayed_{_half_life:g}_{_unit}"] = _decayed(_kind, _at)
        if _kind == "day":
            TIMED.add(f"decayed_{_half_life:g}_{_unit}")


def value_features(*, timed: bool) -> dict[str, Feature]:
    """Name -> feature; `timed` where times are seconds.

    >>> list(value_features(timed=False))[:4]
    ['count', 'trips', 'events_since', 'trips_since']
    """
    return {name: feature for name, feature in OF_VALUE.items() if timed or name not in TIMED}


def seen_before(
    events: Events, value_N: IntArray, asked: Moments, moment_N: IntArray, wanted_N: IntArray
) -> tuple[Seen, IntArray]:
    """What was seen of the wanted values: all different answers, and which one is that of each target.

    Targets of one moment with values new to the user have one answer, so that a whole catalogue costs little more
    than the user's own values.

    Args:
        events: of all users that are asked about.
        value_N: value of each event, 0 or more.
        asked: the different moments.
        moment_N: which of them each target asks at.
        wanted_N: value that each target asks about; a negative one is equal to none.
    """
    # The targets' values count, too: one above all of the events' would otherwise have a key of the next user.
    size = max(int(value_N.max(initial=0)), int(wanted_N.max(initial=0))) + 1
    # Values are below `size`, so that (user, value) is one number, and a stable sort keeps places in order.
    key_N = events.user_N * size + value_N
    order_N = np.argsort(key_N, kind="stable")
    key_N, place_N = key_N[order_N], events.place_N[order_N]
    first_N = is_first(key_N)
    trip_N, time_N = events.trip_N[order_N], events.time_N[order_N]
    whole_NS, decayed_NH = running(first_N, place_N, trip_N, time_N, *map(np.array, _HALF_LIVES))
    wanted_key_N = np.where(wanted_N >= 0, asked.user_N[moment_N] * size + wanted_N, -1)
    last_N = _last_before(key_N, place_N, wanted_key_N, asked.position_N[moment_N])
    moment_Q, last_Q, answer_N = _different(moment_N, last_N, len(asked.user_N), len(key_N))
    # Without an event before, row 0 is read. Its count becomes 0, which says that the rest means nothing.
    met_Q, at_Q = last_Q >= 0, np.maximum(last_Q, 0)
    columns = [np.where(met_Q, _taken(column_N, at_Q), 0.0) for column_N in (*whole_NS.T, place_N, trip_N, time_N)]
    counted, trips_, first_time, gap, square, place, trip, time = columns
    decays = np.split(_taken(decayed_NH, at_Q), np.cumsum([len(half_lives) for half_lives in _HALF_LIVES])[:-1], axis=1)
    seen = Seen(asked.take(moment_Q), counted, trips_, place, trip, time, first_time, gap, square, *decays)
    return seen, answer_N


def _different(moment_N: IntArray, last_N: IntArray, moments: int, events: int) -> tuple[IntArray, IntArray, IntArray]:
    """The different pairs of a moment and a last event, -1 for none: both of them, and which pair each target has."""
    met_N = np.flatnonzero(last_N >= 0)
    without_M = np.zeros(moments, bool)
    without_M[moment_N[last_N < 0]] = True
    never_Q = np.flatnonzero(without_M)
    # A moment and an event as one number, which sorts faster than pairs.
    pair_Q, own = np.unique(moment_N[met_N] * events + last_N[met_N], return_inverse=True)
    # Answers without any event come first, one for each moment that has some; all others follow them.
    answer_N = (np.cumsum(without_M) - 1)[moment_N]
    answer_N[met_N] = len(never_Q) + own
    moment_Q, last_Q = np.divmod(pair_Q, max(events, 1))
    return np.append(never_Q, moment_Q), np.append(np.full(len(never_Q), -1), last_Q), answer_N


_HALF_LIVES = (EVENT_HALF_LIVES, DAY_HALF_LIVES, TRIP_HALF_LIVES)


def _taken(column_N: npt.NDArray[np.generic], at_N: IntArray) -> FloatArray:
    """The rows at some places; zeros where there are no rows at all."""
    if not len(column_N):
        return np.zeros((len(at_N), *column_N.shape[1:]))
    return np.asarray(column_N[at_N], np.float64)


def _last_before(key_N: IntArray, place_N: IntArray, wanted_N: IntArray, position_N: IntArray) -> IntArray:
    """Where, among sorted events, the last one with the wanted key and a place below the position is; -1 if nowhere."""
    first_N = is_first(key_N)
    start_G = np.flatnonzero(first_N)
    key_G, span = key_N[start_G], int(place_N.max(initial=0)) + 2
    # A key above all others is looked up at the last group, where the comparison fails.
    group_N = np.minimum(np.searchsorted(key_G, wanted_N), max(len(key_G) - 1, 0))
    met_N = np.flatnonzero(key_G[group_N] == wanted_N) if len(key_G) else np.zeros(0, np.int64)
    last_N = np.full(len(wanted_N), -1)
    if not len(met_N):
        return last_N
    group_N = group_N[met_N]
    # (group, place) as one ascending number: one binary search finds a position in its group.
    joint_N = (np.cumsum(first_N) - 1) * span + place_N
    end_N = np.searchsorted(joint_N, group_N * span + np.minimum(position_N[met_N], span - 1))
    last_N[met_N] = np.where(end_N > start_G[group_N], end_N - 1, -1)
    return last_N


@compiled()
def running(
    first_N: BoolArray,
    place_N: IntArray,
    trip_N: IntArray,
    time_N: IntArray,
    by_event_H: FloatArray,
    by_day_H: FloatArray,
    by_trip_H: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """The state after each event of a group: count, trips, first time, last gap, squared gaps; and decayed counts.

    A trip's own count has its full weight from its first event on, and is not raised by its further ones.

    Args:
        first_N: where a group begins.
        place_N: place of each event in its user's history.
        trip_N: its trip.
        time_N: its time.
        by_event_H: half-lives in events.
        by_day_H: half-lives in days.
        by_trip_H: half-lives in trips.
    """
    events, days = len(by_event_H), len(by_day_H)
    whole_NS = np.zeros((len(first_N), 5))
    decayed_NH = np.zeros((len(first_N), events + days + len(by_trip_H)))
    for at in range(len(first_N)):
        state, decayed = whole_NS[at], decayed_NH[at]
        if first_N[at]:
            state[0], state[1], state[2] = 1.0, 1.0, time_N[at]
            decayed[:] = 1.0
            continue
        # Events of a group are neighbours, so that the row before is the state before.
        state[:] = whole_NS[at - 1]
        state[0] += 1
        since = place_N[at] - place_N[at - 1]
        gap, trips_between = time_N[at] - time_N[at - 1], trip_N[at] - trip_N[at - 1]
        if trips_between:
            state[1] += 1
            state[3] = gap
            state[4] += float(gap) ** 2
        earlier = decayed_NH[at - 1]
        for place, half_life in enumerate(by_event_H):
            decayed[place] = 1 + earlier[place] * 2.0 ** (-since / half_life)
        for place, half_life in enumerate(by_day_H):
            decayed[events + place] = 1 + earlier[events + place] * 2.0 ** (-gap / 86400.0 / half_life)
        for place, half_life in enumerate(by_trip_H):
            at_trip = events + days + place
            decayed[at_trip] = earlier[at_trip]
            if trips_between:
                decayed[at_trip] = 1 + earlier[at_trip] * 2.0 ** (-trips_between / half_life)
    return whole_NS, decayed_NH
