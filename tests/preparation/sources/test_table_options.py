"""Rows that are skipped, tables and queries, of the source `table`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.dataset.catalogue import Catalogue
from lifelong.dataset.mapping import TITLE
from lifelong.errors import ConfigError, SourceError
from lifelong.offline.preparation.prepare import PrepareSettings, prepare

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
BASE = {"user": "u", "item": "i", "time": "t"}
BAD = "u,i,t,kind\nx,a,1,v\n,a,2,v\nx,,3,v\n,,4,v\nx,b,,v\nx,c,noon,v\nx,d,9000000000000,v\nx,e,8,\ny,f,9,w\n"


@pytest.fixture
def mapped(write: Write, read: Read) -> Callable[..., Any]:
    """Read files with a mapping given as settings."""

    def opened(*paths: Path, **settings: Any) -> Any:
        return read("table", *paths, mapping=str(write("mapping.json", json.dumps({**BASE, **settings}))))

    return opened


def test_rows_without_user_item_or_time_are_skipped_and_counted_by_reason(
    write: Write, mapped: Read, rows: Rows
) -> None:
    raw = mapped(write("log.csv", BAD), skip_invalid=True, event_type="kind")
    assert rows(raw.events, "user", "item", "time", "sequence") == [("x", "a", 1, 0), ("y", "f", 9, 8)]
    assert raw.record["skipped"] == {
        "rows": 7,
        "no_user": {"rows": 2, "first": "log.csv, line 3"},
        "no_item": {"rows": 1, "first": "log.csv, line 4"},
        "no_time": {"rows": 1, "first": "log.csv, line 6"},
        "no_event_type": {"rows": 1, "first": "log.csv, line 9"},
        "wrong_time": {"rows": 2, "first": "log.csv, line 7"},
    }
    assert raw.record["rows"] == 9


def test_parquet_rows_are_skipped_too(tmp_path: Path, mapped: Read, rows: Rows) -> None:
    table = pa.table({"u": ["x", None, "y"], "i": ["a", "b", "c"], "t": [1, 2, None], "cat": ["k", "k", None]})
    pq.write_table(table, tmp_path / "log.parquet")
    raw = mapped(tmp_path / "log.parquet", skip_invalid=True, fields=["cat"])
    assert rows(raw.events, "user", "item", "time") == [("x", "a", 1)]
    assert rows(raw.items, "item", "cat") == [("a", "k")]
    assert raw.record["skipped"]["no_time"] == {"rows": 1, "first": "log.parquet, line 3"}


def test_without_an_invalid_row_nothing_changes(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv", "u,i,t,clk\nx,a,5.9,1\ny,b,7,0\n")
    strict, loose = mapped(path, labels=["clk"]), mapped(path, labels=["clk"], skip_invalid=True)
    for table, columns in (("events", ("user", "time")), ("impressions", ("user", "item", "time", "clk"))):
        assert rows(getattr(strict, table), *columns) == rows(getattr(loose, table), *columns)
    assert loose.record.pop("skipped") == {"rows": 0}
    assert strict.record == loose.record


def test_a_log_without_a_row_that_can_be_used_is_an_error_with_the_counts(write: Write, mapped: Read) -> None:
    with pytest.raises(SourceError, match=r"no row can be used \(no_user 1, wrong_time 1\)"):
        mapped(write("log.csv", "u,i,t\n,a,1\nx,b,noon\n"), skip_invalid=True)


def test_the_command_says_what_was_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lifelong.cli import main

    good = "".join(f"u{at % 7},i{at % 5},{1_700_000_000 + at * 60}\n" for at in range(60))
    (tmp_path / "log.csv").write_text("u,i,t\n,i1,5\n" + good)
    columns = [word for name, column in BASE.items() for word in ("--column", f"{name}={column}")]
    command = ["prepare", "table", str(tmp_path / "log.csv"), "--out", str(tmp_path / "data"), *columns]
    assert main(command) != 0
    assert main([*command, "--column", "skip_invalid=true"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("skipped / no_user / first", "log.csv, line 2"))


def test_a_query_keeps_rows_and_makes_columns_of_any_role(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv", "u,i,cat,day,stars\nx,a,food>tea,2017-11-24,4\nx,b,toys>car,2017-11-25,2\nx,c,,,\n")
    raw = mapped(
        path,
        time="moment",
        time_unit="iso",
        fields=["department"],
        labels=["liked", "loved"],
        history="all",
        query="SELECT *, day || 'T00:00:01Z' AS moment, split_part(cat, '>', 1) AS department,"
        " CAST(CAST(stars AS DOUBLE) >= 3 AS INTEGER) AS liked, CAST(stars = '5' AS INTEGER) AS loved"
        "  FROM log WHERE stars <> '' -- no stars, no label",
    )
    assert rows(raw.items, "item", "department") == [("a", "food"), ("b", "toys")]
    assert rows(raw.impressions, "item", "time", "liked", "loved", "sequence") == [
        ("a", 1511481601, 1.0, 0.0, 0),
        ("b", 1511568001, 0.0, 0.0, 1),
    ]
    assert raw.record["rows"] == 2
    assert raw.record["tables"]["log"]["rows"] == 3


def test_rows_of_a_query_are_checked_as_ever_and_named_by_file_and_line(write: Write, mapped: Read) -> None:
    query = "FROM log WHERE ok = '1'"
    with pytest.raises(SourceError, match=r"no value.*--column skip_invalid=true") as caught:
        mapped(write("log.csv", "u,i,t,ok\nx,a,1,1\n,d,4,0\nx,,5,1\n"), query=query)
    assert (Path(str(caught.value.file)).name, caught.value.line, caught.value.column) == ("log.csv", 4, "i")
    with pytest.raises(SourceError, match="'noon' is not a time"):
        mapped(write("log.csv", "u,i,t,ok\nx,a,noon,1\n"), query=query)


def test_rows_without_a_place_of_their_own_are_ordered_by_time_and_named_by_number(
    write: Write, mapped: Read, rows: Rows
) -> None:
    path = write("log.csv", "u,i,t\nx,b,2\nx,a,1\nx,c,noon\n")
    raw = mapped(path, query="SELECT u, i, t FROM log WHERE t <> 'noon'")
    assert rows(raw.events, "item", "sequence") == [("a", 0), ("b", 1)]
    with pytest.raises(SourceError, match="'noon' is not a time") as caught:
        mapped(path, query="SELECT u, i, t FROM log")
    assert (caught.value.file, caught.value.line) == ("rows of query", 3)


def test_parquet_columns_have_their_types_in_queries(tmp_path: Path, mapped: Read, rows: Rows) -> None:
    table = pa.table({"u": ["x", "y"], "i": ["a", "b"], "t": [1, 2], "price": [3.5, None], "tags": [["p", "q"], []]})
    pq.write_table(table, tmp_path / "log.parquet")
    raw = mapped(
        tmp_path / "log.parquet",
        query="SELECT *, tags[1] AS tag, round(price) AS band FROM log WHERE price > 3",
        fields=["tag", "band"],
    )
    assert rows(raw.items, "item", "tag", "band") == [("a", "p", "4.0")]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT t >", r"query: Parser Error"),
        ("DROP TABLE log", r"query is not a single SELECT"),
        ("FROM log; DROP TABLE log", r"query is not a single SELECT"),
        ("SELECT price FROM log", r"query: Binder Error.*price.*over the tables log"),
        ("SELECT *, CAST(i AS INTEGER) AS n FROM log", r"query: Conversion Error.*'a'.*TRY_CAST"),
        ("SELECT u, i FROM log", r"query gives no column t.*it gives u, i"),
    ],
)
def test_a_wrong_query_is_named(write: Write, mapped: Read, query: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        mapped(write("log.csv", "u,i,t\nx,a,1\n"), query=query)


@pytest.mark.parametrize(
    "rows_of",
    [
        "read_csv('{secret}')",
        "'{secret}'",
        "read_text('{secret}')",
        "glob('/*')",
        "read_csv('http://127.0.0.1:9/log.csv')",
    ],
)
def test_a_query_reaches_no_other_file_and_no_address(write: Write, mapped: Read, rows_of: str) -> None:
    secret = write("secret.csv", "u,i,t\nx,secret,1\n")
    with pytest.raises(ConfigError, match=r"disabled|does not exist"):
        mapped(write("log.csv", "u,i,t\nx,a,1\n"), query=f"SELECT * FROM {rows_of.format(secret=secret)}")


def test_a_query_is_an_option_of_the_command_line_too(write: Write, read: Read, rows: Rows) -> None:
    options = {"query": "SELECT *, upper(i) AS kind FROM log WHERE t <> '2'", "fields": "kind"}
    raw = read("table", write("log.csv", "u,i,t\nx,a,1\nx,b,2\n"), **BASE, **options)
    assert rows(raw.items, "item", "kind") == [("a", "A")]


def test_files_become_tables_by_a_column_or_by_their_names(write: Write, mapped: Read, rows: Rows) -> None:
    orders = write("orders.csv", "order,u,t\n1,x,5\n2,y,6\n")
    lines = write("a.lines", "1|a\n1|b\n2|c\n")
    products = write("products.csv", "i,colour\na,red\n")
    tables = {
        "orders": "t",
        "products": "colour",
        "lines": {"file": "*.lines", "header": False, "columns": ["order", "i"], "delimiter": "|"},
    }
    settings = {"tables": tables, "query": 'FROM lines JOIN orders USING ("order")'}
    items = {"table": "products", "item": "i", "fields": ["colour"]}
    raw = mapped(lines, products, orders, **settings, items=items)
    assert rows(raw.events, "user", "item", "time") == [("x", "a", 5), ("x", "b", 5), ("y", "c", 6)]
    assert rows(raw.items, "item", "colour") == [("a", "red")]
    assert mapped(lines, orders, **settings, items=items).items is None
    with pytest.raises(SourceError, match=r"there is no file of orders.*lines \(\*\.lines\)"):
        mapped(lines, **settings)
    with pytest.raises(SourceError, match="its columns are a, b"):
        mapped(lines, orders, write("other.csv", "a,b\n1,2\n"), **settings)


def test_rows_without_a_label_may_be_the_events_and_no_others(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv", "u,i,t,seen,clk\nx,a,1,0,\nx,b,2,1,0\nx,c,3,1,1\n")
    query = "SELECT * REPLACE (if(seen = '1', clk, NULL) AS clk) FROM log"
    raw = mapped(path, query=query, labels=["clk"], history="unlabelled")
    assert rows(raw.events, "item") == [("a",)]
    assert rows(raw.impressions, "item", "clk") == [("b", 0.0), ("c", 1.0)]
    with pytest.raises(SourceError, match="'maybe' is not a number"):
        mapped(
            write("log.csv", "u,i,t,seen,clk\nx,a,1,0,\nx,b,2,1,maybe\n"),
            query=query,
            labels=["clk"],
            history="unlabelled",
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tables": {"a": "u"}}, "no table is named log"),
        ({"tables": {"log": {"header": True}}}, "either the column"),
        ({"items": {"item": "i", "table": "b"}}, "b is not one of the tables"),
        ({"items": {"item": "i"}}, "say where the rows are"),
        ({"query": "FROM log", "items": {"item": "i", "files": ["x.csv"]}}, "with a query, name them as tables"),
        ({"split": "s"}, "split is for labelled rows"),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    write: Write, mapped: Read, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        mapped(write("log.csv", "u,i,t\nx,a,1\n"), **settings)


def test_titles_are_kept_for_people_and_are_no_field(write: Write, mapped: Read, rows: Rows) -> None:
    log = write("log.csv", "u,i,t,name,cat\nx,a,1,Rye,k\nx,b,2,,k\ny,a,3,Rye bread,k\n")
    raw = mapped(log, title="name", fields=["cat"])
    assert (raw.item_fields, raw.titled, raw.item_columns) == (("cat",), True, ("cat", TITLE))
    assert rows(raw.items, "item", "cat", TITLE) == [("a", "k", "Rye bread"), ("b", "k", None)]


def test_titles_may_be_in_the_files_of_the_items(write: Write, mapped: Read, rows: Rows) -> None:
    items = str(write("items.csv", "id,name\na,Rye bread\nb,Oat milk\n"))
    raw = mapped(write("log.csv", "u,i,t\nx,a,1\ny,b,2\n"), items={"files": [items], "item": "id", "title": "name"})
    assert (raw.item_fields, raw.titled) == ((), True)
    assert rows(raw.items, "item", TITLE) == [("a", "Rye bread"), ("b", "Oat milk")]


def test_a_prepared_dataset_and_its_copies_have_the_titles(write: Write, tmp_path: Path) -> None:
    lines = [f"u{n % 7},i{n % 5},{1_700_000_000 + n * 3600},{'Rye bread' if n % 5 == 1 else ''}" for n in range(60)]
    log, named = write("log.csv", "\n".join(["u,i,t,name", *lines]) + "\n"), ["u", "i", "t", "name"]
    options = dict(zip(("user", "item", "time", "title"), named, strict=True))
    dataset = prepare("table", [str(log)], tmp_path / "data", settings=PrepareSettings(options=options))
    plain = prepare("table", [str(log)], tmp_path / "plain", settings=PrepareSettings(options=options | {"title": "u"}))
    assert dataset.schema.item_fields == ("item",)
    assert dataset.catalogue.titles_of(["i1", "i2", "new"]) == ["Rye bread", None, None]
    assert dataset.manifest.data_hash == plain.manifest.data_hash, "models do not read titles"
    dataset.catalogue.save(tmp_path / "copy")
    copied = Catalogue.open(tmp_path / "copy", dataset.catalogue.vocabularies)
    assert copied.titles_of(["i1"]) == ["Rye bread"]
    assert copied.search("RYE", 5) == ["i1"] and copied.search("i1", 5) == ["i1"]
