from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")

from lifelong.dataset.folder import Dataset
from lifelong.errors import DatasetError, UsageError
from lifelong.offline.preparation.earlier_dataset import EarlierDataset
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.preparation.settings import PrepareSettings


def prepared(folder: Path, *, profiles: bool = True, name: str = "data", start: Path | None = None) -> Dataset:
    """Users u0..u9 with ten events each, u9 with none in the training period; u1 has two profiles, u8 none."""
    lines = ["user,item,time"]
    for user in range(10):
        lines += [f"u{user},i{at % 3},{(90 if user == 9 else 0) + at}" for at in range(10)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    told = [("u0", "teacher"), ("u1", "baker"), ("u1", "nurse"), ("u2", ""), ("u9", "pilot"), ("stranger", "clown")]
    told += [(f"u{user}", "teacher") for user in range(3, 8)]
    (folder / "users.csv").write_text("id,work\n" + "".join(f"{user},{work}\n" for user, work in told))
    mapping = {"user": "user", "item": "item", "time": "time"}
    if profiles:
        mapping["users"] = {"files": ["users.csv"], "user": "id", "fields": {"job": "work"}}
    (folder / "mapping.json").write_text(json.dumps(mapping))
    settings = PrepareSettings(mapping=folder / "mapping.json", threads=1, cuts=(0.5, 0.8), start=start)
    return prepare("table", [folder / "log.csv"], folder / name, settings=settings)


def test_profiles_are_numbered_by_users_of_the_training_period(tmp_path: Path) -> None:
    dataset = prepared(tmp_path)
    assert dataset.schema.user_fields == ("job",)
    vocabulary = dataset.profile_vocabularies["user.job"]
    # The last row that tells of a user counts; u9 has no event in the training period.
    assert vocabulary.index.ids() == ["teacher", "nurse"]
    jobs = {user: vocabulary.value_of(int(dataset.profile_UF[at, 0])) for at, user in enumerate(dataset.users.ids())}
    teachers = dict.fromkeys(("u0", "u3", "u4", "u5", "u6", "u7"), "teacher")
    assert jobs == {**teachers, "u1": "nurse", "u2": None, "u8": None, "u9": None}
    assert dataset.manifest.record["users_without_profile"] == 3
    assert dataset.manifest.record["user_fields"] == {"job": 2}
    assert dataset.inputs.context["user.job"] == 4
    assert "user.job" not in dataset.inputs.context_fields


def test_without_profiles_a_dataset_is_what_it_was(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, profiles=False)
    assert "user_fields" not in (dataset.folder / "dataset.json").read_text()
    assert not (dataset.folder / "profile.npy").exists()
    assert dataset.profile_UF.shape == (10, 0)
    assert not [field for field in dataset.inputs.context if field.startswith("user.")]


def test_an_earlier_dataset_keeps_the_numbers_of_its_profiles(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    again = prepared(tmp_path, name="again", start=first.folder)
    assert np.array_equal(first.profile_UF, again.profile_UF)
    assert EarlierDataset.open(first.folder).vocabularies["user.job"].index.ids() == ["teacher", "nurse"]
    with pytest.raises(UsageError, match=r"has the fields item, user\.job, this log has item"):
        prepared(tmp_path, profiles=False, name="plain", start=first.folder)


def test_a_damaged_profile_is_named(tmp_path: Path) -> None:
    dataset = prepared(tmp_path)
    np.save(dataset.folder / "profile.npy", np.zeros((3, 1), np.int32))
    with pytest.raises(DatasetError, match=r"profile.npy has shape \(3, 1\)"):
        _ = Dataset(dataset.folder).profile_UF
    (dataset.folder / "profile.npy").unlink()
    with pytest.raises(DatasetError, match=r"cannot read .*profile.npy"):
        _ = Dataset(dataset.folder).profile_UF
