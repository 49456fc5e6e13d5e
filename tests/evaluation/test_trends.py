"""What the gauge of the rules of negatives measures, and that the rules keep what is said of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lifelong.dataset.examples import Examples
from lifelong.dataset.histories import Histories
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.trends import DAYS, given_away, in_words, item_trends

DAY = 86_400


def log_of(events: list[tuple[int, int]]) -> Any:
    """(day, row) of one user each."""
    ordered = np.arange(len(events) + 1)
    rows, days = np.array([row for _, row in events], np.int32), np.array([day for day, _ in events], np.int64)
    histories = Histories(ordered, rows, days * DAY, np.arange(len(events)))
    return SimpleNamespace(histories=histories, catalogue=range(10))


def item_trend(dataset: Any, examples: Examples) -> Any:
    """That of 28 days."""
    return item_trends(dataset, examples)[:, 1 + len(DAYS) + DAYS.index(28)]


def asked(*pairs: tuple[int, int]) -> Examples:
    """(day, row)."""
    rows, days = np.array([row for _, row in pairs], np.int32), np.array([day for day, _ in pairs], np.int64)
    nothing = np.zeros(len(pairs), np.int32)
    return Examples(nothing, rows, days * DAY, nothing, np.ones((len(pairs), 1), np.float32))


def test_a_trend_is_the_recent_count_over_that_of_the_usual_rate_from_earlier_events_alone() -> None:
    # Item 3: four events in 280 days, three of them in the last 28. Item 4: one a hundred days ago.
    log = log_of([(0, 2), (10, 3), (255, 3), (260, 3), (279, 3), (180, 4), (280, 3), (281, 4)])
    found = item_trend(log, asked((280, 3), (280, 4), (280, 7)))
    assert found == pytest.approx([np.log(4 / 1.4), -np.log(1.1), 0.0])


def test_what_an_item_sells_at_and_after_the_target_changes_nothing() -> None:
    log = [(0, 2), (10, 3), (255, 3), (260, 3)]
    later = [*log, (270, 3), (270, 4), (400, 3)]
    examples = asked((270, 3), (270, 4))
    assert np.array_equal(item_trend(log_of(log), examples), item_trend(log_of(later), examples))


def test_a_rising_item_is_told_from_popular_negatives_of_a_whole_period_and_hardly_else(make: Any) -> None:
    # Each month has items of its own: whatever is drawn from the whole period was never sold of late.
    rng = np.random.default_rng(0)
    days = np.sort(rng.integers(0, 360, 3000))
    log = [
        (f"u{rng.integers(30)}", f"i{day // 20}-{rng.integers(15)}", int(day) * DAY + at) for at, day in enumerate(days)
    ]
    found = {}
    for rule in ("popularity", "windowed", "following"):
        dataset = make(log, out=rule, settings={"negatives": rule, "window": 3.0, "cuts": (0.6, 0.7)})
        examples = dataset.examples("test")
        found[rule] = metrics.auc(np.asarray(examples.label_NT[:, 0]), item_trend(dataset, examples))
    assert found["popularity"] > 0.7
    assert abs(found["windowed"] - 0.5) < 0.1
    assert abs(found["following"] - 0.5) < 0.06


def test_a_rare_item_is_known_by_the_event_that_it_was_drawn_by_unless_that_follows_the_target(make: Any) -> None:
    # Every item is met once or twice in a year: whoever was drawn from before the target has been met of late.
    rng = np.random.default_rng(0)
    days = np.sort(rng.integers(0, 360, 3000))
    log = [(f"u{rng.integers(30)}", f"i{rng.integers(2000)}", int(day) * DAY + at) for at, day in enumerate(days)]
    found = {}
    for rule in ("popularity", "windowed", "following"):
        dataset = make(log, out=rule, settings={"negatives": rule})
        examples = dataset.examples("test")
        found[rule] = metrics.auc(np.asarray(examples.label_NT[:, 0]), item_trend(dataset, examples))
    assert found["popularity"] < 0.42 and found["windowed"] < 0.42
    assert abs(found["following"] - 0.5) < 0.05


def test_counts_of_an_item_are_of_all_users_and_of_strictly_earlier_events() -> None:
    rng = np.random.default_rng(0)
    log = sorted(
        (int(day), int(row)) for day, row in zip(rng.integers(0, 120, 300), rng.integers(2, 7, 300), strict=True)
    )
    pairs = [(int(day), int(row)) for day, row in zip(rng.integers(0, 130, 60), rng.integers(2, 8, 60), strict=True)]
    found_NK = item_trends(log_of(log), asked(*pairs))
    for at, (day, row) in enumerate(pairs):
        met = [day - earlier for earlier, other in log if other == row and earlier < day]
        assert found_NK[at, :4].tolist() == [len(met), *(sum(since <= days for since in met) for days in DAYS)]


def test_the_gauge_finds_what_each_rule_gives_away_without_any_user(make: Any) -> None:
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    days = np.sort(rng.integers(0, 360, 4000))
    log = [
        (f"u{rng.integers(60)}", f"i{day // 20}-{rng.integers(15)}", int(day) * DAY + at) for at, day in enumerate(days)
    ]
    found = {}
    for rule in ("popularity", "following"):
        dataset = make(log, out=rule, settings={"negatives": rule, "window": 2.0, "cuts": (0.4, 0.7)})
        auc = given_away(dataset, resamples=50)
        assert auc is not None and auc.value is not None and auc.low is not None and auc.low < auc.value
        found[rule] = auc.value
        assert f"Negatives by {rule}: item trends alone" in in_words(auc, rule)
    assert found["popularity"] > 0.7
    assert abs(found["following"] - 0.5) < 0.1


def test_nothing_is_given_away_where_nothing_was_drawn(make: Any) -> None:
    events = [(f"u{at % 5}", f"i{at % 7}", at) for at in range(100)]
    shown = [(f"u{at % 5}", f"i{at % 6}", at, float(at % 3 > 0)) for at in range(5, 100)]
    assert given_away(make(events, impressions=shown, protocol="impressions"), resamples=5) is None
