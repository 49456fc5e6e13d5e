"""The order in which events of a batch are folded in: the first ones of all users together, then the second ones ...

    user       a a b a c b        events of one user must be folded in one after another,
    rank       0 1 0 2 0 1        and a graph call folds one event of each of many users:
    rounds     {a b c} {a b} {a}  so round k has the events of rank k

A round has each user at most once, and no user who was not in the round before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifelong.dtypes import IntArray


@dataclass(frozen=True, slots=True)
class Rounds:
    """N events that will be folded in, in their order.

    Args:
        kept_N: their places among the events given.
        user_N: place of the user.
        rank_N: how many events of the user come before, in this batch.
        time_N: times.
        previous_N: latest time of the user's events before, `NO_TIME` if none.
        late: places among the events given of those that are older than that, refused ones too.

    Example:
        >>> times, last = np.array([5, 6, 7]), np.array([0, 0])
        >>> made = make_rounds(np.array([0, 1, 0]), times, last, refuse=False)
        >>> made.rank_N, made.rounds()
        (array([0, 0, 1]), [array([0, 1]), array([2])])
    """

    kept_N: IntArray
    user_N: IntArray
    rank_N: IntArray
    time_N: IntArray
    previous_N: IntArray
    late: IntArray

    def take(self, place_N: IntArray) -> Rounds:
        """The events at some places alone, of each user all or none; the places are then among these."""
        user_N, rank_N, time_N = self.user_N[place_N], self.rank_N[place_N], self.time_N[place_N]
        return Rounds(self.kept_N[place_N], user_N, rank_N, time_N, self.previous_N[place_N], self.late[:0])

    def rounds(self) -> list[IntArray]:
        """Places of the first events of all users, then of the second ones ..., each by the place of the user."""
        # Sorted by rank, and within a rank by user: the rounds are then one after another.
        order_N = np.lexsort((self.user_N, self.rank_N))
        bounds = np.cumsum(np.bincount(self.rank_N)) if len(order_N) else ()
        return np.split(order_N, bounds)[:-1] if len(order_N) else []


def make_rounds(user_N: IntArray, time_N: IntArray, last_time_U: IntArray, *, refuse: bool) -> Rounds:
    """The order of N events of users.

    Args:
        user_N: place of each event's user.
        time_N: times.
        last_time_U: of each user's last event so far, `NO_TIME` if none.
        refuse: whether events older than their user's last one are left out.
    """
    # Events of a user side by side, in their order. `first` marks where each user begins: there the time before comes
    # from the memory, everywhere else it is the time of the event before.
    order_N = np.argsort(user_N, kind="stable")
    user, time = user_N[order_N], time_N[order_N]
    first = np.flatnonzero(np.diff(user, prepend=-1))
    previous = np.empty_like(time)
    previous[1:] = time[:-1]
    previous[first] = last_time_U[user[first]]
    if (time < previous).any():
        return _with_late(user_N, time_N, last_time_U, refuse=refuse)
    # Distance from the user's first event.
    rank = np.arange(len(user)) - np.repeat(first, np.diff(first, append=len(user)))
    rank_N, previous_N = np.empty_like(user_N), np.empty_like(time_N)
    rank_N[order_N], previous_N[order_N] = rank, previous
    return Rounds(np.arange(len(user_N)), user_N, rank_N, time_N, previous_N, np.zeros(0, np.int64))


def _with_late(user_N: IntArray, time_N: IntArray, last_time_U: IntArray, *, refuse: bool) -> Rounds:
    """`make_rounds` with late events: one after another, since a refused event changes which later ones are late."""
    latest, seen = last_time_U.tolist(), [0] * len(last_time_U)
    kept, late = [], []
    for place, (user, time) in enumerate(zip(user_N.tolist(), time_N.tolist(), strict=True)):
        before = latest[user]
        is_late = time < before
        if is_late:
            late.append(place)
        if is_late and refuse:
            continue
        kept.append((place, user, seen[user], time, before))
        latest[user] = max(before, time)
        seen[user] += 1
    columns = np.array(kept, np.int64).reshape(-1, 5).T
    return Rounds(columns[0], columns[1], columns[2], columns[3], columns[4], np.array(late, np.int64))
