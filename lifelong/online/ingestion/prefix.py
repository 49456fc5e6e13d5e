"""What was applied of a file: the number of lines, a digest by which they are recognised, and traces of some of them.

    line 1 .. 64 .. 128 ... 2,000   applied     digest of all 2,000, short digests of the first 64, 128, ...
    line 2,001 ..                   not yet     traces of the first event, the last one, and some in between

The short digests, at most 32 of them, say about where a file begins to differ. The traces say whether events that were
applied are in another file, however it is written. In parquet a row is a line.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.errors import StoreCorruptError, require

if TYPE_CHECKING:
    from lifelong.online.memory.event import EventTable

_MOST = 32
"""How many short digests there are at most: then every second one is dropped."""
_SHORT = 16
"""Hexadecimal digits of a short digest."""
_TIME = 2**16 - 1
"""Those bits of a time that a trace shows."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What was applied of a file.

    Args:
        lines: how many, those that are no events included.
        digest: of all of them.
        step: lines between two short digests.
        short: digests of the first `step`, 2 `step` ... lines; "" where these are only a header.
        source: name of the watermark that goes with it.
        traces: of some of the events; see `Traces`.
        columns: the mapping with which they were read.

    >>> prefix = Prefix(130, "c" * 32, 64, ("a" * 16, "b" * 16), "shop")
    >>> Prefix.from_json(prefix.to_json()) == prefix, list(prefix.points)
    (True, [64, 128, 130])
    """

    lines: int
    digest: str
    step: int
    short: tuple[str, ...]
    source: str
    traces: tuple[str, ...] = ()
    columns: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def points(self) -> dict[int, str]:
        """Number of lines -> their digest, or what it begins with; in rising order."""
        found = {self.step * place: digest for place, digest in enumerate(self.short, 1) if digest}
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
            found = json.loads(value)
            texts = {name: tuple(found[name]) for name in ("short", "traces")}
            return cls(**{**found, **texts})
        except (ValueError, TypeError, KeyError) as error:
            raise StoreCorruptError(
                "what was applied of a file cannot be read", fix="restore a backup (`lifelong backup --restore`)"
            ) from error


class Digest:
    r"""Digest of the first lines of a file, at more and more of them: `feed` gives lines, `advance` counts them in.

    Line ends count as one, and a last line without one as if it had one.

    Args:
        header: lines that hold no event.
        noted: whether there is one at all; not of lines after which no other run is to continue.

    >>> one, other = Digest(), Digest()
    >>> one.feed(["a\n", "b"])
    >>> other.feed(["a\r\n", "b\r\n"])
    >>> one.advance(2), other.advance(2), one.hex() == other.hex()
    (None, None, True)
    """

    lines: int

    def __init__(self, header: int = 0, *, noted: bool = True) -> None:
        self.lines, self._noted = 0, noted
        self._header, self._step = header, 1
        self._short = list[str]()
        self._hash, self._fed, self._at = blake2b(digest_size=16), list[str](), 0
        self._named = False

    def name(self, columns: Sequence[str]) -> None:
        """Count in the names of columns, once, before all lines."""
        if not self._named:
            self._hash.update(repr(columns).encode())
            self._named = True

    def feed(self, lines: Sequence[str]) -> None:
        """Give the next lines, each with its end."""
        if not self._noted:
            return
        # What was given and not counted in yet stays in front.
        self._fed, self._at = [*self._fed[self._at :], *lines], 0

    def advance(self, through: int) -> None:
        """Count in all lines up to one, which were fed."""
        while self.lines < through:
            # Not past the next multiple of the step, at which a short digest is due.
            upto = min(through, (self.lines // self._step + 1) * self._step)
            self._take(upto - self.lines)
            self.lines = upto
            if upto % self._step == 0:
                self._short.append(self.hex()[:_SHORT] if upto > self._header else "")
            if len(self._short) > _MOST:
                # Every second one stays: the step doubles.
                self._short, self._step = self._short[1::2], 2 * self._step

    def prefix(self, source: str, columns: Mapping[str, str | None], traces: tuple[str, ...]) -> Prefix:
        """What was counted in."""
        short = tuple(self._short)
        return Prefix(self.lines, self.hex(), self._step, short, source, traces, columns)

    def hex(self) -> str:
        """The digest of what was counted in."""
        return self._hash.hexdigest()

    def _take(self, number: int) -> None:
        """Count in the next lines."""
        lines = self._fed[self._at : self._at + number]
        self._at += number
        if self._at >= len(self._fed):
            self._fed, self._at = [], 0
        if not lines[-1].endswith(("\n", "\r")):
            # Only the last line of a file can be without an end.
            lines = [*lines[:-1], f"{lines[-1]}\n"]
        self._hash.update(_joined(lines).encode())


class Traces:
    """Of events that are spread evenly over a file, at most 32 and the last one."""

    def __init__(self) -> None:
        self._kept, self._last, self._seen, self._step = list[str](), "", 0, 1

    def add(self, events: EventTable) -> None:
        """The next events."""
        if not len(events):
            return
        begin, self._seen = self._seen, self._seen + len(events)
        # The places of kept events are the multiples of the step, 0 among them.
        while (place := len(self._kept) * self._step) < self._seen:
            self._kept.append(trace(events, place - begin))
            if len(self._kept) > _MOST:
                # Every second one stays, the first among them: the step doubles.
                self._kept, self._step = self._kept[::2], 2 * self._step
        self._last = trace(events, len(events) - 1)

    def found(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(dict.fromkeys([*self._kept, self._last] if self._kept else []))


def trace(events: EventTable, place: int) -> str:
    """By which one of some events is recognised in another file: the last bits of its time, and a digest."""
    time = int(events.time_N[place])
    kind = None if events.event_type is None else events.event_type[place]
    return f"{time & _TIME:04x}{_short(repr((events.user[place], events.item[place], time, kind)))}"


def traced(events: EventTable, traces: Collection[str]) -> Iterator[tuple[int, str]]:
    """Places of events that have one of some traces, and their traces."""
    times = np.array([int(found[:4], 16) for found in traces], np.int64)
    # Few other events have such a time; only of these a digest is made.
    for place in np.flatnonzero(np.isin(events.time_N & _TIME, times)).tolist():
        if (found := trace(events, place)) in traces:
            yield place, found


def row_lines(batch: Any) -> list[str]:
    """The rows of a record batch as lines of text; equal wherever a table is cut into batches."""
    arrow = require("pyarrow", extra="train", purpose="reading parquet")
    compute = require("pyarrow.compute", extra="train", purpose="reading parquet")
    if not batch.num_columns or not len(batch):
        return ["\n"] * len(batch)
    columns = [_texts(arrow, column) for column in batch.columns]
    # An empty text is not the same as no value.
    between = arrow.scalar("\x1f", arrow.large_string())
    joined = compute.binary_join_element_wise(*columns, between, null_handling="replace", null_replacement="\0")
    end = [arrow.scalar(text, arrow.large_string()) for text in ("", "\n")]
    found: list[str] = compute.binary_join_element_wise(joined, *end).to_pylist()
    return found


def _texts(arrow: Any, column: Any) -> Any:
    try:
        return column.cast(arrow.large_string())
    except (arrow.ArrowNotImplementedError, arrow.ArrowInvalid):
        values = [None if value is None else repr(value) for value in column.to_pylist()]
        return arrow.array(values, arrow.large_string())


def _joined(lines: Sequence[str]) -> str:
    text = "".join(lines)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _short(text: str) -> str:
    return blake2b(text.encode(), digest_size=_SHORT // 2).hexdigest()
