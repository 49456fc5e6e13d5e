"""Count features against a naive loop over the events of each user."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.dataset.events import Schema
from lifelong.dataset.folder import Dataset
from lifelong.offline.data import counts
from lifelong.offline.data.counts import NEVER, count_features, feature_names, segmented_decay, standardising


def naive_row(dataset: Dataset, user: int, row: int, time: int, position: int) -> dict[str, float]:
    """The same features by loops, from the first `position` events of one user."""
    events = dataset.histories.of(user)
    rows = dataset.histories.row_N[events][:position].tolist()
    times = dataset.histories.time_N[events][:position].tolist()
    number_VF = dataset.catalogue.number_VF
    found = {"events": position, "seconds_since_any": time - times[-1] if times else NEVER}
    for place, field in enumerate(dataset.schema.item_fields):
        values = rows if place == 0 else [int(number_VF[r, place]) for r in rows]
        wanted = row if place == 0 else int(number_VF[row, place])
        same = [i for i, value in enumerate(values) if value == wanted and wanted > 1]
        found[f"{field}.count"] = len(same)
        for window in counts.WINDOWS:
            found[f"{field}.count_{window}"] = sum(i >= position - window for i in same)
        for half_life in counts.EVENT_HALF_LIVES:
            found[f"{field}.decay_{half_life:.0f}"] = sum(0.5 ** ((position - i) / half_life) for i in same)
        for name, half_life in counts.SECOND_HALF_LIVES.items():
            found[f"{field}.decay_{name}"] = sum(0.5 ** ((time - times[i]) / half_life) for i in same)
        found[f"{field}.events_since"] = position - same[-1] if same else NEVER
        found[f"{field}.seconds_since"] = time - times[same[-1]] if same else NEVER
    return found


def test_features_are_those_of_a_loop_over_events(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    names, value_NK = feature_names(dataset.schema), count_features(dataset, examples)
    assert value_NK.shape == (len(examples), len(names))
    for place in range(0, len(examples), 7):
        one = examples.take(slice(place, place + 1))
        expected = naive_row(dataset, int(one.user_N[0]), int(one.row_N[0]), int(one.time_N[0]), int(one.position_N[0]))
        np.testing.assert_allclose(value_NK[place], [expected[name] for name in names], rtol=1e-5, atol=1e-6)


def test_a_decayed_count_halves_in_the_days_of_its_name() -> None:
    assert {name: int(name.removesuffix("d")) * 86_400 for name in ("7d", "60d")} == counts.SECOND_HALF_LIVES


def test_standardised_columns_vary_by_one_and_a_constant_one_stays_small() -> None:
    value_NK = np.array([[0.0, 7.0], [4.0, 7.0], [8.0, 7.0]])
    mean_K, scale_K = standardising(value_NK)
    assert ((value_NK - mean_K) * scale_K).std(axis=0) == pytest.approx([1, 0])
    assert scale_K[1] == 0


def test_users_are_counted_the_same_in_small_groups(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = dataset.examples("test")
    whole = count_features(dataset, examples)
    monkeypatch.setattr(counts, "_EVENTS_AT_ONCE", 50)
    assert np.array_equal(count_features(dataset, examples), whole)


def test_an_unknown_item_was_never_seen_and_an_empty_history_has_no_last_event(dataset: Dataset) -> None:
    examples = dataset.examples("test").take(slice(0, 1))
    names = feature_names(dataset.schema)
    unknown = count_features(dataset, replace(examples, row_N=np.ones(1, np.int32)))[0]
    empty = count_features(dataset, replace(examples, position_N=np.zeros(1, np.int32)))[0]
    assert unknown[names.index("item.count")] == 0
    assert unknown[names.index("category.seconds_since")] == NEVER
    assert empty[names.index("seconds_since_any")] == NEVER
    assert empty[names.index("events")] == 0


def test_no_examples_have_no_rows(dataset: Dataset) -> None:
    none = dataset.examples("test").take(slice(0, 0))
    assert count_features(dataset, none).shape == (0, len(feature_names(dataset.schema)))


def test_a_log_without_times_has_no_features_of_seconds() -> None:
    names = feature_names(Schema(item_fields=("item",), event_types=False, time_unit="ordinal"))
    assert names == (
        *("events", "item.count", "item.count_5", "item.count_20", "item.count_100"),
        *("item.decay_10", "item.decay_100", "item.events_since"),
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=30), st.sampled_from([0.5, 3.0]))
def test_decay_by_doubling_is_the_recursion(steps: list[tuple[bool, int]], half_life: float) -> None:
    first_N = np.array([place == 0 or fresh for place, (fresh, _) in enumerate(steps)], bool)
    clock_N = np.cumsum([step for _, step in steps], dtype=np.int64) if steps else np.zeros(0, np.int64)
    expected: list[float] = []
    for place, fresh in enumerate(first_N):
        gap = 0 if fresh else int(clock_N[place] - clock_N[place - 1])
        expected.append(1.0 if fresh else 1.0 + expected[-1] * 0.5 ** (gap / half_life))
    np.testing.assert_allclose(segmented_decay(clock_N, first_N, half_life), expected, rtol=1e-12)
