"""A dataset that keeps the numbers of an earlier one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lifelong.dataset.folder import Dataset
from lifelong.errors import ArtifactError, UsageError

OLD = [(f"u{at % 7}", f"i{at * at % 11}", at, "buy" if at % 5 else "view") for at in range(200)]
NEW = [(f"u{at % 7}", f"i{5 + at * at % 13}", 200 + at, "cart" if at % 3 else "buy") for at in range(200)]


def values(dataset: Dataset, field: str) -> list[str]:
    """Known values in the order of their numbers."""
    vocabulary = dataset.event_types if field == "event_type" else dataset.vocabularies[field]
    assert vocabulary is not None
    return vocabulary.index.ids()


def test_earlier_values_keep_their_numbers_and_new_ones_come_behind(make: Any, tmp_path: Path) -> None:
    old, alone = make(OLD, out="old"), make(NEW, out="alone")
    new = make(NEW, out="new", settings={"start": old.folder})
    for field in ("item", "event_type"):
        before, anew, now = (values(each, field) for each in (old, alone, new))
        assert now == before + [value for value in anew if value not in before]
        assert len(now) > len(before)


def test_hash_buckets_stay(make: Any) -> None:
    old = make(OLD, out="old", settings={"buckets": 3})
    assert make(NEW, out="new", settings={"start": old.folder}).vocabularies["item"].buckets == 3


def test_the_catalogue_and_the_histories_use_these_numbers(make: Any) -> None:
    old = make(OLD, out="old")
    new = make(NEW, out="new", settings={"start": old.folder})
    ids = new.catalogue.ids.ids()
    assert np.array_equal(new.catalogue.number_VF[2:, 0], new.vocabularies["item"].numbers(ids))
    alone = make(NEW, out="alone")
    kinds = [
        [each.event_types.value_of(number) for number in each.histories.event_type_N.tolist()] for each in (new, alone)
    ]
    assert kinds[0] == kinds[1]


def test_the_same_log_again_changes_nothing_but_the_record(make: Any) -> None:
    old = make(OLD, out="old")
    again = make(OLD, out="again", settings={"start": old.folder})
    assert again.manifest.data_hash == old.manifest.data_hash
    assert again.manifest.record["from"] == {
        "data_hash": old.manifest.data_hash,
        "known_before": {field: len(values(old, field)) for field in ("item", "event_type")},
    }


def test_other_fields_are_refused(make: Any) -> None:
    old = make(OLD, out="old")
    with pytest.raises(UsageError, match=r"has the fields event_type, item, this log has item"):
        make([event[:3] for event in NEW], out="new", settings={"start": old.folder})


def test_a_folder_that_is_neither_is_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a dataset nor an artifact"):
        make(NEW, settings={"start": tmp_path})


def test_an_artifact_serves_as_well(make: Any) -> None:
    artifact = Path(__file__).parents[1] / "assets" / "tiny_artifact"
    events = [(*event[:3], "view") for event in NEW]
    items, fields = [(f"i{at}", f"c{at % 4}") for at in range(30)], ("category",)
    new = make(events, settings={"start": artifact}, items=items, item_fields=fields)
    assert values(new, "item")[:3] == ["i0", "i1", "i2"]
    assert set(new.manifest.record["from"]) == {"artifact", "known_before"}


def test_a_damaged_artifact_is_named(make: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(Path(__file__).parents[1] / "assets" / "tiny_artifact", broken)
    (broken / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"config\.json is truncated"):
        make(NEW, settings={"start": broken})
