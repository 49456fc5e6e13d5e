"""Several labels of one target, from the types of its events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lifelong.errors import ConfigError, UsageError

EVENTS = [
    (user, item, time, kind)
    for user in ("u1", "u2", "u3")
    for item, time, kind in (
        ("a", 10, "view"),
        ("b", 20, "view"),
        ("b", 20, "cart"),
        ("c", 30, "cart"),
        ("b", 40, "buy"),
        ("a", 50, "view"),
        ("b", 60, "buy"),
        ("b", 60, "view"),
        ("a", 70, "buy"),
    )
]
SETTINGS = {"cuts": (0.5, 0.8), "tasks": "any,cart,buy", "min_count": 1}


def positives(dataset: Any, split: str, user: int = 0) -> list[tuple[str, int, list[float]]]:
    examples = dataset.examples(split)
    return [
        (dataset.catalogue.id_of(int(row)), int(time), label.tolist())
        for row, time, label, who in zip(
            examples.row_N, examples.time_N, examples.label_NT, examples.user_N, strict=True
        )
        if who == user and label.any()
    ]


def test_an_item_of_a_moment_is_one_target_with_the_labels_of_all_its_events(make: Any) -> None:
    dataset = make(EVENTS, settings=SETTINGS)
    assert dataset.schema.tasks == dataset.inputs.tasks == ("any", "cart", "buy")
    assert positives(dataset, "train") == [
        ("a", 10, [1, 0, 0]),
        ("b", 20, [1, 1, 0]),
        ("c", 30, [1, 1, 0]),
    ]
    assert positives(dataset, "test") == [("b", 60, [1, 0, 1]), ("a", 70, [1, 0, 1])]


def test_negatives_are_negatives_of_every_task(make: Any) -> None:
    examples = make(EVENTS, settings=SETTINGS).examples("test")
    assert examples.label_NT.shape == (12, 3)
    assert not examples.label_NT[1::2].any()


def test_the_record_counts_the_positives_of_each_task(make: Any) -> None:
    found = make(EVENTS, settings=SETTINGS).manifest.record["splits"]["test"]
    assert {name: found[f"positives_{name}"] for name in ("any", "cart", "buy")} == {"any": 6, "cart": 0, "buy": 6}


def test_without_any_the_events_of_other_types_are_targets_too_with_label_zero(make: Any) -> None:
    dataset = make(EVENTS, settings=SETTINGS | {"tasks": ("buy", "cart")})
    assert dataset.examples("train").label_NT.tolist()[:3] == [[0, 0], [0, 1], [0, 1]]


def test_target_types_and_the_types_of_tasks_make_targets_and_no_others(make: Any) -> None:
    dataset = make(EVENTS, settings=SETTINGS | {"tasks": "any,buy"}, target_types=("cart",))
    assert positives(dataset, "train") == [("b", 20, [1, 0]), ("c", 30, [1, 0])]
    assert positives(dataset, "test") == [("b", 60, [1, 1]), ("a", 70, [1, 1])]


def test_under_paper_a_coin_decides_over_all_labels(make: Any) -> None:
    many = [(f"u{user}", *event[1:3], event[3]) for user in range(40) for event in EVENTS[:9]]
    many = [(user, item, time + int(user[1:]), kind) for user, item, time, kind in many]
    labels = np.concatenate(
        [
            make(many, out="paper", settings={"tasks": "any,buy", "protocol": "paper", "overwrite": True})
            .examples(split)
            .label_NT
            for split in ("train", "test")
        ]
    )
    assert {tuple(row) for row in labels.tolist()} == {(0.0, 0.0), (1.0, 1.0)}


def test_without_tasks_nothing_is_recorded_of_them(make: Any) -> None:
    manifest = make(EVENTS, settings={"cuts": (0.5, 0.8)}).manifest
    assert manifest.dataset_schema.tasks == ("response",)
    assert "tasks" not in manifest.record["settings"]
    assert not any(name.startswith("positives_") for name in manifest.record["splits"]["test"])


def test_a_type_that_the_log_does_not_have_is_refused_with_those_it_has(make: Any) -> None:
    with pytest.raises(UsageError, match=r"tasks sold.*any, buy, cart, view"):
        make(EVENTS, settings=SETTINGS | {"tasks": "buy,sold"})


def test_a_log_without_types_has_no_tasks(make: Any) -> None:
    with pytest.raises(UsageError, match="the events have no types"):
        make([event[:3] for event in EVENTS], settings=SETTINGS)


@pytest.mark.parametrize("tasks", ["buy,buy", "", "buy,,cart"])
def test_tasks_are_different_names(make: Any, tasks: str) -> None:
    with pytest.raises((ConfigError, ValueError), match="tasks are different names"):
        make(EVENTS, settings=SETTINGS | {"tasks": tasks})
