"""Memories as bytes and back."""

import numpy as np
import pytest

from lifelong.data.events import NO_TIME
from lifelong.errors import StoreCorruptError, UsageError
from lifelong.memory.codec import Fp32, make_codec
from lifelong.memory.state import FieldLayout, States

LAYOUT = [FieldLayout(name="slot", shape=(2, 3)), FieldLayout(name="count", shape=(1,))]
CODEC = Fp32(LAYOUT)


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
        CODEC.decode([record])


def test_an_unknown_codec_names_those_there_are():
    with pytest.raises(UsageError, match="fp32"):
        make_codec("int3", LAYOUT)
