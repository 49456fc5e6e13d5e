"""Events and requests that are at hand as tables of other libraries."""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import numpy as np
import pytest

from lifelong import Scorer, ScoreRequest, ingest, open_store, prepare
from lifelong.errors import SourceError, UsageError
from lifelong.online.ingestion.rows import EventRows
from lifelong.online.memory.updater import Applied
from lifelong.online.scoring.user_view import history

pytestmark = pytest.mark.full
datasets, duckdb = pytest.importorskip("datasets"), pytest.importorskip("duckdb")
pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


START = 1_700_000_000
NAMES = {"user": "who", "item": "what", "time": "at"}
ROWS = [{"who": f"u{k % 5}", "what": f"i{k % 9}", "at": START + 60 * k} for k in range(50)]


def arrow() -> Any:
    return pa.Table.from_pylist(ROWS)


TABLES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(ROWS),
    "pandas with timestamps": lambda: pd.DataFrame(ROWS).assign(
        at=lambda rows: pd.to_datetime(rows["at"], unit="s", utc=True).dt.tz_convert("Asia/Tokyo")
    ),
    "polars": lambda: pl.DataFrame(ROWS),
    "duckdb": lambda: duckdb.connect().from_arrow(arrow()),
    "arrow": arrow,
    "arrow reader": lambda: arrow().to_reader(7),
    "hugging face": lambda: datasets.Dataset.from_list([ROWS[-1], *ROWS]).select(range(1, 51)),
}


def held(store) -> dict[str, bytes]:
    return dict(store.scan())


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_any_library_gives_the_memories_of_the_file(kind, artifact, store, tmp_path) -> None:
    lines = [f"{row['who']},{row['what']},{row['at']}\n" for row in ROWS]
    (tmp_path / "log.csv").write_text("user,item,time\n" + "".join(lines))
    filed = open_store("memory://")
    ingest(artifact, filed, tmp_path / "log.csv")
    assert ingest(artifact, store, TABLES[kind](), **NAMES).applied == 50
    assert held(store) == held(filed)


def test_a_table_is_applied_once_whichever_library_it_is_of(artifact, store) -> None:
    for made in TABLES.values():
        ingest(artifact, store, made(), **NAMES)
    longer = pd.DataFrame([*ROWS, {"who": "u1", "what": "i1", "at": START + 9_000}])
    with pytest.raises(SourceError, match="first 50 lines were applied already, as table:"):
        ingest(artifact, store, longer, **NAMES)
    assert sum(len(list(store.events(f"u{k}"))) for k in range(5)) == 50


def test_globs_and_lists_are_ingested_file_by_file(artifact, store, tmp_path) -> None:
    for place in range(3):
        part = arrow().slice(20 * place, 20)
        pq.write_table(part.rename_columns(["user", "item", "time"]), tmp_path / f"part-{place}.parquet")
    assert ingest(artifact, store, str(tmp_path / "part-*.parquet")) == Applied(applied=50)
    assert ingest(artifact, store, sorted(tmp_path.glob("*"))) == Applied(duplicates=50)
    with pytest.raises(UsageError, match="one name for 3 files"):
        ingest(artifact, store, str(tmp_path / "*"), source="parts")
    with pytest.raises(SourceError, match="no file matches"):
        ingest(artifact, store, str(tmp_path / "*.nothing"))


@pytest.mark.parametrize("log", [3, None, [1, 2], {"user": ["ann"]}])
def test_what_is_no_log_is_said_in_words(log, artifact, store) -> None:
    with pytest.raises(UsageError, match=r"events of type .*Polars"):
        ingest(artifact, store, log)
    with pytest.raises(UsageError, match=r"requests of type .*Polars"):
        Scorer(artifact, store).score_table(log)


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_requests_gets_the_scores_of_the_requests(kind, artifact, store) -> None:
    ingest(artifact, store, pd.DataFrame(ROWS), **NAMES)
    scorer = Scorer(artifact, store)
    found = scorer.score_table(TABLES[kind](), **NAMES)
    requests = [ScoreRequest(row["who"], [row["what"]], row["at"]) for row in ROWS]
    wanted = [scores[0].score for scores in scorer.score_many(requests)]
    np.testing.assert_allclose(found["score"].to_numpy(), wanted, atol=1e-5)
    assert pl.DataFrame(found)["item"].to_list() == [row["what"] for row in ROWS]


def test_requests_of_several_files_are_one_table(artifact, store, tmp_path) -> None:
    for place in range(2):
        rows = [f"ann,i{place}{k},{START}" for k in range(3)]
        (tmp_path / f"{place}.csv").write_text("\n".join(["user,item,time", *rows]))
    found = Scorer(artifact, store).score_table(str(tmp_path / "*.csv")).to_pandas()
    assert found["item"].tolist() == ["i00", "i01", "i02", "i10", "i11", "i12"]
    assert not found["known_user"].any()


def test_missing_times_of_pandas_are_no_times_and_wrong_rows_are_named(artifact, store) -> None:
    scorer = Scorer(artifact, store)
    frame = pd.DataFrame({"user": ["ann", "bob"], "item": ["i1", "i2"], "time": [START, None]})
    assert scorer.score_table(frame).num_rows == 2
    assert scorer.score_table(frame[frame["user"] == "bob"])["item"].to_pylist() == ["i2"]
    with pytest.raises(SourceError, match="the table, line 2, column item: no item"):
        scorer.score_table(pd.DataFrame({"user": ["ann", "bob"], "item": ["i1", None]}))
    with pytest.raises(UsageError, match=r"no column 'usr' to map.*user"):
        scorer.score_table(frame, usr="user")


def test_a_history_is_a_table(artifact, store) -> None:
    ingest(artifact, store, pd.DataFrame(ROWS), **NAMES)
    found = history(Scorer(artifact, store), "u1").to_pandas()
    assert found["item"].tolist() == [row["what"] for row in ROWS if row["who"] == "u1"]
    assert found["position"].tolist() == list(range(1, 11))
    assert history(Scorer(artifact, store), "nobody").num_rows == 0


COLUMNS_NOT_TAKEN = {
    "floats as users": ("user", lambda: pa.array([1.0, 2.0]), "double", "text or whole numbers"),
    "lists as items": ("item", lambda: pa.array([["i1"], ["i2"]]), "list", "text or whole numbers"),
    "bytes as items": ("item", lambda: pa.array([b"i1", b"i2"]), "binary", "text or whole numbers"),
    "objects as fields": (
        "category",
        lambda: pa.array([{"a": "c1"}] * 2),
        "struct",
        "text, numbers, true or false, or dates",
    ),
    "booleans as times": ("time", lambda: pa.array([True, False]), "bool", "numbers, text, timestamps or dates"),
}


@pytest.mark.parametrize("kind", COLUMNS_NOT_TAKEN)
def test_what_prepare_refuses_is_refused_by_ingest_and_score_table_in_the_same_words(kind, artifact, store, tmp_path):
    name, column, found, expected = COLUMNS_NOT_TAKEN[kind]
    table = pa.table({"user": ["u1", "u2"], "item": ["i1", "i2"], "time": [START, START], "category": ["c1", "c2"]})
    table = table.set_column(table.schema.get_field_index(name), name, column())
    said = []
    for take in (
        lambda: prepare(table, out=tmp_path / "data", fields=["category"]),
        lambda: ingest(artifact, store, table),
        lambda: Scorer(artifact, store).score_table(table),
    ):
        with pytest.raises(SourceError, match=f"the table, column {name}: its type is {found}") as caught:
            take()
        said.append((caught.value.expected, caught.value.fix))
    assert said == [said[0]] * 3
    assert said[0][0] == expected


def test_true_and_false_are_the_texts_that_prepare_has_of_them(artifact, tmp_path):
    table = pa.table(
        {
            "user": [f"u{k % 5}" for k in range(50)],
            "item": [f"i{k % 9}" for k in range(50)],
            "time": [START + 60 * k for k in range(50)],
            "category": [k % 9 < 4 for k in range(50)],
        }
    )
    dataset = prepare(table, out=tmp_path / "data", fields=["category"], min_count=1)
    event = EventRows(artifact.config.dataset_schema, {}).event(table.to_pylist()[0])
    assert event.fields == {"category": "true"}
    assert set(dataset.vocabularies["category"].index.ids()) == {"true", "false"}


def test_requests_in_milliseconds_are_refused_and_dates_and_fractions_are_times(artifact, store, tmp_path):
    ingest(artifact, store, arrow(), **NAMES)
    scorer, requests = Scorer(artifact, store), pa.table({"user": ["u1"], "item": ["i1"]})
    with pytest.raises(SourceError, match="column time: time is 1700000000000") as caught:
        scorer.score_table(requests.append_column("time", pa.array([1_700_000_000_000])))
    assert "not milliseconds" in caught.value.expected
    midnight = requests.append_column("time", pa.array([1_704_067_200]))
    for times in (pa.array([date(2024, 1, 1)]), pa.array([1_704_067_200.7]), pa.array([datetime(2024, 1, 1)])):
        table = requests.append_column("time", times)
        pq.write_table(table, tmp_path / "requests.parquet")
        for given in (table, tmp_path / "requests.parquet"):
            assert scorer.score_table(given) == scorer.score_table(midnight)


@pytest.mark.parametrize("form", ["csv", "parquet", "table"])
def test_requests_say_their_times_in_iso_8601_or_seconds(form, artifact, store, tmp_path):
    ingest(artifact, store, arrow(), **NAMES)
    scorer, path = Scorer(artifact, store), tmp_path / f"requests.{form}"

    def scores(*times):
        table = pa.table({"user": ["u1"] * len(times), "item": ["i1"] * len(times), "time": times})
        if form == "csv":
            path.write_text("user,item,time\n" + "".join(f"u1,i1,{time}\n" for time in times))
        elif form == "parquet":
            pq.write_table(table, path)
        return scorer.score_table(table if form == "table" else path)

    written = ("2024-01-01", "2024-01-01T01:00:00+01:00", "2024-01-01 00:00:00.7", "2024-01-01T00:00Z")
    assert scores(*written) == scores(*["1704067200"] * 4)
    with pytest.raises(SourceError, match=r"line \d, column time: time is 'tomorrow'.*2025-12-01T18:00 \(UTC"):
        scores("2024-01-01", "tomorrow")


def test_a_time_of_requests_is_of_the_format_that_a_mapping_says_and_no_other(artifact, store):
    request = pa.table({"user": ["u1"], "item": ["i1"], "time": ["2024-01-01"]})
    with pytest.raises(SourceError, match=r"time is '2024-01-01'.*format %d"):
        Scorer(artifact, store).score_table(request, mapping={"time_format": "%d.%m.%Y"})
