"""How often an item was met before a moment, and how it was rated: against a loop, and nothing of what comes later."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")

from lifelong.data.dataset import Dataset
from lifelong.data.item_statistics import PRIOR, ItemStatistics, LatestStatistics, Running, latest_numbers, level
from lifelong.data.scales import FIRST_LEVEL, ITEM_SCALES, RATING, REVIEWS
from lifelong.data.vocabulary import PADDING, UNKNOWN
from lifelong.errors import DatasetError, RequestError, UsageError
from lifelong.preparation.earlier_dataset import EarlierDataset

Make = Callable[..., Dataset]
Event, Rating = tuple[str, str, int], tuple[str, str, int, float]
ON = {"item_statistics": True}
ROWS = 4
THINGS = st.lists(
    st.tuples(st.integers(0, ROWS - 1), st.integers(0, 6), st.integers(2, 10).map(lambda n: n / 2)), max_size=30
)


def naive(events: list[Any], ratings: list[Any], item: Any, time: int) -> tuple[int, float]:
    """The number of events and the smoothed mean rating of an item before a time, by loops; NaN where unknown."""
    reviews = sum(1 for of, at, *_ in events if of == item and at < time)
    own = [value for of, at, value in ratings if of == item and at < time]
    every = [value for _, at, value in ratings if at < time]
    if not every:
        return reviews, math.nan
    return reviews, (sum(own) + PRIOR * sum(every) / len(every)) / (len(own) + PRIOR)


def statistics_of(events: list[Any], ratings: list[Any]) -> ItemStatistics:
    def columns(rows: list[Any], width: int) -> list[list[Any]]:
        return [[row[at] for row in rows] for at in range(width)]

    item, time, value = columns(ratings, 3)
    of_events = Running.of(*columns(events, 2), None, ROWS)
    return ItemStatistics(
        of_events, Running.of(item, time, value, ROWS), Running.of([0] * len(time), time, value, 1), (1.0, 5.0)
    )


QUESTIONS = [(row, time) for row in range(ROWS) for time in range(-1, 9)]
ASKED = (np.array([row for row, _ in QUESTIONS]), np.array([time for _, time in QUESTIONS]))


@settings(deadline=None)
@given(THINGS, THINGS)
def test_the_statistics_are_what_a_loop_over_the_log_counts(events: list[Any], ratings: list[Any]) -> None:
    found = statistics_of(events, ratings).values(*ASKED)
    expected = [naive(events, ratings, *question) for question in QUESTIONS]
    assert found[REVIEWS].tolist() == [reviews for reviews, _ in expected]
    np.testing.assert_allclose(found[RATING], [rating for _, rating in expected], rtol=1e-12)


@settings(deadline=None)
@given(THINGS, THINGS, st.integers(0, 7), st.randoms())
def test_what_happens_from_a_moment_on_changes_nothing_before_it(
    events: list[Any], ratings: list[Any], moment: int, rng: random.Random
) -> None:
    """The rest of the log is taken out, or falls on other items with other ratings."""
    asked = tuple(column[ASKED[1] <= moment] for column in ASKED)

    def changed(rows: list[Any]) -> list[Any]:
        kept = [row for row in rows if row[1] < moment]
        return kept + [(rng.randrange(ROWS), row[1], rng.randint(1, 5)) for row in rows if row[1] >= moment]

    whole = statistics_of(events, ratings).numbers(*asked)
    for other in (
        statistics_of(*([row for row in rows if row[1] < moment] for rows in (events, ratings))),
        statistics_of(changed(events), changed(ratings)),
    ):
        found = other.numbers(*asked)
        assert all(np.array_equal(found[field], whole[field]) for field in (REVIEWS, RATING))


def log_of(number: int, *, seed: int = 0) -> tuple[list[Event], list[Rating]]:
    """Events, many of one item and moment; two of three are ratings, and the last ones are the highest."""
    rng = random.Random(seed)
    events = [(f"u{rng.randrange(12)}", f"i{rng.randrange(9)}", rng.randrange(60)) for _ in range(number)]
    ratings = [(*event, float(9 if event[2] > 50 else rng.randint(1, 5))) for event in events if rng.random() < 0.66]
    return events, ratings


def test_prepared_statistics_are_those_of_the_whole_log_at_any_moment(make: Make) -> None:
    events, ratings = log_of(400)
    dataset = make(events, ratings=ratings, settings=ON)
    statistics = dataset.item_statistics
    assert statistics is not None
    questions = [(f"i{item}", time) for item in range(9) for time in range(0, 64, 3)]
    rows, times = dataset.catalogue.rows([item for item, _ in questions]), np.array([time for _, time in questions])
    plain = [(item, time) for _, item, time in events], [row[1:] for row in ratings]
    expected = [naive(*plain, *question) for question in questions]
    found = statistics.values(rows, times)
    assert found[REVIEWS].tolist() == [reviews for reviews, _ in expected]
    np.testing.assert_allclose(found[RATING], [rating for _, rating in expected], rtol=1e-12)
    assert dataset.schema.context_fields[-2:] == (REVIEWS, RATING)
    assert dataset.inputs.context[REVIEWS] == ITEM_SCALES[REVIEWS].size
    assert REVIEWS not in dataset.inputs.context_fields


def test_a_moment_does_not_see_itself_and_users_all_count() -> None:
    events = [(2, 10), (2, 10), (2, 20), (3, 5)]
    found = statistics_of(events, [(2, 10, 4.0), (3, 5, 2.0)])
    rows, times = np.array([2, 2, 2, 3, 0]), np.array([10, 11, 21, 5, 99])
    values = found.values(rows, times)
    assert values[REVIEWS].tolist() == [0, 2, 3, 0, 0]
    # The mean of all ratings before, then its own rating with `PRIOR` of that mean; none before the log's first one.
    own = (4 + PRIOR * 3) / (1 + PRIOR)
    assert values[RATING].tolist() == pytest.approx([2, own, own, math.nan, 3], nan_ok=True)
    assert found.numbers(rows, times)[RATING][3] == UNKNOWN


def test_the_range_of_ratings_is_that_of_the_training_period(make: Make) -> None:
    events, ratings = log_of(400)
    dataset = make(events, ratings=ratings, settings=ON)
    first = dataset.manifest.cut_times[0]
    assert first <= 51
    assert dataset.schema.rating_range == (1.0, 5.0)
    # A higher one counts as the highest.
    assert level(RATING, np.array([9.0]), (1.0, 5.0)) == level(RATING, np.array([5.0]), (1.0, 5.0))


def test_a_log_without_ratings_has_no_mean_rating(make: Make) -> None:
    events, _ = log_of(300)
    dataset = make(events, settings=ON)
    assert dataset.schema.context_fields[-1] == REVIEWS
    assert not (dataset.folder / "statistics" / "ratings").exists()
    alike = make(events, ratings=[(*event, 3.0) for event in events], out="alike", settings=ON)
    assert alike.schema.rating_range == ()


def test_without_the_setting_a_dataset_is_what_it_was(make: Make) -> None:
    events, ratings = log_of(300)
    plain, more = (make(events, ratings=ratings, out=f"d{on}", settings={"item_statistics": on}) for on in (0, 1))
    assert "statistics" not in (plain.folder / "dataset.json").read_text()
    assert plain.item_statistics is None
    assert not [field for field in plain.schema.context_fields if field.startswith("item.")]
    for path in sorted(plain.folder.rglob("*.npy")):
        assert path.read_bytes() == (more.folder / path.relative_to(plain.folder)).read_bytes(), path


def test_the_same_log_gives_the_same_statistics_in_any_order_of_its_rows(make: Make) -> None:
    events, ratings = log_of(3000)
    turned = {"sequence": range(len(events))[::-1], "ratings": ratings[::-1]}
    first = make(events, ratings=ratings, out="one", settings=ON | {"threads": 1}).folder / "statistics"
    other = make(events[::-1], **turned, out="two", settings=ON | {"threads": 2}).folder / "statistics"
    paths = sorted(first.rglob("*.npy"))
    assert len(paths) == 8
    for path in paths:
        assert path.read_bytes() == (other / path.relative_to(first)).read_bytes(), path


def test_a_log_whose_users_count_their_own_events_has_no_statistics(make: Make) -> None:
    with pytest.raises(UsageError, match="no clock times"):
        make(log_of(100)[0], time_unit="ordinal", settings=ON)


def test_a_refresh_keeps_the_range_of_ratings(make: Make) -> None:
    events, ratings = log_of(400)
    first = make(events, ratings=ratings, settings=ON)
    assert EarlierDataset.open(first.folder).rating_range == (1.0, 5.0)
    wider = [(*row[:3], row[3] * 2) for row in ratings]
    again = make(events, ratings=wider, out="again", settings=ON | {"start": first.folder})
    assert again.schema == first.schema


@pytest.mark.parametrize(
    ("path", "problem"),
    [("events/time", "5 values"), ("ratings/sum", "5 values"), ("overall/offset", "cannot read")],
)
def test_damaged_statistics_are_named(make: Make, path: str, problem: str) -> None:
    events, ratings = log_of(100)
    dataset = make(events, ratings=ratings, settings=ON)
    place = dataset.folder / "statistics" / f"{path}.npy"
    if problem == "cannot read":
        place.unlink()
    else:
        np.save(place, np.zeros(5, np.int64))
    with pytest.raises(DatasetError, match=problem):
        _ = Dataset(dataset.folder).item_statistics


def test_saved_statistics_come_back_and_end_with_the_log(tmp_path: Path) -> None:
    events, ratings = [(2, 5), (2, 9), (3, 7)], [(2, 5, 1.0), (3, 7, 5.0)]
    statistics_of(events, ratings).save(tmp_path)
    again = ItemStatistics.open(tmp_path, (1.0, 5.0))
    number_VK = latest_numbers(again, (RATING, REVIEWS))
    scale = ITEM_SCALES[REVIEWS]
    assert number_VK[:, 1].tolist() == scale.numbers(np.array([0, 0, 2, 1]), np.ones(4, bool)).tolist()
    middle = FIRST_LEVEL + 64
    assert number_VK[UNKNOWN, 0] == middle and number_VK[2, 0] < middle < number_VK[3, 0]


def test_a_request_brings_newer_values_of_its_items() -> None:
    kept = LatestStatistics((RATING, REVIEWS), np.array([[0, 0], [1, 2], [30, 31]], np.int32), (1.0, 5.0))
    given = [None, {REVIEWS: "7"}, {RATING: "5.0", REVIEWS: None}, {}]
    newer, unknown = (level(REVIEWS, np.array([value]), (1.0, 5.0))[0] for value in (7.0, math.nan))
    best = level(RATING, np.array([5.0]), (1.0, 5.0))[0]
    assert kept.numbers(np.array([2, 2, 2, 2]), given).tolist() == [[30, 31], [30, newer], [best, unknown], [30, 31]]
    assert kept.numbers(np.array([2, 1])).tolist() == [[30, 31], [1, 2]]
    with pytest.raises(RequestError, match="'many'"):
        kept.numbers(np.array([2]), [{REVIEWS: "many"}])


@pytest.mark.torch
def test_every_target_and_negative_has_the_statistics_of_its_item_before_it(make: Make) -> None:
    pytest.importorskip("torch")
    from lifelong.config import TrainSettings
    from lifelong.data.batches import TrainingBatches, evaluation_batches

    events, ratings = log_of(400)
    dataset = make(events, ratings=ratings, settings=ON)
    training = TrainingBatches(dataset, TrainSettings(hide_items=0.0, hide_fields=0.0))
    batches = [training.make(passes, 0, at) for at, passes in enumerate(training.epoch(0))]
    late = dataset.examples("test")
    plain, seconds = ([(item, time) for _, item, time in events], [row[1:] for row in ratings]), 5
    of_fields = [dataset.schema.context_fields.index(field) for field in (REVIEWS, RATING)]
    checked = 0
    for hidden, found in (
        (0, batches),
        (0, list(evaluation_batches(dataset, late))),
        (seconds - 1, list(evaluation_batches(dataset, late, delay=seconds))),
    ):
        for batch in found:
            mask = batch.mask_BC.numpy()
            items = [dataset.vocabularies["item"].value_of(int(n)) for n in batch.target_BCF.numpy()[mask][:, 0]]
            times = batch.target_time_BC.numpy()[mask].tolist()
            values = [naive(*plain, item, time - hidden) for item, time in zip(items, times, strict=True)]
            expected = [
                level(field, np.array([value[at] for value in values], float), (1.0, 5.0)).tolist()
                for at, field in enumerate((REVIEWS, RATING))
            ]
            assert batch.context_BCF.numpy()[mask][:, of_fields].T.tolist() == expected
            assert (batch.context_BCF.numpy()[~mask] == PADDING).all()
            checked += len(items)
    assert checked == training.examples_per_epoch + 2 * len(late)
