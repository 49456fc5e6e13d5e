"""Events straight into columns: the same as `EventsBody` takes, or nothing."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lifelong.online.memory.event import LAST_SECOND, EventTable
from lifelong.online.serving.bodies import EventsBody
from lifelong.online.serving.event_bodies import table_of

GOOD = {"user": "u", "item": "i", "time": 1_700_000_000}


def rows_of(document):
    """What `EventsBody` makes of a document, None where it refuses it."""
    try:
        return EventTable.of_rows(EventsBody.model_validate(document).events)
    except ValidationError:
        return None


def check_same(document, *, taken=None):
    wanted = rows_of(document)
    found = table_of(json.dumps(document).encode())
    assert taken is None or (found is not None) is taken
    if found is not None:
        assert wanted is not None, "EventsBody refuses it"
        assert np.array_equal(found.time_N, wanted.time_N)
        names = ("user", "item", "event_type", "fields", "event_id")
        assert all(getattr(found, name) == getattr(wanted, name) for name in names)


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"event_type": "buy", "event_id": "1", "fields": {"category": "c", "brand": None}},
        {"event_type": None, "event_id": None, "fields": None},
        {"fields": {}},
        {"user": "日本" * 128, "time": 0},
        {"time": LAST_SECOND},
        {"fields": {f"f{number}": "x" for number in range(64)}},
    ],
)
def test_what_clients_usually_send_is_taken(part):
    check_same({"events": [GOOD, {**GOOD, **part}, GOOD]}, taken=True)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"events": []},
        {"events": [GOOD], "more": 1},
        *(
            {"events": [GOOD, {**GOOD, **part}]}
            for part in (
                {"user": ""},
                {"user": "u" * 257},
                {"user": 7},
                {"user": None},
                {"time": -1},
                {"time": LAST_SECOND + 1},
                {"time": 2**63 - 1},
                {"time": "1700000000"},
                {"time": True},
                {"time": 1.5},
                {"event_type": ""},
                {"event_id": 7},
                {"fields": {"a": 1}},
                {"fields": {"": "x"}},
                {"fields": {f"f{number}": "x" for number in range(65)}},
                {"other": 1},
            )
        ),
    ],
)
def test_what_is_refused_is_not_taken(document):
    assert rows_of(document) is None
    check_same(document, taken=False)


def test_a_rarer_form_of_a_valid_body_is_left_to_the_other_way():
    document = {"events": [{**GOOD, "time": 1_700_000_000.0}]}
    assert rows_of(document) is not None
    check_same(document)
    assert table_of(json.dumps({"events": [GOOD]}).encode("utf-16")) is None
    assert table_of(b"\xff") is None and table_of(b"[" * 100_000) is None
    lone = b'{"events": [{"user": "\\ud800", "item": "i", "time": 1}]}'
    assert table_of(lone) is None


_VALUES = st.one_of(st.none(), st.booleans(), st.integers(-5, 2**40), st.floats(allow_nan=False), st.text(max_size=3))
_EVENTS = st.dictionaries(
    st.sampled_from(["user", "item", "time", "event_type", "event_id", "fields", "other"]),
    st.one_of(_VALUES, st.dictionaries(st.text(max_size=2), _VALUES, max_size=2)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.just(GOOD), _EVENTS.map(lambda part: {**GOOD, **part})), max_size=3))
def test_whatever_is_taken_is_what_the_other_way_takes(events):
    check_same({"events": events})
