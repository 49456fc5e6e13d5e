from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.errors import ConfigError, SourceError

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
BASE = {"user": "u", "item": "i", "time": "t"}


@pytest.fixture
def mapped(write: Write, read: Read) -> Callable[..., Any]:
    """Read files with a mapping given as settings."""

    def opened(*paths: Path, **settings: Any) -> Any:
        return read("table", *paths, mapping=str(write("mapping.json", json.dumps({**BASE, **settings}))))

    return opened


def test_the_mapping_names_the_columns(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv", "t,shop,i,u,kind,brand\n100,s,a,x,view,b1\n101,s,b,x,buy,\n")
    raw = mapped(path, fields={"maker": "brand", "shop": "shop"}, event_type="kind", target_types=["buy"], name="Shop")
    assert rows(raw.events, "user", "item", "time", "sequence", "event_type") == [
        ("x", "a", 100, 0, "view"),
        ("x", "b", 101, 1, "buy"),
    ]
    assert rows(raw.items, "item", "maker", "shop") == [("a", "b1", "s"), ("b", None, "s")]
    assert (raw.name, raw.item_fields, raw.target_types) == ("Shop", ("maker", "shop"), ("buy",))
    assert (raw.impressions, raw.protocol, raw.time_unit) == (None, "temporal", "seconds")


def test_a_toml_mapping_and_options_over_it(write: Write, read: Read, rows: Rows) -> None:
    toml = 'user = "u"\nitem = "wrong"\ntime = "t"\nfields = ["i"]\n'
    log = write("log.csv", "u,i,t\nx,a,1\n")
    raw = read("table", log, mapping=str(write("m.toml", toml)), item="i", fields="", time_unit="ordinal")
    assert rows(raw.events, "item", "time") == [("a", 1)]
    assert (raw.items, raw.time_unit) == (None, "ordinal")


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("1511544070", {}),
        ("1511544070.9", {}),
        ("1511544070123", {"time_unit": "ms"}),
        ("1511544070123456", {"time_unit": "us"}),
        ("1511544070123456789", {"time_unit": "ns"}),
        ("2017-11-24T17:21:10Z", {"time_unit": "iso"}),
        ("2017-11-24 17:21:10.5", {"time_unit": "iso"}),
        ("2017-11-25T01:21:10+08:00", {"time_unit": "iso"}),
        ("24/11/2017 17.21.10", {"time_format": "%d/%m/%Y %H.%M.%S"}),
    ],
)
def test_every_unit_of_time_becomes_seconds(
    write: Write, mapped: Read, rows: Rows, text: str, settings: dict[str, str]
) -> None:
    assert rows(mapped(write("log.csv", f"u,i,t\nx,a,{text}\n"), **settings).events, "time") == [(1511544070,)]


def test_a_time_before_1970_is_rounded_down(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv", "u,i,t\nx,a,-1500\n")
    assert rows(mapped(path, time_unit="ms").events, "time") == [(-2,)]


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("yesterday", {}, "'yesterday' is not a time"),
        ("1511544070123", {}, "not a time"),
        ("9e30", {}, "not a time"),
        ("24/11/2017", {"time_unit": "iso"}, "'24/11/2017' is not a time"),
        ("2017-11-24", {"time_format": "%d/%m/%Y"}, "'2017-11-24' is not a time"),
    ],
)
def test_a_wrong_time_is_named_with_its_line(
    write: Write, mapped: Read, text: str, settings: dict[str, str], words: str
) -> None:
    good = {"iso": "2017-11-24", "%d/%m/%Y": "24/11/2017"}.get(next(iter(settings.values()), ""), "5")
    path = write("log.csv", f"u,i,t\nx,a,{good}\n\nx,b,{text}\n")
    with pytest.raises(SourceError, match=words) as caught:
        mapped(path, **settings)
    assert (caught.value.file, caught.value.line) == (str(path), 4)
    assert "time_format=%d.%m.%Y %H:%M:%S" in caught.value.fix


def test_labels_make_impressions_and_only_responses_are_events(write: Write, mapped: Read, rows: Rows) -> None:
    raw = mapped(write("log.csv", "u,i,t,clk,buy\nx,a,1,0,0\nx,b,2,1,0\nx,c,3,1,1\n"), labels=["clk", "buy"])
    assert rows(raw.impressions, "item", "time", "sequence", "clk", "buy") == [
        ("a", 1, 0, 0.0, 0.0),
        ("b", 2, 1, 1.0, 0.0),
        ("c", 3, 2, 1.0, 1.0),
    ]
    assert rows(raw.events, "item") == [("b",), ("c",)]
    assert (raw.tasks, raw.protocol) == (("clk", "buy"), "impressions")


def test_items_files_bring_fields_beside_those_of_the_log(write: Write, mapped: Read, rows: Rows) -> None:
    write("items1.tsv", "sku\tbrand\na\tb1\nz\tb9\n")
    write("items2.tsv", "sku\tbrand\na\tb2\n")
    items = {"files": ["items*.tsv"], "item": "sku", "fields": ["brand"], "delimiter": "\t"}
    raw = mapped(write("log.csv", "u,i,t,cat\nx,a,1,c1\nx,b,2,c2\n"), fields=["cat"], items=items)
    assert rows(raw.items, "item", "cat", "brand") == [("a", "c1", "b2"), ("b", "c2", None), ("z", None, "b9")]
    assert raw.item_fields == ("cat", "brand")
    assert raw.record["items_without_meta"] == 1


def test_of_two_values_the_last_wins_and_a_missing_one_never_does(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv", "u,i,t,cat\nx,a,9,c1\nx,a,8,c2\nx,a,7,NULL\nx,a,6,\n")
    raw = mapped(path, fields=["cat"], missing=["", "NULL"])
    assert rows(raw.items, "item", "cat") == [("a", "c2")]


def test_a_file_without_header_needs_all_column_names(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv.gz", "x|?|a|5\n")
    raw = mapped(path, header=False, columns=["u", "more", "i", "t"], delimiter="|")
    assert rows(raw.events, "user", "item", "time", "sequence") == [("x", "a", 5, 0)]
    with pytest.raises(ConfigError, match="needs `columns`"):
        mapped(path, header=False)
    with pytest.raises(ConfigError, match="columns does not hold 't'"):
        mapped(path, header=False, columns=["u", "i"])


@pytest.mark.parametrize(
    ("settings", "not_read"),
    [
        ({}, ["shop", "kind", "brand", "paid"]),
        ({"fields": {"maker": "brand"}, "event_type": "kind"}, ["shop", "paid"]),
        ({"labels": ["paid"], "fields": ["shop", "brand", "kind"]}, None),
    ],
)
@pytest.mark.parametrize("form", ["csv", "csv; no header", "parquet"])
def test_columns_that_nothing_names_are_in_the_record(
    write: Write, mapped: Read, tmp_path: Path, form: str, settings: dict[str, Any], not_read: list[str] | None
) -> None:
    names, rows = ["t", "shop", "i", "u", "kind", "brand", "paid"], [(100, "s", "a", "x", "buy", "b", 1)]
    text = "".join(";".join(map(str, row)) + "\n" for row in rows)
    if form == "parquet":
        path = tmp_path / "log.parquet"
        pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), path)
    elif form == "csv":
        path, settings = write("log.csv", ";".join(names) + "\n" + text), {**settings, "delimiter": ";"}
    else:
        path, settings = write("log.csv", text), {**settings, "delimiter": ";", "header": False, "columns": names}
    assert mapped(path, **settings).record.get("columns_not_read") == not_read


def test_one_column_can_have_two_roles_and_any_name(write: Write, mapped: Read, rows: Rows) -> None:
    raw = mapped(write("log.csv", "u,sequence,t\nx,a,5\n"), item="sequence", fields={"self": "sequence"})
    assert rows(raw.events, "item", "sequence") == [("a", 0)]
    assert rows(raw.items, "item", "self") == [("a", "a")]


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_reads_like_csv_and_rows_count_on_over_files(tmp_path: Path, mapped: Read, rows: Rows) -> None:
    moment = datetime(2017, 11, 24, 17, 21, 10, tzinfo=UTC)
    files = [
        parquet(tmp_path / "b[1].parquet", u=[7, 8], i=["a", "b"], t=[moment, moment], cat=["c", None]),
        parquet(tmp_path / "a.parquet", u=[9], i=["a"], t=[moment], cat=["d"]),
    ]
    raw = mapped(*files, fields=["cat"])
    assert rows(raw.events, "user", "item", "time", "sequence") == [
        ("7", "a", 1511544070, 0),
        ("8", "b", 1511544070, 1),
        ("9", "a", 1511544070, 2),
    ]
    assert rows(raw.items, "item", "cat") == [("a", "d"), ("b", None)]
    assert (raw.record["files"], raw.record["rows"]) == (2, 3)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_whole_numbers_of_parquet_have_the_unit_of_the_mapping(
    tmp_path: Path, mapped: Read, rows: Rows, unit: str
) -> None:
    time = 1511544070 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    path = parquet(tmp_path / "a.parquet", u=["x"], i=["a"], t=[time])
    assert rows(mapped(path, time_unit=unit).events, "time") == [(1511544070,)]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_parquet_are_times_in_any_unit_and_zone(
    tmp_path: Path, mapped: Read, rows: Rows, unit: str, zone: str | None
) -> None:
    count = 1511544070 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    path = parquet(tmp_path / "a.parquet", u=["x"], i=["a"], t=pa.array([count], pa.timestamp(unit, zone)))
    assert rows(mapped(path).events, "time") == [(1511544070,)]


def test_a_large_parquet_file_keeps_every_row_in_its_place(tmp_path: Path, mapped: Read) -> None:
    numbers = list(range(300_000))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"u": ["x"] * len(numbers), "i": numbers, "t": numbers}), path, row_group_size=10_000)
    events = mapped(path, time_unit="ordinal").events
    assert events.filter(events["time"] != events["sequence"]).count().to_pyarrow().as_py() == 0


@pytest.mark.parametrize(
    ("columns", "column", "words"),
    [
        ({"u": ["x"], "t": [1]}, "i", "no such column"),
        ({"u": [1.5], "i": ["a"], "t": [1]}, "u", "its type is double"),
        ({"u": ["x", None], "i": ["a", "b"], "t": [1, 2]}, "u", "line 2, column u: there is no value"),
        ({"u": ["x", ""], "i": ["a", "b"], "t": [1, 2]}, "u", "line 2, column u: there is no value"),
        ({"u": ["x"], "i": ["a"], "t": ["noon"]}, "t", "'noon' is not a time"),
        ({"u": ["x"] * 99, "i": ["a"] * 99, "t": [1.5] * 98 + [math.nan]}, "t", "'nan' is not a time"),
    ],
)
def test_wrong_parquet_is_named(tmp_path: Path, mapped: Read, columns: dict[str, Any], column: str, words: str) -> None:
    path = parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(SourceError, match=words) as caught:
        mapped(path)
    assert (caught.value.file, caught.value.column) == (str(path), column)


def test_a_broken_parquet_file_is_named(write: Write, mapped: Read) -> None:
    path = write("a.parquet", b"PAR1 and nothing more")
    with pytest.raises(SourceError, match="cannot be read") as caught:
        mapped(path)
    assert caught.value.file == str(path)


def test_all_mistakes_of_a_mapping_are_told_at_once(write: Write, read: Read) -> None:
    path = write("m.json", json.dumps({"user": "u", "itme": "i", "event_type": 3, "time_unit": "days"}))
    with pytest.raises(ConfigError) as caught:
        read("table", write("log.csv", ""), mapping=str(path))
    told = " ".join(caught.value.problems)
    assert all(name in told for name in ("itme:", "event_type:", "time_unit:"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rating": "s", "labels": ["l"]}, "not both"),
        ({"history": "all"}, "no labels"),
        ({"target_types": ["buy"]}, "needs event_type"),
        ({"fields": ["time"]}, "cannot name an item field"),
        ({"fields": ["c"], "items": {"files": ["x"], "item": "i", "fields": ["c"]}}, "c names two"),
        ({"fields": ["Brand"], "labels": ["brand"]}, "brand names two"),
        ({"fields": {"Item": "i"}}, "cannot name an item field"),
        ({"fields": {"Row": "i"}}, "cannot name an item field"),
        ({"encoding": "latin-99"}, "no encoding"),
        ({"items": {"item": "i", "files": []}}, "say where the rows are: `files`"),
    ],
)
def test_a_contradiction_in_a_mapping_is_told(write: Write, mapped: Read, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        mapped(write("log.csv", ""), **settings)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("m.toml", "user = ", "not TOML"), ("m.json", "{", "not JSON"), ("m.json", "[1]", "not a table of settings")],
)
def test_a_mapping_that_cannot_be_read_is_named(write: Write, read: Read, name: str, text: str, words: str) -> None:
    path = write(name, text)
    with pytest.raises(SourceError, match=words) as caught:
        read("table", write("log.csv", ""), mapping=str(path))
    assert caught.value.file == str(path)


def test_an_absent_mapping_or_items_file_is_named(tmp_path: Path, write: Write, read: Read, mapped: Read) -> None:
    with pytest.raises(SourceError, match=r"absent\.toml"):
        read("table", write("log.csv", ""), mapping=str(tmp_path / "absent.toml"))
    with pytest.raises(SourceError, match=r"absent\.csv"):
        mapped(write("log.csv", "u,i,t\nx,a,1\n"), items={"files": ["absent.csv"], "item": "i"})


@pytest.mark.parametrize(
    ("content", "options", "fix"),
    [
        (b"u,i,t\na,b,2024-01-01T10:00:00+01:00\n", {}, "--column time_unit=iso"),
        (b"u,i,t\na,caf\xe9,1700000000\n", {}, "--column encoding=NAME"),
        (b"u,i,t\na,b,1700000000\n", {"foo": "1"}, "there is no such setting"),
    ],
)
def test_message_says_which_option_helps(
    tmp_path: Path, read: Read, content: bytes, options: dict[str, str], fix: str
) -> None:
    """Of a newcomer's first mistakes: dates where numbers are expected, another encoding, an option by guess."""
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises((SourceError, ConfigError), match=fix):
        read("table", tmp_path / "log.csv", **BASE, **options)


def test_columns_called_user_item_and_time_need_no_mapping(write: Write, read: Read, rows: Rows) -> None:
    raw = read("table", write("log.csv", "time,item,user\n1700000000,i1,u1\n"))
    assert rows(raw.events, "user", "item", "time") == [("u1", "i1", 1_700_000_000)]


def test_a_column_with_another_name_is_said_with_the_option_that_names_it(write: Write, read: Read) -> None:
    with pytest.raises(SourceError, match=r"it has user, sku, time.*--column user=COLUMN"):
        read("table", write("log.csv", "user,sku,time\nu1,i1,1700000000\n"))


LINES = b"""{"u": "x", "i": "a", "t": 100, "brand": "b1", "price": 3.5}
{"t": "101", "brand": null, "i": 7, "u": "x", "seen": [1, 2]}

{"price": 1e3, "i": "c", "kept": true, "u": "y", "t": 102.9}
"""


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.ndjson", "log", "log.txt.gz"])
def test_json_lines_are_read_by_their_keys(write: Write, mapped: Read, rows: Rows, name: str) -> None:
    raw = mapped(write(name, LINES), fields=["brand", "price", "kept"])
    assert rows(raw.events, "user", "item", "time") == [("x", "a", 100), ("x", "7", 101), ("y", "c", 102)]
    fields = [("7", None, None, None), ("a", "b1", "3.5", None), ("c", None, "1000.0", "true")]
    assert sorted(rows(raw.items, "item", "brand", "price", "kept")) == fields
    assert raw.record == {"files": 1, "rows": 3, "columns_not_read": ["seen"]}


def test_labels_of_json_lines_may_be_true_and_false_and_those_that_lack_one_are_events(
    write: Write, mapped: Read, rows: Rows
) -> None:
    lines = '{"u": "x", "i": "a", "t": 1, "yes": true}\n{"yes": false, "u": "x", "i": "b", "t": 2}\n'
    raw = mapped(write("log.jsonl", lines + '{"u": "x", "i": "c", "t": 3}\n'), labels=["yes"], history="unlabelled")
    assert rows(raw.impressions, "item", "yes") == [("a", 1.0), ("b", 0.0)]
    assert rows(raw.events, "item") == [("c",)]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (b'{"u": "x", "i": "a", "t": 1}\n\n{"u": "x"\n', r"log\.jsonl, line 3: not JSON"),
        (b"[1, 2]\n", r"line 1: not a JSON object"),
        (b'{"u": "x", "i": ["a"], "t": 1}\n', r"line 1, column i: a list or an object.*write a query"),
        (b'{"u": "x", "i": "\\ud800", "t": 1}\n', r"line 1, column i: .*surrogates"),
        (b'{"u": "x", "i": "a", "t": 1}\n{"u": "x", "t": 1}\n', r"line 2, column i: there is no value"),
        (b'{"u": "x", "sku": "a", "t": 1}\n', r"column i: no line has this key \(there are u, t, sku\).*--column"),
    ],
)
def test_a_wrong_line_of_json_is_named(write: Write, mapped: Read, lines: bytes, found: str) -> None:
    with pytest.raises(SourceError, match=found):
        mapped(write("log.jsonl", lines))
