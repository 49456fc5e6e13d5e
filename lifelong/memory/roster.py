"""Whose memories a store holds: of one artifact, or of several beside each other while a new one takes over.

    add(B)        A served     B building   slot 0: A, slot 1: B; events of users who are up to date go into both
    finish(B)     A served     B ready      every event is folded into both, in one commit
    serve(B)      B served     A ready      `serve(A)` is the way back, at any time
    drop(A)       B served                  slot 0 is emptied, and taken off the list when it is

An artifact in shadow is `behind`: writers leave it alone, and it catches up from the event log.

Each artifact's memories stand in a slot of their own; a number is never used twice. What is no memory (the event log,
event ids, positions, items) belongs to all of them: the count in a memory says which events of the log are in it.

Every change raises the epoch. A commit says which epoch it was made for, and a store refuses one that is too old: a
writer that does not know yet of a new artifact cannot leave its memories behind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from lifelong.errors import StoreForeignError, UsageError

Phase = Literal["behind", "building", "ready"]


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What a store remembers of an artifact that writes to it; another identity is refused."""

    artifact_id: str
    codec: str
    layout: str
    """Canonical JSON of the memory layout."""
    path: str = field(default="", compare=False)
    """Where its folder was, for processes that keep its memories too; no part of the identity."""

    @classmethod
    def from_json(cls, text: str | bytes) -> StoreIdentity:
        """What a store wrote down, as an object; where no codec is named, memories are fp32."""
        return cls(**{"codec": "fp32", **json.loads(text)})


@dataclass(frozen=True, slots=True)
class Member:
    """One artifact whose memories a store holds.

    Args:
        identity: the artifact.
        slot: where its memories stand.
        phase: "ready": every user's memory is there and up to date; "building": of some users it is not yet; "behind":
            the same, and writers leave it alone.
    """

    identity: StoreIdentity
    slot: int
    phase: Phase

    @property
    def ready(self) -> bool:
        """Whether it can be served."""
        return self.phase == "ready"

    @property
    def id(self) -> str:
        """Of the artifact."""
        return self.identity.artifact_id


@dataclass(frozen=True, slots=True)
class Roster:
    """All of them.

    Args:
        members: in the order in which they came; events are folded into each one's memories.
        active: id of the artifact that is served; empty for a new store.
        previous: id of the one that was served before, empty if there is none to go back to.
        epoch: how often this was changed.
        next_slot: number of the next slot.
        dropping: slots that are no one's any more and not yet empty.
    """

    members: tuple[Member, ...] = ()
    active: str = ""
    previous: str = ""
    epoch: int = 0
    next_slot: int = 1
    dropping: tuple[int, ...] = ()

    @classmethod
    def of(cls, identity: StoreIdentity | None) -> Roster:
        """The list of a store that never had a second artifact."""
        return cls() if identity is None else cls((Member(identity, 0, "ready"),), identity.artifact_id)

    @property
    def slots(self) -> tuple[int, ...]:
        """Every slot that may hold something."""
        return (0, *sorted({*(member.slot for member in self.members), *self.dropping} - {0}))

    @property
    def served(self) -> Member | None:
        """The artifact that is served, None for a new store."""
        return self.find(self.active)

    def find(self, artifact_id: str) -> Member | None:
        """The member with this id, None if it is none."""
        return next((member for member in self.members if member.id == artifact_id), None)

    def named(self, text: str) -> Member:
        """The member whose id begins with a text.

        Raises:
            UsageError: none, or several.
        """
        found = [member for member in self.members if text and member.id.startswith(text)]
        if len(found) != 1:
            known = ", ".join(member.id[:12] for member in self.members) or "none: the store is new"
            what = "no artifact" if not found else "several artifacts"
            raise UsageError(f"the store holds {what} {text!r}", expected=f"one of {known}", fix="lifelong switch")
        return found[0]

    def add(self, identity: StoreIdentity, phase: Phase = "building") -> Roster:
        """With one more, whose memories are to be built."""
        member = Member(identity, self.next_slot, phase)
        return replace(self, members=(*self.members, member), next_slot=self.next_slot + 1, epoch=self.epoch + 1)

    def renew(self, identity: StoreIdentity) -> Roster:
        """With another folder of a member."""
        return self._with(identity.artifact_id, identity=identity)

    def turn(self, artifact_id: str, phase: Phase) -> Roster:
        """With a member in another phase."""
        return self._with(artifact_id, phase=phase)

    def _with(self, artifact_id: str, **parts: Any) -> Roster:
        changed = [replace(member, **parts) if member.id == artifact_id else member for member in self.members]
        return replace(self, members=tuple(changed), epoch=self.epoch + 1)

    def serve(self, artifact_id: str) -> Roster:
        """With another member served.

        Raises:
            StoreForeignError: its memories are not complete.
        """
        member = self.named(artifact_id)
        if not member.ready:
            raise unfinished(member)
        if member.id == self.active:
            return self
        return replace(self, active=member.id, previous=self.active, epoch=self.epoch + 1)

    def back(self) -> Roster:
        """With the artifact served that was served before.

        Raises:
            UsageError: there was none.
        """
        if not self.previous:
            raise UsageError("nothing was served before", expected="a store that was switched")
        return self.serve(self.previous)

    def drop(self, artifact_id: str) -> Roster:
        """Without a member; its slot is to be emptied.

        Raises:
            UsageError: it is served.
        """
        member = self.named(artifact_id)
        if member.id == self.active:
            raise UsageError(
                f"artifact {member.id[:12]} is served", expected="one that is not", fix="switch to another one first"
            )
        return replace(
            self,
            members=tuple(other for other in self.members if other != member),
            previous="" if self.previous == member.id else self.previous,
            dropping=(*self.dropping, member.slot),
            epoch=self.epoch + 1,
        )

    def emptied(self, slot: int) -> Roster:
        """With a dropped slot empty."""
        left = tuple(other for other in self.dropping if other != slot)
        return replace(self, dropping=left, epoch=self.epoch + 1)

    def to_json(self) -> str:
        """As a store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Roster:
        """The inverse of `to_json`."""
        parts: Mapping[str, Any] = json.loads(text)
        members = tuple(
            Member(StoreIdentity(**part["identity"]), part["slot"], part["phase"]) for part in parts["members"]
        )
        return cls(**{**parts, "members": members, "dropping": tuple(parts["dropping"])})


def unfinished(member: Member) -> StoreForeignError:
    """What is said of memories that are still being built."""
    return StoreForeignError(
        f"the memories of artifact {member.id[:12]} are not complete",
        expected="an artifact whose memories were built to the end",
        fix="let `lifelong backfill` end, or start it again: it goes on where it stopped",
    )


def check_identity(place: str, known: StoreIdentity, wanted: StoreIdentity) -> None:
    """Refuse a store of another artifact.

    Args:
        place: the store, for the message.
        known: who wrote it.
        wanted: who wants to use it.

    Raises:
        StoreForeignError: they differ; says in what.
    """
    fix = "use the artifact that wrote the store, or build memories of this one beside its own: `lifelong backfill`"
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
            fix="name no codec to use the store's own, or build a new store",
        )
    if known != wanted:
        raise StoreForeignError(
            f"{place} holds memories of layout {known.layout}", expected=f"layout {wanted.layout}", fix=fix
        )


def slot_of(place: str, roster: Roster, wanted: StoreIdentity) -> int:
    """Where an artifact's memories stand.

    Args:
        place: the store, for the message.
        roster: of the store, not new.
        wanted: the artifact.

    Raises:
        StoreForeignError: it is no member, its codec or layout is another one, or its memories are not complete.
    """
    member = roster.find(wanted.artifact_id)
    if member is None:
        member = roster.served or roster.members[0]
    check_identity(place, member.identity, wanted)
    if not member.ready:
        raise unfinished(member)
    return member.slot
