"""What is seen of lines before they are cut is what the rules of csv and of events say of each."""

import csv
import io
import zlib
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.online.ingestion.file_reader import FileReader
from lifelong.online.ingestion.opened_file import opened
from lifelong.online.ingestion.plain_lines import PlainLines
from lifelong.online.ingestion.rows import EventRows, Problem
from lifelong.online.memory.event import LAST_SECOND, MAX_ID
from lifelong.online.store.part import Share, part_of

HEAD = ["user", "item", "time"]
CELL = st.text(st.sampled_from('ab1,"\r\n \0üß日'), max_size=5)
LINE = st.lists(CELL, min_size=2, max_size=4).map(",".join)
USER, TIME = (
    st.text(st.sampled_from("ab1 \0ü日😀"), max_size=20),
    st.sampled_from(["0", "17", "1_0", "+1", "-1", "٣", ""]),
)


def lines_of(text: str) -> list[str]:
    return list(io.StringIO(text, newline=""))


def rows(artifact) -> EventRows:
    return EventRows(artifact.config.dataset_schema, {})


@given(text=st.lists(LINE, min_size=1, max_size=5).map("\n".join), end=st.sampled_from(["", "\n", "\r\n"]))
@settings(max_examples=500, deadline=None)
def test_lines_are_plain_where_the_rules_of_csv_give_the_same_cells(text, end):
    lines = lines_of(text + end)
    plain = PlainLines.of(lines, 3) if lines else None
    if plain is None:
        return
    wanted = list(csv.reader(lines, strict=True))
    assert len(plain) == len(wanted) and plain.cells() == list(chain(*wanted))
    assert plain.longest == max(len(",".join(row).encode()) + 1 for row in wanted)
    for column, cells in enumerate(zip(*wanted, strict=True)):
        encoded = [cell.encode() for cell in cells]
        assert plain.lengths(column).tolist() == list(map(len, encoded))
        assert plain.crc32(column).tolist() == list(map(zlib.crc32, encoded))
        if all(cells):
            assert plain.are_digits(column) == all(cell.isascii() and cell.isdecimal() for cell in cells)
    for chosen in range(1, 2 ** len(wanted)):
        chosen_N = np.array([chosen >> place & 1 for place in range(len(wanted))], np.bool_)
        some = [row for row, own in zip(wanted, chosen_N, strict=True) if own]
        assert plain.cells(chosen_N) == list(chain(*some))


@pytest.mark.parametrize(
    "lines",
    [['"a",b,c\n'], ["a,b\n"], ["a,b,c,d\n"], ["a,b\n", "c,d,e,f\n"], ["a,b,c\n", "\n"], ["a,b,c\r", "d,e,f\n"]],
)
def test_lines_that_take_more_than_commas_are_not_plain(lines):
    assert PlainLines.of(lines, 3) is None


@given(cells=st.lists(st.tuples(USER, st.sampled_from(["i1", ""]), TIME), min_size=1, max_size=5))
@settings(deadline=None)
def test_lines_that_are_seen_to_be_events_are_events(artifact, cells):
    plain, events = PlainLines.of([",".join(row) + "\n" for row in cells], 3), rows(artifact)
    assert plain is not None
    made = [events.event(dict(zip(HEAD, row, strict=True))) for row in cells]
    if events.hold(plain, HEAD):
        assert not any(isinstance(event, Problem) for event in made)
    # And usual events are seen.
    usual = all(user and item and time in ("0", "17") for user, item, time in cells)
    assert events.hold(plain, HEAD) == usual


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (f"u,i,{str(LAST_SECOND)[1:]}\n", True),
        (f"u,i,{LAST_SECOND + 1}\n", False),
        (f"{'u' * (MAX_ID - 6)},i,17\n", True),
        (f"{'u' * (MAX_ID + 1)},i,17\n", False),
        ("u,i,1700000000.5\n", False),
    ],
)
def test_a_line_with_more_than_an_event_can_have_is_looked_at(artifact, line, seen):
    plain = PlainLines.of(["u,i,17\n", line], 3)
    assert plain is not None and rows(artifact).hold(plain, HEAD) is seen


@given(
    times=st.lists(st.integers(0, 10**11).map(str) | st.sampled_from(["00", "0169", "1700000000"]), min_size=1),
    latest=st.integers(0, 10**11),
)
@settings(deadline=None)
def test_lines_of_a_share_are_events_only_where_no_time_is_beyond_the_bound(artifact, times, latest):
    plain = PlainLines.of([f"u,i,{time}\n" for time in times], 3)
    assert plain is not None
    bounded = EventRows(artifact.config.dataset_schema, {}, lambda: latest)
    usual = all(int(time) <= latest and len(time) <= len(str(latest)) for time in times)
    assert bounded.hold(plain, HEAD) is usual


def test_of_columns_that_are_called_alike_the_last_one_counts(artifact):
    head = ["time", "user", "item", "time"]
    plain = PlainLines.of(["?,u,i,17\n"], 4)
    assert plain is not None and rows(artifact).hold(plain, head) and rows(artifact).place("time", head) == 3


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_reader_of_a_share_leaves_out_the_lines_of_others(artifact, tmp_path, end):
    path, share = tmp_path / "log.csv", Share((1,), 2)
    path.write_text(end.join(["user,item,time", *(f"u{k},i{k},{k}" for k in range(40))]) + end, newline="")
    own = [k for k in range(40) if part_of(f"u{k}", 2) == 1]
    with opened(path) as file:
        reader = FileReader(file, artifact.config.dataset_schema, {}, size=30, share=share)
        parts = list(reader.lines())
    assert [part.through for part in parts] == [31, 41]
    assert [number for part in parts for number in part.number] == [k + 2 for k in own]
    assert [item for part in parts for item in part.columns["item"]] == [f"i{k}" for k in own]


def test_a_reader_of_a_share_gives_all_lines_where_one_may_be_no_event(artifact, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"u{k},i{k},{k if k != 35 else 'soon'}\n" for k in range(40)))
    with opened(path) as file:
        reader = FileReader(file, artifact.config.dataset_schema, {}, size=30, share=Share((1,), 2))
        assert [part.through for part in reader.lines()] == [31, None]
