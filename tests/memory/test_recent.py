"""A memory that is the recent history itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.artifact.folder import NUMBER, TIME, is_recent, recent_layout
from lifelong.online.memory.codec import make_codec
from lifelong.online.memory.state import States, append, roll, unroll

LAYOUT = recent_layout(3, 2)


def after(events, recent=3):
    """The state of one user after events whose item is 10, 11, ..., one by one."""
    states = States.empty(recent_layout(recent, 2), 1)
    for event in range(events):
        fields = append(states, np.array([[10 + event, 1]]), np.array([100 + event]))
        states = States(states.count_B + 1, np.array([100 + event]), fields)
    return states


def test_the_last_events_are_kept_oldest_first():
    recent = unroll(after(5))
    assert recent.number_BLF.tolist() == [[[12, 1], [13, 1], [14, 1]]]
    assert recent.time_BL.tolist() == [[102, 103, 104]]
    assert recent.length_B.tolist() == [3]


def test_a_short_history_is_padded_to_the_longest_of_the_batch():
    one, two = after(1), after(2)
    both = States(
        np.concatenate([one.count_B, two.count_B]),
        np.concatenate([one.last_time_B, two.last_time_B]),
        {name: np.concatenate([one.fields[name], two.fields[name]]) for name in one.fields},
    )
    recent = unroll(both)
    assert recent.number_BLF[..., 0].tolist() == [[10, 0], [10, 11]]
    assert recent.length_B.tolist() == [1, 2]


def test_no_event_is_one_place_of_padding():
    recent = unroll(after(0))
    assert recent.number_BLF.tolist() == [[[0, 0]]]
    assert recent.length_B.tolist() == [0]


def test_a_write_leaves_its_input_as_it_was():
    states = after(2)
    append(states, np.array([[99, 1]]), np.array([500]))
    assert states.fields[NUMBER][0, :, 0].tolist() == [10, 11, 0]


@given(events=st.integers(0, 12), recent=st.integers(1, 5))
def test_rolling_a_whole_history_equals_appending_its_events(events, recent):
    history = np.array([[[10 + event, 1] for event in range(12)]])
    times = 100 + np.arange(12)[None]
    rolled, appended = roll(history, times, np.array([events]), recent), after(events, recent)
    for name in (NUMBER, TIME):
        assert np.array_equal(rolled[name], appended.fields[name])
        assert rolled[name].dtype == appended.fields[name].dtype


def test_whole_numbers_come_back_from_a_record_as_they_were():
    codec, states = make_codec("fp32", LAYOUT), after(4)
    states.fields[NUMBER][0, 0, 0], states.fields[TIME][0, 0] = 2**31 - 1, 2**40 + 1
    back = codec.decode(codec.encode(states))
    assert back.fields[NUMBER][0, 0, 0] == 2**31 - 1
    assert back.fields[TIME][0, 0] == 2**40 + 1
    assert codec.size == 24 + 3 * 2 * 4 + 3 * 8


@pytest.mark.parametrize(("layout", "expected"), [(LAYOUT, True), ((), False)])
def test_a_layout_says_what_it_is(layout, expected):
    assert is_recent(layout) is expected
