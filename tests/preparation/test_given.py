"""A log that is at hand in Python: tables of other libraries, paths, and settings by their names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")
import duckdb
import ibis
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from lifelong import PrepareSettings
from lifelong.dataset.folder import Dataset
from lifelong.errors import ConfigError, SourceError, UsageError
from lifelong.offline.preparation.prepare import prepare

COLUMNS = {"user": "who", "item": "what", "time": "when", "event_type": "kind", "fields": ["brand"]}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    item = rng.integers(0, 30, 400)
    return pd.DataFrame(
        {
            "who": [f"u{user}" for user in rng.integers(0, 20, 400)],
            "what": [f"i{one}" for one in item],
            "kind": rng.choice(["view", "buy"], 400),
            "brand": [None if one == 3 else f"b{one % 4}" for one in item],
            "when": 1_700_000_000 + rng.integers(0, 10**6, 400),
        }
    )


@pytest.fixture(scope="module")
def wanted(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The dataset of the same rows in a parquet file, with a mapping file."""
    folder = tmp_path_factory.mktemp("wanted")
    frame.to_parquet(folder / "log.parquet")
    (folder / "mapping.json").write_text(json.dumps(COLUMNS))
    settings = PrepareSettings(mapping=folder / "mapping.json", threads=1)
    return prepare("table", [folder / "log.parquet"], folder / "data", settings=settings)


TABLES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "pandas with an index": lambda frame: frame.set_index(frame["who"] + "x"),
    "pandas with categories": lambda frame: frame.astype({"brand": "category", "kind": "category"}),
    "pandas with timestamps": lambda frame: frame.assign(when=pd.to_datetime(frame["when"], unit="s", utc=True)),
    "pandas with nanoseconds": lambda frame: frame.assign(
        when=pd.to_datetime(frame["when"], unit="s", utc=True).astype("datetime64[ns, UTC]")
    ),
    "polars with categories": lambda frame: pl.from_arrow(pa.Table.from_pandas(frame, preserve_index=False)).cast(
        {"who": pl.Categorical, "what": pl.Categorical, "kind": pl.Enum(["view", "buy"]), "brand": pl.Categorical}
    ),
    "polars": lambda frame: pl.from_arrow(pa.Table.from_pandas(frame, preserve_index=False)),
    "arrow table": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "arrow reader": lambda frame: pa.Table.from_pandas(frame, preserve_index=False).to_reader(50),
    "duckdb relation": lambda frame: duckdb.connect().from_arrow(pa.Table.from_pandas(frame, preserve_index=False)),
    "ibis expression": lambda frame: ibis.memtable(pa.Table.from_pandas(frame, preserve_index=False)),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_any_library_gives_the_dataset_of_the_file(
    kind: str, frame: pd.DataFrame, wanted: Dataset, tmp_path: Path
) -> None:
    found = prepare(TABLES[kind](frame), out=tmp_path / "data", threads=1, **COLUMNS)
    assert found.manifest.data_hash == wanted.manifest.data_hash
    assert found.manifest.counts["events"] == 400
    assert not (tmp_path / "data" / "work").exists()


def test_files_and_globs_are_a_log_too(frame: pd.DataFrame, wanted: Dataset, tmp_path: Path) -> None:
    for place, part in enumerate(np.array_split(np.arange(400), 3)):
        pq.write_table(pa.Table.from_pandas(frame.iloc[part], preserve_index=False), tmp_path / f"part-{place}.parquet")
    for number, log in enumerate([str(tmp_path / "part-*.parquet"), sorted(tmp_path.glob("part-*"))]):
        found = prepare(log, out=tmp_path / f"data {number}", threads=1, **COLUMNS)
        assert found.manifest.data_hash == wanted.manifest.data_hash


def test_a_csv_file_is_a_log_too(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "log.csv", index=False)
    found = prepare(tmp_path / "log.csv", out=tmp_path / "data", threads=1, **COLUMNS)
    assert (found.manifest.source, found.manifest.counts["events"]) == ("table", 400)


def test_named_settings_win_and_all_of_them_arrive(frame: pd.DataFrame, tmp_path: Path) -> None:
    settings = PrepareSettings(ratio=2, seed=5, threads=1)
    found = prepare(frame, out=tmp_path / "data", settings=settings, seed=6, mapping={"name": "shop"}, **COLUMNS)
    assert (found.manifest.record["settings"]["ratio"], found.manifest.record["settings"]["seed"]) == (2, 6)
    assert found.manifest.record["columns"] == {**COLUMNS, "name": "shop"}


def test_options_of_other_sources_are_settings_too(tmp_path: Path) -> None:
    found = prepare("synthetic", out=tmp_path / "data", world="noise", users=8, items=20, events=100)
    assert found.manifest.counts["users"] == 8


@pytest.mark.parametrize(
    ("log", "named", "found"),
    [
        ([1], {}, r"of type list.*exports Arrow"),
        ((batch for batch in ()), {}, r"of type generator.*RecordBatchReader\.from_batches"),
        (pl.Series([1]), {}, r"of type Series, which is a single column"),
        (pd.Series([1]), {}, r"of type Series, which is a single column"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, r"cannot be exported: Duplicate column names.*of its own"),
        (pd.DataFrame({"a": ["x", 1]}), {}, r"cannot be exported: .*'int'.*column a.*values of one type"),
        (pl.LazyFrame(), {}, r"of type LazyFrame.*call its \.collect\(\)"),
        (pa.table({"a": [1]}), {"usr": "a"}, r"no setting 'usr'.*user"),
        ("events.csv", {"out": None}, r"no folder.*out="),
        ("tabaoo", {}, r"no source 'tabaoo'.*taobao"),
    ],
)
def test_what_is_no_log_or_no_setting_is_said_in_words(
    log: Any, named: dict[str, Any], found: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=found):
        prepare(log, **{"out": tmp_path / "data", **named})


def test_what_is_wrong_in_a_table_is_said_of_the_table(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^the table, column Kunde: there is no such column") as raised:
        prepare(frame, out=tmp_path / "data", **{**COLUMNS, "user": "Kunde"})
    assert (raised.value.file, raised.value.column) == ("the table", "Kunde")


def test_files_next_to_a_table_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"files twice: a DataFrame and .*log.csv"):
        prepare(frame, ["log.csv"], tmp_path / "data", **COLUMNS)


def test_wrong_values_of_settings_are_all_listed(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)ratio.*found 0.*cuts"):
        prepare(frame, out=tmp_path / "data", ratio=0, cuts=(0.9, 0.8), **COLUMNS)


def test_what_to_know_of_a_dataset_is_a_warning_and_is_shown(
    frame: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = {**COLUMNS, "fields": []}
    dataset = prepare(frame, out=tmp_path / "data", min_count=1, vault=0.05, **columns)
    not_read = "Not read, as nothing names them: brand. To do, where they describe the item: name them in fields"
    assert [record.getMessage() for record in caplog.records] == dataset.notes
    assert dataset.notes[-1].startswith(not_read) and not_read in dataset._repr_html_()
    small = [note.split(",")[0] for note in dataset.notes[:-1]]
    assert small == [f"Too small to conclude from: {split}" for split in ("validation", "test", "vault")]


def test_who_asked_for_progress_has_the_notes_without_warnings(
    frame: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = prepare(frame, out=tmp_path / "data", min_count=1, progress=lambda line: None, **COLUMNS)
    assert dataset.notes and not caplog.records
    assert not any("Not read" in note for note in dataset.notes)
