"""Values of a line that cannot be an id."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lifelong.artifact.folder import Artifact
from lifelong.errors import SourceError
from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.event import decode_event
from lifelong.online.store.opening import open_store


@pytest.mark.parametrize("column", ["user", "item", "event_type", "category"])
@pytest.mark.parametrize("value", [["i1"], {"id": "i1"}])
def test_a_list_or_an_object_in_place_of_a_text_is_refused_by_name(
    artifact: Artifact, tmp_path: Path, column: str, value: Any
) -> None:
    good = {"user": "u", "item": "i1", "time": 5}
    path = tmp_path / "events.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps({**good, column: value})}\n")
    store = open_store("memory://")
    with pytest.raises(SourceError, match=f"line 2, column {column}: a list or an object"):
        ingest(artifact, store, path)
    assert [user for user, _ in store.scan()] == ["u"]


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (5, "5"), (5.0, "5.0"), (1e20, "1e+20")])
def test_a_value_that_is_no_text_becomes_the_one_that_prepare_reads(
    artifact: Artifact, tmp_path: Path, value: Any, text: str
) -> None:
    duckdb, pyarrow = pytest.importorskip("duckdb"), pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {"user": "u", "item": "new", "time": 5, "category": value}
    (tmp_path / "events.jsonl").write_text(json.dumps(row) + "\n")
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "events.parquet")
    for name in ("events.jsonl", "events.parquet"):
        with closing(open_store("memory://")) as store:
            ingest(artifact, store, tmp_path / name)
            assert [decode_event(event).fields for event in store.events("u")] == [{"category": text}]
    with duckdb.connect() as connection:
        read = connection.execute("SELECT CAST(category AS VARCHAR) FROM read_parquet(?)", [f"{tmp_path}/*.parquet"])
        assert read.fetchall() == [(text,)]
