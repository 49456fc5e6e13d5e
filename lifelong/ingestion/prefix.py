"""What was applied of a file: the number of lines, and a digest by which they are recognised.

    line 1 .. 64 .. 128 ... 2,000   applied     digest of all 2,000, short digests of the first 64, 128, ...
    line 2,001 ..                   not yet

The short digests, at most 32 of them, say about where a file begins to differ. In parquet a row is a line.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from lifelong.errors import StoreCorruptError, require

_STEP, _MOST = 64, 32
"""Lines between two short digests at first, and how many there are at most: then every second one is dropped."""
_SHORT = 16
"""Hexadecimal digits of a short digest."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What was applied of a file.

    Args:
        lines: how many, those that are no events included.
        digest: of all of them.
        step: lines between two short digests.
        short: digests of the first `step`, 2 `step` ... lines.
        source: name of the watermark that goes with it.

    >>> prefix = Prefix(130, "c" * 32, 64, ("a" * 16, "b" * 16), "shop")
    >>> Prefix.from_json(prefix.to_json()) == prefix, list(prefix.points)
    (True, [64, 128, 130])
    """

    lines: int
    digest: str
    step: int
    short: tuple[str, ...]
    source: str

    @property
    def points(self) -> dict[int, str]:
        """Number of lines -> their digest, or what it begins with; in rising order."""
        found = {self.step * place: digest for place, digest in enumerate(self.short, 1)}
        return found | ({self.lines: self.digest} if self.lines else {})

    def to_json(self) -> bytes:
        """As a store keeps it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, value: bytes) -> Prefix:
        """The inverse of `to_json`.

        Raises:
            StoreCorruptError: it is something else.
        """
        try:
            found = cls(**json.loads(value))
        except (ValueError, TypeError) as error:
            raise StoreCorruptError(
                "what was applied of a file cannot be read", fix="restore a backup (`lifelong restore`)"
            ) from error
        return cls(found.lines, found.digest, found.step, tuple(found.short), found.source)


class Digest(ABC):
    """Digest of the first lines of a file, at more and more of them: `feed` gives lines, `advance` counts them in."""

    lines: int

    def __init__(self) -> None:
        self.lines, self._step, self._short = 0, _STEP, list[str]()

    def advance(self, through: int) -> None:
        """Count in all lines up to one, which were fed."""
        while self.lines < through:
            upto = min(through, (self.lines // self._step + 1) * self._step)
            self._take(upto - self.lines)
            self.lines = upto
            if upto % self._step == 0:
                self._short.append(self.hex()[:_SHORT])
            if len(self._short) > _MOST:
                self._short, self._step = self._short[1::2], 2 * self._step

    def prefix(self, source: str) -> Prefix:
        """What was counted in."""
        return Prefix(self.lines, self.hex(), self._step, tuple(self._short), source)

    @abstractmethod
    def hex(self) -> str:
        """The digest of what was counted in."""

    @abstractmethod
    def _take(self, number: int) -> None:
        """Count in the next lines."""


class TextDigest(Digest):
    r"""Of lines of text. Line ends count as one, and a last line without one as if it had one.

    >>> one, other = TextDigest(), TextDigest()
    >>> one.feed(["a\n", "b"])
    >>> other.feed(["a\r\n", "b\r\n"])
    >>> one.advance(2), other.advance(2), one.hex() == other.hex()
    (None, None, True)
    """

    def __init__(self) -> None:
        super().__init__()
        self._hash, self._fed, self._at = blake2b(digest_size=16), list[str](), 0

    def feed(self, lines: Sequence[str]) -> None:
        """Give the next lines, each with its end."""
        self._fed, self._at = [*self._fed[self._at :], *lines], 0

    def feed_one(self, line: str) -> None:
        """Give the next line."""
        self._fed.append(line)

    def hex(self) -> str:
        """The digest of what was counted in."""
        return self._hash.hexdigest()

    def _take(self, number: int) -> None:
        text = "".join(self._fed[self._at : self._at + number])
        self._at += number
        if self._at >= len(self._fed):
            self._fed, self._at = [], 0
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        self._hash.update(text.encode())
        if not text.endswith(("\n", "\r")):
            self._hash.update(b"\n")


class RowDigest(Digest):
    """Of rows of parquet, however they are grouped: of each column by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._columns, self._fed = dict[tuple[str, str], Any](), list[Any]()

    def feed(self, batch: Any) -> None:
        """Give the next rows: a record batch."""
        self._fed.append(batch)

    def hex(self) -> str:
        """The digest of what was counted in."""
        whole = blake2b(digest_size=16)
        for name, column in self._columns.items():
            whole.update(repr((name, column.hexdigest())).encode())
        return whole.hexdigest()

    def _take(self, number: int) -> None:
        while number:
            batch = self._fed.pop(0)
            if len(batch) > number:
                self._fed.insert(0, batch.slice(number))
                batch = batch.slice(0, number)
            number -= len(batch)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for part, cells in zip(("lengths", "text"), _cells(column), strict=True):
                    self._columns.setdefault((name, part), blake2b(digest_size=16)).update(cells)


def _cells(column: Any) -> tuple[bytes, bytes]:
    """The values of a column as text: their lengths, -1 for none, and all their bytes; equal wherever it is cut."""
    arrow = require("pyarrow", extra="train", purpose="reading parquet")
    try:
        text = column.cast(arrow.large_string())
    except (arrow.ArrowNotImplementedError, arrow.ArrowInvalid):
        values = [None if value is None else repr(value) for value in column.to_pylist()]
        text = arrow.array(values, arrow.large_string())
    # Values that are none take no bytes then, whatever the buffer has in their places.
    there = text.fill_null("")
    _, offsets, data = there.buffers()
    offset_N = np.frombuffer(offsets, np.int64)[there.offset : there.offset + len(there) + 1]
    length_N = np.where(np.asarray(text.is_null()), -1, np.diff(offset_N))
    return length_N.tobytes(), b"" if data is None else data[offset_N[0] : offset_N[-1]].to_pybytes()
