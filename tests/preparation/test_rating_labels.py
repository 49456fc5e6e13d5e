"""Labels of one target, or several, from ratings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")

from lifelong.dataset.examples import SPLITS
from lifelong.dataset.folder import Dataset
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.preparation.prepare import PrepareSettings, prepare

Make = Callable[..., Dataset]
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
    assert dataset.schema.tasks == ("liked",)
    assert (dataset.manifest.protocol, dataset.manifest.negatives.rule) == ("impressions", "none")
    assert labels(dataset) == {time: [float(stars >= 4)] for time, stars in enumerate(STARS)}
    assert dataset.histories.num_events == len(STARS)
    assert dataset.manifest.base_rate == pytest.approx(np.mean([stars >= 4 for stars in STARS[:6]]))


def test_several_steps_stand_side_by_side_in_the_order_of_the_command(rated: Make) -> None:
    dataset = rated("liked = rating >= 4, hated=rating>=2.5")
    assert dataset.schema.tasks == ("liked", "hated")
    at = labels(dataset)
    assert (at[2], at[4]) == ([0, 0], [0, 1])
    read = dataset.manifest.record["read"]
    assert read["rating_tasks"] == {"liked": "rating>=4", "hated": "rating>=2.5"}
    assert read["ratings"] == {"1": 2, "3": 2, "4": 3, "5": 3}


@pytest.mark.parametrize(
    ("tasks", "settings", "mapping", "words"),
    [
        ("liked=rating>=6", {}, {}, r"liked is rating>=6, and the ratings are 1, 3, 4, 5"),
        ("liked=rating>=1", {}, {}, r"liked is rating>=1"),
        ("liked=rating>=4,view", {}, {}, "tasks of ratings together with view"),
        ("liked=rating>=4", {"protocol": "temporal"}, {}, "with the protocol 'temporal'"),
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
        ("rating>=4", "'rating>=4' is not of the form NAME=rating>=NUMBER"),
        ("liked=stars>=4", "not of the form"),
        ("liked=rating>=four", "not of the form"),
        ("Item=rating>=4", "the name 'Item' is taken"),
        ("liked=rating>=4,Liked=rating>=3.5", "the name 'Liked' is taken"),
    ],
)
def test_a_task_of_another_form_is_named(rated: Make, tasks: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rated(tasks)


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
    assert dataset.schema.tasks == ("any", "rating")


def test_of_a_mapped_rating_that_nothing_makes_a_label_of_labels_are_sampled(rated: Make) -> None:
    assert rated(None).manifest.protocol == "temporal"


def test_amazon_and_movielens_have_ratings_too(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"{at % 3},{at % 4},{s},{at}\n" for at, s in enumerate(STARS))
    )
    review = '{{"reviewerID": "A{}", "asin": "x", "overall": {}, "unixReviewTime": {}}}\n'
    (tmp_path / "reviews.json").write_text("".join(review.format(at % 3, s, at) for at, s in enumerate(STARS)))
    for source, name in (("movielens", "ratings.csv"), ("amazon", "reviews.json")):
        settings = PrepareSettings(tasks="liked=rating>=4", cuts=(0.6, 0.8), threads=1)
        dataset = prepare(source, [tmp_path / name], tmp_path / source, settings=settings)
        assert labels(dataset) == {time: [float(stars >= 4)] for time, stars in enumerate(STARS)}
