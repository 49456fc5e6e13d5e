"""VK-LSVD, by its published columns, on made files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.errors import ConfigError, SourceError

Read, Rows = Callable[..., Any], Callable[..., list[Any]]
FLAGS = ("like", "dislike", "share", "bookmark", "click_on_author", "open_comments")


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def week(folder: Path, number: int, *rows: tuple[int, int, int, str], **more: Any) -> Path:
    """A week of rows (user, item, seconds, answers with blanks between)."""
    user, item, seconds, answers = zip(*rows, strict=True)
    columns: dict[str, Any] = {
        "user_id": pa.array(user, pa.uint32()),
        "item_id": pa.array(item, pa.uint32()),
        **{name: pa.array([1] * len(rows), pa.uint8()) for name in ("place", "platform", "agent")},
        "timespent": pa.array(seconds, pa.uint8()),
        **{name: [name in given.split() for given in answers] for name in FLAGS},
    }
    return parquet(folder / f"week_{number:02}.parquet", **{**columns, **more})


@pytest.fixture
def log(tmp_path: Path) -> list[Path]:
    """The files as a glob over the published folders finds them: the test first."""
    first = week(tmp_path / "train", 0, (1, 10, 3, ""), (2, 10, 40, "like share"))
    second = week(tmp_path / "train", 1, (1, 11, 200, "like"))
    validation = week(tmp_path / "validation", 25, (2, 12, 9, "open_comments"))
    return [week(tmp_path / "test", 26, (1, 12, 7, "dislike")), first, second, validation]


@pytest.fixture
def items(tmp_path: Path) -> Path:
    return parquet(
        tmp_path / "items_metadata.parquet",
        item_id=pa.array([10, 11], pa.uint32()),
        author_id=pa.array([7, 8], pa.uint32()),
        duration=pa.array([30, 15], pa.uint8()),
        train_interactions_rank=pa.array([1, 2], pa.uint32()),
    )


def test_rows_are_in_the_order_of_the_weeks_and_keep_the_published_split(
    log: list[Path], read: Read, rows: Rows
) -> None:
    raw = read("vk_lsvd", *log, labels="like,share")
    assert rows(raw.impressions, "user", "item", "time", "like", "share", "split") == [
        ("1", "10", 0, 0.0, 0.0, "train"),
        ("2", "10", 1, 1.0, 1.0, "train"),
        ("1", "11", 2, 1.0, 0.0, "train"),
        ("2", "12", 3, 0.0, 0.0, "validation"),
        ("1", "12", 4, 0.0, 0.0, "test"),
    ]
    assert rows(raw.events, "user", "item", "time") == [("2", "10", 1), ("1", "11", 2)]
    assert (raw.tasks, raw.protocol, raw.time_unit) == (("like", "share"), "given", "ordinal")
    assert raw.record["rows_of_split"] == {"train": 3, "validation": 1, "test": 1}


def test_without_the_week_of_the_test_impressions_are_cut_by_their_order(log: list[Path], read: Read) -> None:
    raw = read("vk_lsvd", *log[1:])
    assert raw.protocol == "impressions"
    assert "split" not in raw.impressions.columns


def test_long_watching_is_a_label_of_its_own_and_all_exposures_may_be_events(
    log: list[Path], read: Read, rows: Rows
) -> None:
    raw = read("vk_lsvd", *log, watched="40", history="all")
    assert rows(raw.impressions, "like", "watched") == [(0, 0), (1, 1), (1, 1), (0, 0), (0, 0)]
    assert [user for (user,) in rows(raw.events, "user")] == ["1", "2", "1", "2", "1"]
    assert raw.tasks == ("like", "watched")


def test_authors_durations_and_profiles_are_taken_and_ranks_are_not(
    log: list[Path], items: Path, tmp_path: Path, read: Read, rows: Rows
) -> None:
    users = parquet(tmp_path / "users.parquet", user_id=[1, 2], age=[20, 30], gender=[1, 2], geo=[5, None])
    raw = read("vk_lsvd", *log, items, users, duration="keep", demographics="keep")
    assert rows(raw.items, "item", "author_id", "duration") == [("10", "7", "30"), ("11", "8", "15")]
    assert (raw.item_fields, raw.number_fields) == (("author_id", "duration"), ("duration",))
    assert rows(raw.users, "user", "age", "gender", "geo") == [("1", "20", "1", "5"), ("2", "30", "2", None)]
    assert read("vk_lsvd", *log, items).item_fields == ("author_id",)


def test_what_is_wrong_in_vk_lsvd_is_named(log: list[Path], items: Path, tmp_path: Path, read: Read) -> None:
    with pytest.raises(ConfigError, match=r"labels: timespent.*open_comments"):
        read("vk_lsvd", *log, labels="like,timespent")
    with pytest.raises(SourceError, match="no file of users"):
        read("vk_lsvd", *log, demographics="keep")
    with pytest.raises(SourceError, match="no file of weeks"):
        read("vk_lsvd", items)
    with pytest.raises(SourceError, match="week 1 is there twice"):
        read("vk_lsvd", *log, week(tmp_path / "again", 1, (1, 10, 3, "")))
    late = week(tmp_path / "later", 27, (1, 10, 3, ""))
    with pytest.raises(SourceError, match=r"does not say its week.*week_00\.parquet to week_26\.parquet"):
        read("vk_lsvd", *log, late)
    texts = week(tmp_path / "texts", 2, (1, 10, 3, ""), like=["yes"])
    with pytest.raises(SourceError, match=r"its type is string.*true or false") as caught:
        read("vk_lsvd", texts)
    assert caught.value.column == "like"
