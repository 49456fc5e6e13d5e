"""The artifacts that a store holds memories of: one, or several while a new one takes over.

    add(B)        A served     B building   space 0: A, space 1: B; events of users who are up to date go into both
    finish(B)     A served     B ready      every event is folded into both, in one commit
    serve(B)      B served     A ready      `serve(A)` is the way back, at any time
    drop(A)       B served                  space 0 is emptied, and then taken off the list

An artifact that failed on an event is `behind`: writers leave it alone until it is built again.

The memories of each artifact have a space of their own; its number is never used again. Everything else in a store
(the event log, event ids, positions, items put online) belongs to all of them: the count in a memory says which events
of the log are in it.

Every change raises the epoch. A commit names the epoch that it was made for, and a store refuses one that is too old:
so a writer that does not know of a new artifact yet cannot leave that one's memories behind.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from lifelong.errors import StoreError, StoreForeignError, UsageError

Phase = Literal["behind", "building", "ready"]


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What a store remembers of an artifact, so that it can refuse another one."""

    artifact_id: str
    codec: str
    layout: str
    """Canonical JSON of the memory layout."""
    path: str = field(default="", compare=False)
    """Where its folder was, for other processes that keep its memories up to date; not compared."""


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """One artifact that a store holds memories of.

    Args:
        identity: the artifact.
        space: of its memories.
        phase: "ready" if every user's memory is there and up to date; "building" if some are not yet; "behind" if some
            are not and writers leave it alone.
    """

    identity: StoreIdentity
    space: int
    phase: Phase

    @property
    def ready(self) -> bool:
        """Whether it can be served."""
        return self.phase == "ready"

    @property
    def id(self) -> str:
        """The artifact's id."""
        return self.identity.artifact_id


@dataclass(frozen=True, slots=True)
class ArtifactList:
    """All artifacts of a store.

    Args:
        artifacts: in the order in which they came; events are folded into each one's memories.
        active: id of the artifact that is served; empty for a new store.
        previous: id of the one that was served before, empty if there is none to go back to.
        epoch: how often this was changed.
        next_space: number of the next space.
        dropping: spaces of artifacts that were dropped, not empty yet.

    Example:
        >>> first, second = (StoreIdentity(name, "fp32", "[]") for name in ("old", "new"))
        >>> known = ArtifactList.of(first).add(second)
        >>> [(one.id, one.space, one.phase) for one in known.artifacts]
        [('old', 0, 'ready'), ('new', 1, 'building')]
        >>> known.turn("new", "ready").serve("new").drop("old").dropping
        (0,)
    """

    artifacts: tuple[StoredArtifact, ...] = ()
    active: str = ""
    previous: str = ""
    epoch: int = 0
    next_space: int = 1
    dropping: tuple[int, ...] = ()

    @classmethod
    def of(cls, identity: StoreIdentity) -> ArtifactList:
        """The list of a store that never had a second artifact."""
        return cls((StoredArtifact(identity, 0, "ready"),), identity.artifact_id)

    @property
    def spaces(self) -> tuple[int, ...]:
        """Every space that may hold memories."""
        return (0, *sorted({*(stored.space for stored in self.artifacts), *self.dropping} - {0}))

    @property
    def served(self) -> StoredArtifact | None:
        """The artifact that is served, None for a new store."""
        return self.find(self.active)

    @property
    def identity(self) -> StoreIdentity | None:
        """The identity of the artifact that is served, None for a new store."""
        return None if self.served is None else self.served.identity

    def require_served(self) -> StoredArtifact:
        """The artifact that is served.

        Raises:
            StoreError: the store is new.
        """
        if self.served is None:
            raise StoreError(
                "the store is new: it holds no memories yet",
                expected="a store that an artifact has claimed",
                fix="fill it with `lifelong backfill ARTIFACT DATA` or `lifelong ingest`",
            )
        return self.served

    def find(self, artifact_id: str) -> StoredArtifact | None:
        """The artifact with this id, None if it is not on the list."""
        return next((stored for stored in self.artifacts if stored.id == artifact_id), None)

    def named(self, text: str) -> StoredArtifact:
        """The artifact with an id that begins with a text.

        Raises:
            UsageError: none does, or several do.
        """
        found = [stored for stored in self.artifacts if text and stored.id.startswith(text)]
        if len(found) != 1:
            known = ", ".join(stored.id[:12] for stored in self.artifacts) or "none: the store is new"
            what = "no artifact" if not found else "several artifacts"
            raise UsageError(f"the store holds {what} {text!r}", expected=f"one of {known}", fix="lifelong switch")
        return found[0]

    def add(self, identity: StoreIdentity, phase: Phase = "building") -> ArtifactList:
        """The list with one more artifact; its memories are to be built."""
        stored = StoredArtifact(identity, self.next_space, phase)
        return replace(self, artifacts=(*self.artifacts, stored), next_space=self.next_space + 1, epoch=self.epoch + 1)

    def renew(self, identity: StoreIdentity) -> ArtifactList:
        """The list with another folder of an artifact."""
        return self._with(identity.artifact_id, identity=identity)

    def turn(self, artifact_id: str, phase: Phase) -> ArtifactList:
        """The list with an artifact in another phase."""
        return self._with(artifact_id, phase=phase)

    def _with(self, artifact_id: str, **parts: Any) -> ArtifactList:
        changed = [replace(stored, **parts) if stored.id == artifact_id else stored for stored in self.artifacts]
        return replace(self, artifacts=tuple(changed), epoch=self.epoch + 1)

    def serve(self, artifact_id: str) -> ArtifactList:
        """The list with another artifact served.

        Raises:
            StoreForeignError: its memories are not complete.
        """
        stored = self.named(artifact_id)
        if not stored.ready:
            raise unfinished(stored)
        if stored.id == self.active:
            return self
        return replace(self, active=stored.id, previous=self.active, epoch=self.epoch + 1)

    def back(self) -> ArtifactList:
        """The list with the previously served artifact served again.

        Raises:
            UsageError: there was none.
        """
        if not self.previous:
            raise UsageError(
                "no artifact was served before",
                expected="a store that was switched",
                fix="name the artifact to serve: lifelong switch ARTIFACT",
            )
        return self.serve(self.previous)

    def drop(self, artifact_id: str) -> ArtifactList:
        """The list without an artifact; its space is to be emptied.

        Raises:
            UsageError: it is served.
        """
        stored = self.named(artifact_id)
        if stored.id == self.active:
            raise UsageError(
                f"artifact {stored.id[:12]} is served", expected="one that is not", fix="switch to another one first"
            )
        return replace(
            self,
            artifacts=tuple(other for other in self.artifacts if other != stored),
            previous="" if self.previous == stored.id else self.previous,
            dropping=(*self.dropping, stored.space),
            epoch=self.epoch + 1,
        )

    def emptied(self, space: int) -> ArtifactList:
        """The list after the space of a dropped artifact has been emptied."""
        left = tuple(other for other in self.dropping if other != space)
        return replace(self, dropping=left, epoch=self.epoch + 1)

    def to_json(self) -> str:
        """The list as a store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ArtifactList:
        """The inverse of `to_json`."""
        parts: dict[str, Any] = json.loads(text)
        artifacts = tuple(
            StoredArtifact(StoreIdentity(**part.pop("identity")), **part) for part in parts.pop("artifacts")
        )
        return cls(artifacts, dropping=tuple(parts.pop("dropping")), **parts)


def unfinished(stored: StoredArtifact) -> StoreForeignError:
    """The error for memories that are still being built."""
    return StoreForeignError(
        f"the memories of artifact {stored.id[:12]} are not complete",
        expected="an artifact with memories that were built to the end",
        fix="let `lifelong backfill` end, or start it again; it continues where it stopped",
    )


def check_identity(place: str, known: StoreIdentity, wanted: StoreIdentity) -> None:
    """Refuse a store of another artifact.

    Args:
        place: the store, for the message.
        known: the artifact that wrote it.
        wanted: the artifact that is to use it.

    Raises:
        StoreForeignError: they differ; names the difference.
    """
    fix = "use the store's own artifact, or build this one's memories: lifelong backfill ARTIFACT DATA --store URL"
    if known.artifact_id != wanted.artifact_id:
        raise StoreForeignError(
            f"{place} was written by artifact {known.artifact_id[:12]}",
            expected=f"artifact {wanted.artifact_id[:12]}",
            fix=fix,
        )
    if known.codec != wanted.codec:
        raise StoreForeignError(
            f"{place} holds memories in codec {known.codec}",
            expected=f"codec {wanted.codec}",
            fix="leave out the codec to use that of the store, or build a new store",
        )
    if known != wanted:
        raise StoreForeignError(
            f"{place} holds memories of layout {known.layout}", expected=f"layout {wanted.layout}", fix=fix
        )


def space_of(place: str, artifact_list: ArtifactList, wanted: StoreIdentity) -> int:
    """The space of an artifact's memories.

    Args:
        place: the store, for the message.
        artifact_list: of the store, not new.
        wanted: the artifact.

    Raises:
        StoreForeignError: it is not on the list, its codec or layout differs, or its memories are not complete.
    """
    stored = artifact_list.find(wanted.artifact_id)
    if stored is None:
        stored = artifact_list.served or artifact_list.artifacts[0]
    check_identity(place, stored.identity, wanted)
    if not stored.ready:
        raise unfinished(stored)
    return stored.space
