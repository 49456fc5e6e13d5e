"""Packed cells against the cells that went in, and against a count of bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packed import bit_by_bit, pack, random_cells, unpack

from lifelong.artifact.folder import FieldLayout
from lifelong.errors import StoreCorruptError
from lifelong.online.memory.codec import Codec, PackedCells, make_codec
from lifelong.online.memory.state import States
from lifelong.tally.plan import CellPacking
from lifelong.tally.spec import KEYS

PACKINGS = [
    CellPacking((5, 3, 8), (KEYS, 900, 8)),
    CellPacking((1,), (1,)),
    CellPacking((1, 40), (KEYS, 41)),
    CellPacking((300, 120), (40_000, 2_200)),
]


@settings(max_examples=40, deadline=None)
@given(packing=st.sampled_from(PACKINGS), users=st.integers(0, 4), seed=st.integers(0, 10_000))
def test_what_was_packed_comes_back(packing: CellPacking, users: int, seed: int) -> None:
    cells, packed = random_cells(packing, users, seed), PackedCells(packing)
    stored = pack(packed, cells)
    assert stored.shape == (users, packing.size)
    back = unpack(packed, stored, cells.shape[1])
    assert np.array_equal(back, cells)
    assert np.array_equal(pack(packed, back), stored)


@settings(max_examples=60, deadline=None)
@given(packing=st.sampled_from(PACKINGS), users=st.integers(0, 4), seed=st.integers(0, 10_000))
def test_compiled_loops_store_what_single_bits_say(packing: CellPacking, users: int, seed: int) -> None:
    cells, packed = random_cells(packing, users, seed), PackedCells(packing)
    stored = bit_by_bit(packing, cells)
    assert np.array_equal(pack(packed, cells), stored)
    assert np.array_equal(unpack(packed, stored, cells.shape[1]), cells)


@settings(max_examples=150, deadline=None)
@given(packing=st.sampled_from(PACKINGS), seed=st.integers(0, 10_000), data=st.data())
def test_what_is_read_packs_into_the_same_bytes_or_is_refused(packing: CellPacking, seed: int, data: Any) -> None:
    packed, cells = PackedCells(packing), sum(packing.cells_F)
    stored = pack(packed, random_cells(packing, 1, seed))
    for bit in data.draw(st.lists(st.integers(0, packing.bits - 1), min_size=1, max_size=3, unique=True)):
        stored[0, bit // 8] ^= 1 << bit % 8
    try:
        back = unpack(packed, stored, cells)
    except ValueError:
        return
    assert np.array_equal(pack(packed, back), stored)


def test_a_cell_of_a_long_history_takes_little_more_than_two_bytes() -> None:
    packing = CellPacking((448, 252, 140, 30, 112, 2, 14), (40_852, 2_241, 301, 30, 4_992, 2, 2_954))
    assert packing.bits < 8 * 2.1 * sum(packing.cells_F)
    keys = [
        cells * (low + 1) + (values - 1 >> low) + 1
        for cells, values, low in zip(packing.cells_F, packing.values_F, packing.low_bits, strict=True)
    ]
    assert packing.bits == sum(keys) + 9 * sum(packing.cells_F)


def test_a_record_with_cells_that_cannot_be_is_corrupt_and_says_so() -> None:
    packing = CellPacking((5, 3), (100, 3))
    layout = [FieldLayout(name="cell", shape=(8, 2), dtype="int16", cells=packing)]
    codec = make_codec("fp32", layout)
    assert codec.size == make_codec("fp32", []).size + packing.size
    states = States(np.ones(1, np.int64), np.ones(1, np.int64), {"cell": random_cells(packing, 1, 1)})
    (record,) = codec.encode(states)
    assert np.array_equal(codec.decode([record]).fields["cell"], codec.round(states).fields["cell"])
    with pytest.raises(ValueError, match="other than 8 keys"):
        unpack(PackedCells(packing), np.zeros((1, packing.size), np.uint8), 8)
    with pytest.raises(StoreCorruptError, match="hold other than 8 keys"):
        codec._cells("cell", np.zeros(1, codec._record), states.fields["cell"], np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="a key beyond its field's"):
        unpack(PackedCells(packing), _without_keys(packing), 8)
    with pytest.raises(ValueError, match="a key beyond its field's"):
        unpack(PackedCells(packing), _last_key_raised(packing), 8)


def cells_and_codec() -> tuple[npt.NDArray[np.int16], Codec]:
    packing = CellPacking((40, 30), (100, 40))
    layout = [FieldLayout(name="cell", shape=(70, 2), dtype="int16", cells=packing)]
    return random_cells(packing, 1, 1), make_codec("fp32", layout)


def test_what_is_empty_of_a_memory_takes_few_bytes() -> None:
    cells, codec = cells_and_codec()
    empty, full = (
        len(codec.encode(States(np.ones(1, np.int64), np.ones(1, np.int64), {"cell": value}))[0])
        for value in (np.zeros_like(cells), cells)
    )
    assert empty < codec.size / 2 < full <= codec.size + 8


def test_one_altered_byte_anywhere_in_a_compressed_memory_is_noticed() -> None:
    cells, codec = cells_and_codec()
    (record,) = codec.encode(States(np.ones(1, np.int64), np.ones(1, np.int64), {"cell": cells}))
    for place in range(len(record)):
        altered = bytearray(record)
        altered[place] ^= 1
        with pytest.raises(StoreCorruptError, match="memory 1 of those"):
            codec.decode([None, bytes(altered)])
    for other in (record[:-1], record + b"x", record[:24], b""):
        with pytest.raises(StoreCorruptError, match="fails its checksum"):
            codec.decode([other])


@pytest.mark.parametrize("bytes_more", [-1, 1])
def test_a_record_of_another_size_is_refused_whose_checksum_is_right(bytes_more: int) -> None:
    _, codec = cells_and_codec()
    with pytest.raises(StoreCorruptError, match="cannot be decompressed"):
        codec.decode([codec._as_stored(bytes([1, 0, 0, 0]) + bytes(codec.size - 4 + bytes_more))])


@pytest.mark.parametrize("key", [9, 4_000, KEYS - 1])
def test_a_key_that_a_field_does_not_have_is_not_packed(key: int) -> None:
    packed = PackedCells(CellPacking((2,), (9,)))
    cells = np.array([[[3 - KEYS // 2, 256], [key - KEYS // 2, 256]]], np.int16)
    with pytest.raises(ValueError, match="a key beyond its field's"):
        pack(packed, cells)


def _without_keys(packing: CellPacking) -> np.ndarray:
    """Bytes with counts in all cells, and no ones for their keys."""
    bits = np.ones((1, packing.bits), np.uint8)
    bits[0, -sum(packing.high_bits) :] = 0
    return np.packbits(bits, axis=1, bitorder="little")


def _last_key_raised(packing: CellPacking) -> np.ndarray:
    """Bytes whose second field has its three keys one place too far."""
    bits = np.ones((1, packing.bits), np.uint8)
    bits[0, -sum(packing.high_bits) :] = 0
    bits[0, -packing.high_bits[1] - 5 : -packing.high_bits[1]] = 1
    bits[0, -3:] = 1
    return np.packbits(bits, axis=1, bitorder="little")
