from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.dataset import negatives
from lifelong.dataset.examples import SPLITS, Examples, Split
from lifelong.dataset.folder import Dataset, NegativeRule
from lifelong.dataset.histories import Histories
from lifelong.dataset.negatives import NegativeSampler, row_counts, training_window, with_negatives
from lifelong.errors import DataError, MismatchError
from lifelong.testing.datasets import tiny_dataset

ONE_MOMENT = [[(10, 2), (10, 3)]]


def _histories(events: list[list[tuple[int, int]]]) -> Histories:
    """Per user, sorted (time, row)."""
    flat = [event for user in events for event in user]
    offset_U = np.cumsum([0, *(len(user) for user in events)]).astype(np.int64)
    time_N = np.array([event[0] for event in flat], np.int64)
    row_N = np.array([event[1] for event in flat], np.int32)
    return Histories(offset_U, row_N, time_N, np.arange(len(flat), dtype=np.int64))


def _targets(histories: Histories) -> Examples:
    """Every event as a positive."""
    user_N = np.repeat(np.arange(histories.num_users, dtype=np.int32), np.diff(histories.offset_U))
    position_N = histories.positions(user_N, histories.time_N).astype(np.int32)
    label_NT = np.ones((len(user_N), 1), np.float32)
    return Examples(user_N, histories.row_N, histories.time_N, position_N, label_NT)


def _draw(
    events: list[list[tuple[int, int]]], num_rows: int, rule: str, *, ratio: int = 1, **more: object
) -> np.ndarray:
    histories = _histories(events)
    sampler = NegativeSampler(histories, row_counts(histories, num_rows), NegativeRule(rule=rule, ratio=ratio), **more)
    return sampler.draw(_targets(histories), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("rule", "wanted"), [("popularity", [1 / 8, 2 / 8, 5 / 8]), ("uniform", [1 / 3, 1 / 3, 1 / 3])]
)
def test_popularity_draws_in_proportion_to_event_counts_and_uniform_every_item_of_the_period_alike(
    rule: str, wanted: list[float]
) -> None:
    # Row 5 alone at its time; rows 2, 3, 4 have 1, 2 and 5 events of other users.
    others = [[(1, row)] for row in (2, 3, 3, 4, 4, 4, 4, 4)]
    drawn = _draw([[(1, 5)], *others], 8, rule, ratio=8000)[0]
    share = np.bincount(drawn, minlength=8) / len(drawn)
    assert share == pytest.approx([0, 0, *wanted, 0, 0, 0], abs=0.02)


def _windowed(
    events: list[list[tuple[int, int]]], num_rows: int, *, end: int | None = None, rule: str = "windowed"
) -> np.ndarray:
    """Negatives of every event, 4000 each, by a window of ten seconds."""
    histories = _histories(events)
    chosen = NegativeRule(rule=rule, ratio=4000, window=10 / 86_400)  # type: ignore[arg-type]
    sampler = NegativeSampler(histories, row_counts(histories, num_rows), chosen, end=end)
    return sampler.draw(_targets(histories), np.random.default_rng(0))


def test_a_window_draws_in_proportion_to_events_around_the_target() -> None:
    # Row 2 is sold before 100, row 3 around 200 with twice as many events as row 4, row 5 after 300.
    others = [[(100 + at, 2), (198 + at % 3, 3), (199 + at % 2, 3), (199, 4), (300 + at, 5)] for at in range(6)]
    drawn = _windowed([[(200, 6)], *others], 7)
    share = np.bincount(drawn[0], minlength=7) / 4000
    assert share == pytest.approx([0, 0, 0, 2 / 3, 1 / 3, 0, 0], abs=0.03)


def test_a_window_never_reaches_behind_the_end_of_the_split_and_begins_earlier_instead() -> None:
    # What lies seven seconds before the target is inside only where the window has moved.
    log = [[(1000, 9)], [(993, 3)], [(997, 4)], [(1002, 5)], [(1004, 6)], [(990, 7)]]
    assert set(_windowed(log, 10)[0].tolist()) == {4, 5, 6}
    assert set(_windowed(log, 10, end=1001)[0].tolist()) == {3, 4}
    assert set(_windowed(log, 10, end=1003)[0].tolist()) == {3, 4, 5}


def test_following_draws_from_the_time_of_the_target_on_and_never_from_before() -> None:
    log = [[(1000, 9)], [(999, 3)], [(1000, 4)], [(1004, 5)], [(1004, 5)], [(1010, 6)], [(1030, 7)]]
    drawn = _windowed(log, 10, rule="following")[0]
    assert np.bincount(drawn, minlength=10) / 4000 == pytest.approx([0, 0, 0, 0, 1 / 3, 2 / 3, 0, 0, 0, 0], abs=0.03)
    assert set(_windowed(log, 10, rule="following", end=1003)[0].tolist()) == {4}


def test_a_target_with_nothing_around_it_is_given_a_popular_item() -> None:
    drawn = _windowed([[(1000, 2)], [(10, 3)], [(10, 3)]], 4)
    assert set(drawn[0].tolist()) == {3}


def test_an_item_of_the_own_moment_is_drawn_again_but_one_of_the_history_is_not() -> None:
    drawn = _draw([[(10, 4), (20, 2), (20, 3)]], 5, "uniform", ratio=50)
    assert set(drawn[0].tolist()) == {2, 3}
    assert set(drawn[1].tolist()) == {4}
    assert set(drawn[2].tolist()) == {4}


def test_with_the_whole_period_in_the_moment_another_item_of_the_catalogue_is_drawn() -> None:
    assert set(_draw(ONE_MOMENT, 6, "popularity", ratio=20).ravel().tolist()) == {4, 5}


def test_with_almost_the_whole_catalogue_in_the_moment_the_rest_is_found() -> None:
    events = [[(10, row) for row in range(2, 3000)]]
    histories = _histories(events)
    sampler = NegativeSampler(histories, row_counts(histories, 3001), NegativeRule(rule="uniform"))
    assert set(sampler.draw(_targets(histories), np.random.default_rng(0)).ravel().tolist()) == {3000}
    assert sampler.counted["fallback_exact"] > 0


def test_with_the_whole_catalogue_in_the_moment_there_is_no_negative() -> None:
    with pytest.raises(DataError, match="every item of the catalogue is in the target's own moment"):
        _draw(ONE_MOMENT, 4, "popularity")


def test_negatives_follow_their_positive_and_no_targets_have_none() -> None:
    histories = _histories([[(1, 2)], [(2, 3)], [(3, 4)]])
    sampler = NegativeSampler(histories, row_counts(histories, 5), NegativeRule(rule="uniform", ratio=2))
    targets = _targets(histories)
    both = with_negatives(targets, sampler, np.random.default_rng(0))
    assert both.label_NT[:, 0].tolist() == [1, 0, 0] * 3
    assert np.asarray(both.row_N[::3]).tolist() == [2, 3, 4] and both.user_N.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    none = with_negatives(targets.take(np.arange(0)), sampler, np.random.default_rng(0))
    assert len(none) == 0 and none.label_NT.shape == (0, 1)


def test_a_period_without_events_is_an_error() -> None:
    with pytest.raises(DataError, match="the split's period has no events"):
        NegativeSampler(_histories([[(1, 2)]]), np.zeros(4, np.int64), NegativeRule(rule="uniform"))


def test_the_coin_flip_excludes_the_true_item_alone() -> None:
    drawn = _draw(ONE_MOMENT, 4, "uniform", ratio=20, whole_moment=False)
    assert (set(drawn[0].tolist()), set(drawn[1].tolist())) == ({3}, {2})


@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(2, 7)), max_size=10).map(sorted), min_size=1, max_size=5
    ).filter(lambda users: any(users)),
    rule=st.sampled_from(["uniform", "popularity"]),
    ratio=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_a_negative_never_stands_in_the_own_moment(
    events: list[list[tuple[int, int]]], rule: str, ratio: int, seed: int
) -> None:
    histories = _histories(events)
    targets = _targets(histories)
    sampler = NegativeSampler(histories, row_counts(histories, 9), NegativeRule(rule=rule, ratio=ratio))
    drawn = sampler.draw(targets, np.random.default_rng(seed))
    assert drawn.shape == (len(targets), ratio)
    for place, rows in enumerate(drawn.tolist()):
        user, moment = int(targets.user_N[place]), int(targets.time_N[place])
        own = {row for time_, row in events[user] if time_ == moment}
        assert not own & set(rows)
        assert all(2 <= row < 9 for row in rows)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_the_order_of_the_targets_does_not_matter_to_what_is_excluded(seed: int, data: st.DataObject) -> None:
    histories = _histories([[(1, 2), (1, 3), (2, 4)], [(1, 2), (2, 3), (2, 5)]])
    order = np.array(data.draw(st.permutations(range(6))))
    targets = _targets(histories).take(order)
    drawn = NegativeSampler(histories, row_counts(histories, 6), NegativeRule(rule="uniform", ratio=4)).draw(
        targets, np.random.default_rng(seed)
    )
    own = [{2, 3}, {2, 3}, {4}, {2}, {3, 5}, {3, 5}]
    assert all(not own[place] & set(rows) for place, rows in zip(order, drawn.tolist(), strict=True))


def test_one_seed_gives_one_draw(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path)
    sampler, targets = NegativeSampler.open(dataset, "train"), dataset.examples("train")
    first, again, other = (sampler.draw(targets, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("split", SPLITS)
def test_an_opened_sampler_draws_from_the_period_of_its_split(tmp_path: Path, split: str) -> None:
    dataset = tiny_dataset(tmp_path)
    first, second = dataset.manifest.cut_times
    time_N, row_N = dataset.histories.time_N, dataset.histories.row_N
    inside = np.searchsorted([first, second], time_N, side="right") == SPLITS.index(split)
    sampler = NegativeSampler.open(dataset, split)  # type: ignore[arg-type]
    drawn = np.concatenate(
        [sampler.draw(dataset.examples("test"), np.random.default_rng(seed)).ravel() for seed in range(10)]
    )
    assert set(drawn.tolist()) <= set(row_N[inside].tolist())


def test_training_negatives_are_as_close_to_their_targets_as_a_validation_period_is_long(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path)
    first, second = dataset.manifest.cut_times
    examples, time_N = dataset.examples("train"), np.asarray(dataset.histories.time_N)
    width = training_window(dataset.manifest.negatives, dataset.manifest.cut_times)
    assert width == second - first < first - time_N.min()
    sampler = NegativeSampler.open(dataset, "train", ratio=20)
    drawn_NR, row_N = sampler.draw(examples, np.random.default_rng(0)), np.asarray(dataset.histories.row_N)
    for time, rows in zip(np.asarray(examples.time_N), drawn_NR.tolist(), strict=True):
        until = min(time + width // 2, first)
        assert set(rows) <= set(row_N[(time_N >= until - width) & (time_N < until)].tolist())


@pytest.mark.parametrize(
    "rule",
    [
        NegativeRule(rule="uniform"),
        NegativeRule(rule="popularity", stored=True),
        NegativeRule(rule="windowed", window=3.0),
        NegativeRule(rule="none"),
    ],
)
def test_other_rules_are_the_same_in_training(tmp_path: Path, rule: NegativeRule) -> None:
    manifest = tiny_dataset(tmp_path).manifest
    assert training_window(rule, manifest.cut_times) is None
    assert training_window(manifest.negatives, ()) is None


def test_a_window_of_a_long_log_draws_from_a_random_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2,000 events, each of an item of its own; 4,000 draws would find most of them.
    events = [[(1000, 2 + place)] for place in range(2000)]
    monkeypatch.setattr(negatives, "EVENTS", 200)
    drawn = np.unique(_windowed([[(1001, 2002)], *events], 2003)[0])
    assert 150 < len(drawn) < 250
    assert (drawn < 1002).mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["windowed", "following"])
def test_an_opened_window_holds_nothing_behind_the_end_of_its_split(tmp_path: Path, split: str, kind: str) -> None:
    dataset = tiny_dataset(tmp_path)
    rule = NegativeRule(rule=kind, window=1e6)  # type: ignore[arg-type]
    dataset.manifest = dataset.manifest.model_copy(update={"negatives": rule})
    histories, end = dataset.histories, (*dataset.manifest.cut_times, 2**62)[SPLITS.index(split)]  # type: ignore[arg-type]
    late_N = np.asarray(histories.time_N) >= end
    dataset.__dict__["histories"] = replace(histories, row_N=np.where(late_N, 1, histories.row_N).astype(np.int32))
    sampler = NegativeSampler.open(dataset, split)  # type: ignore[arg-type]
    drawn = sampler.draw(dataset.examples(split), np.random.default_rng(0))  # type: ignore[arg-type]
    assert 1 not in drawn and len(np.unique(drawn)) > 5


def test_a_dataset_of_logged_labels_has_no_sampler(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path)
    dataset.manifest = dataset.manifest.model_copy(update={"negatives": NegativeRule(rule="none")})
    with pytest.raises(MismatchError, match="logged labels"):
        NegativeSampler.open(dataset, "train")


class _FewUsers(Dataset):
    """A dataset of which each split holds the targets of the first five users alone."""

    def examples(self, split: Split) -> Examples:
        found = super().examples(split)
        return found.take(np.asarray(found.user_N) < 5)


@pytest.mark.parametrize(
    ("protocol", "rule", "drawn_from"),
    [
        ("paper", "uniform", "log"),
        ("paper", "popularity", "users of the split"),
        ("temporal", "uniform", "period of the split"),
    ],
)
def test_only_the_coin_flip_of_the_paper_draws_from_the_whole_log(
    tmp_path: Path, protocol: str, rule: str, drawn_from: str
) -> None:
    tiny_dataset(tmp_path)
    dataset = _FewUsers(tmp_path)
    negatives = NegativeRule(rule=rule, ratio=60)  # type: ignore[arg-type]
    dataset.manifest = dataset.manifest.model_copy(update={"protocol": protocol, "negatives": negatives})
    time_N, row_N = (np.asarray(column) for column in (dataset.histories.time_N, dataset.histories.row_N))
    user_N = np.repeat(np.arange(dataset.histories.num_users), np.diff(dataset.histories.offset_U))
    inside = {
        "log": np.ones(len(row_N), bool),
        "users of the split": np.isin(user_N, dataset.examples("validation").user_N),
        "period of the split": np.searchsorted(dataset.manifest.cut_times, time_N, side="right") == 1,
    }[drawn_from]
    sampler = NegativeSampler.open(dataset, "validation")
    drawn = sampler.draw(dataset.examples("train"), np.random.default_rng(0))
    assert set(np.unique(drawn).tolist()) == set(row_N[inside].tolist())
