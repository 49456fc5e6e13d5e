"""Lags of users' own in training events: planted ones are found, habits and chance are not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.data.cell_plan import LAGS
from lifelong.data.cooccurrence import training_lengths
from lifelong.data.dataset import Dataset
from lifelong.data.own_lags import NEXT_TO, SHORTEST, OwnLags, lags_of, own_lags
from lifelong.testing.datasets import tiny_dataset

Keys = npt.NDArray[np.int64]
Lags = Callable[[np.random.Generator, int], int]


def log(share: float, lag: Lags, *, users: int = 40, events: int = 300, seed: int = 0) -> tuple[Keys, Keys]:
    """Users of whose events this share repeats the item of so many events ago; `lag` is asked with the user's own."""
    rng = np.random.default_rng(seed)
    key_UN = rng.integers(0, 50, (users, events))
    for user in range(users):
        own = int(rng.integers(10, 60))
        for at in range(events):
            if rng.random() < share and at >= (back := lag(rng, own)):
                key_UN[user, at] = key_UN[user, at - back]
    return key_UN.ravel(), np.full(users, events)


def naive(key_N: list[int]) -> float:
    """Of the second half, how many more events repeat the item of the first half's lag than of those next to it."""

    def more(lag: int, events: range) -> float:
        def count(other: int) -> int:
            return sum(at >= other and key_N[at] >= 0 and key_N[at] == key_N[at - other] for at in events)

        beside = [count(lag + way * distance) for distance in range(1, NEXT_TO + 1) for way in (-1, 1)]
        return count(lag) - sum(beside) / len(beside)

    half = len(key_N) // 2
    best = max(range(SHORTEST, LAGS + 1), key=lambda lag: more(lag, range(half)))
    return more(best, range(half, len(key_N))) if more(best, range(half)) > 0 else 0.0


def test_the_second_half_is_counted_at_the_lag_that_the_first_half_has_chosen() -> None:
    key_N = np.arange(60)
    for at, lag in [(12, 9), (20, 9), (25, 9), (28, 30 - 11), (35, 9), (40, 9), (45, 9), (50, 9), (55, 10), (57, 8)]:
        key_N[at] = key_N[at - lag]
    # Four of thirty events at lag 9; of the six lags next to it, two have one each.
    assert lags_of(np.append(key_N, key_N), np.array([60, 60])).share == pytest.approx((4 - 2 / 6) / 30)


@given(seed=st.integers(0, 1000), length=st.integers(0, 300), values=st.integers(2, 40), lag=st.integers(1, 140))
def test_it_counts_what_plain_loops_count(seed: int, length: int, values: int, lag: int) -> None:
    rng = np.random.default_rng(seed)
    key_N = rng.integers(-1, values, length)
    for at in range(lag, length):
        if rng.random() < 0.2:
            key_N[at] = key_N[at - lag]
    found = lags_of(key_N, np.array([length]))
    assert found.share * max(1, length - length // 2) == pytest.approx(naive(key_N.tolist()))


@pytest.mark.parametrize("share", [0.3, 0.1])
def test_planted_lags_are_found_with_their_share(share: float) -> None:
    found = lags_of(*log(share, lambda rng, own: own))
    assert found.clear
    assert found.share == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    "lag",
    [
        lambda rng, own: 1,
        lambda rng, own: int(rng.integers(1, 8)),
        lambda rng, own: int(rng.integers(10, 60)),
        lambda rng, own: max(1, round(own * np.exp(rng.normal(0, 0.2)))),
    ],
    ids=["the last event", "within a basket", "at any time", "about as usual"],
)
def test_habits_are_no_lags_of_users_own(lag: Lags) -> None:
    found = lags_of(*log(0.3, lag))
    assert not found.clear
    assert abs(found.share) < 0.01


def test_the_same_events_in_another_order_have_none() -> None:
    key_N, length_U = log(0.3, lambda rng, own: own)
    shuffled = np.random.default_rng(1).permuted(key_N.reshape(len(length_U), -1), axis=1).ravel()
    assert lags_of(key_N, length_U).clear
    assert abs(lags_of(shuffled, length_U).share) < 0.01


def test_unknown_items_are_equal_to_none() -> None:
    assert lags_of(np.full(400, -1), np.array([200, 200])) == OwnLags(0.0, 0.0)


def test_a_single_user_and_an_empty_log_decide_nothing() -> None:
    assert not lags_of(np.arange(200) % 10, np.array([200])).clear
    assert not lags_of(np.zeros(0, np.int64), np.zeros(0, np.int64)).clear


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Users who each go round the same 10, 11, 12 ... items."""
    dataset = tiny_dataset(tmp_path / "data", num_users=20, mean_events=80)
    length_U = np.diff(dataset.histories.offset_U)
    return with_rows(dataset, np.concatenate([2 + np.arange(n) % (10 + user) for user, n in enumerate(length_U)]))


def with_rows(dataset: Dataset, row_N: Keys) -> Dataset:
    """A dataset with the items of its events replaced."""
    other = Dataset(dataset.folder)
    other.histories = replace(dataset.histories, row_N=row_N.astype(np.int32))
    return other


def test_later_periods_are_not_looked_at(dataset: Dataset) -> None:
    found, histories = own_lags(dataset), dataset.histories
    assert found.clear
    place_N = np.arange(histories.num_events) - np.repeat(histories.offset_U[:-1], np.diff(histories.offset_U))
    later_N = place_N >= np.repeat(training_lengths(dataset), np.diff(histories.offset_U))
    assert later_N.sum() > 100
    # All that comes after training is the same item; then also the events of training are others.
    assert own_lags(with_rows(dataset, np.where(later_N, 2, histories.row_N))) == found
    assert own_lags(with_rows(dataset, np.where(later_N, 2, histories.row_N[::-1]))) != found


def test_of_a_long_log_some_users_are_read_and_always_the_same(dataset: Dataset) -> None:
    rows, rng = dataset.histories.row_N, np.random.default_rng(0)
    dataset = with_rows(dataset, np.where(rng.random(len(rows)) < 0.3, rng.integers(2, 50, len(rows)), rows))
    some = own_lags(dataset, most=400)
    assert some.clear
    assert some == own_lags(dataset, most=400) != own_lags(dataset)
