"""Events as columns, and the plan of a batch."""

from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.dataset.events import NO_TIME
from lifelong.errors import RequestError
from lifelong.online.memory.event import EventTable, UserEvent, encode_event
from lifelong.online.memory.writer import _with_late, make_rounds

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
EVENTS = st.builds(
    UserEvent,
    user=TEXT,
    item=TEXT,
    time=st.integers(0, 10**9),
    event_type=st.none() | TEXT,
    fields=st.none() | st.dictionaries(TEXT, st.none() | TEXT, max_size=2),
    event_id=st.none() | TEXT,
)


@given(st.lists(EVENTS, max_size=6))
@settings(deadline=None)
def test_the_log_of_a_table_is_that_of_its_events(events):
    assert EventTable.of(events).logged() == [encode_event(event) for event in events]


@given(st.lists(EVENTS, max_size=6), st.sets(st.sampled_from(["event_type", "fields", "event_id"])))
@settings(deadline=None)
def test_rows_that_name_their_values_are_the_same_events(events, left_out):
    """What is not there may be left out of a row, or stand there as None."""
    events = [replace(event, **dict.fromkeys(left_out)) for event in events]
    rows = [{name: value for name, value in asdict(one).items() if name not in left_out} for one in events]
    one, other = EventTable.of_rows(rows), EventTable.of(events)
    assert one.time_N.tolist() == other.time_N.tolist()
    # Python 3.13 compares field by field, and asks an array for its truth.
    kept = [part.name for part in fields(one) if part.name != "time_N"]
    assert [getattr(one, name) for name in kept] == [getattr(other, name) for name in kept]


@given(st.lists(EVENTS, max_size=6), st.lists(st.integers(0, 5), max_size=6))
@settings(deadline=None)
def test_chosen_events_are_those_of_the_list(events, places):
    places = [place for place in places if place < len(events)]
    taken = EventTable.of(events).take(np.array(places, np.int64))
    assert taken.logged() == [encode_event(events[place]) for place in places]
    assert list(taken.user) == [events[place].user for place in places]


def own_event(user, time):
    """An event of a caller's own class, which checks nothing."""
    return SimpleNamespace(user=user, item="i", time=time, event_type=None, fields=None, event_id=None)


@pytest.mark.parametrize("user", [None, "", ["u"], 5, "u" * 1_025, "\ud800"])
def test_what_is_no_id_is_refused(user):
    with pytest.raises(RequestError, match="event 1: user"):
        EventTable.of([UserEvent("u", "i", 5), own_event(user, 5)])


@pytest.mark.parametrize("time", [None, -1, 1.5, "5", 10**12, 10**30, True])
def test_what_is_no_time_is_refused(time):
    with pytest.raises(RequestError, match="event 1: time"):
        EventTable.of([UserEvent("u", "i", 5), own_event("u", time)])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30), st.booleans())
@settings(deadline=None)
def test_a_plan_in_columns_is_that_of_one_event_after_another(events, refuse):
    user_N = np.array([user for user, _ in events], np.int64)
    time_N = np.array([time for _, time in events], np.int64)
    last_time_U = np.array([NO_TIME, 3, 5, NO_TIME])
    found = make_rounds(user_N, time_N, last_time_U, refuse=refuse)
    wanted = _with_late(user_N, time_N, last_time_U, refuse=refuse)
    for part in ("kept_N", "user_N", "rank_N", "time_N", "previous_N", "late"):
        assert getattr(found, part).tolist() == getattr(wanted, part).tolist()
    rounds = found.rounds()
    assert sorted(np.concatenate(rounds).tolist() if rounds else []) == list(range(len(found.user_N)))
    for number, places in enumerate(rounds):
        assert set(found.rank_N[places].tolist()) == {number}
        assert len(set(found.user_N[places].tolist())) == len(places)
