"""Each feature against its definition, written down once more as plainly as possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import Float32Array
from lifelong.testing.datasets import tiny_dataset
from lifelong.zoo.inputs import target_features as module
from lifelong.zoo.inputs.affinity import AFFINITIES, unit_vectors
from lifelong.zoo.inputs.repeats import DAY_HALF_LIVES, EVENT_HALF_LIVES, OF_VALUE, TRIP_HALF_LIVES
from lifelong.zoo.inputs.target_features import OF_MOMENT, OF_USER, OF_USER_TIMED, feature_names, fill_features

DAY = 86_400


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users' moments are 14 hours apart instead of twelve days, so that days and weeks hold some."""
    made = tiny_dataset(tmp_path_factory.mktemp("tiny") / "data")
    made.__dict__["histories"] = replace(made.histories, time_N=made.histories.time_N // 20)
    return made


@pytest.fixture(scope="module")
def vectors(dataset: Dataset) -> dict[str, Float32Array]:
    return unit_vectors(dataset, 8, seed=0)


@pytest.fixture(scope="module")
def examples(dataset: Dataset) -> Examples:
    """Some of the test examples, a few with their youngest events hidden, one without any event."""
    asked = dataset.examples("test")
    asked = replace(asked, time_N=asked.time_N // 20)
    asked = asked.take(np.random.default_rng(0).permutation(len(asked))[:80])
    position_N = np.array(asked.position_N)
    position_N[:10] = np.maximum(position_N[:10] - 2, 0)
    position_N[10] = 0
    return replace(asked, position_N=position_N)


def target_features(dataset: Dataset, examples: Examples, vectors: dict[str, Float32Array]) -> Float32Array:
    value_NK = np.full((len(examples), len(feature_names(dataset.schema, tuple(vectors)))), np.nan, np.float32)
    fill_features(value_NK, dataset, examples, vectors)
    return value_NK


def test_every_feature_is_what_its_definition_says(
    dataset: Dataset, examples: Examples, vectors: dict[str, Float32Array]
) -> None:
    found_NK = target_features(dataset, examples, vectors)
    names = feature_names(dataset.schema, tuple(vectors))
    assert found_NK.shape == (len(examples), len(names))
    expected = [plain(dataset, examples.take(slice(at, at + 1)), vectors) for at in range(len(examples))]
    for place, name in enumerate(names):
        wanted_N = [features[name] for features in expected]
        np.testing.assert_allclose(found_NK[:, place], wanted_N, rtol=1e-5, atol=1e-5, err_msg=name)
        if not name.startswith("moment."):
            assert len(set(wanted_N)) > 1, f"{name} never varies, so nothing is shown"


def plain(dataset: Dataset, example: Examples, vectors: dict[str, Float32Array]) -> dict[str, float]:
    """All features of one example, by loops over its events."""
    user, row, now, position = (int(column[0]) for column in example.columns()[:4])
    rows = dataset.histories.row_N[dataset.histories.of(user)][:position].tolist()
    times = dataset.histories.time_N[dataset.histories.of(user)][:position].tolist()
    moments = sorted(set(times))
    number_VF = dataset.catalogue.number_VF
    hour, weekday = now // 3600 % 24, (now // DAY + 3) % 7
    found = {f"user.{name}": value for name, value in of_user(rows, times, moments, now).items()}
    found |= {"moment.hour": hour, "moment.weekday": weekday, "moment.week_hour": weekday * 24 + hour}
    found |= {f"item.{name}": value for name, value in of_value(rows, row, times, moments, now)}
    categories, category = [int(number_VF[r, 1]) for r in rows], int(number_VF[row, 1])
    found |= {f"category.{name}": value for name, value in of_value(categories, category, times, moments, now)}
    for place, (field, vector_VD) in enumerate(vectors.items()):
        both = of_both(vector_VD[number_VF[rows, place]], vector_VD[number_VF[row, place]], times, now)
        found |= {f"{field}.{name}": value for name, value in both}
    return found


def of_user(rows: list[int], times: list[int], moments: list[int], now: int) -> dict[str, float]:
    gap = (moments[-1] - moments[0]) / DAY / (len(moments) - 1) if len(moments) > 1 else -1.0
    since = (now - times[-1]) / DAY if times else -1.0
    return {
        "events": len(rows),
        "trips": len(moments),
        "distinct_share": len(set(rows)) / len(rows) if rows else -1.0,
        "mean_basket": len(rows) / len(moments) if rows else -1.0,
        "last_basket": times.count(times[-1]) if rows else -1.0,
        "mean_trip_gap": gap,
        "days_since_trip": since,
        "since_trip_over_gap": since / gap if gap > 0 else -1.0,
        "days_since_first": (now - times[0]) / DAY if times else -1.0,
        **{f"events_{days}_days": sum(time >= now - days * DAY for time in times) for days in (1, 7, 30)},
    }


def of_value(
    values: list[int], wanted: int, times: list[int], moments: list[int], now: int
) -> Iterator[tuple[str, float]]:
    holding = [place for place, value in enumerate(values) if value == wanted and wanted >= FIRST_ROW]
    held = sorted({times[place] for place in holding})
    gaps = [(later - earlier) / DAY for earlier, later in itertools.pairwise(held)]
    mean = sum(gaps) / len(gaps) if gaps else -1.0
    since = (now - held[-1]) / DAY if held else -1.0
    yield "count", len(holding)
    yield "trips", len(held)
    yield "days_since", since
    yield "events_since", len(values) - holding[-1] if holding else -1.0
    yield "trips_since", sum(moment >= held[-1] for moment in moments) if held else -1.0
    yield "days_since_first", (now - held[0]) / DAY if held else -1.0
    yield "mean_gap", mean
    yield "last_gap", gaps[-1] if gaps else -1.0
    yield "gap_deviation", math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) if len(gaps) > 1 else -1.0
    yield "since_over_gap", since / mean if gaps else -1.0
    yield "share", len(holding) / max(len(values), 1)
    yield "trip_share", len(held) / max(len(moments), 1)
    for half in EVENT_HALF_LIVES:
        yield f"decayed_{half:g}_events", sum(0.5 ** ((len(values) - place) / half) for place in holding)
    for half in DAY_HALF_LIVES:
        yield f"decayed_{half:g}_days", sum(0.5 ** ((now - times[place]) / DAY / half) for place in holding)
    for half in TRIP_HALF_LIVES:
        ages = [sum(moment >= trip for moment in moments) for trip in held]
        yield f"decayed_{half:g}_trips", sum(0.5 ** (age / half) for age in ages)


def of_both(vector_LD: Float32Array, wanted_D: Float32Array, times: list[int], now: int) -> Iterator[tuple[str, float]]:
    weight_L = np.array([0.5 ** ((now - time) / DAY / 30) for time in times])
    last_L = np.array([time == times[-1] for time in times], float)
    for name, weights_L in zip(AFFINITIES, (np.ones(len(times)), weight_L, last_L), strict=True):
        total_D = (weights_L[:, None] * vector_LD.astype(float)).sum(axis=0)
        length = np.linalg.norm(total_D)
        yield name, float(total_D @ wanted_D / length) if length else 0.0


def test_events_from_the_moment_of_a_target_on_change_no_feature(
    dataset: Dataset, examples: Examples, vectors: dict[str, Float32Array]
) -> None:
    before_NK = target_features(dataset, examples, vectors)
    for at in range(len(examples)):
        one, histories = examples.take(slice(at, at + 1)), dataset.histories
        row_N, time_N = np.array(histories.row_N), np.array(histories.time_N)
        hidden = slice(
            int(histories.offset_U[one.user_N[0]] + one.position_N[0]), int(histories.offset_U[one.user_N[0] + 1])
        )
        row_N[hidden], time_N[hidden] = FIRST_ROW, 2**40
        changed = Dataset(dataset.folder)
        changed.__dict__["histories"] = replace(histories, row_N=row_N, time_N=time_N)
        after_NK = target_features(changed, one, vectors)
        assert np.array_equal(after_NK[0], before_NK[at])


def test_vectors_are_of_the_training_period_alone_and_of_unit_length(dataset: Dataset) -> None:
    before = unit_vectors(dataset, 8, seed=0)
    late_N = np.asarray(dataset.histories.time_N) >= dataset.manifest.cut_times[0] // 20
    changed = Dataset(dataset.folder)
    changed.__dict__["histories"] = replace(
        dataset.histories, row_N=np.where(late_N, FIRST_ROW, dataset.histories.row_N)
    )
    after = unit_vectors(changed, 8, seed=0)
    assert list(before) == ["item", "category"]
    for field, vector_VD in before.items():
        assert np.array_equal(vector_VD, after[field])
        length_V = np.linalg.norm(vector_VD, axis=1)
        np.testing.assert_allclose(length_V[length_V > 0], 1, rtol=1e-5)
    assert list(unit_vectors(dataset, 12, seed=0)) == ["item"]


def test_features_do_not_depend_on_how_users_are_grouped(
    dataset: Dataset, examples: Examples, vectors: dict[str, Float32Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_NK = target_features(dataset, examples, vectors)
    monkeypatch.setattr(module, "_EVENTS_AT_ONCE", 50)
    assert np.array_equal(target_features(dataset, examples, vectors), whole_NK)


def test_without_clock_times_the_features_of_time_are_left_out(dataset: Dataset, examples: Examples) -> None:
    ordinal = Dataset(dataset.folder)
    schema = ordinal.manifest.dataset_schema.model_copy(update={"time_unit": "ordinal"})
    ordinal.manifest = ordinal.manifest.model_copy(update={"dataset_schema": schema})
    names = feature_names(ordinal.schema)
    assert not any("day" in name or "gap" in name or "hour" in name for name in names)
    all_names = feature_names(dataset.schema)
    kept = [all_names.index(name) for name in names]
    assert np.array_equal(target_features(ordinal, examples, {}), target_features(dataset, examples, {})[:, kept])


def test_every_feature_has_a_definition() -> None:
    for features in (OF_VALUE, OF_USER, OF_USER_TIMED, OF_MOMENT):
        for name, feature in features.items():
            assert feature.__doc__ and feature.__doc__.endswith("."), name


def test_no_examples_and_no_events_give_empty_columns(dataset: Dataset, tmp_path: Path) -> None:
    none = dataset.examples("test").take(slice(0, 0))
    assert target_features(dataset, none, {}).shape == (0, len(feature_names(dataset.schema)))


def test_a_catalogue_at_one_moment_has_the_features_of_each_item_alone(
    dataset: Dataset, examples: Examples, vectors: dict[str, Float32Array]
) -> None:
    rows = np.arange(len(dataset.catalogue), dtype=np.int32)
    moments = examples.take(np.repeat(np.arange(3), len(rows)))
    whole_NK = target_features(dataset, replace(moments, row_N=np.tile(rows, 3)), vectors)
    for at in (0, 1, 2, 7, len(whole_NK) // 2, len(whole_NK) - 1):
        alone = replace(moments.take(slice(at, at + 1)), row_N=rows[at % len(rows)][None])
        assert np.array_equal(whole_NK[at], target_features(dataset, alone, vectors)[0])
