"""Memories as bytes. One record is self-contained: a header, then the fields one after another.

    offset  0   version   uint8    1
            1   codec     uint8    0 = fp32
            2   reserved  uint16   0
            4   checksum  uint32   CRC-32 of everything else
            8   count     int64    events folded in
           16   last time int64    time of the last event, `NO_TIME` before the first
           24   fields             each field of the layout, in its order; floats as the codec keeps them

All numbers are little-endian. Many records are encoded and decoded at once, as one structured array.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lifelong.errors import StoreCorruptError, UsageError
from lifelong.memory.state import FieldLayout, States

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


class Codec(ABC):
    """Turns states into records and back.

    Args:
        layout: the fields of a memory.
    """

    name: ClassVar[str]
    number: ClassVar[int]
    """What stands in the header."""
    element: ClassVar[str]
    """Type of one stored float."""

    def __init__(self, layout: Sequence[FieldLayout]) -> None:
        self.layout = tuple(layout)
        # Prefixed, so that a field of a memory may be called like one of the header's.
        fields = [(f"field {part.name}", self._element(part), part.shape) for part in self.layout]
        self._record = np.dtype([*_HEADER, *fields])

    def _element(self, part: FieldLayout) -> str:
        return self.element if part.dtype == "float32" else np.dtype(part.dtype).newbyteorder("<").str

    @property
    def size(self) -> int:
        """Bytes of one record."""
        return self._record.itemsize

    @abstractmethod
    def pack(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """One float field of B users as it is stored."""

    @abstractmethod
    def unpack(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The inverse of `pack`, as far as the codec keeps it."""

    def encode(self, states: States) -> list[bytes]:
        """One record per user."""
        record_B = np.zeros(len(states), self._record)
        record_B["version"], record_B["codec"] = VERSION, self.number
        record_B["count"], record_B["last_time"] = states.count_B, states.last_time_B
        for part in self.layout:
            values = states.fields[part.name]
            record_B[f"field {part.name}"] = self.pack(values) if part.dtype == "float32" else values
        view, size = memoryview(record_B.tobytes()), self.size
        record_B["checksum"] = [_checksum(view[at : at + size]) for at in range(0, len(view), size)]
        whole = record_B.tobytes()
        return [whole[at : at + size] for at in range(0, len(whole), size)]

    def decode(self, records: Sequence[bytes | None]) -> States:
        """States of as many users; the empty memory where there is no record.

        Raises:
            StoreCorruptError: a record is truncated, altered, or of another format.
        """
        states = States.empty(self.layout, len(records))
        place_N = [place for place, record in enumerate(records) if record is not None]
        if not place_N:
            return states
        kept = [record for record in records if record is not None]
        for place, record in zip(place_N, kept, strict=True):
            self._check(record, place)
        record_N = np.frombuffer(b"".join(kept), self._record)
        states.count_B[place_N] = record_N["count"]
        states.last_time_B[place_N] = record_N["last_time"]
        for part in self.layout:
            stored = record_N[f"field {part.name}"]
            states.fields[part.name][place_N] = self.unpack(stored) if part.dtype == "float32" else stored
        return states

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
    """Keeps every bit."""

    name, number, element = "fp32", 0, "<f4"

    def pack(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """The values themselves."""
        return values

    def unpack(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The values themselves."""
        return stored.astype(np.float32)


CODECS: dict[str, type[Codec]] = {Fp32.name: Fp32}


def make_codec(name: str, layout: Sequence[FieldLayout]) -> Codec:
    """The codec of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in CODECS:
        raise UsageError(f"there is no codec {name!r}", expected=f"one of: {', '.join(CODECS)}")
    return CODECS[name](layout)


def _checksum(record: bytes | memoryview) -> int:
    return zlib.crc32(record[_CHECKSUM.stop :], zlib.crc32(record[: _CHECKSUM.start]))
