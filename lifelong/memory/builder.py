"""Brings the memories of a new artifact up to those of the one that is served, while events come in.

    pass over all users: fewer events in the new memory than in the served one? --replay what it lacks--> commit
    a pass in which no one was overtaken --> ready

Writers fold a new event into both memories of a user where they hold equally many events, so whoever is up to date
stays so. A built memory is written only if both memories are still those that were compared.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.errors import StoreConflictError, StoreError, StoreUnavailableError
from lifelong.memory.codec import codec_of
from lifelong.memory.replaying import Replayer
from lifelong.memory.roster import Member, Roster
from lifelong.memory.store import Commit

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.memory.folding import Folder
    from lifelong.memory.store import MemoryStore

IntArray = npt.NDArray[np.int64]
_USERS = 256
"""Users who are built together at first; fewer in later passes, where others write them at the same time."""
_PASSES = 50
_NAMED = 5


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    Args:
        artifact: its id.
        users: of whom a memory was written, counted again where it had fallen behind.
        events: folded in.
        passes: over all users.
        seconds: wall time.
    """

    artifact: str
    users: int
    events: int
    passes: int
    seconds: float


class Builder:
    """Builds the memories of one member of a store's list.

    Args:
        store: open for writing.
        folder: the artifact that is built.
        dataset: where events are that the store's log lacks: each user's first ones; with the artifact's vocabularies.

    Raises:
        MismatchError: the dataset has other fields or vocabularies than the artifact.
    """

    def __init__(self, store: MemoryStore, folder: Folder, *, dataset: Dataset | None = None) -> None:
        self.store, self.folder = store, folder
        self.replayer = Replayer(store, folder, dataset)
        self.users = self.events = 0
        self._lacking: dict[str, str] = {}

    def build(
        self,
        *,
        progress: Callable[[int, int], None] | None = None,
        pause: Callable[[float], bool] = lambda seconds: False,
    ) -> BuildReport:
        """Build until nothing is behind, and say in the store's list that the member is ready.

        Args:
            progress: called with (users looked at in this pass, users built in all).
            pause: called after each group with the seconds that it took; True stops the build.

        Raises:
            StoreError: the first events of some users are known from nowhere, or the member was dropped.
            StoreUnavailableError: it was stopped, or users are written faster than they can be built.
        """
        started, size = clock.perf_counter(), _USERS
        for number in range(1, _PASSES + 1):
            roster = self.store.roster()
            # Every writer has to know of the member before memories are compared.
            self.store.change_roster(roster, roster)
            left = self._pass(roster, size, progress, pause)
            if self._lacking:
                raise self._not_told()
            if not left and self._finish(roster):
                seconds = clock.perf_counter() - started
                return BuildReport(self.folder.artifact.id, self.users, self.events, number, seconds)
            size = max(1, size // 4)
        raise StoreUnavailableError(
            f"after {_PASSES} passes some memories are still behind", fix="build again when fewer events come in"
        )

    def _pass(
        self,
        roster: Roster,
        size: int,
        progress: Callable[[int, int], None] | None,
        pause: Callable[[float], bool],
    ) -> int:
        """Look at every user once; how many are still behind."""
        left = looked = 0
        names = (user for user, _ in self.store.users(slot=_served(roster).slot))
        while some := list(islice(names, size)):
            began = clock.perf_counter()
            left += self.catch_up(some, roster)
            looked += len(some)
            if progress is not None:
                progress(looked, self.users)
            if pause(clock.perf_counter() - began):
                raise StoreUnavailableError("the build was stopped", fix="start it again: it goes on where it stopped")
        return left

    def _finish(self, roster: Roster) -> bool:
        """Say that the member is ready, unless the list has changed since the pass began.

        Raises:
            StoreError: it was left behind by a writer.
        """
        member = self._member(roster)
        if member.phase == "behind":
            raise StoreError(
                f"artifact {member.id[:12]} was left behind: it failed on an event (see the log of the writer)",
                fix=f"drop it: lifelong switch --drop {member.id[:12]}",
            )
        if member.ready:
            return True
        try:
            self.store.change_roster(roster, roster.turn(member.id, "ready"))
        except StoreConflictError:
            return False
        return True

    def catch_up(self, users: Sequence[str], roster: Roster) -> int:
        """Build those users' memories that are behind.

        Args:
            users: some.
            roster: the store's list; where it has changed, nothing is written.

        Returns:
            How many are still behind, since others wrote them in between.
        """
        served, member = _served(roster), self._member(roster)
        leading = self.store.read_many(users, slot=served.slot)
        built = self.store.read_many(users, slot=member.slot)
        wanted, states = codec_of(served.identity).decode(leading), self.folder.runtime.decode(built)
        known_B = np.array([record is not None for record in leading], bool)
        behind = np.flatnonzero(known_B & (states.count_B != wanted.count_B))
        if not len(behind):
            return 0
        names = [users[at] for at in behind.tolist()]
        found = self.replayer.replay(names, states.take(behind), wanted.take(behind))
        self._lacking.update({names[at]: why for at, why in found.unknown.items()})
        chosen = np.array([at for at in range(len(names)) if at not in found.unknown], np.int64)
        if not len(chosen):
            return 0
        records = self.folder.runtime.encode(found.states.take(chosen))
        at_B = behind[chosen].tolist()
        refused = self._write(
            Commit(
                slot=served.slot,
                based_on={users[at]: leading[at] for at in at_B},
                beside={(member.slot, users[at]): record for at, record in zip(at_B, records, strict=True)},
                beside_based_on={(member.slot, users[at]): built[at] for at in at_B},
                epoch=roster.epoch,
            )
        )
        kept = [at for at in at_B if users[at] not in refused]
        self.users += len(kept)
        self.events += int((wanted.count_B[kept] - states.count_B[kept]).sum())
        return len(at_B) - len(kept)

    def _write(self, built: Commit) -> frozenset[str]:
        """Write what was built; the users whom others wrote in between."""
        try:
            self.store.commit(built)
        except StoreConflictError as conflict:
            return conflict.users
        return frozenset()

    def _member(self, roster: Roster) -> Member:
        member = roster.find(self.folder.artifact.id)
        if member is None:
            raise StoreError(
                f"artifact {self.folder.artifact.id[:12]} is not on the store's list",
                expected="one that was added",
                fix="it was dropped meanwhile; add it again if that is what you want",
            )
        return member

    def _not_told(self) -> StoreError:
        some = "; ".join(f"{user}: {why}" for user, why in islice(self._lacking.items(), _NAMED))
        return StoreError(
            f"memories of {len(self._lacking)} users cannot be built: {some}",
            expected="every event in the store's log, or the first ones of each user in DATA",
            fix="give a dataset that was prepared with the artifact's vocabularies and holds them",
        )


def _served(roster: Roster) -> Member:
    served = roster.served
    if served is None:
        raise StoreError("the store is new", expected="one that an artifact has claimed")
    return served
