"""Labels of one target, or several, from ratings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")

from lifelong.dataset.events import Schema
from lifelong.dataset.examples import SPLITS
from lifelong.dataset.folder import Dataset
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.data.grades import expected_rating, grade_tasks
from lifelong.offline.preparation.prepare import PrepareSettings, prepare

Make = Callable[..., Dataset]
GENUINE = Path(__file__).parents[2].parent / "shared" / "data" / "amazon_raw_excerpts"
STARS = (5, 4, 1, 5, 3, 4, 5, 1, 3, 4)
MAPPING = {"user": "user", "item": "item", "time": "time", "rating": "stars"}


@pytest.fixture
def rated(tmp_path: Path) -> Make:
    """Prepare ten ratings of three users, at times 0 to 9."""
    import pyarrow as pa

    def prepare_rows(
        tasks: str | None, *, stars: Any = STARS, mapping: dict[str, Any] | None = None, **settings: Any
    ) -> Dataset:
        columns = {
            "user": [f"u{at % 3}" for at in range(len(stars))],
            "item": [f"i{at % 4}" for at in range(len(stars))],
            "time": list(range(len(stars))),
            "stars": list(stars),
        }
        chosen = PrepareSettings(tasks=tasks, threads=1, cuts=(0.6, 0.8), min_count=1, **settings)
        log, columns_of = pa.table(columns), {**MAPPING, **(mapping or {})}
        return prepare(log, out=tmp_path / "data", settings=chosen, **columns_of)

    return prepare_rows


def labels(dataset: Dataset) -> dict[int, list[float]]:
    """Time of a rating -> its labels, over all splits."""
    parts = [dataset.examples(split) for split in SPLITS]
    return {int(time): label.tolist() for part in parts for time, label in zip(part.time_N, part.label_NT, strict=True)}


def test_a_named_step_is_one_task_over_every_rated_row(rated: Make) -> None:
    dataset = rated("liked=rating>=4")
    assert dataset.schema.tasks == ("liked",) and dataset.schema.grades == ()
    assert (dataset.manifest.protocol, dataset.manifest.negatives.rule) == ("impressions", "none")
    assert labels(dataset) == {time: [float(stars >= 4)] for time, stars in enumerate(STARS)}
    assert dataset.histories.num_events == len(STARS)
    assert dataset.manifest.base_rate == pytest.approx(np.mean([stars >= 4 for stars in STARS[:6]]))


def test_a_graded_rating_has_a_task_for_every_step_that_the_log_has(rated: Make) -> None:
    dataset = rated("rating")
    assert dataset.schema.tasks == ("rating_3", "rating_4", "rating_5")
    assert dataset.schema.grades == (1, 3, 4, 5)
    expected = {time: [float(stars >= step) for step in (3, 4, 5)] for time, stars in enumerate(STARS)}
    assert labels(dataset) == expected
    assert Dataset(dataset.folder).schema == dataset.schema


def test_named_steps_and_the_grades_stand_side_by_side_in_the_order_of_the_command(rated: Make) -> None:
    dataset = rated("liked = rating >= 4, rating, hated=rating>=2.5")
    assert dataset.schema.tasks == ("liked", "rating_3", "rating_4", "rating_5", "hated")
    at = labels(dataset)
    assert (at[2], at[4]) == ([0, 0, 0, 0, 0], [0, 1, 0, 0, 1])
    read = dataset.manifest.record["read"]
    assert read["rating_tasks"]["liked"] == "rating>=4" and read["rating_tasks"]["rating_5"] == "rating>=5"
    assert read["ratings"] == {"1": 2, "3": 2, "4": 3, "5": 3}


def test_labels_are_the_rating_and_probabilities_its_expectation() -> None:
    tasks, grades = ("liked", *grade_tasks((1.0, 2.0, 4.0))), (1.0, 2.0, 4.0)
    assert tasks == ("liked", "rating_2", "rating_4")
    assert expected_rating(tasks, grades, [[0, 0, 0], [0, 1, 0], [1, 1, 1]]).tolist() == [1, 2, 4]
    # P(1) = .5, P(2) = .25, P(4) = .25
    assert expected_rating(tasks, grades, [[0.9, 0.5, 0.25]]).tolist() == [2.0]


def test_a_schema_without_grades_is_written_as_before() -> None:
    plain = Schema(item_fields=("item",), event_types=False)
    assert "grades" not in plain.model_dump() and "grades" not in json.loads(plain.model_dump_json())


@pytest.mark.parametrize(
    ("tasks", "settings", "mapping", "words"),
    [
        ("liked=rating>=6", {}, {}, r"liked is rating>=6, and the ratings are 1, 3, 4, 5"),
        ("liked=rating>=1", {}, {}, r"liked is rating>=1"),
        ("liked=rating>=4,view", {}, {}, "tasks of ratings together with view"),
        ("rating", {"protocol": "temporal"}, {}, "with the protocol 'temporal'"),
        ("rating", {}, {"threshold": 4}, "a threshold or labels together with tasks of ratings"),
    ],
)
def test_tasks_that_do_not_fit_the_ratings_are_refused(
    rated: Make, tasks: str, settings: Any, mapping: Any, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        rated(tasks, mapping=mapping, **settings)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ("rating>=4", "'rating>=4' is not rating, nor of the form NAME=rating>=NUMBER"),
        ("liked=stars>=4", "nor of the form"),
        ("liked=rating>=four", "nor of the form"),
        ("Item=rating>=4", "the name 'Item' is taken"),
        ("rating,rating_4=rating>=3.5", "the name 'rating_4' is taken"),
    ],
)
def test_a_task_of_another_form_is_named(rated: Make, tasks: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rated(tasks)


def test_a_scale_of_many_values_has_no_task_for_each(rated: Make) -> None:
    many = [at / 10 for at in range(30)]
    with pytest.raises(UsageError, match="the rating has 30 values"):
        rated("rating", stars=many)
    assert rated("liked=rating>=1.5", stars=many).schema.tasks == ("liked",)


def test_a_log_without_ratings_has_no_such_tasks(make: Any) -> None:
    with pytest.raises(UsageError, match="rows holds none"):
        make([("u", "a", 1), ("u", "b", 2)], settings={"tasks": "liked=rating>=4"})


def test_an_event_type_may_be_called_rating(make: Any) -> None:
    events = [
        (f"u{user}", item, time, kind)
        for user in range(3)
        for item, time, kind in (
            ("a", 10, "rating"),
            ("b", 20, "view"),
            ("a", 30, "rating"),
            ("b", 40, "rating"),
            ("c", 50, "view"),
        )
    ]
    dataset = make(events, settings={"tasks": "any,rating", "cuts": (0.5, 0.8), "min_count": 1})
    assert dataset.schema.tasks == ("any", "rating") and dataset.schema.grades == ()


def test_of_a_mapped_rating_that_nothing_makes_a_label_of_labels_are_sampled(rated: Make) -> None:
    assert rated(None).manifest.protocol == "temporal"


@pytest.mark.parametrize("threshold", [None, "4"])
def test_amazon_and_movielens_have_ratings_too(tmp_path: Path, threshold: str | None) -> None:
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"{at % 3},{at % 4},{s},{at}\n" for at, s in enumerate(STARS))
    )
    review = '{{"reviewerID": "A{}", "asin": "x", "overall": {}, "unixReviewTime": {}}}\n'
    (tmp_path / "reviews.json").write_text("".join(review.format(at % 3, s, at) for at, s in enumerate(STARS)))
    for source, name in (("movielens", "ratings.csv"), ("amazon", "reviews.json")):
        settings = {"cuts": (0.6, 0.8), "threads": 1, "options": {} if threshold is None else {"threshold": threshold}}
        tasks = "rating" if threshold is None else None
        dataset = prepare(
            source, [tmp_path / name], tmp_path / source, settings=PrepareSettings(tasks=tasks, **settings)
        )
        wanted = (3, 4, 5) if threshold is None else (4,)
        expected = {time: [float(stars >= step) for step in wanted] for time, stars in enumerate(STARS)}
        assert labels(dataset) == expected


@pytest.mark.realdata
@pytest.mark.skipif(not GENUINE.exists(), reason=f"{GENUINE} is not there")
def test_genuine_reviews_become_grades_equal_to_a_plain_recount(tmp_path: Path) -> None:
    path = GENUINE / "Musical_Instruments_5.first50.json"
    settings = PrepareSettings(tasks="liked=rating>=4,rating", threads=1, min_count=1)
    dataset = prepare("amazon", [path], tmp_path / "data", settings=settings)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    stars = sorted({row["overall"] for row in rows})
    assert dataset.schema.grades == tuple(stars)
    assert dataset.schema.tasks == ("liked", *(f"rating_{value:g}" for value in stars[1:]))
    found, users = Counter[tuple[str, str, int, float, bool]](), dataset.users.ids()
    for split in SPLITS:
        part = dataset.examples(split)
        rating_N = expected_rating(dataset.schema.tasks, dataset.schema.grades, part.label_NT)
        items = [dataset.catalogue.id_of(int(row)) for row in part.row_N]
        liked_N = part.label_NT[:, 0] == 1
        columns = zip(part.user_N, items, part.time_N, rating_N, liked_N, strict=True)
        found.update((users[user], item, int(time), stars_, bool(liked)) for user, item, time, stars_, liked in columns)
    assert found == Counter(
        (row["reviewerID"], row["asin"], row["unixReviewTime"], row["overall"], row["overall"] >= 4) for row in rows
    )
