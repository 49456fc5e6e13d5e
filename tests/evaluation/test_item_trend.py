"""What the benchmark of the rules of negatives measures, and that the rules keep what it says of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lifelong.dataset.examples import Examples
from lifelong.dataset.histories import Histories
from lifelong.offline.evaluation import metrics

# At the end: names of benchmarks are those of modules of the standard library, too.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from item_trend import item_trend

DAY = 86_400


def log_of(events: list[tuple[int, int]]) -> Any:
    """(day, row) of one user each."""
    ordered = np.arange(len(events) + 1)
    rows, days = np.array([row for _, row in events], np.int32), np.array([day for day, _ in events], np.int64)
    histories = Histories(ordered, rows, days * DAY, np.arange(len(events)))
    return SimpleNamespace(histories=histories, catalogue=range(10))


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
