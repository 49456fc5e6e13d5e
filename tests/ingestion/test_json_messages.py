"""Messages that are read together give the same events as messages that are looked at one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifelong.dataset.events import Schema
from lifelong.dtypes import IntArray
from lifelong.online.ingestion.json_messages import JsonMessages
from lifelong.online.ingestion.rows import EventRows, Problem, json_row
from lifelong.online.memory.event import MAX_ID, EventTable, UserEvent

LATEST = 2_000_000_000
GOOD = b'{"user": "ada", "item": "tea", "time": 5}'
_IDS = st.text(min_size=1, max_size=5) | st.integers(-5, 5) | st.sampled_from(["", None, True, 1.5, 10**30, "x" * 600])
_TIMES = st.integers(0, 50) | st.sampled_from([-1, LATEST, LATEST + 1, 10**30, "7", "noon", 7.0, 7.5, True, None])
_ROWS = st.fixed_dictionaries(
    {"user": _IDS, "item": _IDS, "time": _TIMES},
    optional={"event_type": _IDS, "shop": _IDS, "id": _IDS, "more": st.lists(st.text())},
)


def rows_of(columns: dict[str, str] | None = None) -> EventRows:
    schema = Schema(item_fields=("item", "shop"), event_types=True)
    return EventRows(schema, {"event_id": "id"} if columns is None else columns, lambda: LATEST)


def even(users: Sequence[str]) -> IntArray:
    """Some of the users, by their ids."""
    return np.flatnonzero([len(user) % 2 == 0 for user in users])


def one_by_one(rows: EventRows, texts: Sequence[bytes]) -> list[UserEvent] | None:
    """None if one of the messages is not an event."""
    found: list[UserEvent] = []
    for text in texts:
        row = json_row(text)
        event = row if isinstance(row, Problem) else rows.event(row)
        if isinstance(event, Problem):
            return None
        found.append(event)
    return found


def of(table: EventTable) -> list[tuple[Any, ...]]:
    """The events of a table, one by one."""
    none = [None] * len(table)
    columns = (table.event_type or none, table.fields or none, table.event_id or none)
    return list(zip(table.user, table.item, table.time_N.tolist(), *columns, strict=True))


@given(st.lists(_ROWS, min_size=1, max_size=6), st.booleans(), st.booleans())
@example([{"user": "ada", "item": "tea", "time": 1}, {"user": "bo", "item": "tea", "time": LATEST + 1}], True, True)
@example([{"user": "ada", "item": "tea", "time": 1}, {"user": "bo", "item": "tea", "time": LATEST}], True, True)
def test_messages_read_together_hold_what_each_holds(rows: list[dict[str, Any]], ascii_only: bool, some: bool) -> None:
    texts = [json.dumps(row, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for row in rows]
    for columns in (None, {}, {"user": "item"}, {"user": "time"}, {"user": 'a "name"'}):
        reader = rows_of(columns)
        found, events = JsonMessages(reader).events(texts, even if some else None), one_by_one(reader, texts)
        if found is None:
            continue
        assert events is not None
        expected = EventTable.of(events)
        assert list(found.users) == expected.user
        place_M = even(expected.user) if some else np.arange(len(events))
        np.testing.assert_array_equal(found.place_M, place_M)
        assert of(found.table) == of(expected.take(place_M))


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"event_type": "view"},
        {"event_type": None},
        {"event_type": "view", "shop": "corner", "id": "e1"},
        {"event_type": "", "shop": ""},
        {"user": "x" * MAX_ID},
        {"user": 7, "item": 8},
        {"time": "12"},
        {"time": LATEST},
        {"more": {"nested": [1, 2]}},
    ],
)
def test_events_need_no_closer_look(row: dict[str, Any]) -> None:
    plain = [{"user": "ann", "item": "milk", "time": 6}, {"user": "rose", "item": "tea", "time": 5}]
    texts = [json.dumps(one | row).encode() for one in plain]
    reader = rows_of()
    for chosen in (None, even):
        found, events = JsonMessages(reader).events(texts, chosen), one_by_one(reader, texts)
        assert found is not None and events is not None
        place_M = np.arange(2) if chosen is None else chosen([event.user for event in events])
        assert of(found.table) == of(EventTable.of(events).take(place_M))


@pytest.mark.parametrize(
    "other",
    [
        None,
        b"",
        b"3",
        b"[]",
        GOOD + b", " + GOOD,
        b'{"user": "\\ud800", "item": "tea", "time": 5}',
        b'{"user": "ada", "item": "tea"}',
        b'{"user": "", "item": "tea", "time": 5}',
        b'{"user": ["ada"], "item": "tea", "time": 5}',
        b'{"user": "ada", "item": "tea", "time": -1}',
        b'{"user": "ada", "item": "tea", "time": 2000000001}',
        b'{"user": "ada", "item": "tea", "time": 123456789012345678901234567890}',
        b'{"user": "ada", "item": "tea", "time": 5, "more": "\xff"}',
        b'{"user": "ada", "item": "tea", "time": 5, "more": "\xed\xa0\x80"}',
        b'{"user": "' + b"x" * (MAX_ID + 1) + b'", "item": "tea", "time": 5}',
    ],
)
@pytest.mark.parametrize("first", [GOOD, GOOD.replace(b"5", b'"5"')])
def test_a_message_that_may_be_none_needs_a_closer_look_whoever_asks(other: bytes | None, first: bytes) -> None:
    messages = JsonMessages(rows_of())
    # Also where the event is of a user who is not chosen: every process finds the same messages at fault.
    for chosen in (None, even, lambda users: np.flatnonzero(np.zeros(len(users)))):
        assert messages.events([first, first], chosen) is not None
        assert messages.events([first, other], chosen) is None


def test_a_name_that_an_object_of_the_reader_cannot_have_leaves_all_to_a_closer_look() -> None:
    row = {"user": 'say "who"', "item": "item", "time": "time"}
    assert JsonMessages(rows_of(row)).events([b'{"say \\"who\\"": "ada", "item": "tea", "time": 5}']) is None


def test_times_in_another_form_are_read() -> None:
    messages = JsonMessages(rows_of({"time_unit": "ms"}))
    found = messages.events([b'{"user": "ada", "item": "tea", "time": 1700000000000}'])
    assert found is not None
    assert found.table.time_N.tolist() == [1_700_000_000]
