"""A memory that is the recent history itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.artifact.folder import NUMBER, TIME, is_recent, recent_layout
from lifelong.online.memory.codec import make_codec
from lifelong.online.memory.state import States, append, unroll

LAYOUT = recent_layout(3, 2)
ONE = np.zeros(1, np.int64)


def after(events, recent=3):
    """The state of one user after events whose item is 10, 11, ..., one by one."""
    states = States.empty(recent_layout(recent, 2), 1)
    for event in range(events):
        fields = append(states, ONE, ONE, np.array([[10 + event, 1]]), np.array([100 + event]))
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
    append(states, ONE, ONE, np.array([[99, 1]]), np.array([500]))
    assert states.fields[NUMBER][0, :, 0].tolist() == [10, 11, 0]


@given(first=st.integers(0, 12), recent=st.integers(1, 5))
def test_many_events_at_once_give_what_they_give_one_by_one(first, recent):
    begun, size = after(first, recent), 12 - first
    step_N = np.arange(first, 12)
    number_NF = np.stack([10 + step_N, np.ones(size, np.int64)], axis=1)
    fields = append(begun, np.zeros(size, np.int64), np.arange(size), number_NF, 100 + step_N)
    for name, value in after(12, recent).fields.items():
        assert np.array_equal(fields[name], value)
        assert fields[name].dtype == value.dtype


def test_events_of_several_users_go_into_their_own_rings():
    states = States.empty(LAYOUT, 3)
    user_N, rank_N, number_NF = np.array([2, 0, 2]), np.array([0, 0, 1]), np.array([[5, 1], [6, 2], [7, 3]])
    fields = append(states, user_N, rank_N, number_NF, np.array([50, 60, 70]))
    assert fields[NUMBER][..., 0].tolist() == [[6, 0, 0], [0, 0, 0], [5, 7, 0]]
    assert fields[TIME].tolist() == [[60, 0, 0], [0, 0, 0], [50, 70, 0]]


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
