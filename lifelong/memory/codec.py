"""Memories as bytes. One record is self-contained: a header, then the fields one after another.

    offset  0   version   uint8    1
            1   codec     uint8    0 = fp32, 1 = fp16, 2 = int8
            2   reserved  uint16   0
            4   checksum  uint32   CRC-32 of everything else
            8   count     int64    events folded in
           16   last time int64    time of the last event, `NO_TIME` before the first
           24   fields             each field of the layout, in its order; floats as the codec keeps them

All numbers are little-endian. Many records are encoded and decoded at once, as one structured array.

With a codec that rounds, the rounded state *is* the state: every write folds one event into what was rounded before,
and rounds again, so that a memory does not depend on which events came together. Counts, times and whole numbers (the
events of a recent history) are kept bit for bit by every codec, and so are the means of `RUNNING`. Cells that count
come back in the order of their keys: another order means the same, and is not kept (`lifelong.memory.packed_cells`).
What a codec gives back it would round to itself: a slot that a write leaves alone never wanders.
"""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from lifelong.errors import StoreCorruptError, StoreError, UsageError
from lifelong.memory.packed_cells import PackedCells
from lifelong.memory.state import FieldLayout, States

if TYPE_CHECKING:
    from lifelong.memory.roster import StoreIdentity

FloatArray = npt.NDArray[np.float32]

VERSION = 1
_HEADER = (
    ("version", "u1"),
    ("codec", "u1"),
    ("reserved", "<u2"),
    ("checksum", "<u4"),
    ("count", "<i8"),
    ("last_time", "<i8"),
)
_CHECKSUM = slice(4, 8)
_FIX = "restore the store from a backup, or build it anew with `lifelong backfill`"
_TOGETHER = 1_024
"""Records that are encoded or decoded at once: they stay in the processor's cache."""
_SUMS = 1e-5
"""What sums in another order, as batches of another size make them, change at most."""
_LARGEST = float(np.finfo(np.float32).max)

RUNNING = frozenset({"mean", "linear", "factor", "square", "bag", "share", "used", "rate", "age", "waited"})
"""Names of fields that are means over all of a user's events, or count events. The n-th event moves such a mean by 1/n
of its distance, which is soon less than half a rounded step: rounded, the field would stand still."""


class Codec(ABC):
    """Turns states into records and back.

    Args:
        layout: the fields of a memory.
    """

    name: ClassVar[str]
    number: ClassVar[int]
    """What stands in the header."""
    largest: ClassVar[float] = _LARGEST
    """Magnitude up to which a rounded field can be kept; beyond it is an error, never infinity."""
    memory_tolerance: ClassVar[float]
    """How far the same events folded in other batches may lead (see `allowed`): sums in another order can fall on the
    other side of a rounded step, and a later write can carry that on. Four roundings, as a part of the vector's largest
    number; hardly any memory differs at all."""
    logit_tolerance: ClassVar[float]
    """The same of a score."""

    def __init__(self, layout: Sequence[FieldLayout]) -> None:
        self.layout = tuple(layout)
        # A number alone is no vector.
        self.rounded = frozenset(
            part.name for part in layout if part.dtype == "float32" and part.shape and part.name not in RUNNING
        )
        self.cells = {part.name: PackedCells(part.cells) for part in layout if part.cells is not None}
        # Prefixed, so that a field of a memory may be called like one of the header's.
        self._record = np.dtype([*_HEADER, *((f"field {part.name}", self._stored(part)) for part in self.layout)])

    def _stored(self, part: FieldLayout) -> np.dtype[Any]:
        if part.name in self.rounded:
            return self.packed(part.shape)
        if part.name in self.cells:
            return np.dtype(("u1", (self.cells[part.name].size,)))
        return np.dtype((np.dtype(part.dtype).newbyteorder("<"), part.shape))

    @property
    def rounds(self) -> bool:
        """Whether any field may come back other than it was."""
        return bool(self.rounded) and self.memory_tolerance > 0

    @property
    def size(self) -> int:
        """Bytes of one record."""
        return self._record.itemsize

    @abstractmethod
    def packed(self, shape: tuple[int, ...]) -> np.dtype[Any]:
        """Type of one user's rounded field."""

    @abstractmethod
    def pack(self, values: FloatArray) -> npt.NDArray[Any]:
        """One rounded field of B users as it is stored."""

    @abstractmethod
    def unpack(self, stored: npt.NDArray[Any]) -> FloatArray:
        """The inverse of `pack`, as far as the codec keeps it."""

    def allowed(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """For each vector of a field, how far the same state may be that was folded in other batches.

        0 for whole numbers; else 1e-5 times (1 + the largest magnitude of the vector), and for a field that is rounded
        `memory_tolerance` times that magnitude.
        """
        if np.issubdtype(values.dtype, np.integer):
            return np.zeros(1)
        largest: npt.NDArray[Any] = np.abs(values).max(axis=-1, keepdims=True, initial=0)
        allowed: npt.NDArray[Any] = _SUMS * (1 + largest)
        return allowed + self.memory_tolerance * largest if name in self.rounded else allowed

    def round(self, states: States) -> States:
        """What would come back of these memories from a store.

        Raises:
            StoreError: a number cannot be kept.
        """
        self._check_values(states)
        fields = {name: self._round(name, value) for name, value in states.fields.items()}
        return States(states.count_B, states.last_time_B, fields)

    def _round(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if name in self.rounded:
            return self.unpack(self.pack(values))
        return self.cells[name].sorted(values) if name in self.cells else values

    def encode(self, states: States) -> list[bytes]:
        """One record per user.

        Raises:
            StoreError: a number cannot be kept.
        """
        self._check_values(states)
        found: list[bytes] = []
        for start in range(0, len(states), _TOGETHER):
            found += self._encode(states, slice(start, min(start + _TOGETHER, len(states))))
        return found

    def _encode(self, states: States, chosen: slice) -> list[bytes]:
        record_B = np.zeros(chosen.stop - chosen.start, self._record)
        record_B["version"], record_B["codec"] = VERSION, self.number
        record_B["count"], record_B["last_time"] = states.count_B[chosen], states.last_time_B[chosen]
        for part in self.layout:
            values = states.fields[part.name][chosen]
            if part.name in self.rounded:
                values = self.pack(values)
            elif part.name in self.cells:
                values = self.cells[part.name].pack(values)
            record_B[f"field {part.name}"] = values
        # A column alone: what it holds is fixed size, and without the checksum it is summed without a copy.
        rest_B = record_B.view(np.dtype([("head", f"V{_CHECKSUM.stop}"), ("rest", f"V{self.size - _CHECKSUM.stop}")]))
        head = zlib.crc32(record_B[:1].tobytes()[: _CHECKSUM.start])
        record_B["checksum"] = list(map(zlib.crc32, rest_B["rest"].tolist(), repeat(head)))
        found: list[bytes] = record_B.view(f"V{self.size}").tolist()
        return found

    def decode(self, records: Sequence[bytes | None]) -> States:
        """States of as many users; the empty memory where there is no record.

        Raises:
            StoreCorruptError: a record is truncated, altered, or of another format.
        """
        states = States.empty(self.layout, len(records))
        for start in range(0, len(records), _TOGETHER):
            self._decode(records[start : start + _TOGETHER], states, start)
        return states

    def _decode(self, records: Sequence[bytes | None], states: States, start: int) -> None:
        """Put what some records hold into the states from a place on."""
        kept = [record for record in records if record is not None]
        if not kept:
            return
        chosen: Any = slice(start, start + len(records))
        if len(kept) < len(records):
            chosen = np.array([start + place for place, record in enumerate(records) if record is not None], np.int64)
        whole = b"".join(kept)
        if set(map(len, kept)) != {self.size} or not self._holds(whole):
            for place, record in zip(np.arange(len(states))[chosen].tolist(), kept, strict=True):
                self._check(record, place)
        record_N = np.frombuffer(whole, self._record)
        states.count_B[chosen] = record_N["count"]
        states.last_time_B[chosen] = record_N["last_time"]
        for part in self.layout:
            stored = record_N[f"field {part.name}"]
            if part.name in self.rounded:
                stored = self.unpack(stored)
            elif part.name in self.cells:
                stored = self._cells(part.name, stored)
            states.fields[part.name][chosen] = stored

    def _cells(self, name: str, stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        try:
            return self.cells[name].unpack(stored)
        except ValueError as error:
            raise StoreCorruptError(f"the cells of a memory that was read hold {error}", fix=_FIX) from error

    def _check_values(self, states: States) -> None:
        for part in self.layout:
            values, largest = states.fields[part.name], self.largest if part.name in self.rounded else _LARGEST
            # False for what is no number, too.
            if values.size and not (values.max() <= largest and values.min() >= -largest):
                fits = np.abs(values) <= largest
                at = tuple(int(place) for place in np.argwhere(~fits)[0])
                raise StoreError(
                    f"memory {at[0]} of those to be written has {values[at]} in its field {part.name!r}",
                    expected=f"numbers up to {largest:.5g}, for codec {self.name}",
                    fix="look for a model that diverged; or build a new store with codec fp32",
                )

    def _holds(self, whole: bytes) -> bool:
        """Whether all records, one after another, are intact and of this format."""
        record_N, view, size = np.frombuffer(whole, self._record), memoryview(whole), self.size
        if not ((record_N["version"] == VERSION) & (record_N["codec"] == self.number)).all():
            return False
        if record_N["reserved"].any():
            return False
        head = zlib.crc32(whole[: _CHECKSUM.start])
        starts = range(_CHECKSUM.stop, len(whole), size)
        found = [zlib.crc32(view[at : at + size - _CHECKSUM.stop], head) for at in starts]
        return bool(found == record_N["checksum"].tolist())

    def _check(self, record: bytes, place: int) -> None:
        if len(record) != self.size:
            raise StoreCorruptError(
                f"memory {place} of those that were read has {len(record)} bytes", expected=f"{self.size}", fix=_FIX
            )
        if _checksum(record) != int.from_bytes(record[_CHECKSUM], "little"):
            raise StoreCorruptError(f"memory {place} of those that were read fails its checksum", fix=_FIX)
        if record[0] != VERSION or record[1] != self.number:
            raise StoreCorruptError(
                f"memory {place} of those that were read has record version {record[0]} and codec {record[1]}",
                expected=f"version {VERSION} and codec {self.number} ({self.name})",
                fix="use the release that wrote the store, or build it anew with `lifelong backfill`",
            )


class Fp32(Codec):
    """Keeps every bit. Its tolerance is that of sums in another order, as batches of another size make them."""

    name, number, memory_tolerance, logit_tolerance = "fp32", 0, 0.0, 1e-4

    def packed(self, shape: tuple[int, ...]) -> np.dtype[Any]:
        """Four bytes a number."""
        return np.dtype(("<f4", shape))

    def pack(self, values: FloatArray) -> npt.NDArray[Any]:
        """The values themselves."""
        return values

    def unpack(self, stored: npt.NDArray[Any]) -> FloatArray:
        """The values themselves."""
        return stored.astype(np.float32, copy=False)


class Fp16(Codec):
    """IEEE half precision: two bytes a number, magnitudes up to 65,504.

    One rounding moves a number by 2^-11 of itself at most.
    """

    name, number, largest, memory_tolerance, logit_tolerance = "fp16", 1, 65_504.0, 2e-3, 1e-2

    def packed(self, shape: tuple[int, ...]) -> np.dtype[Any]:
        """Two bytes a number."""
        return np.dtype(("<f2", shape))

    def pack(self, values: FloatArray) -> npt.NDArray[Any]:
        """To the nearest half."""
        return values.astype("<f2")

    def unpack(self, stored: npt.NDArray[Any]) -> FloatArray:
        """Exact."""
        return stored.astype(np.float32)


class Int8(Codec):
    """One byte a number and one scale a vector (the last axis of a field: a slot), symmetric about 0.

    A number is kept as the nearest of -127 .. 127 scales, the scale being 1/127 of the vector's largest magnitude: one
    rounding moves it by at most 1/254 of that magnitude. Scales are fp32, rounded up to 16 significant bits, so that
    their multiples are exact and the largest magnitude is always 127 of them: rounding again changes nothing. Vectors
    below 1e-30 are kept as zeros.
    """

    name, number, largest, memory_tolerance, logit_tolerance = "int8", 2, 1e38, 1.6e-2, 1e-1

    def packed(self, shape: tuple[int, ...]) -> np.dtype[Any]:
        """A scale per vector, then a byte a number."""
        return np.dtype([("scale", "<f4", shape[:-1]), ("step", "i1", shape)])

    def pack(self, values: FloatArray) -> npt.NDArray[Any]:
        """Scales, and how many of them each number is."""
        scale = _rounded_up(np.abs(values).max(axis=-1, initial=0) / np.float32(127))
        stored = np.empty(len(values), self.packed(values.shape[1:]))
        stored["scale"] = scale
        stored["step"] = np.rint(values / np.where(scale > 0, scale, np.inf)[..., None])
        return stored

    def unpack(self, stored: npt.NDArray[Any]) -> FloatArray:
        """So many scales; exact."""
        return stored["step"] * stored["scale"][..., None].astype(np.float32)


CODECS: dict[str, type[Codec]] = {codec.name: codec for codec in (Fp32, Fp16, Int8)}


def make_codec(name: str, layout: Sequence[FieldLayout]) -> Codec:
    """The codec of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in CODECS:
        raise UsageError(f"there is no codec {name!r}", expected=f"one of: {', '.join(CODECS)}")
    return CODECS[name](layout)


def codec_of(identity: StoreIdentity) -> Codec:
    """The codec of an artifact's memories in a store; the artifact itself need not be there."""
    layout = [FieldLayout.model_validate(part) for part in json.loads(identity.layout)]
    return make_codec(identity.codec, layout)


def _rounded_up(scale: FloatArray) -> FloatArray:
    """To 16 significant bits; 0 where the 127-fold is below 1e-30."""
    up = ((scale.view(np.uint32) + np.uint32(0xFF)) & np.uint32(0xFFFFFF00)).view(np.float32)
    return np.where(scale < 1e-30 / 127, np.float32(0), up)


def _checksum(record: bytes | memoryview) -> int:
    return zlib.crc32(record[_CHECKSUM.stop :], zlib.crc32(record[: _CHECKSUM.start]))
