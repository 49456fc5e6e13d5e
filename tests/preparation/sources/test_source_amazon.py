from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import SourceError

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
DAY = 86_400
GENUINE = Path(__file__).parents[3].parent / "shared" / "data" / "amazon_raw_excerpts"


def review(user: str = "A", item: str = "x", stars: float = 5.0, time: int = DAY, **more: Any) -> str:
    return json.dumps({"reviewerID": user, "asin": item, "overall": stars, "unixReviewTime": time, **more}) + "\n"


def test_reviews_become_events_in_the_order_of_their_lines(write: Write, read: Read, rows: Rows) -> None:
    text = review(helpful=[0, 1], reviewText="fine") + "\n" + review(item="y") + review(item="x")
    raw = read("amazon", write("reviews.json", text))
    assert rows(raw.events, "user", "item", "time", "sequence") == [
        ("A", "x", DAY, 0),
        ("A", "y", DAY, 2),
        ("A", "x", DAY, 3),
    ]
    assert (raw.items, raw.item_fields, raw.protocol) == (None, (), "temporal")
    assert raw.record["rows"] == 3


def test_meta_gives_brand_and_the_last_element_of_the_last_path(write: Write, read: Read, rows: Rows) -> None:
    meta = (
        "{'asin': 'x', 'categories': [['A', 'B'], ['A', 'C']], 'title': \"it's\", 'brand': 'b1'}\n"
        "{'asin': 'y', 'brand': ''}\n"
        "{'asin': 'z', 'categories': []}\n"
    )
    raw = read("amazon", write("x.gz", meta), write("y.gz", review() + review(item="q")))
    assert rows(raw.items, "item", "category", "brand") == [("x", "C", "b1"), ("y", None, None), ("z", None, None)]
    assert raw.item_fields == ("category", "brand")
    assert raw.record["items_without_meta"] == 1
    assert raw.record["meta_files"]["rows"] == 3


def test_meta_in_json_and_twice_is_read_and_counted(write: Write, read: Read, rows: Rows) -> None:
    meta = '{"asin": "x", "categories": [["A"]], "related": null}\n' + "{'asin': 'x', 'categories': [['B']]}\n"
    raw = read("amazon", write("reviews.json", review()), write("meta.json", meta))
    assert rows(raw.items, "item", "category") == [("x", "B")]


def test_the_brand_can_be_left_out(write: Write, read: Read, rows: Rows) -> None:
    meta = write("meta.json", "{'asin': 'x', 'categories': [['A']], 'brand': 'b1'}\n")
    raw = read("amazon", write("reviews.json", review()), meta, brand="drop")
    assert raw.item_fields == ("category",)
    assert rows(raw.items, "item", "category") == [("x", "A")]


@pytest.mark.parametrize(
    ("bad", "column"),
    [
        (review()[:-9] + "\n", None),
        (review(time=None), "unixReviewTime"),  # type: ignore[arg-type]
        (review(time="86400"), "unixReviewTime"),  # type: ignore[arg-type]
        (review(time=1.5), "unixReviewTime"),  # type: ignore[arg-type]
        (review(user=""), "reviewerID"),
        (review(stars="five"), "overall"),  # type: ignore[arg-type]
        ('{"reviewerID": "A"}\n', "asin"),
        ("[1, 2]\n", None),
    ],
)
def test_a_wrong_review_is_named(write: Write, read: Read, bad: str, column: str | None) -> None:
    path = write("reviews.json.gz", review() + "\n" + bad)
    with pytest.raises(SourceError) as caught:
        read("amazon", path)
    assert (caught.value.file, caught.value.line) == (str(path), 3)
    assert column is None or caught.value.column == column


def test_bytes_that_are_not_utf8_are_named(write: Write, read: Read) -> None:
    path = write("reviews.json", review().encode() + review(item="caf").encode().replace(b"caf", b"caf\xe9"))
    with pytest.raises(SourceError, match="0xe9 is not utf-8") as caught:
        read("amazon", path)
    assert caught.value.line == 2


@pytest.mark.parametrize("bad", ["{'asin': open('x')}", "{'asin': 'x'", "{'title': 'x'}", "'x'", "{'asin': 1} + 2"])
def test_a_wrong_meta_line_is_named_and_never_run(write: Write, read: Read, bad: str) -> None:
    path = write("meta.json", "{'asin': 'x'}\n" + bad + "\n")
    with pytest.raises(SourceError) as caught:
        read("amazon", write("reviews.json", review()), path)
    assert (caught.value.file, caught.value.line) == (str(path), 2)


def test_files_of_neither_kind_and_meta_alone_are_errors(write: Write, read: Read) -> None:
    with pytest.raises(SourceError, match="its columns are title"):
        read("amazon", write("other.json", '{"title": 1}\n'))
    with pytest.raises(SourceError, match="there is no file of reviews"):
        read("amazon", write("meta.json", "{'asin': 'x'}\n"))


@pytest.mark.realdata
def test_genuine_lines_read_whole(read: Read, rows: Rows) -> None:
    if not GENUINE.exists():
        pytest.skip("the genuine rows are not here")
    raw = read("amazon", *sorted(GENUINE.glob("*.json")))
    assert (raw.record["rows"], raw.record["meta_files"]["rows"]) == (51, 3)
    assert raw.record["items_without_meta"] == len(set(rows(raw.events, "item")))
    assert ("0558835155", "Headphones", None) in rows(raw.items, "item", "category", "brand")
