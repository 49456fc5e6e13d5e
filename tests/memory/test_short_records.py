"""Records of memories with many empty cells: nothing is lost, and nothing else is taken for one."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packed import random_cells

from lifelong.artifact.folder import FieldLayout
from lifelong.data.cell_plan import CellPacking
from lifelong.errors import StoreCorruptError
from lifelong.memory.codec import CODECS, Codec, make_codec
from lifelong.memory.short_records import ShortRecords
from lifelong.memory.state import States

PACKING = CellPacking((40, 8), (900, 8))
LAYOUT = (
    FieldLayout(name="slot", shape=(3, 5)),
    FieldLayout(name="clock", shape=(17, 2), dtype="int32"),
    FieldLayout(name="cell", shape=(48, 2), dtype="int16", cells=PACKING),
    FieldLayout(name="faded", shape=(20,), dtype="int16"),
    FieldLayout(name="share", shape=()),
)
HEADER = 24 + 2 * 6


def some_states(seed: int, users: int = 9) -> States:
    """Memories of users with a few events up to very many."""
    rng = np.random.default_rng(seed)
    states = States.empty(LAYOUT, users)
    states.count_B[:], states.last_time_B[:] = rng.integers(0, 2**40, users), rng.integers(0, 2**33, users)
    keep_B = rng.choice([0, 0.05, 0.5, 1], users)
    cells = random_cells(PACKING, users, seed)
    cells[rng.random((users, 48)) >= keep_B[:, None]] = 0
    states.fields["cell"][:] = cells
    for user, keep in enumerate(keep_B):
        for name, size in (("slot", 15), ("clock", 34), ("faded", 20)):
            filled = int(keep * size)
            value = rng.normal(0, 1000, filled) if name == "slot" else rng.integers(0, 2**15, filled)
            states.fields[name][user].reshape(-1)[:filled] = value
        states.fields["share"][user] = keep
    return states


def of_full_length(codec: Codec, states: States) -> list[bytes]:
    """What earlier releases wrote."""
    return codec._encode_long(states, slice(0, len(states)))


def check_equal(found: States, wanted: States) -> None:
    assert np.array_equal(found.count_B, wanted.count_B) and np.array_equal(found.last_time_B, wanted.last_time_B)
    for name, value in wanted.fields.items():
        assert found.fields[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), absent=st.sets(st.integers(0, 8)))
def test_short_and_long_records_hold_the_same(name: str, seed: int, absent: set[int]) -> None:
    codec, states = make_codec(name, LAYOUT), some_states(seed)
    records, long = codec.encode(states), of_full_length(codec, states)
    assert all(len(record) <= codec.size for record in records)
    mixed = [None if place in absent else (record, long[place])[place % 2] for place, record in enumerate(records)]
    only = [None if place in absent else record for place, record in enumerate(long)]
    check_equal(codec.decode(mixed), codec.decode(only))
    check_equal(codec.decode(records), codec.round(states))
    assert codec.encode(codec.decode(records)) == records


def test_a_user_with_a_few_events_takes_a_few_bytes() -> None:
    codec, states = make_codec("fp32", LAYOUT), States.empty(LAYOUT, 2)
    states.fields["cell"][0, 7] = 5 - 2**15, 256
    states.fields["clock"][0, 0, 0] = 2**24
    states.fields["slot"][0, 0, 0] = 1
    assert [len(record) for record in codec.encode(states)] == [HEADER + 4 + 4 + 4, HEADER]


def test_a_full_memory_is_no_longer_than_before() -> None:
    codec, states = make_codec("fp32", LAYOUT), some_states(3, users=1)
    states.fields["cell"][:, :40] = np.stack([np.arange(40) - 2**15, np.full(40, 256)], axis=-1)
    states.fields["cell"][:, 40:] = np.stack([np.arange(8) - 2**15, np.full(8, 256)], axis=-1)
    for name in ("slot", "clock", "faded"):
        states.fields[name][:] = 1
    assert codec.encode(states) == of_full_length(codec, states)


@pytest.fixture
def record() -> bytes:
    states = some_states(5, users=1)
    states.fields["cell"][0] = 0
    states.fields["cell"][0, :3] = np.stack([np.arange(3) - 2**15, np.full(3, 256)], axis=-1)
    states.fields["faded"][:] = 0
    (found,) = make_codec("fp32", LAYOUT).encode(states)
    assert found[0] == 2
    return found


def test_each_altered_byte_is_noticed(record: bytes) -> None:
    codec = make_codec("fp32", LAYOUT)
    for place in range(len(record)):
        bad = bytearray(record)
        bad[place] ^= 1
        with pytest.raises(StoreCorruptError, match="memory 1 of those"):
            codec.decode([record, bytes(bad), None])


@pytest.mark.parametrize("long", [False, True])
def test_of_very_many_records_the_damaged_one_is_named(record: bytes, long: bool) -> None:
    codec = make_codec("fp32", LAYOUT)
    good = of_full_length(codec, codec.decode([record]))[0] if long else record
    records = [good] * 3_000
    assert codec.decode(records).count_B.tolist() == [codec.decode([record]).count_B[0]] * 3_000
    records[2_500] = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises(StoreCorruptError, match="memory 2500 of those"):
        codec.decode(records)


def test_each_cut_is_noticed(record: bytes) -> None:
    codec = make_codec("fp32", LAYOUT)
    for length in range(len(record)):
        with pytest.raises(StoreCorruptError, match="memory 0 of those"):
            codec.decode([record[:length], record])


def signed(record: bytes, *, at: int, value: bytes) -> bytes:
    """The record with other bytes, its checksum set right."""
    bad = bytearray(record)
    bad[at : at + len(value)] = value
    bad[4:8] = zlib.crc32(bad[:4] + bad[8:]).to_bytes(4, "little")
    return bytes(bad)


def test_what_no_codec_writes_is_refused_although_its_checksum_is_right(record: bytes) -> None:
    codec = make_codec("fp32", LAYOUT)
    length_S = np.frombuffer(record[24:HEADER], "<u2")
    first = HEADER + int(length_S[:2].sum())
    assert length_S[2] == 12 and codec.decode([signed(record, at=0, value=b"")])
    for at, value in (
        (first + 4, record[first + 8 : first + 12]),
        (first + 6, bytes(2)),
        (first + 6, bytes([0, 128])),
        (first + 10, bytes(2)),
        (len(record) - 1, bytes(1)),
        (24 + 6, bytes([4])),
        (2, bytes([1])),
    ):
        bad = signed(record, at=at, value=value)
        if at == first + 4:
            bad = signed(bad, at=first + 8, value=record[first + 4 : first + 8])
        with pytest.raises(StoreCorruptError, match="not a short record"):
            codec.decode([bad])
    with pytest.raises(StoreCorruptError, match="hold a key beyond its field's"):
        codec.decode([signed(record, at=first + 8, value=np.int16(900 - 2**15).tobytes())])
    with pytest.raises(StoreCorruptError, match="record version 2 and codec 0"):
        make_codec("fp16", LAYOUT).decode([record])


@pytest.mark.parametrize("size", [12, 24, 30, HEADER - 1])
def test_a_record_without_all_its_lengths_is_refused(record: bytes, size: int) -> None:
    with pytest.raises(StoreCorruptError, match="not a short record"):
        make_codec("fp32", LAYOUT).decode([record, signed(record[:size], at=0, value=b"")])


def test_bytes_after_the_last_stretch_are_refused(record: bytes) -> None:
    codec = make_codec("fp32", LAYOUT)
    for records in ([signed(record + b"\1", at=0, value=b"")], [signed(record + b"\1", at=0, value=b""), record]):
        with pytest.raises(StoreCorruptError, match="not a short record"):
            codec.decode(records)


@pytest.mark.parametrize("name", CODECS)
def test_fields_that_were_read_are_aligned_and_can_be_written(name: str) -> None:
    codec = make_codec(name, LAYOUT)
    for value in codec.decode(codec.encode(some_states(4))).fields.values():
        assert value.flags.aligned and value.flags.c_contiguous and value.flags.writeable


@pytest.mark.parametrize(
    ("stretch", "more"),
    # A piece of a cell; more cells than the field has; more bytes than the last field has.
    [(2, b"\1"), (2, np.array([[5 - 2**15, 256]] * 40, "<i2").tobytes()), (5, b"\1\1\1\1")],
)
def test_a_stretch_with_more_bytes_than_it_can_have_is_refused(record: bytes, stretch: int, more: bytes) -> None:
    length_S = np.frombuffer(record[24:HEADER], "<u2").copy()
    end = HEADER + int(length_S[: stretch + 1].sum())
    length_S[stretch] += len(more)
    longer = record[:24] + length_S.tobytes() + record[HEADER:end] + more + record[end:]
    with pytest.raises(StoreCorruptError, match="not a short record"):
        make_codec("fp32", LAYOUT).decode([signed(longer, at=0, value=b"")] * 3)


def test_a_layout_whose_stretches_are_too_long_has_no_short_form() -> None:
    large = FieldLayout(name="slot", shape=(20_000,))
    codec, states = make_codec("fp32", [large, LAYOUT[2]]), States.empty([large, LAYOUT[2]], 1)
    assert codec.encode(states) == of_full_length(codec, states)
    assert not ShortRecords({"slot": 80_000, "cell": 4 * 48}, "cell", codec.cells["cell"], bytes(4)).fits
