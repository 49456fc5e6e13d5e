from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import SourceError

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]
RATINGS = "userId,movieId,rating,timestamp\n1,2,3.5,100\n1,3,5,101\n"
MOVIES = 'movieId,title,genres\n2,"A ""b"", c",Drama|War\n3,d,(no genres listed)\n'


def test_csv_ratings_and_movies(write: Write, read: Read, rows: Rows) -> None:
    raw = read("movielens", write("movies.csv", MOVIES), write("ratings.csv", RATINGS))
    assert rows(raw.events, "user", "item", "time", "sequence") == [("1", "2", 100, 1), ("1", "3", 101, 2)]
    assert rows(raw.items, "item", "genres") == [("2", "Drama|War"), ("3", None)]
    assert (raw.item_fields, raw.impressions) == (("genres",), None)


def test_dat_ratings_and_latin1_movies(write: Write, read: Read, rows: Rows) -> None:
    movies = write("movies.dat", "2::Café, (1990)::Drama\n".encode("latin-1"))
    raw = read("movielens", write("ratings.dat", "1::2::3::100\n1::4::3::101\n"), movies)
    assert rows(raw.events, "user", "item", "time") == [("1", "2", 100), ("1", "4", 101)]
    assert rows(raw.items, "item", "genres") == [("2", "Drama")]
    assert raw.record["items_without_meta"] == 1


def test_ratings_from_a_threshold_are_labels(write: Write, read: Read, rows: Rows) -> None:
    raw = read("movielens", write("ratings.csv", RATINGS), threshold="4")
    assert rows(raw.impressions, "item", "response") == [("2", 0.0), ("3", 1.0)]
    assert len(rows(raw.events, "item")) == 2


@pytest.mark.parametrize(
    ("name", "text", "line", "column"),
    [
        ("ratings.csv", RATINGS + "1,4,good,102\n", 4, "3 (rating)"),
        ("ratings.csv", RATINGS + "1,4,3\n", 4, 4),
        ("ratings.dat", "1::2::3::100\n1::2::3\n", 2, 4),
        ("ratings.dat", "1::2::3::100\n1::2::3::noon\n", 2, "4 (timestamp)"),
        ("other.csv", "a,b\n", 1, None),
    ],
)
def test_a_wrong_line_is_named(write: Write, read: Read, name: str, text: str, line: int, column: object) -> None:
    path = write(name, text)
    with pytest.raises(SourceError) as caught:
        read("movielens", path)
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(path), line, column)


def test_movies_alone_are_not_a_log(write: Write, read: Read) -> None:
    with pytest.raises(SourceError, match="no file of ratings"):
        read("movielens", write("movies.csv", MOVIES))
