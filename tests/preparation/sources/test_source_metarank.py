from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import ConfigError, SourceError

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]


def event(kind: str, timestamp: Any, **parts: Any) -> dict[str, Any]:
    return {"event": kind, "id": f"{kind}-{timestamp}", "timestamp": timestamp, **parts}


def fields(**values: Any) -> dict[str, Any]:
    return {"fields": [{"name": name, "value": value} for name, value in values.items()]}


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in events)


def shown(*items: str) -> list[dict[str, Any]]:
    return [{"id": item, "relevancy": 1.5} for item in items]


LOG = lines(
    event("item", "1599391466000", item="i1", **fields(title="cat", color=["white", "black"], is_cute=True, price=9.5)),
    event("item", "1599391466000", item="i2", **fields(title="dog")),
    event("user", "1599391466000", user="ann", **fields(age=33, gender="f")),
    event("ranking", "1599391467000", user="ann", session="s1", items=shown("i1", "i2"), **fields(query="pet")),
    {**event("interaction", 1599391468999, user="ann", type="click", item="i2"), "ranking": "ranking-1599391467000"},
    # Without a user, and with a time of ISO 8601.
    event("ranking", "2020-09-06T11:25:00Z", session="s2", items=shown("i1", "i3")),
    event("interaction", "2020-09-06T13:25:10.5+02:00", session="s2", type="buy", item="i3")
    | {"ranking": "ranking-2020-09-06T11:25:00Z"},
    # Outside of a ranking; of nobody.
    event("interaction", "1599391600000", user="ann", type="like", item="i3"),
    event("ranking", "1599391601000", items=shown("i1")),
    event("interaction", "1599391602000", type="click", item="i1"),
    event("item", "1599391603000", item="i1", **fields(title="tomcat")),
)


def test_rankings_are_impressions_and_interactions_are_events(write: Write, read: Read, rows: Rows) -> None:
    raw = read("metarank", write("events.jsonl.gz", LOG))
    assert rows(raw.events, "user", "item", "time", "event_type") == [
        ("ann", "i2", 1599391468, "click"),
        ("s2", "i3", 1599391510, "buy"),
        ("ann", "i3", 1599391600, "like"),
    ]
    assert rows(raw.impressions, "user", "item", "time", "response") == [
        ("ann", "i1", 1599391467, 0.0),
        ("ann", "i2", 1599391467, 1.0),
        ("s2", "i1", 1599391500, 0.0),
        ("s2", "i3", 1599391500, 1.0),
    ]
    assert (raw.protocol, raw.tasks, raw.event_types) == ("impressions", ("response",), True)
    record = raw.record
    assert (record["rankings_without_user"], record["interactions_without_user"]) == (1, 1)
    assert record["interactions_outside_of_rankings"] == 1
    assert record["interaction_types"] == {"click": 1, "buy": 1, "like": 1}


def test_each_row_has_a_place_of_its_own(write: Write, read: Read, rows: Rows) -> None:
    raw = read("metarank", write("events.jsonl", LOG))
    places = [place for table in (raw.events, raw.impressions) for (place,) in rows(table, "sequence")]
    assert len(set(places)) == len(places) == 7


def test_fields_are_the_last_values_and_numbers_are_taken_by_name(write: Write, read: Read, rows: Rows) -> None:
    path = write("events.jsonl", LOG)
    raw = read("metarank", path)
    assert raw.item_fields == ("color", "is_cute", "title") and raw.number_fields == ()
    assert rows(raw.items, "item", "title", "color", "is_cute") == [
        ("i1", "tomcat", "white,black", "true"),
        ("i2", "dog", None, None),
    ]
    assert rows(raw.users, "user", "age", "gender") == [("ann", "33", "f")] and raw.user_fields == ("age", "gender")
    raw = read("metarank", path, fields="price,title", user_fields="gender")
    assert (raw.item_fields, raw.number_fields) == (("price", "title"), ("price",))
    assert rows(raw.items, "item", "price", "title") == [("i1", "9.5", "tomcat"), ("i2", None, "dog")]
    assert raw.user_fields == ("gender",)


def test_the_last_value_is_that_of_the_latest_time(write: Write, read: Read, rows: Rows) -> None:
    late = event("item", "1599391999000", item="i1", **fields(title="late"))
    later = event("item", "1599391999000", item="i1", **fields(title="later in the file"))
    early = event("item", "1599391000000", item="i1", **fields(title="early"))
    raw = read("metarank", write("a.jsonl", LOG + lines(late, later, early)))
    assert ("i1", "later in the file") in rows(raw.items, "item", "title")


def test_types_can_be_labels_of_their_own(write: Write, read: Read, rows: Rows) -> None:
    raw = read("metarank", write("events.jsonl", LOG), labels="click,buy")
    assert raw.tasks == ("click", "buy")
    assert rows(raw.impressions, "item", "click", "buy") == [
        ("i1", 0.0, 0.0),
        ("i2", 1.0, 0.0),
        ("i1", 0.0, 0.0),
        ("i3", 0.0, 1.0),
    ]


def test_who_has_a_history_can_be_chosen(write: Write, read: Read, rows: Rows) -> None:
    path = write("events.jsonl", LOG)
    assert {user for (user,) in rows(read("metarank", path, user="user").events, "user")} == {"ann"}
    assert {user for (user,) in rows(read("metarank", path, user="session").impressions, "user")} == {"s1", "s2"}


def test_interactions_alone_are_a_log_with_sampled_labels(write: Write, read: Read) -> None:
    raw = read("metarank", write("a.jsonl", lines(event("interaction", "1599391468000", user="a", type="x", item="i"))))
    assert (raw.impressions, raw.protocol, raw.items, raw.users) == (None, "temporal", None, None)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"event": "item", "item": "i"}, r"line 2, column timestamp: the field is missing"),
        (event("metadata", "1599391468000"), "the event is 'metadata', and not one of item, user, ranking, inter"),
        (event("item", "1599391468", item="i"), "before March 1973; seconds, perhaps"),
        (event("item", "yesterday", item="i"), "line 2: Invalid isoformat string: 'yesterday'"),
        (event("item", None, item="i"), "timestamp holds None"),
        (event("item", float("nan"), item="i"), "timestamp holds nan"),
        (event("item", -float("inf"), item="i"), "before March 1973"),
        (event("item", "9" * 30, item="i"), "timestamp holds '9999"),
        (event("item", "1599391468000", item=["i"]), r"item holds \['i'\]"),
        (event("ranking", "1599391468000", user="u", items=["i"]), r"items holds \[\"i\"\]"),
        (event("ranking", "1599391468000", user="u", items=[{}]), "column id: the field is missing"),
        (event("interaction", "1599391468000", user="u", item="i"), "column type: the field is missing"),
        (event("item", "1599391468000", item="i", fields=["a"]), "fields holds 'a'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write: Write, read: Read, wrong: dict[str, Any], found: str) -> None:
    good = event("interaction", "1599391468000", user="u", type="click", item="i")
    with pytest.raises(SourceError, match=found):
        read("metarank", write("a.jsonl", lines(good, wrong)))


def test_options_that_name_nothing_are_refused(write: Write, read: Read) -> None:
    path = write("events.jsonl", LOG)
    with pytest.raises(ConfigError, match=r"no interaction has the type share.*types: buy, click, like"):
        read("metarank", path, labels="share")
    with pytest.raises(ConfigError, match=r"fields: no item event has the field brand.*color, is_cute, price, title"):
        read("metarank", path, fields="brand")
    below = write("b.jsonl", LOG + lines(event("item", "1599391468000", item="i", **fields(price=-1))))
    with pytest.raises(SourceError, match="the item field price go below 0"):
        read("metarank", below, fields="price")
