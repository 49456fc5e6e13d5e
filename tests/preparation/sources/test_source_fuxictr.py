from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("pyarrow")
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lifelong.errors import ConfigError, SourceError
from lifelong.preparation.prepare import prepare

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
CONFIG = """
tiny_ads:
  data_root: ./
  data_format: csv
  train_data: ./train.csv
  valid_data: ./valid.csv
  test_data: ./test.csv
  feature_cols:
  - {name: [user_id, item_id], active: true, dtype: str, type: categorical}
  - {name: cate_id, active: true, dtype: str, type: categorical, source: item}
  - {name: city, active: true, dtype: str, type: categorical, source: user}
  - {name: unused, active: false, dtype: str, type: categorical, source: item}
  - {name: click_history, active: true, dtype: str, type: sequence, splitter: ^, max_len: 5}
  label_col: {name: clk, dtype: float}
"""
HEAD = "user_id,item_id,cate_id,city,click_history,clk\n"
ROWS = {
    "train": "u1,i1,c1,x,,1\nu1,i2,c2,x,i1,0\nu2,i1,c1,y,,1\n",
    "valid": "u1,i3,c1,x,i1,1\n",
    "test": "u1,i2,c2,x,i1^i3,0\nu2,i3,c1,y,i1,1\n",
}


@pytest.fixture
def files(write: Write) -> list[Path]:
    """Config, and the files that it names."""
    paths = [write(f"{split}.csv", HEAD + rows) for split, rows in ROWS.items()]
    return [write("dataset_config.yaml", CONFIG), *paths]


def test_a_config_names_the_files_and_the_given_split_is_kept(files: list[Path], read: Read, rows: Rows) -> None:
    raw = read("fuxictr", files[0])
    assert rows(raw.impressions, "user", "item", "clk", "split") == [
        ("u1", "i1", 1.0, "train"),
        ("u1", "i2", 0.0, "train"),
        ("u2", "i1", 1.0, "train"),
        ("u1", "i3", 1.0, "validation"),
        ("u1", "i2", 0.0, "test"),
        ("u2", "i3", 1.0, "test"),
    ]
    assert rows(raw.events, "user", "item") == [("u1", "i1"), ("u2", "i1"), ("u1", "i3"), ("u2", "i3")]
    assert rows(raw.items, "item", "cate_id") == [("i1", "c1"), ("i2", "c2"), ("i3", "c1")]
    assert (raw.tasks, raw.protocol, raw.time_unit) == (("clk",), "given", "ordinal")
    assert raw.record["sequence_columns"] == 1
    assert len(rows(read("fuxictr", files[0], history="all").events, "user")) == 6


def test_files_may_be_named_relative_to_where_the_command_is_called(
    files: list[Path], write: Write, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files[0].parent / "config").mkdir()
    config = files[0].rename(files[0].parent / "config" / "dataset_config.yaml")
    monkeypatch.chdir(config.parent.parent)
    assert read("fuxictr", config).record["files"] == 3


def test_times_have_a_unit_and_numeric_features_that_are_fields_are_numbers(
    write: Write, read: Read, rows: Rows
) -> None:
    features = "  - {name: [price, at], active: true, dtype: float, type: numeric, source: item}\n  label_col"
    config = write("dataset_config.yaml", CONFIG.replace("  label_col", features))
    for split in ROWS:
        write(f"{split}.csv", "user_id,item_id,price,clk,at\nu1,i1,2.5,1,1700000000999\n")
    raw = read("fuxictr", config, fields="price", time="at", time_unit="ms")
    assert (raw.item_fields, raw.number_fields) == (("price",), ("price",))
    assert rows(raw.events, "time") == [(1_700_000_000,)] * 3


def test_rows_stay_in_order_over_files(files: list[Path], read: Read, rows: Rows) -> None:
    times = [row[0] for row in rows(read("fuxictr", files[0]).impressions, "time")]
    assert times == sorted(times)
    assert len(set(times)) == 6


def test_parquet_files_named_with_the_config_read_alike(
    files: list[Path], read: Read, rows: Rows, tmp_path: Path
) -> None:
    named = []
    for path in files[1:]:
        pq.write_table(pacsv.read_csv(path), tmp_path / f"my_{path.stem}.parquet")
        named.append(tmp_path / f"my_{path.stem}.parquet")
    columns = ("user", "item", "clk", "split")
    wanted = rows(read("fuxictr", files[0]).impressions, *columns)
    assert rows(read("fuxictr", *named, files[0]).impressions, *columns) == wanted


def test_a_time_column_is_a_time(write: Write, read: Read, rows: Rows) -> None:
    for split in ROWS:
        write(f"{split}.csv", "user_id,item_id,at,clk\nu1,i1,100.5,1\n")
    config = write("c.yaml", CONFIG)
    raw = read("fuxictr", config, time="at", fields="item_id")
    assert raw.time_unit == "seconds"
    assert rows(raw.events, "time")[0] == (100,)


def test_two_labels_are_two_tasks(write: Write, read: Read, rows: Rows) -> None:
    for split in ROWS:
        write(f"{split}.csv", "user_id,item_id,cate_id,clk,buy\nu1,i1,c,1,0\n")
    labels = "label_col:\n  - {name: clk, dtype: float}\n  - {name: buy, dtype: float}\n"
    raw = read("fuxictr", write("c.yaml", CONFIG.partition("label_col")[0] + labels))
    assert raw.tasks == ("clk", "buy")


def test_it_prepares_into_a_dataset_with_the_given_split(write: Write, tmp_path: Path) -> None:
    for split, number in (("train", 40), ("valid", 10), ("test", 10)):
        lines = [f"u{at % 5},i{at % 7},c{at % 3},x,,{at % 2}\n" for at in range(number)]
        write(f"{split}.csv", HEAD + "".join(lines))
    dataset = prepare("fuxictr", [write("c.yaml", CONFIG)], tmp_path / "data", threads=1)
    assert [len(dataset.examples(split)) for split in ("train", "validation", "test")] == [40, 10, 10]
    assert dataset.schema.item_fields == ("item", "cate_id")


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        ("a: [", {}, "cannot be read"),
        ("", {}, "it has 0 datasets"),
        (CONFIG + CONFIG.replace("tiny_ads", "other"), {}, "it has 2 datasets.*tiny_ads, other.*dataset="),
        (CONFIG, {"dataset": "big"}, "it has no dataset 'big'"),
        (CONFIG.partition("label_col")[0], {}, "no label_col"),
        (CONFIG.replace("./train.csv", "./absent.csv"), {}, r"absent\.csv"),
        (CONFIG.replace("train_data: ./train.csv", ""), {}, "files of training and test are missing"),
        (CONFIG, {"user": "uid"}, "no such column"),
    ],
)
def test_a_wrong_config_is_named(
    files: list[Path], write: Write, read: Read, config: str, options: dict[str, str], words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        read("fuxictr", write("dataset_config.yaml", config), **options)


def test_what_else_is_wrong_is_named(files: list[Path], write: Write, read: Read) -> None:
    with pytest.raises(SourceError, match=r"0 files are named \.yaml"):
        read("fuxictr", *files[1:])
    with pytest.raises(SourceError, match="does not say its split"):
        read("fuxictr", files[0], write("rows.csv", HEAD))
    with pytest.raises(ConfigError, match="unused is no active feature"):
        read("fuxictr", files[0], fields="unused")
    write("test.csv", HEAD + "u1,i1,c1,x,,maybe\n")
    with pytest.raises(SourceError, match="'maybe' is not a number") as caught:
        read("fuxictr", files[0])
    assert caught.value.line == 2
