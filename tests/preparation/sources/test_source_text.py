"""Lines, rows and errors of text files, through the reader that all text sources share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa

from lifelong.errors import SourceError
from lifelong.offline.preparation.sources import text as text_module
from lifelong.offline.preparation.sources.text import Column, Layout, Places, rows

LAYOUT = Layout((Column("user", "id"), Column("note"), Column("time", "integer")))
QUOTED = Layout(LAYOUT.columns, quoted=True, header=True)
Write = Callable[..., Path]


def table(files: list[Path], layout: Layout = LAYOUT) -> tuple[list[Any], Places]:
    places = Places(layout)
    found = pa.concat_tables([layout.schema().empty_table(), *rows(files, layout, places)])
    return [tuple(row.values()) for row in found.to_pylist()], places


def test_sequence_is_the_row_counted_on_over_files(write: Write) -> None:
    files = [write("b.csv", "u,x,1\nv,y,2\n"), write("empty.csv", ""), write("a.csv", "w,z,0\n")]
    found, places = table(files)
    assert found == [("u", "x", 1, 0), ("v", "y", 2, 1), ("w", "z", 0, 2)]
    assert places.locate(2) == (str(files[2]), 1)
    assert places.record() == {"files": 3, "rows": 3}


@pytest.mark.parametrize("block_bytes", [40, 64, 1 << 20])
def test_blank_lines_are_no_rows_and_quoted_line_breaks_end_none(
    write: Write, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", block_bytes)
    text = 'user,note,time\n"u",a,1\n\nv,"two\nlines, ""quoted""",2\r\n\r\nw,,3'
    found, places = table([write("a.csv", text)], QUOTED)
    assert found == [("u", "a", 1, 0), ("v", 'two\nlines, "quoted"', 2, 1), ("w", "", 3, 2)]
    assert [places.locate(sequence)[1] for sequence in range(3)] == [2, 4, 7]


def test_a_large_file_keeps_every_line_in_its_place(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 10_000)
    lines = [f"u{line % 7},n,{line}" for line in range(50_000)]
    found, _ = table([write("a.csv.gz", "\n".join(lines))])
    assert [(time, sequence) for _, _, time, sequence in found] == [(line, line) for line in range(50_000)]


def test_values_may_be_separated_by_several_characters(write: Write) -> None:
    path = write("a.dat", "u::x::1\n\nv::y,z::2\n")
    layout = Layout(LAYOUT.columns, delimiter="::")
    assert table([path], layout)[0] == [("u", "x", 1, 0), ("v", "y,z", 2, 1)]
    with pytest.raises(SourceError, match=r"'\?' is not a whole number"):
        table([write("b.dat", "u::x::?\n")], layout)


def test_gzip_is_known_by_its_content(write: Write) -> None:
    path = write("a.csv.gz", "u,x,1\n")
    plain = path.rename(path.with_suffix(""))
    assert table([plain])[0] == [("u", "x", 1, 0)]


def test_a_header_is_found_by_name_in_any_order_behind_a_mark_and_blank_lines(write: Write) -> None:
    path = write("a.csv", b"\xef\xbb\xbf\n\ntime,more,note,user\n5,?,x,u\n")
    assert table([path], QUOTED)[0] == [("u", "x", 5, 0)]


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("u,x,1\nu,x\n", 2, 3, "2 values"),
        ("u,x,1\n\nu,x,2,3\n", 3, 4, "4 values"),
        ("u,x,1.5\n", 1, "3 (time)", "'1.5' is not a whole number"),
        ("u,x,1\nu,x,\n", 2, "3 (time)", "'' is not a whole number"),
        ("u,x,99999999999999999999\n", 1, "3 (time)", "not a whole number"),
        ("u,x,1\n,x,2\n", 2, "1 (user)", "there is no value"),
    ],
)
def test_the_first_wrong_line_is_named(write: Write, text: str, line: int, column: object, words: str) -> None:
    path = write("a.csv.gz", text)
    with pytest.raises(SourceError, match=words) as caught:
        table([path])
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(path), line, column)
    assert caught.value.expected


def test_a_wrong_line_of_a_later_block_and_file_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 500)
    files = [write("a.csv", "u,x,1\n" * 10), write("b.csv", "u,x,1\n" * 4_000 + "u,x,?\n")]
    with pytest.raises(SourceError) as caught:
        table(files)
    assert (caught.value.file, caught.value.line) == (str(files[1]), 4_001)


def test_a_line_after_a_quoted_line_break_keeps_its_number(write: Write) -> None:
    path = write("a.csv", 'user,note,time\nu,"one\ntwo\nthree",1\nu,x,?\n')
    with pytest.raises(SourceError) as caught:
        table([path], QUOTED)
    assert caught.value.line == 5


def test_bytes_of_another_encoding_are_named(write: Write) -> None:
    path = write("a.csv", b"u,x,1\nv,caf\xe9,2\n")
    with pytest.raises(SourceError, match="0xe9 is not utf-8") as caught:
        table([path])
    assert (caught.value.line, caught.value.column) == (2, 2)
    assert table([path], Layout(LAYOUT.columns, encoding="latin-1"))[0][1] == ("v", "café", 2, 1)


def test_a_quote_that_never_closes_is_an_error(write: Write) -> None:
    with pytest.raises(SourceError):
        table([write("a.csv", 'user,note,time\nu,"x,1\nu,y,2\n')], QUOTED)


@pytest.mark.parametrize("header", ["user,note", "user,note,note,time", "user;note;time"])
def test_a_header_without_a_wanted_column_is_an_error(write: Write, header: str) -> None:
    with pytest.raises(SourceError, match="the header") as caught:
        table([write("a.csv", header + "\nu,x,1\n")], QUOTED)
    assert caught.value.line == 1


@pytest.mark.parametrize(("data", "words"), [(b"PK\x03\x04rest", "zip archive"), (b"PAR1rest", "parquet")])
def test_an_archive_is_not_text(write: Write, data: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        table([write("a.csv", data)])


def test_a_gzip_file_that_breaks_off_is_an_error(write: Write) -> None:
    path = write("a.csv.gz", "u,x,1\n" * 1000)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(SourceError, match="to its end") as caught:
        table([path])
    assert caught.value.file == str(path)


def test_a_number_must_be_finite(write: Write) -> None:
    layout = Layout((Column("rating", "number"), Column("user", "id")))
    with pytest.raises(SourceError, match="'nan' is not a number") as caught:
        table([write("a.csv", "1.5,u\nnan,u\n")], layout)
    assert caught.value.line == 2
