from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import ConfigError, SourceError

NOON = 1511755200
"""2017-11-27 12:00 in UTC+8."""
Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]


def line(user: int = 1, item: int = 10, category: int = 5, behaviour: str = "pv", time: int = NOON) -> str:
    return f"{user},{item},{category},{behaviour},{time}\n"


def test_rows_become_events_and_items(write: Write, read: Read, rows: Rows) -> None:
    raw = read("taobao", write("log.csv", line() + line(item=11, category=6, behaviour="buy")))
    assert rows(raw.events, "user", "item", "time", "sequence", "event_type") == [
        ("1", "10", NOON, 0, "pv"),
        ("1", "11", NOON, 1, "buy"),
    ]
    assert rows(raw.items, "item", "category") == [("10", "5"), ("11", "6")]
    assert (raw.event_types, raw.item_fields, raw.protocol) == (True, ("category",), "temporal")


def test_ties_duplicates_and_unsorted_rows_are_kept(write: Write, read: Read, rows: Rows) -> None:
    raw = read("taobao", write("log.csv", line() + line() + line(item=11) + line(time=NOON - 1) + line(user=2)))
    assert len(rows(raw.events, "user")) == 5


def test_rows_outside_the_window_are_dropped_and_counted(write: Write, read: Read, rows: Rows) -> None:
    first, after = 1511539200, 1512316800
    times = (first - 1, first, after - 1, after, -5)
    path = write("log.csv", "".join(line(time=time) for time in times))
    raw = read("taobao", path)
    assert [time for (time,) in rows(raw.events, "time")] == [first, after - 1]
    assert raw.record["out_of_window"] == 3
    assert read("taobao", path, window="all").record["out_of_window"] == 0
    assert read("taobao", path, window="2017-12-04..2017-12-04").record["out_of_window"] == 4


def test_a_whole_last_line_without_a_line_end_is_kept(write: Write, read: Read) -> None:
    assert read("taobao", write("log.csv", line() + line().rstrip())).record["rows"] == 2


@pytest.mark.parametrize(
    ("bad", "column"),
    [
        ("1,10,5,pv\n", 5),
        ("1,10,5,p", 5),
        ("1,10,5,pv,1,2\n", 6),
        ("1,10,5,click,1511755200\n", "4 (event_type)"),
        ("1,10,5,pv,noon\n", "5 (time)"),
        ("1,10,5,pv,1511755200.0\n", "5 (time)"),
        (",10,5,pv,1511755200\n", "1 (user)"),
    ],
)
def test_a_broken_line_is_an_error_even_if_it_is_the_last(write: Write, read: Read, bad: str, column: object) -> None:
    path = write("log.csv", line() + bad)
    with pytest.raises(SourceError) as caught:
        read("taobao", path)
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(path), 2, column)


def test_of_two_categories_of_an_item_the_last_in_the_source_wins(write: Write, read: Read, rows: Rows) -> None:
    files = write("a.csv", line(category=7, time=NOON + 9)), write("b.csv", line(category=3) + line(item=11))
    raw = read("taobao", *files)
    assert rows(raw.items, "item", "category") == [("10", "3"), ("11", "5")]


def test_the_file_order_is_the_order_of_ties(write: Write, read: Read, rows: Rows) -> None:
    first, second = write("z.csv", line(item=10)), write("a.csv", line(item=11))
    assert rows(read("taobao", first, second).events, "item") == [("10",), ("11",)]
    assert rows(read("taobao", second, first).events, "item") == [("11",), ("10",)]


def test_targets_can_be_limited_to_behaviours(write: Write, read: Read) -> None:
    path = write("log.csv", line())
    assert read("taobao", path).target_types is None
    assert read("taobao", path, targets="buy, cart").target_types == ("buy", "cart")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"windw": "all"}, "no option 'windw'"),
        ({"window": "yesterday"}, "window = 'yesterday'"),
        ({"window": "2017-11-25"}, "window = '2017-11-25'"),
        ({"targets": "click"}, "'click' is not a behaviour"),
    ],
)
def test_a_wrong_option_is_named(write: Write, read: Read, options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read("taobao", write("log.csv", line()), **options)


def test_a_log_without_events_is_an_error(write: Write, read: Read) -> None:
    with pytest.raises(SourceError, match="has no events"):
        read("taobao", write("empty.csv", ""), write("blank.csv", "\n\n"))


def test_missing_files_folders_and_no_files_are_errors(tmp_path: Path, read: Read) -> None:
    with pytest.raises(SourceError, match="no such file") as caught:
        read("taobao", tmp_path / "absent.csv")
    assert caught.value.file.endswith("absent.csv")
    with pytest.raises(SourceError, match="this is a folder"):
        read("taobao", tmp_path)
    with pytest.raises(SourceError, match="no file was named"):
        read("taobao")


@pytest.mark.realdata
def test_the_genuine_head_reads_whole(read: Read) -> None:
    path = Path(__file__).parents[3].parent / "shared" / "data" / "taobao" / "UserBehavior_head5000.csv"
    if not path.exists():
        pytest.skip("the genuine rows are not here")
    record = read("taobao", path).record
    assert (record["rows"], record["out_of_window"]) == (5000, 1)
