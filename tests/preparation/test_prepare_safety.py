"""What is on the disk when preparation fails, is killed, or finds something there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lifelong import atomic as folders
from lifelong.dataset import arrays
from lifelong.dataset.folder import Dataset
from lifelong.errors import DataError, UsageError
from lifelong.offline.preparation import prepare as prepare_module

LOG = [(f"u{at % 7}", f"i{at % 5}", at) for at in range(100)]


def test_only_the_dataset_is_left_behind(make: Any, tmp_path: Path) -> None:
    make(LOG)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert names == ["catalogue", "dataset.json", "examples", "histories", "users", "vocabulary"]


def test_an_error_leaves_nothing(make: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        make([("a", "x", 1), ("b", "y", 1)])
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_is_not_overwritten_by_default(make: Any) -> None:
    before = make(LOG).manifest.data_hash
    with pytest.raises(UsageError, match=r"already holds a dataset.*--overwrite"):
        make(LOG[:50])
    assert make(LOG, out="other").manifest.data_hash == before


def test_overwrite_replaces_a_dataset(make: Any, tmp_path: Path) -> None:
    make(LOG)
    assert make(LOG[:50], settings={"overwrite": True}).manifest.counts["events"] == 50
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_failed_overwrite_keeps_the_old_dataset(make: Any, tmp_path: Path) -> None:
    before = make(LOG).manifest
    with pytest.raises(DataError):
        make([("a", "x", 1), ("b", "y", 1)], settings={"overwrite": True})
    assert Dataset(tmp_path / "data").manifest == before


def test_a_folder_that_is_not_a_dataset_is_never_replaced(make: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not a dataset"):
        make(LOG, settings={"overwrite": True})
    assert (tmp_path / "data" / "precious.txt").read_text() == "mine"


def test_an_empty_folder_is_used(make: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert make(LOG).manifest.counts["events"] == 100


def test_a_full_disk_is_said_and_cleaned_up(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, values: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(arrays.ArrayWriter, "append", full)
    with pytest.raises(DataError, match=r"the disk that holds .* is full.*free some space"):
        make(LOG)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "array_hash", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(LOG)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_between_the_two_renames_brings_the_old_dataset_back(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make(LOG).manifest
    rename = Path.rename

    def second_fails(self: Path, target: Path) -> Path:
        if self.name.endswith(".unfinished"):
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="broken"):
        make(LOG[:50], settings={"overwrite": True})
    assert Dataset(tmp_path / "data").manifest == before


def test_two_folders_change_names_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name.txt").write_text(name)
    if not folders.exchange(tmp_path / "one", tmp_path / "two"):
        pytest.skip("this system or disk cannot exchange two names")
    assert [(tmp_path / name / "name.txt").read_text() for name in ("one", "two")] == ["two", "one"]


def test_a_folder_that_is_being_written_is_refused_and_not_removed(make: Any, tmp_path: Path) -> None:
    with folders.building(tmp_path / "data") as busy:
        with pytest.raises(UsageError, match=r"another process is writing .*data now"):
            make(LOG)
        assert busy.exists()
        assert folders.remove_remains(tmp_path / "data") == []
    assert make(LOG).manifest.counts["events"] == 100


def test_what_a_killed_run_left_is_removed_and_said(make: Any, tmp_path: Path) -> None:
    left = tmp_path / ".data.0123456789ab.unfinished"
    (left / "work").mkdir(parents=True)
    (left / "dataset.json").write_text("{}")
    others = [tmp_path / name for name in (".data.old.0123456789ab.unfinished", ".data.mine.unfinished")]
    for path in others:
        path.mkdir()
    said: list[str] = []
    make(LOG, progress=said.append)
    assert any("removed .data.0123456789ab.unfinished" in text and "starting over" in text for text in said)
    assert not left.exists()
    assert all(path.exists() for path in others), "these are of something else"
