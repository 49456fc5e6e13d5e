"""Ordinal times: one cut for all users, which is said, or one for each user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")
from support.rows import Make

from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import NegativeSampler
from lifelong.errors import UsageError
from lifelong.offline.data.recent import recent_parts
from lifelong.offline.preparation.prepare import prepare

LENGTH = {"a": 10, "b": 10, "c": 20, "d": 5}
EVENTS = [(user, f"i{at % 6}", at) for user, length in LENGTH.items() for at in range(length)]
ORDINAL = {"time_unit": "ordinal", "settings": {"cut_by": "user", "min_count": 1}}


def times(dataset: Dataset, split: Any) -> dict[str, list[int]]:
    """User -> times of the positive targets of a split."""
    examples = dataset.examples(split)
    found: dict[str, list[int]] = {}
    for user, time, label in zip(examples.user_N, examples.time_N, examples.label_NT[:, 0], strict=True):
        if label > 0:
            found.setdefault(dataset.users.id_at(int(user)), []).append(int(time))
    return found


def test_each_user_is_cut_at_shares_of_her_own_events(make: Make) -> None:
    dataset = make(EVENTS, **ORDINAL)
    assert times(dataset, "train") == {"a": [*range(8)], "b": [*range(8)], "c": [*range(16)], "d": [*range(4)]}
    assert times(dataset, "validation") == {"a": [8], "b": [8], "c": [16, 17]}
    assert times(dataset, "test") == {"a": [9], "b": [9], "c": [18, 19], "d": [4]}
    assert (dataset.manifest.protocol, dataset.manifest.cut_times) == ("temporal", ())
    assert "ordinal_cuts" not in dataset.manifest.record


def test_training_negatives_are_drawn_from_each_users_own_training_events(make: Make) -> None:
    late = [
        (user, f"late {user}", time) if time >= 0.8 * LENGTH[user] else (user, item, time)
        for user, item, time in EVENTS
    ]
    dataset = make(late, **ORDINAL)
    sampler = NegativeSampler.open(dataset, "train")
    drawn = sampler.draw(dataset.examples("train"), np.random.default_rng(0))
    names = {dataset.catalogue.ids.id_at(int(row) - 2) for row in np.unique(drawn)}
    assert names
    assert not [name for name in names if name.startswith("late")]


def test_windows_of_histories_have_the_cuts_of_their_users(make: Make) -> None:
    dataset = make(EVENTS, **ORDINAL)
    whole = dataset.user_cuts
    assert whole is not None
    for _, part, _ in recent_parts(dataset, dataset.examples("test"), 3):
        assert np.array_equal(part.user_cuts, whole[:, part.window_users])


def test_logged_labels_are_cut_by_user_too(make: Make) -> None:
    shown = [(user, item, time, float(time % 2)) for user, item, time in EVENTS]
    dataset = make(EVENTS, impressions=shown, protocol="impressions", **ORDINAL)
    assert [len(dataset.examples(split)) for split in ("train", "validation", "test")] == [36, 4, 5]
    assert times(dataset, "test") == {"a": [9], "b": [9], "c": [19]}


def test_one_cut_for_all_users_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lifelong.cli import main

    (tmp_path / "log.csv").write_text("u,i,t\n" + "".join(f"{user},{item},{time}\n" for user, item, time in EVENTS))
    columns = ["user=u", "item=i", "time=t", "time_unit=ordinal"]
    command = [
        "prepare",
        "table",
        str(tmp_path / "log.csv"),
        *(word for each in columns for word in ("--option", each)),
    ]
    assert main([*command, "--out", str(tmp_path / "data")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    found = Dataset(tmp_path / "data").manifest.record["ordinal_cuts"]
    assert found == {"cut_times": [11, 15], "users": 4, "users_before_all_cuts": 3}
    assert "cut at the same numbers, 11 and 15: all events of 3 of 4 users" in shown
    assert main([*command, "--set", "cut_by=user", "--out", str(tmp_path / "own")]) == 0
    assert "same numbers" not in capsys.readouterr().out


def test_a_model_trains_on_users_cut_one_by_one(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from lifelong import evaluate, train

    dataset = make(EVENTS, **ORDINAL)
    artifact = train(dataset, "popularity", tmp_path / "artifact", progress=False)
    assert evaluate(artifact, dataset) is not None


@pytest.mark.parametrize(
    ("log", "settings", "words"),
    [
        ({}, {}, "clock times.*leave out cut_by"),
        ({"time_unit": "ordinal"}, {"vault": 0.05}, "cut_by=user with a vault"),
        ({"time_unit": "ordinal", "protocol": "paper"}, {}, "cut_by=user with the protocol 'paper'"),
    ],
)
def test_what_cannot_be_cut_by_user_is_refused(
    make: Make, log: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        make(EVENTS, settings={"cut_by": "user", **settings}, **log)


def test_two_label_columns_are_two_tasks(tmp_path: Path) -> None:
    lines = [f"u{at % 9},i{at % 7},{1_700_000_000 + at},{at % 2},{int(at % 4 == 0)}\n" for at in range(90)]
    (tmp_path / "log.csv").write_text("u,i,t,clicked,bought\n" + "".join(lines))
    columns = {
        "user": "u",
        "item": "i",
        "time": "t",
        "labels": "clicked,bought,late",
        "query": "SELECT *, CAST(t > '17000000' AS INTEGER) AS late FROM log",
    }
    dataset = prepare(tmp_path / "log.csv", out=tmp_path / "data", threads=1, history="all", **columns)
    assert dataset.schema.tasks == ("clicked", "bought", "late")
    assert dataset.examples("test").label_NT.shape == (9, 3)
    assert dataset.manifest.record["splits"]["train"]["positives_bought"] == 18
