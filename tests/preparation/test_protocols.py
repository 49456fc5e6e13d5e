from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lifelong.dataset.examples import SPLITS
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import NegativeSampler
from lifelong.dataset.vocabulary import id_hash
from lifelong.errors import DataError, UsageError

# Users a and b; baskets share their time; the order in the file is not the order in time.
LOG = [
    ("b", "x", 50),
    ("a", "x", 10),
    ("a", "y", 10),
    ("a", "z", 30),
    ("a", "x", 20),
    ("b", "y", 20),
    ("b", "z", 80),
    ("a", "y", 90),
    ("a", "z", 90),
    ("b", "w", 95),
]
ITEMS = {"w": 2, "x": 3, "y": 4, "z": 5}


def _examples(dataset: Dataset, split: Any, *, positives: bool = False) -> list[tuple[str, str, int, int, int]]:
    """(user, item, time, position, label) of each example."""
    examples = dataset.examples(split)
    rows = [
        (dataset.users.id_at(user), str(dataset.catalogue.id_of(row)), time, position, int(label))
        for user, row, time, position, label in zip(
            examples.user_N.tolist(),
            examples.row_N.tolist(),
            examples.time_N.tolist(),
            examples.position_N.tolist(),
            examples.label_NT[:, 0].tolist(),
            strict=True,
        )
    ]
    return [row for row in rows if row[-1]] if positives else rows


def test_histories_are_sorted_by_user_time_and_place_in_the_source(make: Any) -> None:
    histories = make(LOG).histories
    assert histories.offset_U.tolist() == [0, 6, 10]
    assert histories.row_N.tolist() == [3, 4, 3, 5, 4, 5, 4, 3, 5, 2]
    assert histories.time_N.tolist() == [10, 10, 20, 30, 90, 90, 20, 50, 80, 95]
    assert histories.sequence_N.tolist() == [1, 2, 4, 3, 7, 8, 5, 0, 6, 9]


def test_temporal_cuts_are_order_statistics_of_all_event_times(make: Any) -> None:
    # sorted: 10 10 20 20 30 50 80 90 90 95; places 7 and 9.
    assert make(LOG, settings={"cuts": (0.75, 0.9)}).manifest.cut_times == (90, 95)


def test_a_temporal_target_at_a_cut_belongs_to_the_later_split(make: Any) -> None:
    dataset = make(LOG, settings={"cuts": (0.75, 0.9)})
    assert _examples(dataset, "train") == [
        ("a", "x", 10, 0, 1),
        ("a", "y", 10, 0, 1),
        ("a", "x", 20, 2, 1),
        ("a", "z", 30, 3, 1),
        ("b", "y", 20, 0, 1),
        ("b", "x", 50, 1, 1),
        ("b", "z", 80, 2, 1),
    ]
    assert _examples(dataset, "validation", positives=True) == [("a", "y", 90, 4, 1), ("a", "z", 90, 4, 1)]
    assert _examples(dataset, "test", positives=True) == [("b", "w", 95, 3, 1)]


def test_stored_negatives_stand_behind_their_positive_at_its_time_and_position(make: Any) -> None:
    dataset = make(LOG, settings={"cuts": (0.6, 0.8), "ratio": 2})
    rows = _examples(dataset, "validation")
    assert [row[-1] for row in rows] == [1, 0, 0] * (len(rows) // 3)
    for start in range(0, len(rows), 3):
        group = rows[start : start + 3]
        assert len({(user, time, position) for user, _, time, position, _ in group}) == 1
        assert group[0][1] not in {group[1][1], group[2][1]}


def test_stored_negatives_come_from_the_period_of_their_split(make: Any) -> None:
    early = [(f"u{at}", f"old{at % 5}", at) for at in range(80)]
    late = [(f"u{at}", f"new{at % 3}", at) for at in range(80, 100)]
    dataset = make(early + late)
    for split in ("validation", "test"):
        assert {item[:3] for _, item, _, _, label in _examples(dataset, split) if not label} == {"new"}


def test_only_target_types_are_targets_but_all_events_are_history(make: Any) -> None:
    events = [(user, item, time, "buy" if time in (20, 50, 95) else "view") for user, item, time in LOG]
    dataset = make(events, target_types=("buy",), settings={"cuts": (0.4, 0.8)})
    targets = [row for split in SPLITS for row in _examples(dataset, split, positives=True)]
    assert targets == [("a", "x", 20, 2, 1), ("b", "y", 20, 0, 1), ("b", "x", 50, 1, 1), ("b", "w", 95, 3, 1)]
    assert dataset.histories.num_events == 10


def test_target_types_that_never_occur_are_an_error(make: Any) -> None:
    with pytest.raises(UsageError, match=r"no event has a target type \(buy\).*some of view"):
        make([(*event, "view") for event in LOG], target_types=("buy",))


def test_the_paper_protocol_splits_users_by_their_last_time_with_ties_in_training(make: Any) -> None:
    # Last times 1..5, 7, 7, 7, 8, 9; sorted(last)[7] = 7.
    last = [1, 2, 3, 4, 5, 7, 7, 7, 8, 9]
    dataset = make([(f"u{at}", f"i{at}", time) for at, time in enumerate(last)], settings={"protocol": "paper"})
    users = {split: [row[0] for row in _examples(dataset, split)] for split in SPLITS}
    assert dataset.manifest.cut_times == (7,)
    assert users == {"train": [f"u{at}" for at in range(7)], "validation": ["u7"], "test": ["u8", "u9"]}


def test_the_paper_protocol_has_one_example_a_user_and_replaces_about_half_of_the_items(make: Any) -> None:
    events = [(f"u{user:03}", f"i{user % 50}", 10 * user + step) for user in range(400) for step in range(2)]
    dataset = make(events, settings={"protocol": "paper"})
    rows = [row for split in SPLITS for row in _examples(dataset, split)]
    assert len(rows) == 400
    assert 150 < sum(label for *_, label in rows) < 250
    for user, item, time, position, label in rows:
        number = int(user[1:])
        assert (time, position) == (10 * number + 1, 1)
        assert (item == f"i{number % 50}") == bool(label)
    assert dataset.manifest.negatives.stored
    assert not dataset.manifest.negatives.drawn_in_training


@pytest.mark.parametrize("ties", ["hidden", "seen"])
@pytest.mark.parametrize("seed", range(4))
def test_what_a_target_of_the_paper_protocol_sees_at_ties_equals_a_recount(make: Any, seed: int, ties: str) -> None:
    """Times are few days, so that most users have several events on their last one."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 40, 300)
    log = [(f"u{user:02}", f"i{rng.integers(30)}", int(20 * user + rng.integers(6))) for user in users]
    dataset = make(log, settings={"protocol": "paper", "ties": ties})
    of_user: dict[str, list[tuple[int, int, str]]] = {}
    for place, (user, item, time) in enumerate(log):
        of_user.setdefault(user, []).append((time, place, item))
    assert sum(max(of)[0] == sorted(of)[-2][0] for of in of_user.values() if len(of) > 1) > 10, "too few ties"
    cut = sorted(max(of)[0] for of in of_user.values())[int(0.7 * len(of_user))]
    found = 0
    for split in SPLITS:
        for user, item, time, position, label in _examples(dataset, split):
            events = sorted(of_user[user])
            last = events[-1]
            seen = events[:-1] if ties == "seen" else [event for event in events if event[0] < last[0]]
            start = dataset.histories.of(dataset.users.ids().index(user)).start
            row_L = dataset.histories.row_N[start : start + position].tolist()
            assert [dataset.catalogue.id_of(row) for row in row_L] == [event[2] for event in seen]
            assert (time, item == last[2]) == (last[0], bool(label))
            assert (time > cut) == (split == "test")
            found += 1
    assert found == len(of_user)


def test_ties_are_hidden_unless_they_are_asked_for(make: Any) -> None:
    whole, hidden = make(LOG), make(LOG, out="hidden", settings={"ties": "hidden"})
    assert whole.manifest.data_hash == hidden.manifest.data_hash
    assert "ties" not in whole.manifest.record["settings"]
    with pytest.raises(UsageError, match="the protocol paper"):
        make(LOG, out="seen", settings={"ties": "seen"})


def test_the_coin_flip_may_choose_an_item_of_the_history(make: Any) -> None:
    events = [(f"u{user}", item, time) for user in range(60) for time, item in ((user, "x"), (user + 100, "y"))]
    rows = _examples(make(events, settings={"protocol": "paper"}), "train")
    assert {item for _, item, _, _, label in rows if not label} == {"x"}


def test_the_paper_vocabulary_holds_items_of_training_users_alone(make: Any) -> None:
    events = [(f"u{at}", f"i{at}", at) for at in range(10) for _ in range(2)]
    dataset = make(events, settings={"protocol": "paper"}, sequence=range(20))
    assert sorted(dataset.vocabularies["item"].index.ids()) == [f"i{at}" for at in range(7)]


def test_the_sampler_of_a_paper_dataset_draws_from_the_users_of_its_split(make: Any) -> None:
    events = [(f"u{at}", f"i{at % 5 + 5 * (at > 69)}", at) for at in range(100)]
    dataset = make(events, settings={"protocol": "paper", "negatives": "popularity"})
    drawn = NegativeSampler.open(dataset, "test").draw(dataset.examples("test"), np.random.default_rng(0))
    assert {dataset.catalogue.id_of(row) for row in drawn.ravel().tolist()} <= {f"i{at}" for at in range(5, 10)}


SHOWN = [("a", "x", time, float(time % 3 == 0)) for time in range(15, 95, 10)] + [
    ("c", "v", 97, 1.0),
    ("b", "z", 96, 0.0),
]


def test_logged_labels_are_cut_by_the_times_of_the_impressions(make: Any) -> None:
    dataset = make(LOG, impressions=SHOWN, protocol="impressions")
    assert dataset.manifest.cut_times == (96, 97)
    assert _examples(dataset, "train") == [
        ("a", "x", 15, 2, 1),
        ("a", "x", 25, 3, 0),
        ("a", "x", 35, 4, 0),
        ("a", "x", 45, 4, 1),
        ("a", "x", 55, 4, 0),
        ("a", "x", 65, 4, 0),
        ("a", "x", 75, 4, 1),
        ("a", "x", 85, 4, 0),
    ]
    assert _examples(dataset, "validation") == [("b", "z", 96, 4, 0)]
    assert _examples(dataset, "test") == [("c", "v", 97, 0, 1)]


def test_logged_labels_give_a_base_rate_and_no_negatives(make: Any) -> None:
    manifest = make(LOG, impressions=SHOWN, protocol="impressions").manifest
    assert (manifest.base_rate, manifest.negatives.rule) == (3 / 8, "none")


def test_items_of_training_impressions_count_for_the_vocabulary(make: Any) -> None:
    shown = [("a", "shown", 15, 0.0), ("a", "shown", 16, 0.0), *SHOWN]
    dataset = make(LOG, impressions=shown, protocol="impressions")
    assert "shown" in dataset.vocabularies["item"].index.ids()
    assert "v" not in dataset.vocabularies["item"].index.ids()


def test_several_tasks_keep_their_order(make: Any) -> None:
    shown = [(user, item, time, label, 1 - label) for user, item, time, label in SHOWN]
    dataset = make(LOG, impressions=shown, protocol="impressions", tasks=("click", "buy"))
    assert dataset.schema.tasks == ("click", "buy")
    assert dataset.examples("test").label_NT.tolist() == [[1, 0]]


def test_a_given_split_takes_a_tenth_of_the_training_users_for_validation(make: Any) -> None:
    users = [f"u{at:02}" for at in range(20)]
    events = [(user, f"i{at}", at) for user in [*users, "t"] for at in range(3)]
    shown = [(user, item, 9, float(item == "p"), "train") for user in users for item in ("p", "n")]
    shown += [("t", item, 9, float(item == "p"), "test") for item in ("p", "n")]
    dataset = make(events, impressions=shown, protocol="given", time_unit="ordinal")
    chosen = sorted(users, key=id_hash)[:2]
    assert {row[0] for row in _examples(dataset, "validation")} == set(chosen)
    assert {row[0] for row in _examples(dataset, "train")} == set(users) - set(chosen)
    assert _examples(dataset, "test") == [("t", "p", 9, 3, 1), ("t", "n", 9, 3, 0)]


def test_given_validation_rows_are_kept(make: Any) -> None:
    shown = [("a", "x", 40, 1.0, "train"), ("a", "x", 50, 1.0, "validation"), ("b", "x", 60, 0.0, "test")]
    dataset = make(LOG, impressions=shown, protocol="given")
    assert [len(dataset.examples(split)) for split in SPLITS] == [1, 1, 1]


def test_the_training_period_of_a_given_split_ends_with_each_users_last_training_target(make: Any) -> None:
    shown = [("a", "x", 20, 1.0, "train"), ("a", "x", 30, 1.0, "validation"), ("b", "x", 60, 0.0, "test")]
    dataset = make(LOG, impressions=shown, protocol="given", settings={"min_count": 1})
    # Before 20, user a has x and y; her training target is x.
    assert dataset.vocabularies["item"].index.ids() == ["x", "y"]


@pytest.mark.parametrize(
    ("log", "settings", "message"),
    [
        ({}, {"protocol": "impressions"}, "holds no logged labels"),
        ({"impressions": SHOWN}, {"protocol": "given"}, "does not say which impressions are for testing"),
        ({"impressions": SHOWN, "protocol": "impressions"}, {"negatives": "uniform"}, "which takes logged labels"),
        ({}, {"protocol": "paper", "ratio": 2}, "one example a user"),
        ({"time_unit": "ordinal", "protocol": "given"}, {"protocol": "temporal"}, "has no times"),
        ({}, {"buckets": {"colour": 4}}, "has no item field 'colour'"),
    ],
)
def test_choices_that_do_not_fit_are_refused(make: Any, log: Any, settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(LOG, settings=settings, **log)


@pytest.mark.parametrize(
    ("events", "settings", "message"),
    [
        ([], {}, "holds no events"),
        ([("a", "x", 1), ("a", "y", 2)], {}, "holds one user"),
        ([("a", "x", 1), ("b", "y", 1)], {}, "both cut times are 1, so validation would be empty"),
        ([("a", "x", 1), ("b", "y", 1), ("b", "y", 2)], {"cuts": (0.4, 0.9)}, "the split 'train' has no target"),
        ([("a", "x", 1), ("b", "y", 1)], {"protocol": "paper"}, "leave a split empty"),
        ([("a", "x", None), ("b", "y", 1)], {}, "1 of 2 events have no time"),
        ([(None, "x", 1), ("b", "y", 1)], {}, "1 of 2 events have no user"),
    ],
)
def test_a_log_that_cannot_be_split_is_refused(make: Any, events: Any, settings: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(events, settings=settings)


def test_events_whose_order_is_not_known_are_refused(make: Any) -> None:
    with pytest.raises(DataError, match="the same time and the same place in the source"):
        make([("a", "x", 1), ("a", "y", 1), ("b", "y", 2)], sequence=[5, 5, 6])


def test_an_unknown_split_is_refused(make: Any) -> None:
    shown = [("a", "x", 40, 1.0, "train"), ("b", "x", 60, 0.0, "holdout")]
    with pytest.raises(DataError, match="a split that is not known"):
        make(LOG, impressions=shown, protocol="given")


def test_an_impression_without_a_label_is_refused(make: Any) -> None:
    with pytest.raises(DataError, match="has no label"):
        make(LOG, impressions=[*SHOWN, ("a", "x", 20, None)], protocol="impressions")


@pytest.mark.parametrize(("kind", "days"), [("windowed", 28.0), ("following", 7.0)])
def test_negatives_by_days_need_a_clock_and_the_temporal_protocol(make: Any, kind: str, days: float) -> None:
    log = [(f"u{at % 5}", f"i{at % 7}", at) for at in range(100)]
    rule = make(log, settings={"negatives": kind}).manifest.negatives
    assert (rule.rule, rule.window) == (kind, days)
    for name, unit, protocol in (("paper", "seconds", "paper"), ("ordinal", "ordinal", "temporal")):
        with pytest.raises(UsageError, match=rf"{kind} negatives, from days.*negatives=popularity"):
            chosen = {"negatives": kind, "protocol": protocol}
            make(log, out=name, time_unit=unit, protocol="temporal", settings=chosen)
