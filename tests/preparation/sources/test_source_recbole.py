from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import ConfigError, SourceError

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t5\t978300760\n1\t8\t3\t978302109.0\n"
ITEM = 'item_id:token\tmovie_title:token_seq\tyear:token\tscore:float\n7\tA "toy" story\t1995\t.5\n8\tJumanji\t\t.7\n'
USER = "user_id:token\tage:token\n1\t25\n"


def test_atomic_files_are_events_fields_and_profiles(write: Write, read: Read, rows: Rows) -> None:
    raw = read("recbole", write("ml.user", USER), write("ml.item", ITEM), write("ml.inter", INTER))
    assert rows(raw.events, "user", "item", "time", "sequence") == [
        ("1", "7", 978300760, 1),
        ("1", "8", 978302109, 2),
    ]
    assert rows(raw.items, "item", "movie_title", "year") == [("7", 'A "toy" story', "1995"), ("8", "Jumanji", None)]
    assert rows(raw.users, "user", "age") == [("1", "25")]
    assert (raw.item_fields, raw.user_fields) == (("movie_title", "year"), ("age",))
    assert (raw.name, raw.protocol, raw.impressions) == ("RecBole ml", "temporal", None)
    assert rows(raw.ratings, "item", "rating") == [("7", 5.0), ("8", 3.0)]


def test_a_threshold_makes_labels_and_fields_can_be_chosen(write: Write, read: Read, rows: Rows) -> None:
    raw = read("recbole", write("ml.inter", INTER), write("ml.item", ITEM), threshold="4", fields="year")
    assert rows(raw.impressions, "item", "response") == [("7", 1.0), ("8", 0.0)]
    assert (raw.item_fields, raw.protocol) == (("year",), "impressions")


def test_columns_may_have_other_names(write: Write, read: Read, rows: Rows) -> None:
    text = "who:token,what:token,at:float,kind:token\na,x,5,buy\n"
    options = {"user": "who", "item": "what", "time": "at", "event_type": "kind", "separator": ","}
    raw = read("recbole", write("log.inter", text), **options)
    assert rows(raw.events, "user", "item", "time", "event_type") == [("a", "x", 5, "buy")]


def test_times_in_milliseconds_are_times_once_their_unit_is_given(write: Write, read: Read, rows: Rows) -> None:
    path = write("log.inter", "user_id:token\titem_id:token\ttimestamp:float\na\tx\t1238536800999\n")
    assert rows(read("recbole", path, time_unit="ms").events, "time") == [(1238536800,)]
    with pytest.raises(SourceError, match="is not a time") as caught:
        read("recbole", path)
    assert "--option time_unit=ms" in caught.value.fix


def test_a_float_that_is_named_as_a_field_is_a_number(write: Write, read: Read) -> None:
    files = write("ml.inter", INTER), write("ml.item", ITEM)
    assert read("recbole", *files, fields="score,year").number_fields == ("score",)
    assert read("recbole", *files).number_fields == ()


@pytest.mark.parametrize(
    ("name", "text", "words", "line"),
    [
        ("a.inter", "user_id\titem_id\n", r"the header has 'user_id'.*NAME:TYPE", 1),
        ("a.inter", "user_id:token\titem_id:id\n", r"'item_id:id'", 1),
        ("a.inter", INTER.replace("\t", ","), r"its columns are .*--option separator=", 1),
        ("a.kg", "head_id:token\ttail_id:token\n", r"head_id, tail_id.*\.kg", 1),
        ("a.item", ITEM, "no file of interactions", None),
        ("a.inter", "user_id:token\titem_id:token\n1\t2\n", "no column timestamp", 1),
        ("a.inter", INTER + "1\t9\t5\n", "3 values", 4),
        ("a.inter", INTER + "1\t9\t5\tnoon\n", "'noon' is not a number", 4),
        ("a.inter", INTER + "\t9\t5\t1\n", "no value", 4),
    ],
)
def test_what_is_wrong_is_named(write: Write, read: Read, name: str, text: str, words: str, line: int | None) -> None:
    path = write(name, text)
    with pytest.raises(SourceError, match=words) as caught:
        read("recbole", path)
    assert (caught.value.file, caught.value.line) == (str(path), line)


def test_a_wrong_option_is_named(write: Write, read: Read) -> None:
    paths = (write("ml.inter", INTER), write("ml.item", ITEM))
    with pytest.raises(ConfigError, match="no column colour"):
        read("recbole", *paths, fields="colour")
    with pytest.raises(ConfigError, match="threshold = 'good' is not a number"):
        read("recbole", *paths, threshold="good")
    with pytest.raises(ConfigError, match="there is no column stars"):
        read("recbole", *paths, threshold="4", rating="stars")
