"""Taobao-MM, by the columns of the authors' notebook, on made files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.errors import SourceError

Read, Rows = Callable[..., Any], Callable[..., list[Any]]
NO, YES = [1, 0], [0, 1]


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def samples(path: Path, *rows: tuple[int, int, list[int]], **more: Any) -> Path:
    user, item, label = zip(*rows, strict=True)
    columns = {"label_0": pa.array(label, pa.list_(pa.int8())), "129_1": list(user), "205": list(item)}
    return parquet(path, **columns, **more)


def histories(path: Path, *rows: tuple[int, list[int], list[int]]) -> Path:
    user, items, categories = zip(*rows, strict=True)
    profile = {f"130_{place}": [place, *[0] * (len(rows) - 1)] for place in range(1, 6)}
    return parquet(path, **{"129_1": list(user), **profile, "150_2_180": list(items), "151_2_180": list(categories)})


@pytest.fixture
def log(tmp_path: Path) -> dict[str, Path]:
    """User -1 is in both splits, -2 in training and 3 in the test alone; a place of -2 has no item."""
    return {
        "test": samples(tmp_path / "test_samples.parquet", (-1, 40, YES), (3, 10, NO)),
        "train": samples(tmp_path / "train_samples.parquet", (-1, 10, NO), (-1, 30, YES), (-2, 30, NO)),
        "later": histories(tmp_path / "test_user_features.parquet", (-1, [20, 30], [6, 7])),
        "earlier": histories(
            tmp_path / "train_user_features.parquet", (-1, [10, 20, 20], [5, 6, 6]), (-2, [0, 50], [0, 0])
        ),
        "items": parquet(tmp_path / "item_features.parquet", **{"205": [10, 40], "206": [8, 9], "213": [1, 1]}),
    }


def test_histories_are_ordinal_events_and_samples_come_after_them(log: dict[str, Path], read: Read, rows: Rows) -> None:
    raw = read("taobao_mm", *log.values())
    assert rows(raw.events, "user", "item", "time") == [
        ("-1", "10", 0),
        ("-1", "20", 1),
        ("-1", "20", 2),
        ("-2", "50", 1),
        ("-1#2", "20", 0),
        ("-1#2", "30", 1),
    ]
    assert rows(raw.impressions, "user", "item", "time", "response", "split") == [
        ("-1", "10", 3, 0.0, "train"),
        ("-1", "30", 3, 1.0, "train"),
        ("-2", "30", 2, 0.0, "train"),
        ("-1#2", "40", 2, 1.0, "test"),
        ("3", "10", 0, 0.0, "test"),
    ]
    assert (raw.time_unit, raw.protocol) == ("ordinal", "given")
    assert (raw.record["places_without_item"], raw.record["samples_without_history"]) == (1, 1)


def test_categories_come_from_the_histories_and_from_the_file_of_items(
    log: dict[str, Path], read: Read, rows: Rows
) -> None:
    raw = read("taobao_mm", *log.values())
    assert rows(raw.items, "item", "category") == [
        ("10", "8"),
        ("20", "6"),
        ("30", "7"),
        ("40", "9"),
        ("50", None),
    ]
    assert raw.record["conflicting_fields"] == {"category": 1}


def test_profiles_belong_to_the_history_of_the_user(log: dict[str, Path], read: Read, rows: Rows) -> None:
    raw = read("taobao_mm", *log.values(), demographics="keep")
    assert rows(raw.users, "user", "130_1", "130_5") == [("-1#2", "1", "5"), ("-1", "1", "5"), ("-2", None, None)]
    assert raw.user_fields == ("130_1", "130_2", "130_3", "130_4", "130_5")


def test_what_is_wrong_in_taobao_mm_is_named(log: dict[str, Path], tmp_path: Path, read: Read) -> None:
    joined = samples(tmp_path / "train-shard-000000.parquet", (1, 2, NO), **{"150_2_180": [[1]], "151_2_180": [[1]]})
    with pytest.raises(SourceError, match=r"a shard of joined rows.*the folder raw"):
        read("taobao_mm", joined)
    with pytest.raises(SourceError, match="no file of histories"):
        read("taobao_mm", log["train"])
    with pytest.raises(SourceError, match="does not say which split"):
        read("taobao_mm", samples(tmp_path / "samples.parquet", (1, 2, NO)), log["earlier"])
    embeddings = parquet(tmp_path / "scl_embedding_int8_p90.parquet", **{"205": [1], "205_c": [[1, 2]]})
    with pytest.raises(SourceError, match=r"205_c.*embeddings are not used"):
        read("taobao_mm", *log.values(), embeddings)


@pytest.mark.parametrize(
    ("rows", "words", "row"),
    [
        ([(1, [10], [5]), (2, [10, 20], [5])], "more or fewer categories", 2),
        ([(1, [10], [5]), (1, [20], [5])], "a user that is there already", 2),
        ([(1, [10, None], [5, 5])], "an absent value", 1),
    ],
)
def test_a_wrong_history_is_named_by_its_row(
    log: dict[str, Path], tmp_path: Path, read: Read, rows: list[Any], words: str, row: int
) -> None:
    wrong = histories(tmp_path / "train_user_features.parquet", *rows)
    with pytest.raises(SourceError, match=f"row {row} has {words}") as caught:
        read("taobao_mm", log["train"], wrong)
    assert caught.value.file == str(wrong)


@pytest.mark.parametrize("label", [[1, 1], [1], [0, 0]])
def test_a_label_is_one_of_two(log: dict[str, Path], tmp_path: Path, read: Read, label: list[int]) -> None:
    wrong = samples(tmp_path / "test_samples.parquet", (1, 2, NO), (1, 3, label))
    with pytest.raises(SourceError, match=r"row 2 has a label that is not \[1, 0\] or \[0, 1\]"):
        read("taobao_mm", log["train"], wrong, log["earlier"])
