from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifelong.errors import SourceError

Write, Read, Rows = Callable[..., Path], Callable[..., Any], Callable[..., list[Any]]


def line(user: str = "u", history: str = "5,0,5", positive: str = "7", negative: str = "8") -> str:
    return f"0\t{user}\t{history}\t{positive}\t{negative}\t1,2\t3,4\n"


def test_a_line_is_a_history_with_ordinal_times_and_two_targets_after_it(write: Write, read: Read, rows: Rows) -> None:
    raw = read("xlong", write("train_corpus.txt", line()))
    assert [row[:3] for row in rows(raw.events, "user", "item", "time")] == [
        ("u", "5", 0),
        ("u", "0", 1),
        ("u", "5", 2),
    ]
    assert rows(raw.impressions, "user", "item", "time", "response", "split") == [
        ("u", "7", 3, 1.0, "train"),
        ("u", "8", 3, 0.0, "train"),
    ]
    assert (raw.time_unit, raw.protocol, raw.items) == ("ordinal", "given", None)


def test_the_name_of_a_file_tells_its_split(write: Write, read: Read, rows: Rows) -> None:
    files = write("test_corpus.txt.gz", line("a")), write("train_corpus.txt", line("b") + line("c"))
    raw = read("xlong", *files)
    assert rows(raw.impressions, "user", "split")[::2] == [("a", "test"), ("b", "train"), ("c", "train")]


def test_a_name_that_tells_no_split_is_refused(write: Write, read: Read) -> None:
    with pytest.raises(SourceError, match="does not say which split it is"):
        read("xlong", write("corpus.txt", line()))


def test_every_line_of_a_user_is_a_history_of_its_own(write: Write, read: Read, rows: Rows) -> None:
    files = write("train.txt", line("u", "1") + line("v", "2")), write("test.txt", line("u", "3") + line("u", "4"))
    raw = read("xlong", *files)
    assert rows(raw.events, "user", "item") == [("u", "1"), ("v", "2"), ("u#2", "3"), ("u#3", "4")]
    assert {user for (user,) in rows(raw.impressions, "user")} == {"u", "v", "u#2", "u#3"}


@pytest.mark.parametrize(
    ("bad", "column"),
    [
        (line(history="1,,2"), "3 (history)"),
        (line(history=""), "3 (history)"),
        (line(positive=""), "4 (positive)"),
        ("0\tu\t1,2\t3\n", 5),
        (line(user=""), "2 (user)"),
    ],
)
def test_a_wrong_line_is_named(write: Write, read: Read, bad: str, column: object) -> None:
    path = write("train.txt", line("a") + line("b") + bad)
    with pytest.raises(SourceError) as caught:
        read("xlong", write("test.txt", line("t")), path)
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(path), 3, column)
