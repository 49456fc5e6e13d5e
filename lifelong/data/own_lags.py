"""Do a user's items come again after a number of events that is her own? What the training events say.

    first half of her training events --at which lag does one stand out most from those next to it?--> her lag
    second half --repeats of the item of exactly that lag, less the mean of the lags next to it--> share of its events

What users do out of habit is smooth: an item that came again after 61 events could as well have come after 60 or 62. So
a lag that stands out in one half and again in the other is no habit of this kind, nor chance, since the second half had
no part in its choice. Lags shorter than `SHORTEST` do not count: an age with two steps per doubling tells these apart.

Only events up to the user's last training target are read. No torch.

Source: this package; repeats at each lag are an autocorrelation, and one half checks what the other has chosen, as in
Stone, "Cross-Validatory Choice and Assessment of Statistical Predictions", Journal of the Royal Statistical Society B
36, 1974.

Shapes: U users, N events of a user, G = 132 lags from 0 on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lifelong.compiled import compiled
from lifelong.data.arrays import ranges
from lifelong.data.cell_plan import LAGS, keys_of
from lifelong.data.cooccurrence import of_some_users, training_lengths
from lifelong.data.dataset import Dataset
from lifelong.dtypes import FloatArray, IntArray

SHORTEST, NEXT_TO = 8, 3
"""The shortest lag that counts, up to `LAGS`; how many lags on each side of one are next to it."""
LEAST = 0.02
"""Share of the events from which lags of users' own are worth 256 of 4,096 bytes (decision 35)."""
ERRORS = 3
"""How many standard errors it must be at least, so that chance in a small log is not taken for it."""
EVENTS = 10_000_000
"""About how many events are read; of a longer log, those of a random part of the users."""


@dataclass(frozen=True, slots=True)
class OwnLags:
    """What was found.

    Args:
        share: of the events, those that repeat the item of exactly their user's own lag; a little below 0 by chance.
        error: its standard error, over users; infinite for a single one.

    >>> OwnLags(0.3, 0.01).clear, OwnLags(0.3, 0.2).clear, OwnLags(0.01, 0.001).clear
    (True, False, False)
    """

    share: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether there are enough of them, and more than by chance."""
        return self.share >= max(LEAST, ERRORS * self.error)


def own_lags(dataset: Dataset, *, most: int = EVENTS) -> OwnLags:
    """How many training events repeat the item of exactly their user's own lag.

    Args:
        dataset: prepared; items are those of its first item field.
        most: about how many events are looked at.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from lifelong.testing.datasets import tiny_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     own_lags(tiny_dataset(Path(folder) / "data")).clear
    False
    """
    histories = dataset.histories
    end_U = of_some_users(training_lengths(dataset), most, seed=0)
    row_N = histories.row_N[ranges(np.asarray(histories.offset_U[:-1]), end_U)]
    key_N = keys_of(np.asarray(dataset.catalogue.number_VF[:, 0], np.int64)[row_N])
    return lags_of(key_N, end_U)


def lags_of(key_N: IntArray, length_U: IntArray) -> OwnLags:
    """The same of events.

    Args:
        key_N: key of each event's item, one user after another, oldest first; a negative one is equal to none.
        length_U: how many events each user has.

    Two users, who repeat the items of 10 and of 20 events ago again and again:

    >>> lags_of(np.append(np.arange(80) % 10, np.arange(80) % 20), np.array([80, 80]))
    OwnLags(share=1.0, error=0.0)
    """
    more_U = np.zeros(len(length_U))
    _fill(key_N, np.append(0, np.cumsum(length_U)), more_U)
    second_U = length_U - length_U // 2
    events, users = max(1, int(second_U.sum())), int(np.count_nonzero(second_U))
    share = float(more_U.sum()) / events
    error = float(np.linalg.norm(more_U - share * second_U)) / events
    return OwnLags(share, error * math.sqrt(users / (users - 1)) if users > 1 else math.inf)


@compiled()
def _fill(key_N: IntArray, offset_U: IntArray, more_U: FloatArray) -> None:
    """Of the second half of each user's events, how many more repeat the item of her lag than of those next to it."""
    before_G, after_G = np.zeros(LAGS + NEXT_TO + 1, np.int64), np.zeros(LAGS + NEXT_TO + 1, np.int64)
    for user in range(len(more_U)):
        own_N = key_N[offset_U[user] : offset_U[user + 1]]
        half = len(own_N) // 2
        _repeats(own_N[:half], 0, before_G)
        best, chosen = 0.0, 0
        for lag in range(SHORTEST, LAGS + 1):
            if _more(before_G, lag) > best:
                best, chosen = _more(before_G, lag), lag
        if chosen:
            _repeats(own_N, half, after_G)
            more_U[user] = _more(after_G, chosen)


@compiled()
def _repeats(key_N: IntArray, first: int, count_G: IntArray) -> None:
    """Fill how many of the events from the first one on repeat the item of each lag."""
    for lag in range(1, len(count_G)):
        count = 0
        for at in range(max(lag, first), len(key_N)):
            count += (key_N[at] == key_N[at - lag]) & (key_N[at] >= 0)
        count_G[lag] = count


@compiled()
def _more(count_G: IntArray, lag: int) -> float:
    """How many more are of a lag than of those next to it, on average."""
    near = 0
    for distance in range(1, NEXT_TO + 1):
        near += count_G[lag - distance] + count_G[lag + distance]
    return float(count_G[lag] - near / (2 * NEXT_TO))
