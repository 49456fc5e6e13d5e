"""A part of a store: which users are its own, where it is kept, how far it is, and who writes it.

    user --CRC-32 of the id, modulo N--> part k of N

    a shard of a folder      kept in FOLDER/shard-k, a database with its own watermarks; written by the process that has
                             the folder, or by the ingestion worker to which that one lends it
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

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lifelong.dtypes import BoolArray, IntArray

_NAME = "shard-"


def part_of(user: str, of: int) -> int:
    """Number of a user's part, of so many.

    Example:
        >>> [part_of(user, 4) for user in ("ann", "bob", "eve")]
        [3, 0, 2]
    """
    return zlib.crc32(user.encode()) % of


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
    """

    numbers: tuple[int, ...]
    of: int

    @classmethod
    def whole(cls, of: int) -> Share:
        """All parts."""
        return cls(tuple(range(of)), of)

    def divided(self, workers: int) -> list[Share]:
        """These parts dealt out to some workers, to each of them about as many."""
        return [Share(self.numbers[first::workers], self.of) for first in range(workers)]

    @property
    def first(self) -> bool:
        """Whether the first part is among them, which has what is no user's."""
        return 0 in self.numbers

    def places(self, users: Sequence[str]) -> IntArray:
        """Places of the users of these parts among others."""
        return np.flatnonzero(self.chosen(np.fromiter(map(zlib.crc32, map(str.encode, users)), np.uint32, len(users))))

    def chosen(self, hash_N: npt.NDArray[np.uint32]) -> BoolArray:
        """Which users are of these parts, by the CRC-32 of their ids."""
        mine = np.zeros(self.of, np.bool_)
        mine[list(self.numbers)] = True
        return mine[hash_N % self.of]


def folder_of(store: Path, number: int) -> Path:
    """Where a part of a store in a folder is kept.

    >>> folder_of(Path("store"), 3)
    PosixPath('store/shard-3')
    """
    return store / f"{_NAME}{number}"


def is_part(folder: Path) -> bool:
    """Whether a folder has the name of a part."""
    return folder.name.startswith(_NAME)
