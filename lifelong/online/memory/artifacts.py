"""The artifacts that a store holds memories of, opened: a writer for each one that new events are folded into.

The artifact that is served comes first. Its memories decide which events are new and which are late, and give each
event its place in the log. The others follow in the same commit; those in phase "behind" are left to whoever builds
them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from lifelong.artifact.folder import Artifact
from lifelong.errors import ArtifactError, StoreConflictError, StoreForeignError
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.state import States
from lifelong.online.memory.writer import MemoryWriter, Rounds
from lifelong.online.store.artifact_list import ArtifactList, StoredArtifact
from lifelong.online.store.contract import MemoryStore

logger: logging.Logger = logging.getLogger(__name__)

Opened = tuple[ArtifactList, Mapping[int, MemoryWriter]]
"""A store's list, and space -> writer of the memories in it; the served artifact's is the first."""


class OpenArtifacts:
    """Opens the artifacts of a store's list, and follows that list. Threads may share it.

    Args:
        store: bound to an artifact.
        given: artifacts that are open already; others are opened from where the list says they are.

    Raises:
        StoreForeignError: an artifact of the list cannot be opened.
    """

    store: MemoryStore

    def __init__(self, store: MemoryStore, given: Sequence[MemoryWriter]) -> None:
        self.store, self._lock = store, threading.Lock()
        self._open = {writer.artifact.id: writer for writer in given}
        self._now = self._writers(store.artifact_list())

    @property
    def served(self) -> MemoryWriter:
        """The writer of the artifact that is served, as the list was when it was last followed."""
        return next(iter(self._now[1].values()))

    def follow(self) -> Opened:
        """The artifacts as the store lists them now.

        Raises:
            StoreForeignError: an artifact of the list cannot be opened.
        """
        artifact_list = self.store.artifact_list()
        with self._lock:
            if artifact_list.epoch > self._now[0].epoch:
                self._now = self._writers(artifact_list)
            return self._now

    @property
    def epoch(self) -> int:
        """Epoch of the list that this process saw last; the store is not asked."""
        return self._now[0].epoch

    def give(self, writer: MemoryWriter) -> None:
        """Take an artifact that is open already, so that no write waits for it when the list names it."""
        self._open[writer.artifact.id] = writer

    def writer(self, artifact_id: str) -> MemoryWriter | None:
        """An artifact that is open, None if it is not."""
        return self._open.get(artifact_id)

    def fold(
        self,
        opened: Opened,
        bases: Mapping[int, Mapping[str, bytes | None]],
        before: States,
        events: EventTable,
        plan: Rounds,
    ) -> dict[int, Mapping[str, bytes]]:
        """Space -> user -> memory after new events.

        Args:
            opened: what `follow` gave.
            bases: space -> user -> encoded memory; every user has an event.
            before: the memories of the served artifact, decoded.
            events: events that count.
            plan: their order.
        """
        artifact_list, writers = opened
        served, records = next(iter(writers.values())), dict[int, Mapping[str, bytes]]()
        for space, writer in writers.items():
            names, found = list(bases[space]), list(bases[space].values())
            if writer is served:
                records[space] = served.advance(names, before, events, plan, before.count_B)
                continue
            try:
                states, known = writer.runtime.decode(found), writer.only_known(events)
                records[space] = writer.advance(names, states, known, plan, before.count_B)
            except Exception as error:
                # Whatever is wrong with another artifact, the served one continues.
                self._leave_behind(artifact_list, space, error)
        return records

    def _leave_behind(self, artifact_list: ArtifactList, space: int, error: Exception) -> None:
        """Let an artifact that failed on an event take no more of them: it has to be built again."""
        (stored,) = (one for one in artifact_list.artifacts if one.space == space)
        logger.error("artifact %s cannot keep up, and is left behind: %s", stored.id[:12], error)
        # If the list has changed meanwhile, the commit that follows is refused too, and both are made again.
        with contextlib.suppress(StoreConflictError):
            self.store.change_artifact_list(artifact_list, artifact_list.turn(stored.id, "behind"))

    def _writers(self, artifact_list: ArtifactList) -> Opened:
        served = artifact_list.require_served()
        others = [stored for stored in artifact_list.artifacts if stored != served and stored.phase != "behind"]
        return artifact_list, {stored.space: self._opened(stored) for stored in (served, *others)}

    def _opened(self, stored: StoredArtifact) -> MemoryWriter:
        writer = self._open.get(stored.id)
        if writer is None or writer.runtime.codec.name != stored.identity.codec:
            writer = self._open[stored.id] = MemoryWriter(open_stored(stored), stored.identity.codec, self.store)
        return writer


def open_stored(stored: StoredArtifact) -> Artifact:
    """An artifact of a store's list, from the folder where it was.

    Raises:
        StoreForeignError: it is not there.
    """
    try:
        found = Artifact.open(Path(stored.identity.path)) if stored.identity.path else None
    except ArtifactError as error:
        raise _lost(stored, error.found) from error
    if found is None or found.id != stored.id:
        raise _lost(stored, f"there is another one in {stored.identity.path}" if found else "its folder is not known")
    return found


def _lost(stored: StoredArtifact, why: str) -> StoreForeignError:
    return StoreForeignError(
        f"the store also holds memories of artifact {stored.id[:12]}, which cannot be opened: {why}",
        expected="every artifact that the store holds memories of",
        fix=f"put it back, or drop its memories: lifelong switch --drop {stored.id[:12]}",
    )
