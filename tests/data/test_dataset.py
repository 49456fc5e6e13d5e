from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset, NegativeRule, array_hash
from lifelong.errors import DatasetError
from lifelong.testing.datasets import tiny_dataset


def test_a_folder_without_a_manifest_is_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.json is missing.*lifelong prepare"):
        Dataset(tmp_path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    tiny_dataset(tmp_path)
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(manifest | {"format_version": 99, "of_another_release": 1}))
    said = r"dataset format 99. Expected: 1, the format of this release. To do: prepare the dataset again"
    with pytest.raises(DatasetError, match=said):
        Dataset(tmp_path)


def test_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot be read"):
        Dataset(tmp_path)


def test_inputs_name_the_size_of_every_field(tmp_path: Path) -> None:
    inputs = tiny_dataset(tmp_path).inputs
    assert inputs.item == {"item": 64, "category": 12}
    assert inputs.event == {"event_type": 4, "gap": 36}
    assert inputs.context == {
        "gap": 36,
        "hour": 26,
        "weekday": 9,
        "time_of_day": 290,
        "time_of_week": 170,
        "since_event": 363,
    }
    assert inputs.context_fields == ("gap", "hour", "weekday")
    assert inputs.users == 42


def test_the_hash_sees_every_byte_and_name_of_the_arrays_but_not_the_manifest(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path)
    assert array_hash(tmp_path) == dataset.manifest.data_hash
    (tmp_path / "dataset.json").write_text("{}")
    assert array_hash(tmp_path) == dataset.manifest.data_hash
    path = tmp_path / "histories" / "row.npy"
    row_N = np.load(path)
    row_N[-1] += 1
    np.save(path, row_N)
    changed = array_hash(tmp_path)
    assert changed != dataset.manifest.data_hash
    path.rename(path.with_name("column.npy"))
    assert array_hash(tmp_path) not in (changed, dataset.manifest.data_hash)


def test_examples_of_different_lengths_are_refused(tmp_path: Path) -> None:
    tiny_dataset(tmp_path)
    np.save(tmp_path / "examples" / "test" / "row.npy", np.zeros(3, np.int32))
    with pytest.raises(DatasetError, match="have different lengths"):
        Dataset(tmp_path).examples("test")


def test_taken_examples_keep_their_order() -> None:
    column = np.arange(3, dtype=np.int32)
    examples = Examples(column, column * 2, column.astype(np.int64), column, column[:, None].astype(np.float32))
    taken = examples.take(np.array([2, 0]))
    assert (taken.user_N.tolist(), taken.row_N.tolist(), taken.label_NT.tolist()) == ([2, 0], [4, 0], [[2], [0]])


@pytest.mark.parametrize(
    ("rule", "drawn"),
    [
        (NegativeRule(rule="none"), False),
        (NegativeRule(rule="popularity"), True),
        (NegativeRule(rule="uniform", stored=True), False),
    ],
)
def test_training_negatives_are_drawn_only_where_positives_stand_alone(rule: NegativeRule, drawn: bool) -> None:
    assert rule.drawn_in_training == drawn
