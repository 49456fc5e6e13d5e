from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lifelong.dataset.examples import SPLITS
from lifelong.dataset.folder import Dataset
from lifelong.dataset.vocabulary import UNKNOWN, id_hash
from lifelong.errors import DataError
from lifelong.offline.preparation.manifest_counts import too_small
from lifelong.offline.preparation.prepare import PrepareSettings, expand
from lifelong.offline.preparation.training_vocabulary import default_buckets

# Cut at 80 and 90: the items of the training period are b (30 times), c (29), d (20) and a (1); z and y are new.
ITEMS = ["c", "b", "d", "c", "b", "d", "c", "b", "d", "c"]
LOG = [(f"u{at % 3}", ITEMS[at // 10], at) for at in range(80)]
LOG = [(user, item if at else "a", at) for user, item, at in LOG]
LOG += [(f"u{at % 3}", "zy"[at % 2], at) for at in range(80, 100)]
FIELDS = [("a", "red"), ("b", "blue"), ("c", None), ("d", "red"), ("y", "blue"), ("z", "green"), ("never", "")]


def _with_fields(make: Any, **settings: Any) -> Dataset:
    return make(LOG, items=FIELDS, item_fields=("colour",), settings=settings)  # type: ignore[no-any-return]


def _random_log(num: int, *, seed: int = 0) -> list[tuple[str, str, int, str]]:
    rng = random.Random(seed)
    return [
        (f"u{rng.randrange(50)}", f"i{int(rng.random() ** 2 * 80)}", rng.randrange(300), rng.choice(["view", "buy"]))
        for _ in range(num)
    ]


def test_known_items_are_numbered_by_descending_training_count(make: Any) -> None:
    assert _with_fields(make, buckets=4).vocabularies["item"].index.ids() == ["b", "c", "d"]


def test_items_of_equal_count_are_numbered_by_id(make: Any) -> None:
    log = [(f"u{at % 3}", ["é", "z", "a", "Z"][at % 4], at) for at in range(100)]
    assert make(log).vocabularies["item"].index.ids() == ["Z", "a", "z", "é"]


def test_rare_and_new_items_have_bucket_numbers_and_their_own_rows(make: Any) -> None:
    catalogue = _with_fields(make, buckets=4).catalogue
    rows = catalogue.rows(["a", "b", "c", "d", "never", "y", "z", "absent"]).tolist()
    assert rows == [2, 3, 4, 5, 6, 7, 8, UNKNOWN]
    expected = [2 + id_hash(item) % 4 for item in ("a", "never", "y", "z")]
    assert catalogue.number_VF[[2, 6, 7, 8], 0].tolist() == expected
    assert catalogue.number_VF[[3, 4, 5], 0].tolist() == [6, 7, 8]


def test_fields_are_numbered_from_the_training_period_and_missing_ones_are_unknown(make: Any) -> None:
    dataset = _with_fields(make)
    assert dataset.vocabularies["colour"].index.ids() == ["blue", "red"]
    # Rows: padding, unknown, a red, b blue, c missing, d red, never empty, y blue, z green (only seen later).
    assert dataset.catalogue.number_VF[:, 1].tolist() == [0, 1, 3, 2, 1, 3, 1, 2, 1]


def test_a_field_with_buckets_sends_new_values_there(make: Any) -> None:
    dataset = _with_fields(make, buckets={"colour": 5})
    assert dataset.catalogue.number_VF[8, 1] == 2 + id_hash("green") % 5
    assert dataset.catalogue.number_VF[4, 1] == UNKNOWN


def test_min_count_one_keeps_every_training_item(make: Any) -> None:
    assert _with_fields(make, min_count=1).vocabularies["item"].index.ids() == ["b", "c", "d", "a"]


def test_an_item_table_that_names_an_item_twice_is_refused(make: Any) -> None:
    with pytest.raises(DataError, match="names an item twice"):
        make(LOG, items=[*FIELDS, ("a", "blue")], item_fields=("colour",))


def test_event_types_are_numbered_from_the_training_period(make: Any) -> None:
    events = [(*event, "buy" if event[2] % 3 == 0 else "view" if event[2] < 80 else "late") for event in LOG]
    events[0] = (*LOG[0], None)
    dataset = make(events)
    assert dataset.event_types.index.ids() == ["view", "buy"]
    types = dict(zip(dataset.histories.time_N.tolist(), dataset.histories.event_type_N.tolist(), strict=True))
    assert (types[0], types[1], types[3], types[81], types[82]) == (UNKNOWN, 2, 3, 3, UNKNOWN)


@pytest.mark.parametrize(
    ("field", "known", "buckets"),
    [
        ("item", 10, 64),
        ("item", 40_000, 1_024),
        ("item", 4_000_000, 65_536),
        ("brand", 999, 0),
        ("brand", 5_000, 128),
        ("brand", 10**7, 4_096),
    ],
)
def test_default_buckets_grow_with_the_field(field: str, known: int, buckets: int) -> None:
    assert default_buckets(field, known) == buckets


def test_the_record_counts_what_was_read(make: Any) -> None:
    events = [*_random_log(400), ("u1", "i1", 5, "buy"), ("u1", "i1", 5, "buy")]
    record = make(events, record={"rows": 402}).manifest.record
    moments = {(user, time) for user, _, time, _ in events}
    assert record["read"] == {"rows": 402}
    assert record["events"] == 402
    assert record["ties"] == 402 - len(moments)
    assert record["duplicate_events"] == 402 - len(set(events))
    in_order = sorted((user, time, place) for place, (user, _, time, _) in enumerate(events))
    pairs = list(itertools.pairwise(in_order))
    assert record["unsorted_events"] == sum(a[0] == b[0] and a[2] > b[2] for a, b in pairs) > 0
    assert sum(record[f"{split}_events"] for split in SPLITS) == 402
    assert (record["time_first"], record["time_last"]) == (min(e[2] for e in events), max(e[2] for e in events))


def test_the_record_counts_new_items_and_targets_without_history(make: Any) -> None:
    record = make([*LOG, ("new", "c", 99), ("new", "c", 99)]).manifest.record["splits"]
    # Training ends before 81, so that of the two new items it holds z, at 80.
    assert (record["train"]["new_items"], record["test"]["new_items"]) == (0, 1)
    assert record["train"]["without_history"] == 3
    # Both events of the new user, and the negative of each.
    assert record["test"]["without_history"] == 4


def test_counts_add_up(make: Any) -> None:
    manifest = make(_random_log(500), settings={"ratio": 3}).manifest
    assert manifest.counts["events"] == 500
    assert sum(manifest.counts[f"{split}_positives"] for split in SPLITS) == 500
    assert manifest.counts["train_examples"] == manifest.counts["train_positives"]
    assert manifest.counts["test_examples"] == 4 * manifest.counts["test_positives"]


def test_the_same_log_gives_the_same_hash_whatever_the_threads(make: Any) -> None:
    log = _random_log(3000)
    one, two = (make(log, out=f"d{threads}", settings={"threads": threads}) for threads in (1, 2))
    assert two.manifest.record["settings"]["threads"] == 2
    assert one.manifest.data_hash == two.manifest.data_hash


def test_rows_in_another_order_but_with_their_places_give_the_same_hash(make: Any) -> None:
    log = _random_log(1000)
    order = random.Random(1).sample(range(1000), 1000)
    one = make(log, out="one")
    two = make([log[place] for place in order], out="two", sequence=order)
    assert one.manifest.data_hash == two.manifest.data_hash


def test_another_seed_changes_the_stored_negatives_alone(make: Any) -> None:
    log = _random_log(1000)
    one, two = (make(log, out=f"d{seed}", settings={"seed": seed}) for seed in (1, 2))
    assert one.manifest.data_hash != two.manifest.data_hash
    assert np.array_equal(one.examples("train").row_N, two.examples("train").row_N)
    test = one.examples("test"), two.examples("test")
    assert np.array_equal(test[0].row_N[::2], test[1].row_N[::2])
    assert not np.array_equal(test[0].row_N[1::2], test[1].row_N[1::2])


@pytest.mark.slow
def test_little_memory_changes_nothing(make: Any) -> None:
    log = _random_log(60_000)
    one, two = (make(log, out=limit, settings={"memory_limit": limit}) for limit in ("1GB", "60MB"))
    assert one.manifest.data_hash == two.manifest.data_hash


def test_globs_become_their_sorted_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.csv", "a.csv", "c.txt", "odd[1].csv"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert [path.name for path in expand([tmp_path / "c.txt", str(tmp_path / "[ab].csv")])] == [
        "c.txt",
        "a.csv",
        "b.csv",
    ]
    assert [path.name for path in expand(["../[ab].csv"])] == ["a.csv", "b.csv"]
    assert expand([tmp_path / "odd[1].csv"]) == [tmp_path / "odd[1].csv"]


@pytest.mark.parametrize("limit", ["much", "-1GB", "10", "1.5 gigs"])
def test_a_memory_limit_is_a_size(limit: str) -> None:
    with pytest.raises(ValueError, match="memory_limit"):
        PrepareSettings(memory_limit=limit)


def test_too_small_a_memory_limit_is_said(make: Any) -> None:
    with pytest.raises(DataError, match=r"memory limit is too small.*memory_limit"):
        make(_random_log(60_000), settings={"memory_limit": "1MB"})


@pytest.mark.parametrize("cuts", [(0.9, 0.8), (0.0, 0.5), (0.5, 1.0)])
def test_cuts_must_rise_between_zero_and_one(cuts: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="the cuts must rise"):
        PrepareSettings(cuts=cuts)


def test_a_split_from_which_nothing_can_be_concluded_is_named(make: Any) -> None:
    log = [(f"u{at % 6}", f"i{at * 7 % 11}", at) for at in range(200)]
    dataset = make(log, settings={"vault": 0.05})
    small = dataset.manifest.record["too_small"]
    assert list(small) == ["validation", "test"]
    assert "20 examples (10 positives) of 6 users: an AUC of 0.75 would have an interval" in small["test"]
    assert list(dataset.vault.manifest.record["too_small"]) == ["vault"]


@pytest.mark.parametrize(("examples", "users", "word"), [(7_000, 200, ""), (4_000, 200, "±"), (7_000, 29, "users to")])
def test_both_examples_and_users_can_be_too_few(examples: int, users: int, word: str) -> None:
    # Hanley and McNeil: half a width of .0114 with 3,500 of each, .0257 with 500 and 3,500.
    sizes = {"examples": examples, "positives": examples // 2 if word != "±" else 500, "users": users}
    found = too_small({"train": {"examples": 2, "positives": 1, "users": 1}, "test": sizes})
    assert (word in found["test"]) if word else not found
