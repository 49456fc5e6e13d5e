"""Memories as bytes and back."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.artifact.folder import FieldLayout, recent_layout
from lifelong.cli.options import NewCodec
from lifelong.dataset.events import NO_TIME
from lifelong.errors import StoreCorruptError, StoreError, UsageError
from lifelong.online.memory.codec import CODECS, RUNNING, Fp32, make_codec
from lifelong.online.memory.state import States

LAYOUT = [FieldLayout(name="slot", shape=(2, 3)), FieldLayout(name="count", shape=(1,))]
CODEC = Fp32(LAYOUT)
LOSSY = ("fp16", "int8")


def some_states():
    rng = np.random.default_rng(0)
    fields = {part.name: rng.normal(size=(3, *part.shape)).astype(np.float32) for part in LAYOUT}
    return States(np.array([1, 2**40, 0]), np.array([0, 253_402_300_799, NO_TIME]), fields)


def test_fp32_keeps_every_bit():
    states = some_states()
    found = CODEC.decode(CODEC.encode(states))
    assert np.array_equal(found.count_B, states.count_B)
    assert np.array_equal(found.last_time_B, states.last_time_B)
    for name, value in states.fields.items():
        assert np.array_equal(found.fields[name], value)


def test_a_record_has_a_header_of_24_bytes_and_4_bytes_per_number():
    assert {len(record) for record in CODEC.encode(some_states())} == {24 + 4 * 7} == {CODEC.size}


def test_an_absent_record_is_the_empty_memory_in_its_place():
    records = CODEC.encode(some_states())
    found = CODEC.decode([None, records[1], None])
    assert found.count_B.tolist() == [0, 2**40, 0]
    assert found.last_time_B[0] == NO_TIME
    assert not found.fields["slot"][2].any()


def test_no_records_give_no_states():
    assert len(CODEC.decode([])) == 0
    assert CODEC.encode(States.empty(LAYOUT, 0)) == []


@pytest.mark.parametrize("place", [0, 1, 2, 5, 10, 20, 30, 51])
def test_one_altered_byte_anywhere_is_noticed(place):
    record = bytearray(CODEC.encode(some_states())[0])
    record[place] ^= 1
    with pytest.raises(StoreCorruptError, match="memory 1 of those"):
        CODEC.decode([None, bytes(record)])


@pytest.mark.parametrize("change", [lambda record: record[:-1], lambda record: record + b"x", lambda record: b""])
def test_a_record_of_another_length_is_noticed(change):
    with pytest.raises(StoreCorruptError, match="bytes"):
        CODEC.decode([change(CODEC.encode(some_states())[0])])


def test_a_record_of_another_codec_is_refused_by_name(monkeypatch):
    record = CODEC.encode(some_states())[0]
    monkeypatch.setattr(Fp32, "number", 9)
    with pytest.raises(StoreCorruptError, match="codec 0"):
        Fp32(LAYOUT).decode([record])


def test_an_unknown_codec_names_those_there_are():
    with pytest.raises(UsageError, match="fp32"):
        make_codec("int3", LAYOUT)


# Codecs that round


def slots(values):
    """Memories of one slot each."""
    slot_BSD = np.asarray(values, np.float32)[:, None, :]
    layout = [FieldLayout(name="slot", shape=slot_BSD.shape[1:])]
    states = States.empty(layout, len(slot_BSD))
    states.fields["slot"][:] = slot_BSD
    return layout, states


def kept(name, layout, states):
    codec = make_codec(name, layout)
    return codec.decode(codec.encode(states))


VECTORS = st.lists(st.floats(-60_000, 60_000, width=32), min_size=4, max_size=4).map(lambda vector: [vector])


@settings(deadline=None)
@given(VECTORS)
def test_fp16_moves_a_number_by_one_part_in_2048_at_most(vector):
    values = np.array(vector)
    found = kept("fp16", *slots(vector)).fields["slot"][:, 0]
    assert (np.abs(found - values) <= np.abs(values) * 2.0**-11 + 2.0**-25).all()


@settings(deadline=None)
@given(VECTORS)
def test_int8_moves_a_number_by_half_a_254th_of_the_largest_of_its_vector_at_most(vector):
    values = np.array(vector)
    found = kept("int8", *slots(vector)).fields["slot"][:, 0]
    # Scales are rounded up to 16 bits.
    assert (np.abs(found - values) <= np.abs(values).max() / 254 * (1 + 2.0**-15) + 1e-30).all()


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None)
@given(vector=VECTORS)
def test_what_a_codec_gave_back_it_keeps_bit_for_bit(name, vector):
    codec = make_codec(name, slots(vector)[0])
    records = codec.encode(slots(vector)[1])
    again = codec.decode(records)
    assert codec.encode(again) == records
    assert np.array_equal(codec.round(again).fields["slot"], again.fields["slot"])


@pytest.mark.parametrize("name", CODECS)
def test_rounding_a_state_is_what_comes_back_from_a_store(name):
    codec, states = make_codec(name, LAYOUT), some_states()
    found, rounded = codec.decode(codec.encode(states)), codec.round(states)
    for field, value in found.fields.items():
        assert np.array_equal(rounded.fields[field], value)


@pytest.mark.parametrize(("name", "size"), [("fp32", 792), ("fp16", 408), ("int8", 24 + 6 * (32 + 4))])
def test_a_memory_of_six_slots_of_32_takes_so_many_bytes(name, size):
    assert make_codec(name, [FieldLayout(name="slot", shape=(6, 32))]).size == size


@pytest.mark.parametrize("name", LOSSY)
def test_counts_times_and_the_events_of_a_recent_history_stay_exact(name):
    layout, rng = recent_layout(3, 2), np.random.default_rng(0)
    fields = {
        "number": rng.integers(0, 2**31, (2, 3, 2)).astype(np.int32),
        "time": rng.integers(0, 253_402_300_799, (2, 3)),
    }
    states = States(np.array([2**53 + 1, 7]), np.array([NO_TIME, 253_402_300_799]), fields)
    found = kept(name, layout, states)
    assert found.count_B.tolist() == states.count_B.tolist()
    assert found.last_time_B.tolist() == states.last_time_B.tolist()
    assert all(np.array_equal(found.fields[field], value) for field, value in fields.items())
    assert make_codec(name, layout).size == make_codec("fp32", layout).size


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("field", sorted(RUNNING))
def test_means_over_all_events_stay_exact(name, field):
    layout = [FieldLayout(name=field, shape=(2, 3))]
    states = States.empty(layout, 1)
    states.fields[field][:] = np.random.default_rng(0).normal(size=(2, 3))
    assert np.array_equal(kept(name, layout, states).fields[field], states.fields[field])


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_with_its_place(name, value):
    layout, states = slots([[1, 2], [3, value]])
    for refused in (make_codec(name, layout).encode, make_codec(name, layout).round):
        with pytest.raises(StoreError, match=f"memory 1 of those to be written has {value} in its field 'slot'"):
            refused(states)


@pytest.mark.parametrize(("name", "value"), [("fp16", 65_520), ("fp16", -1e6), ("int8", 2e38)])
def test_a_number_beyond_the_range_is_refused_and_never_infinite(name, value):
    layout, states = slots([[1, value]])
    with pytest.raises(StoreError, match=f"for codec {name}"):
        make_codec(name, layout).encode(states)
    assert np.array_equal(kept("fp32", layout, states).fields["slot"], states.fields["slot"])


def test_zeros_and_numbers_near_zero_are_kept_as_zeros_by_int8():
    found = kept("int8", *slots([[0, 0], [1e-38, -1e-44]]))
    assert not found.fields["slot"].any()


def test_the_command_line_offers_every_codec():
    assert get_args(get_args(get_args(NewCodec)[0])[0]) == tuple(CODECS)
