"""A part of a store: which users are its own, where it is kept, how far it is, and who writes it.

    user --CRC-32 of the id, modulo N--> part k of N

    a shard of a folder      kept in FOLDER/shard-k, a database with its own watermarks; written by the process that has
                             the folder, or by the ingestion worker to which that one lends it
    a partition of a topic   the events of a part's users, if the store says so: then a process opens some shards and
                             reads their partitions alone, and producers choose the partition by CRC-32 or murmur2
    a group on a server      keys of one hash slot, its position in the same key as its checksums; written by whichever
                             process commits, and a script refuses what was made from older memories
    a share of a source      the events of the users of some shards, which one worker reads out of all of them

A commit is divided by part, and each part keeps its own users' memories together with the offsets of the events that
made them: whatever was interrupted, a part is as far as its offsets say, and the parts need not be equally far. N is
fixed when a store is made. The rule is the same in every place, so that a part of one kind holds whole parts of another
whose N is a multiple.

`lifelong.online.store.shards` makes one store of several parts, `.sharded` keeps them in a folder, `.redis` on servers.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lifelong.dtypes import IntArray
from lifelong.errors import UsageError

_NAME = "shard-"


def part_of(user: str, of: int) -> int:
    """Number of a user's part, of so many.

    Example:
        >>> [part_of(user, 4) for user in ("ann", "bob", "eve")]
        [3, 0, 2]
    """
    return zlib.crc32(user.encode()) % of


def murmur2(key: bytes) -> int:
    """The hash by which Kafka's Java clients, and so Spark and Flink, choose a partition: 31 bits of MurmurHash2.

    Source: `Utils.murmur2` and `Utils.toPositive` of Apache Kafka.

    Example:
        >>> murmur2(b"foobar")
        1357151166
    """
    whole = len(key) & ~3
    state = 0x9747B28C ^ len(key)
    for (word,) in struct.iter_unpack("<I", key[:whole]):
        word = word * _MIX & _BITS
        state = (state * _MIX & _BITS) ^ ((word ^ word >> 24) * _MIX & _BITS)
    if len(key) > whole:
        state = (state ^ int.from_bytes(key[whole:], "little")) * _MIX & _BITS
    state = (state ^ state >> 13) * _MIX & _BITS
    # Java's numbers have a sign, which is taken off.
    return (state ^ state >> 15) & 0x7FFFFFFF


_MIX, _BITS = 0x5BD1E995, 0xFFFFFFFF
PARTITIONERS: dict[str, Callable[[bytes], int]] = {"crc32": zlib.crc32, "murmur2": murmur2}
"""How producers choose the partition of a key: librdkafka's default, and that of Java's clients."""


@dataclass(frozen=True, slots=True)
class Share:
    """Some of the parts of a store, and their users.

    Example:
        >>> whole = Share.whole(5)
        >>> [share.numbers for share in whole.divided(2)]
        [(0, 2, 4), (1, 3)]

    Args:
        numbers: of the parts, rising.
        of: how many parts there are.
        partitioner: if each part is a partition of a topic, how its producers choose it: one of `PARTITIONERS`; else
            empty, and the rule is `part_of`.
    """

    numbers: tuple[int, ...]
    of: int
    partitioner: str = ""

    def __post_init__(self) -> None:
        if self.numbers and self.numbers[-1] >= self.of:
            raise UsageError(
                f"shard {self.numbers[-1]} of {self.of}",
                expected=f"shards from 0 to {self.of - 1}",
                fix="correct own= in the URL of the store",
            )

    @classmethod
    def whole(cls, of: int) -> Share:
        """All parts."""
        return cls(tuple(range(of)), of)

    def divided(self, workers: int) -> list[Share]:
        """These parts dealt out to some workers, to each of them about as many."""
        return [replace(self, numbers=self.numbers[first::workers]) for first in range(workers)]

    @property
    def first(self) -> bool:
        """Whether the first part is among them, which has what is no user's."""
        return 0 in self.numbers

    def places(self, users: Sequence[str]) -> IntArray:
        """Places of the users of these parts among others."""
        mine = np.zeros(self.of, np.bool_)
        mine[list(self.numbers)] = True
        return np.flatnonzero(mine[self.parts(users)])

    def user(self) -> str:
        """An id that is of these parts."""
        return next(f"user-{n}" for n in itertools.count() if len(self.places([f"user-{n}"])))

    def parts(self, users: Sequence[str]) -> IntArray:
        """The number of each user's part.

        >>> Share.whole(4).parts(["ann", "bob"]).tolist(), Share((0,), 4, "murmur2").parts(["ann", "bob"]).tolist()
        ([3, 0], [2, 2])
        """
        hashed = PARTITIONERS[self.partitioner or "crc32"]
        return np.fromiter(map(hashed, map(str.encode, users)), np.int64, len(users)) % self.of


@dataclass(frozen=True, slots=True)
class FolderUrl:
    """What the URL of a store in a folder says.

    Args:
        path: the folder.
        shards: how many the store has; None if it says nothing of them.
        own: those that the process opens; None for all, or as the folder has it.
        partitioner: see `Share`; None for the folder's, or "crc32".
    """

    path: Path
    shards: int | None = None
    own: tuple[int, ...] | None = None
    partitioner: str | None = None


def numbers_of(text: str) -> tuple[int, ...]:
    """The numbers that ranges name, rising.

    Raises:
        UsageError: they name none.

    Example:
        >>> numbers_of("12,0-2")
        (0, 1, 2, 12)
    """
    ends = [part.partition("-") for part in text.split(",")]
    if not all(first.isdecimal() and (last.isdecimal() if dash else not last) for first, dash, last in ends):
        raise UsageError(f"shards {text!r}", expected="numbers and ranges, as in 0-7,12", fix="correct them")
    return tuple(sorted({n for first, _, last in ends for n in range(int(first), min(int(last or first), 9_999) + 1)}))


def folder_of(store: Path, number: int) -> Path:
    """Where a part of a store in a folder is kept.

    >>> folder_of(Path("store"), 3)
    PosixPath('store/shard-3')
    """
    return store / f"{_NAME}{number}"


def is_part(folder: Path) -> bool:
    """Whether a folder has the name of a part."""
    return folder.name.startswith(_NAME)
