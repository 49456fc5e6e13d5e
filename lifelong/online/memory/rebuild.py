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

import numpy as np

from lifelong.dataset.folder import Dataset
from lifelong.errors import StoreConflictError, StoreError, StoreUnavailableError
from lifelong.online.memory.codec import codec_of
from lifelong.online.memory.replaying import Replayer
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.store.artifact_list import ArtifactList, StoredArtifact
from lifelong.online.store.contract import Commit, MemoryStore, try_commit

_USERS = 256
"""Users who are built together at first; fewer in later passes, where others write them at the same time."""
_PASSES = 50
_NAMED = 5


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    Args:
        artifact: its id.
        users: memories written; a user counts again if the memory had fallen behind meanwhile.
        events: folded in.
        passes: over all users.
        seconds: wall time.
    """

    artifact: str
    users: int
    events: int
    passes: int
    seconds: float


class Rebuild:
    """Builds the memories of one artifact of a store's list.

    Args:
        store: open for writing.
        writer: of the artifact that is built.
        dataset: where events are that the store's log lacks: each user's first ones; with the artifact's vocabularies.

    Raises:
        MismatchError: the dataset has other fields or vocabularies than the artifact.
    """

    store: MemoryStore
    writer: MemoryWriter

    def __init__(self, store: MemoryStore, writer: MemoryWriter, *, dataset: Dataset | None = None) -> None:
        self.store, self.writer = store, writer
        self.replayer: Replayer = Replayer(store, writer, dataset)
        self.users: int = 0
        self.events: int = 0
        self._lacking: dict[str, str] = {}

    def build(
        self,
        *,
        progress: Callable[[int, int], None] | None = None,
        pause: Callable[[float], bool] = lambda seconds: False,
    ) -> BuildReport:
        """Build until nothing is behind, and say in the store's list that the artifact is ready.

        Args:
            progress: called with (users looked at in this pass, users built in all).
            pause: called after each group with the seconds that it took; True stops the build.

        Raises:
            StoreError: events of some users are neither in the log nor in DATA, or the artifact was dropped.
            StoreUnavailableError: it was stopped, or users are written faster than they can be built.
        """
        started, size = clock.perf_counter(), _USERS
        for number in range(1, _PASSES + 1):
            artifact_list = self.store.artifact_list()
            # Every writer has to know of the artifact before memories are compared.
            self.store.change_artifact_list(artifact_list, artifact_list)
            left = self._pass(artifact_list, size, progress, pause)
            if self._lacking:
                raise self._incomplete()
            if not left and self._finish(artifact_list):
                seconds = clock.perf_counter() - started
                return BuildReport(self.writer.artifact.id, self.users, self.events, number, seconds)
            # One user who is written in between may refuse all of a group: smaller groups lose less.
            size = max(1, size // 4)
        raise StoreUnavailableError(
            f"after {_PASSES} passes some memories are still behind", fix="build again when fewer events come in"
        )

    def _pass(
        self,
        artifact_list: ArtifactList,
        size: int,
        progress: Callable[[int, int], None] | None,
        pause: Callable[[float], bool],
    ) -> int:
        """Check every user once; returns how many are still behind."""
        left = looked = 0
        # The served memories name all users; one who comes during the pass has both memories from the start.
        names = (user for user, _ in self.store.scan(artifact_list.require_served().space))
        while some := list(islice(names, size)):
            began = clock.perf_counter()
            left += self.catch_up(some, artifact_list)
            looked += len(some)
            if progress is not None:
                progress(looked, self.users)
            if pause(clock.perf_counter() - began):
                raise StoreUnavailableError(
                    "the build was stopped", fix="start it again; it continues where it stopped"
                )
        return left

    def _finish(self, artifact_list: ArtifactList) -> bool:
        """Say that the artifact is ready, unless the list has changed since the pass began.

        Raises:
            StoreError: it was left behind by a writer.
        """
        stored = self._stored(artifact_list)
        if stored.phase == "behind":
            raise StoreError(
                f"artifact {stored.id[:12]} was left behind: it failed on an event (see the log of the writer)",
                fix=f"drop it: lifelong switch --drop {stored.id[:12]}",
            )
        if stored.ready:
            return True
        try:
            self.store.change_artifact_list(artifact_list, artifact_list.turn(stored.id, "ready"))
        except StoreConflictError:
            return False
        return True

    def catch_up(self, users: Sequence[str], artifact_list: ArtifactList) -> int:
        """Build those users' memories that are behind.

        Args:
            users: some.
            artifact_list: the store's list; where it has changed, nothing is written.

        Returns:
            How many are still behind, since others wrote them in between.
        """
        served, stored = artifact_list.require_served(), self._stored(artifact_list)
        served_records = self.store.read_many(users, space=served.space)
        built = self.store.read_many(users, space=stored.space)
        wanted, states = codec_of(served.identity).decode(served_records), self.writer.runtime.decode(built)
        spaces = {served.space: served_records, stored.space: built}
        # A user may have been erased since the scan gave her name.
        known_B = np.array([record is not None for record in served_records], bool)
        behind = np.flatnonzero(known_B & (states.count_B != wanted.count_B))
        if not len(behind):
            return 0
        names = [users[at] for at in behind.tolist()]
        replayed = self.replayer.replay(names, states.take(behind), wanted.take(behind))
        self._lacking.update({names[at]: why for at, why in replayed.unknown.items()})
        chosen = np.array([at for at in range(len(names)) if at not in replayed.unknown], np.int64)
        if not len(chosen):
            return 0
        records = self.writer.runtime.encode(replayed.states.take(chosen))
        at_B = behind[chosen].tolist()
        bases = {space: {users[at]: read[at] for at in at_B} for space, read in spaces.items()}
        new = {users[at]: record for at, record in zip(at_B, records, strict=True)}
        refused = try_commit(self.store, Commit({stored.space: new}, bases, epoch=artifact_list.epoch)) or frozenset()
        written = [at for at in at_B if users[at] not in refused]
        self.users += len(written)
        self.events += int((wanted.count_B[written] - states.count_B[written]).sum())
        return len(at_B) - len(written)

    def _stored(self, artifact_list: ArtifactList) -> StoredArtifact:
        stored = artifact_list.find(self.writer.artifact.id)
        if stored is None:
            raise StoreError(
                f"artifact {self.writer.artifact.id[:12]} is not on the store's list",
                expected="one that was added",
                fix="it was dropped meanwhile; add it again if that is what you want",
            )
        return stored

    def _incomplete(self) -> StoreError:
        some = "; ".join(f"{user}: {why}" for user, why in islice(self._lacking.items(), _NAMED))
        return StoreError(
            f"memories of {len(self._lacking)} users cannot be built: {some}",
            expected="every event in the store's log, or the first ones of each user in DATA",
            fix="give a dataset that was prepared with the artifact's vocabularies and holds them",
        )
