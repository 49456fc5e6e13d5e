"""Rows that are skipped or filtered, and derived columns, of the source `table`."""

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

from lifelong.errors import ConfigError, SourceError
from lifelong.preparation.sources.expressions import FUNCTIONS, parse

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
BASE = {"user": "u", "item": "i", "time": "t"}
ROOT = Path(__file__).parents[3]
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
    assert rows(raw.events, "user", "item", "time", "sequence") == [("x", "a", 1, 1), ("y", "f", 9, 9)]
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
    columns = [word for name, column in BASE.items() for word in ("--option", f"{name}={column}")]
    command = ["prepare", "table", str(tmp_path / "log.csv"), "--out", str(tmp_path / "data"), *columns]
    assert main(command) != 0
    assert main([*command, "--skip-invalid"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("skipped / no_user / first", "log.csv, line 2"))
    assert main(["prepare", "taobao", *command[2:4], str(tmp_path / "other"), "--skip-invalid"]) != 0
    assert "taobao" in capsys.readouterr().err


def test_a_filter_keeps_rows_for_which_it_is_true(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv", "u,i,t,shop name,n\nx,a,1,s,2\nx,b,2,test,3\nx,c,3,s,\n,d,4,test,1\n")
    raw = mapped(path, where="\"shop name\" <> 'test' AND TRY_CAST(n AS INTEGER) > 1")
    assert rows(raw.events, "item", "time", "sequence") == [("a", 1, 1)]
    assert raw.record["filtered_rows"] == 3


def test_a_row_that_the_filter_keeps_is_checked_as_ever(write: Write, mapped: Read) -> None:
    path = write("log.csv", "u,i,t,ok\nx,a,1,1\n,d,4,0\nx,,5,1\n")
    with pytest.raises(SourceError, match=r"no value.*--skip-invalid") as caught:
        mapped(path, where="ok = '1'")
    assert (caught.value.line, caught.value.column) == (4, "i")
    with pytest.raises(SourceError, match="'noon' is not a time"):
        mapped(write("log.csv", "u,i,t,ok\nx,a,noon,1\n"), where="ok = '1'")


def test_a_derived_column_has_any_role(write: Write, mapped: Read, rows: Rows) -> None:
    path = write("log.csv", "u,i,cat,day,stars,t\nx,a,food>tea,2017-11-24,4,0\nx,b,toys>car,2017-11-25,2,0\n")
    raw = mapped(
        path,
        time="moment",
        time_unit="iso",
        fields=["department"],
        labels=["liked", "loved"],
        history="all",
        derived={
            "moment": "day || 'T00:00:01Z'",
            "department": "split_part(cat, '>', 1)",
            "liked": "CAST(stars AS DOUBLE) >= 3",
            "loved": "stars = '5'",
        },
    )
    assert rows(raw.items, "item", "department") == [("a", "food"), ("b", "toys")]
    assert rows(raw.impressions, "item", "time", "liked", "loved") == [
        ("a", 1511481601, 1.0, 0.0),
        ("b", 1511568001, 0.0, 0.0),
    ]


def test_a_derived_column_takes_the_name_of_one_that_it_reads(write: Write, mapped: Read, rows: Rows) -> None:
    raw = mapped(write("log.csv", "u,i,t,c0\nx,a,1,Tea\n"), fields=["c0"], derived={"c0": "lower(c0)"})
    assert rows(raw.items, "item", "c0") == [("a", "tea")]


def test_parquet_columns_have_their_types_in_expressions(tmp_path: Path, mapped: Read, rows: Rows) -> None:
    table = pa.table({"u": ["x", "y"], "i": ["a", "b"], "t": [1, 2], "price": [3.5, None], "tags": [["p", "q"], []]})
    pq.write_table(table, tmp_path / "log.parquet")
    raw = mapped(
        tmp_path / "log.parquet",
        where="price > 3",
        fields=["tag", "band"],
        derived={"tag": "tags[1]", "band": "round(price)"},
    )
    assert rows(raw.items, "item", "tag", "band") == [("a", "p", "4.0")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"where": "t >"}, r"where: 't >': cannot be parsed"),
        ({"where": "(SELECT true FROM 'secret.csv')"}, r"where.*a subquery is not allowed"),
        ({"where": "i IN (FROM read_csv('secret.csv'))"}, r"a subquery is not allowed"),
        ({"derived": {"f": "read_text('secret')"}}, r"derived: f = .*the function read_text is not one"),
        ({"derived": {"f": "getenv('HOME')"}}, r"the function getenv"),
        ({"derived": {"f": "random()"}}, r"the function random"),
        ({"derived": {"f": "count(i)"}}, r"the function count"),
        ({"where": "true) OR (SELECT true"}, r"a subquery is not allowed"),
        ({"where": "true; DROP TABLE log"}, r"cannot be parsed"),
        ({"where": "true), (false"}, r"not a single expression"),
        ({"where": "i"}, r"where = 'i' gives VARCHAR.*true or false"),
        ({"where": "i > 3 AND t"}, r"where = 'i > 3 AND t'"),
        ({"where": "CAST(i AS DOUBLE) > 3"}, r"where = 'CAST.*convert.*TRY_CAST"),
        ({"where": "t = '1'", "derived": {"f": "CAST(i AS INTEGER)"}}, r"derived.f = 'CAST\(i AS INTEGER\)'.*'a'"),
        ({"derived": {"f": "string_split(i, ',')"}}, r"derived.f.*one value"),
    ],
)
def test_a_wrong_expression_is_named(write: Write, mapped: Read, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        mapped(write("log.csv", "u,i,t\nx,a,1\n"), **settings)


def test_an_expression_of_a_column_that_is_not_there_names_it(write: Write, mapped: Read) -> None:
    with pytest.raises(SourceError, match=r"no such column.*it has u, i, t") as caught:
        mapped(write("log.csv", "u,i,t\nx,a,1\n"), where="price > 3")
    assert caught.value.column == "price"


def test_expressions_are_options_of_the_command_line_too(write: Write, read: Read, rows: Rows) -> None:
    options = {"where": "t <> '2'", "derived.kind": "upper(i)", "fields": "kind"}
    raw = read("table", write("log.csv", "u,i,t\nx,a,1\nx,b,2\n"), **BASE, **options)
    assert rows(raw.items, "item", "kind") == [("a", "A")]


def test_no_function_that_is_allowed_reads_files_or_the_clock() -> None:
    import duckdb

    found = duckdb.execute(
        "SELECT function_name, function_type, stability FROM duckdb_functions() WHERE function_name IN "
        f"({', '.join('?' * len(FUNCTIONS))})",
        sorted(FUNCTIONS),
    ).fetchall()
    assert {kind for _, kind, _ in found} <= {"scalar", "macro", "aggregate"}
    assert not [name for name, _, stability in found if stability == "VOLATILE"]


def test_the_page_lists_every_function_that_is_allowed() -> None:
    text = (ROOT / "docs" / "sources.md").read_text()
    listed = text.partition("<!-- functions -->")[2].partition("\n\n")[0]
    named = {name for name in FUNCTIONS if name[0].isalpha() and not name.endswith("like_escape")}
    assert {name.strip("`,.") for name in listed.split()} == named


def test_a_comment_or_a_name_in_quotes_changes_nothing() -> None:
    assert parse("where", "a = 1 -- and no more").columns == ("a",)
    assert parse("where", '"a.b" = 1').columns == ("a.b",)
