"""Memories as bytes. One record is self-contained: a header, then the fields one after another.

    offset  0   version   uint8    1
            1   codec     uint8    0 = fp32, 1 = fp16, 2 = int8
            2   reserved  uint16   0
            4   checksum  uint32   CRC-32 of everything else, as it is stored
            8   count     int64    events folded in
           16   last time int64    time of the last event, `NO_TIME` before the first
           24   fields             each field of the layout, in its order; floats as the codec keeps them

The fields of a memory with cells are one LZ4 block: until a user has filled her cells, most of their bytes are zeros.
All numbers are little-endian. Many records are encoded and decoded at once, as one structured array.

With a codec that rounds, the rounded state *is* the state: every write folds one event into what was rounded before,
and rounds again, so that a memory does not depend on which events came together. Counts, times and whole numbers (the
events of a recent history) are kept bit for bit by every codec, and so are the means of `RUNNING`. Rounding what
was rounded changes nothing: a slot that a write leaves alone never drifts.
"""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import lz4.block
import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import FieldLayout
from lifelong.dtypes import Float32Array, IntArray
from lifelong.errors import StoreCorruptError, StoreError, UsageError, require
from lifelong.online.memory.state import States
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.tally.plan import CellPacking

VERSION = 1
_CHECKSUM = slice(4, 8)
_FIELDS = 24
"""Bytes before the fields."""
_HEADER = (
    ("version", "u1"),
    ("codec", "u1"),
    ("reserved", "<u2"),
    ("checksum", "<u4"),
    ("count", "<i8"),
    ("last_time", "<i8"),
)
_FIX = "restore the store from a backup, or build it again with `lifelong backfill`"
_TOGETHER = 1_024
"""Records that are encoded or decoded at once: they stay in the processor's cache."""
_SUMS = 1e-5
"""Sums in another order, as batches of another size make them, differ by at most this."""
_LARGEST = float(np.finfo(np.float32).max)

RUNNING = frozenset({"mean", "linear", "factor", "square", "bag", "share", "used", "rate", "age", "waited", "sums"})
"""Names of fields that are means or sums over all of a user's events, or count events. The n-th event moves a mean by
1/n of its distance, and a sum by ever less of its size, which is soon less than half a rounded step: rounded, the field
would not move any more."""


Cells = npt.NDArray[np.int16]
"""`[N, K, 2]`: the key less 2^15, and 256 times the level of the count plus the step of the age; zeros are an empty
cell. Each field's are sorted by key, empty ones last."""
Bits = npt.NDArray[np.uint8]


class PackedCells:
    """Packs cells of N records, and unpacks them again, in compiled loops: `lifelong.tally.kernel`.

    Args:
        packing: the sizes.

    >>> packed = PackedCells(CellPacking(cells_F=(1,), values_F=(9,)))
    >>> cell_NKX = np.array([[[3 - 2**15, 513]]], np.int16)
    >>> record_NR, back_NKX = np.zeros((1, packed.size), np.uint8), np.zeros_like(cell_NKX)
    >>> packed.put(cell_NKX, record_NR, 0)
    >>> packed.take(record_NR, 0, back_NKX, np.array([0]))
    >>> np.array_equal(back_NKX, cell_NKX)
    True
    """

    def __init__(self, packing: CellPacking) -> None:
        require("numba", extra="serve", purpose="a memory that counts")
        from lifelong.tally import kernel

        self.size: int = packing.size
        self._cells, self._kernel, self._packing = sum(packing.cells_F), kernel, kernel.packing_of(packing)

    def put(self, cell_NKX: Cells, record_NR: Bits, offset: int) -> None:
        """Pack cells into records, from a byte on.

        Raises:
            ValueError: a field does not have one of the keys, or they are not sorted.
        """
        cell_NKX = np.ascontiguousarray(cell_NKX)
        self._check(self._kernel.pack(cell_NKX, self._packing, record_NR, offset, self._scratch()))

    def _check(self, wrong: int) -> None:
        if wrong == self._kernel.TOO_MANY:
            raise ValueError(f"other than {self._cells} keys")
        if wrong:
            raise ValueError("a key beyond its field's" if wrong == self._kernel.TOO_HIGH else "cells out of order")

    def _scratch(self) -> tuple[npt.NDArray[np.uint32], Bits]:
        """Room for the loops; of each call its own, since threads share what is here."""
        piece_I = np.zeros_like(self._packing.empty_I)
        return piece_I, piece_I.view(np.uint8)

    def take(self, record_NR: Bits, offset: int, cell_BKX: Cells, row_N: IntArray) -> None:
        """Unpack the cells of records, which begin at a byte, into some rows of zeros.

        Raises:
            ValueError: these bytes are not what `put` makes.
        """
        # The kernel is compiled once, for bytes that cannot be written: those that came from a store.
        fixed_NR = record_NR.view()
        fixed_NR.flags.writeable = False
        self._check(self._kernel.unpack(fixed_NR, offset, self._packing, row_N, cell_BKX, self._scratch()))


class Codec(ABC):
    """Turns states into records and back.

    Args:
        layout: the fields of a memory.

    Example:
        >>> codec = make_codec("fp16", [FieldLayout(name="slot", shape=(2, 3))])
        >>> record, = codec.encode(States.empty(codec.layout, 1))
        >>> len(record), codec.size, codec.decode([record, None]).count_B
        (36, 36, array([0, 0]))
    """

    name: ClassVar[str]
    number: ClassVar[int]
    """The codec's number in the header."""
    largest: ClassVar[float] = _LARGEST
    """Magnitude up to which a rounded field can be kept; beyond it is an error, never infinity."""
    memory_tolerance: ClassVar[float]
    """How much two memories of one history may differ if it was folded in different batches (see `allowed`): sums in
    another order can fall on the other side of a rounded step, and later writes can carry that on. Four roundings, as a
    share of the vector's largest number; hardly any memory differs at all."""
    logit_tolerance: ClassVar[float]
    """How much their scores may differ."""

    def __init__(self, layout: Sequence[FieldLayout]) -> None:
        self.layout: tuple[FieldLayout, ...] = tuple(layout)
        # A number alone is no vector.
        self.rounded: frozenset[str] = frozenset(
            part.name for part in layout if part.dtype == "float32" and part.shape and part.name not in RUNNING
        )
        self.cells: dict[str, PackedCells] = {
            part.name: PackedCells(part.cells) for part in layout if part.cells is not None
        }
        # Prefixed, since a field of a memory may have the name of one in the header.
        self._record = np.dtype([*_HEADER, *((f"field {part.name}", self._stored(part)) for part in self.layout)])
        # The bytes before the checksum: the same in all records of this codec.
        self._start = bytes([VERSION, self.number, 0, 0])

    @staticmethod
    def _whole(part: FieldLayout) -> np.dtype[Any]:
        return np.dtype((np.dtype(part.dtype).newbyteorder("<"), part.shape))

    def _stored(self, part: FieldLayout) -> np.dtype[Any]:
        if part.name in self.rounded:
            return self.packed(part.shape)
        if part.name in self.cells:
            return np.dtype(("u1", (self.cells[part.name].size,)))
        return self._whole(part)

    @property
    def rounds(self) -> bool:
        """Whether any field may come back other than it was."""
        return bool(self.rounded) and self.memory_tolerance > 0

    @property
    def size(self) -> int:
        """Bytes of one record, before its fields are compressed, if they are."""
        return self._record.itemsize

    @abstractmethod
    def packed(self, shape: tuple[int, ...]) -> np.dtype[Any]:
        """Type of one user's rounded field."""

    @abstractmethod
    def pack(self, values: Float32Array) -> npt.NDArray[Any]:
        """One rounded field of B users as it is stored."""

    @abstractmethod
    def unpack(self, stored: npt.NDArray[Any]) -> Float32Array:
        """The inverse of `pack`, as far as the codec keeps it."""

    def allowed(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """For each vector of a field, how much a state may differ that was folded in other batches.

        0 for whole numbers; else 1e-5 times (1 + the largest magnitude of the vector), and for a field that is rounded
        `memory_tolerance` times that magnitude.
        """
        if np.issubdtype(values.dtype, np.integer):
            return np.zeros(1)
        largest: npt.NDArray[Any] = np.abs(values).max(axis=-1, keepdims=True, initial=0)
        allowed: npt.NDArray[Any] = _SUMS * (1 + largest)
        return allowed + self.memory_tolerance * largest if name in self.rounded else allowed

    def round(self, states: States) -> States:
        """What would come back of these memories, or of some of their fields, from a store.

        Raises:
            StoreError: a number cannot be kept.
        """
        self._check_values(states)
        fields = {name: self._round(name, value) for name, value in states.fields.items()}
        return States(states.count_B, states.last_time_B, fields)

    def _round(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if name in self.rounded:
            return self.unpack(self.pack(values))
        return values

    def encode(self, states: States) -> list[bytes]:
        """One record per user.

        Raises:
            StoreError: a number cannot be kept.
        """
        self._check_values(states)
        records: list[bytes] = []
        for start in range(0, len(states), _TOGETHER):
            records += self._encode(states, slice(start, min(start + _TOGETHER, len(states))))
        return records

    def _encode(self, states: States, chosen: slice) -> list[bytes]:
        record_B = np.zeros(chosen.stop - chosen.start, self._record)
        record_B["version"], record_B["codec"] = VERSION, self.number
        record_B["count"], record_B["last_time"] = states.count_B[chosen], states.last_time_B[chosen]
        for part in self.layout:
            values = states.fields[part.name][chosen]
            if part.name in self.cells:
                byte_BR = record_B.view(np.uint8).reshape(len(record_B), self.size)
                self.cells[part.name].put(values, byte_BR, self._offset(part.name))
            else:
                record_B[f"field {part.name}"] = self.pack(values) if part.name in self.rounded else values
        records: list[bytes] = record_B.view(f"V{self.size}").tolist()
        return [self._as_stored(record) for record in records]

    def _as_stored(self, record: bytes) -> bytes:
        """A record with its fields compressed, if it has cells, and with its checksum."""
        if self.cells:
            record = record[:_FIELDS] + bytes(lz4.block.compress(record[_FIELDS:], store_size=False))
        return self._start + _checksum(record).to_bytes(4, "little") + record[_CHECKSUM.stop :]

    def decode(self, records: Sequence[bytes | None]) -> States:
        """States of as many users; the empty memory where there is no record.

        Raises:
            StoreCorruptError: a record is truncated, altered, or of another format.
        """
        if len(records) <= _TOGETHER:
            return self._decode(records, 0)
        states = States.empty(self.layout, len(records))
        for start in range(0, len(records), _TOGETHER):
            some = self._decode(records[start : start + _TOGETHER], start)
            states.put(np.arange(start, start + len(some)), some)
        return states

    def _decode(self, records: Sequence[bytes | None], start: int) -> States:
        """`decode` of some records, the first of which is at a place among all."""
        states, row_N = States.empty(self.layout, len(records)), list[int]()
        expanded = list[bytes]()
        for place, record in enumerate(records):
            if record is not None:
                row_N.append(place)
                expanded.append(self._checked(record, start + place))
        self._fill(states, np.array(row_N, np.int64), np.frombuffer(b"".join(expanded), self._record))
        return states

    def _checked(self, record: bytes, place: int) -> bytes:
        """A record with its fields as they were before they were compressed; of several, the one at a place."""
        if not self.cells and len(record) != self.size:
            raise self._cut(place, f"has {len(record)} bytes")
        # Checked before it is decompressed, which altered bytes could make slow or give other bytes of this size.
        if len(record) < _FIELDS or _checksum(record) != int.from_bytes(record[_CHECKSUM], "little"):
            raise StoreCorruptError(f"memory {place} of those that were read fails its checksum", fix=_FIX)
        if record[: _CHECKSUM.start] != self._start:
            raise self._other(record, place)
        if not self.cells:
            return record
        try:
            fields: bytes = lz4.block.decompress(record[_FIELDS:], uncompressed_size=self.size - _FIELDS)
        except lz4.block.LZ4BlockError:
            fields = b""
        if len(fields) != self.size - _FIELDS:
            raise self._cut(place, "cannot be decompressed")
        return record[:_FIELDS] + fields

    def _fill(self, states: States, row_N: IntArray, record_N: npt.NDArray[Any]) -> None:
        """Put what records hold into the states of some users."""
        states.count_B[row_N], states.last_time_B[row_N] = record_N["count"], record_N["last_time"]
        for part in self.layout:
            stored, values = record_N[f"field {part.name}"], states.fields[part.name]
            if part.name in self.cells:
                self._cells(part.name, record_N, values, row_N)
            else:
                values[row_N] = self.unpack(stored) if part.name in self.rounded else stored

    def _cells(self, name: str, record_N: npt.NDArray[Any], cell_BKX: npt.NDArray[np.int16], row_N: IntArray) -> None:
        byte_NR = record_N.view(np.uint8).reshape(len(record_N), self.size)
        try:
            self.cells[name].take(byte_NR, self._offset(name), cell_BKX, row_N)
        except ValueError as error:
            raise _impossible(error) from error

    def _offset(self, name: str) -> int:
        """Where a field begins in a record."""
        fields = self._record.fields
        assert fields is not None
        return int(fields[f"field {name}"][1])

    def _check_values(self, states: States) -> None:
        for part in self.layout:
            if part.dtype != "float32" or part.name not in states.fields:
                # Whole numbers are kept as they are.
                continue
            values, largest = states.fields[part.name], self.largest if part.name in self.rounded else _LARGEST
            # NaN fails both comparisons, and is refused, too.
            if values.size and not (values.max() <= largest and values.min() >= -largest):
                fits = np.abs(values) <= largest
                # The first one: user, then its place in the field.
                at = tuple(int(place) for place in np.argwhere(~fits)[0])
                raise StoreError(
                    f"memory {at[0]} of those to be written has {values[at]} in its field {part.name!r}",
                    expected=f"numbers up to {largest:.5g}, for codec {self.name}",
                    fix="look for a model that diverged; or build a new store with codec fp32",
                )

    def _cut(self, place: int, problem: str) -> StoreCorruptError:
        """The error of a record of another size."""
        return StoreCorruptError(
            f"memory {place} of those that were read {problem}", expected=f"{self.size} bytes", fix=_FIX
        )

    def _other(self, record: bytes, place: int) -> StoreCorruptError:
        """The error of a record of another format."""
        return StoreCorruptError(
            f"memory {place} of those that were read has record version {record[0]} and codec {record[1]}",
            expected=f"version {VERSION} and codec {self.number} ({self.name})",
            fix="use the release that wrote the store, or build it again with `lifelong backfill`",
        )


class Fp32(Codec):
    """Keeps every bit. Its tolerance is that of sums in another order, as batches of another size make them."""

    name: ClassVar[str] = "fp32"
    number: ClassVar[int] = 0
    memory_tolerance: ClassVar[float] = 0.0
    logit_tolerance: ClassVar[float] = 1e-4

    def packed(self, shape: tuple[int, ...]) -> np.dtype[Any]:
        """Type of the field in four bytes a number."""
        return np.dtype(("<f4", shape))

    def pack(self, values: Float32Array) -> npt.NDArray[Any]:
        """The values themselves."""
        return values

    def unpack(self, stored: npt.NDArray[Any]) -> Float32Array:
        """The values themselves."""
        return stored.astype(np.float32, copy=False)


class Fp16(Codec):
    """IEEE half precision: two bytes a number, magnitudes up to 65,504.

    One rounding moves a number by 2^-11 of itself at most.
    """

    name: ClassVar[str] = "fp16"
    number: ClassVar[int] = 1
    largest: ClassVar[float] = 65_504.0
    memory_tolerance: ClassVar[float] = 2e-3
    logit_tolerance: ClassVar[float] = 1e-2

    def packed(self, shape: tuple[int, ...]) -> np.dtype[Any]:
        """Type of the field in two bytes a number."""
        return np.dtype(("<f2", shape))

    def pack(self, values: Float32Array) -> npt.NDArray[Any]:
        """The values rounded to the nearest half."""
        return values.astype("<f2")

    def unpack(self, stored: npt.NDArray[Any]) -> Float32Array:
        """The halves as fp32; exact."""
        return stored.astype(np.float32)


class Int8(Codec):
    """One byte a number and one scale a vector (the last axis of a field: a slot), symmetric about 0.

    A number is kept as the nearest of -127 .. 127 scales, the scale being 1/127 of the vector's largest magnitude: one
    rounding moves it by at most 1/254 of that magnitude. Scales are fp32, rounded up to 16 significant bits, so that
    their multiples are exact and the largest magnitude is always 127 of them: rounding again changes nothing. Vectors
    below 1e-30 are kept as zeros.
    """

    name: ClassVar[str] = "int8"
    number: ClassVar[int] = 2
    largest: ClassVar[float] = 1e38
    memory_tolerance: ClassVar[float] = 1.6e-2
    logit_tolerance: ClassVar[float] = 1e-1

    def packed(self, shape: tuple[int, ...]) -> np.dtype[Any]:
        """Type of the field: a scale per vector, then a byte a number."""
        return np.dtype([("scale", "<f4", shape[:-1]), ("step", "i1", shape)])

    def pack(self, values: Float32Array) -> npt.NDArray[Any]:
        """A scale per vector, and each number as a multiple of it."""
        largest: Float32Array = np.abs(values).max(axis=-1, initial=0)
        scale = _rounded_up(np.divide(largest, np.float32(127), dtype=np.float32))
        stored = np.empty(len(values), self.packed(values.shape[1:]))
        stored["scale"] = scale
        stored["step"] = np.rint(values / np.where(scale > 0, scale, np.inf)[..., None])
        return stored

    def unpack(self, stored: npt.NDArray[Any]) -> Float32Array:
        """Steps times scales; exact."""
        # A foreign record may hold a scale that no write makes: its memory is infinite, which verify reports.
        with np.errstate(over="ignore"):
            return stored["step"] * stored["scale"][..., None].astype(np.float32)


CODECS: dict[str, type[Codec]] = {codec.name: codec for codec in (Fp32, Fp16, Int8)}


def make_codec(name: str, layout: Sequence[FieldLayout]) -> Codec:
    """The codec of a name.

    Raises:
        UsageError: there is no codec of that name.
    """
    if not isinstance(name, str) or name not in CODECS:
        raise UsageError(
            f"there is no codec {name!r}",
            expected=f"one of: {', '.join(CODECS)}",
            fix="use one of these; docs/store.md compares them",
        )
    return CODECS[name](layout)


def codec_of(identity: StoreIdentity) -> Codec:
    """The codec of an artifact's memories in a store, without opening the artifact."""
    layout = [FieldLayout.model_validate(part) for part in json.loads(identity.layout)]
    return make_codec(identity.codec, layout)


def _rounded_up(scale: Float32Array) -> Float32Array:
    """Scales rounded up to 16 significant bits; 0 where 127 times the scale is below 1e-30."""
    # An fp32 has 24 significant bits; the lowest 8 are cleared. Adding 0xFF first carries into the bits above
    # whenever one of the 8 was set, into the exponent if need be: that is rounding up.
    up = ((scale.view(np.uint32) + np.uint32(0xFF)) & np.uint32(0xFFFFFF00)).view(np.float32)
    return np.where(scale < 1e-30 / 127, np.float32(0), up)


def _impossible(error: ValueError) -> StoreCorruptError:
    return StoreCorruptError(f"the cells of a memory that was read hold {error}", fix=_FIX)


def _checksum(record: bytes) -> int:
    return zlib.crc32(record[_CHECKSUM.stop :], zlib.crc32(record[: _CHECKSUM.start]))
