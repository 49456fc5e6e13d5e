"""The artifacts whose memories a store holds, opened: what a writer folds every event into.

The artifact that is served leads: counts, late events and the event log are told by its memories. The others follow in
the same commit where they hold as many events of a user; where they hold fewer, they are left to who builds them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.errors import ArtifactError, StoreConflictError, StoreForeignError
from lifelong.memory.folding import Folder
from lifelong.memory.roster import Member, Roster

if TYPE_CHECKING:
    from lifelong.memory.event_table import EventTable
    from lifelong.memory.plan import Plan
    from lifelong.memory.state import States
    from lifelong.memory.store import MemoryStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """Events that are folded in together.

    Args:
        users: whose they are.
        before: their memories of the artifact that leads.
        events: in their order.
        plan: theirs.
    """

    users: Sequence[str]
    before: States
    events: EventTable
    plan: Plan


@dataclass(frozen=True, slots=True)
class Beside:
    """What a group of events makes of the memories of the artifacts that follow; see `Commit`."""

    records: Mapping[tuple[int, str], bytes]
    based_on: Mapping[tuple[int, str], bytes | None]


class Members:
    """Opens them, and follows the store's list. Threads may share it.

    Args:
        store: bound to an artifact.
        given: artifacts that are open already; others are opened where the list says that they are.

    Raises:
        StoreForeignError: an artifact of the list cannot be opened.
    """

    def __init__(self, store: MemoryStore, given: Sequence[Folder]) -> None:
        self.store, self._lock = store, threading.Lock()
        self._folders = {folder.artifact.id: folder for folder in given}
        self.now = self._crew(store.roster())

    def follow(self) -> Crew:
        """The artifacts that the store's list names now.

        Raises:
            StoreForeignError: one of them cannot be opened.
        """
        roster = self.store.roster()
        with self._lock:
            if roster.epoch > self.now.roster.epoch:
                self.now = self._crew(roster)
            return self.now

    def give(self, folder: Folder) -> None:
        """Take an artifact that is open already, so that writers do not wait for it when the list names it."""
        self._folders[folder.artifact.id] = folder

    def folder(self, artifact_id: str) -> Folder | None:
        """An artifact that is open, None if it is not."""
        return self._folders.get(artifact_id)

    def _crew(self, roster: Roster) -> Crew:
        served = roster.served
        if served is None:
            raise StoreForeignError("the store is new", expected="one that an artifact has claimed")
        others = [member for member in roster.members if member != served and member.phase != "behind"]
        folders = [self._open(member) for member in others]
        return Crew(self.store, roster, self._open(served), served.slot, others, folders)

    def _open(self, member: Member) -> Folder:
        folder = self._folders.get(member.id)
        if folder is None or folder.runtime.codec.name != member.identity.codec:
            folder = self._folders[member.id] = Folder(open_member(member), member.identity.codec, self.store)
        return folder


@dataclass(frozen=True, slots=True)
class Crew:
    """All artifacts of one epoch.

    Args:
        store: theirs.
        roster: of the epoch.
        leader: the artifact that is served.
        slot: of its memories.
        members: those that follow.
        followers: the same, opened.
    """

    store: MemoryStore
    roster: Roster
    leader: Folder
    slot: int
    members: Sequence[Member]
    followers: Sequence[Folder]

    @property
    def slots(self) -> list[int]:
        """Of the memories of those that follow."""
        return [member.slot for member in self.members]

    def fold(self, group: Group, read: Sequence[Sequence[bytes | None]]) -> Beside:
        """Fold a group of events into the memories of those that follow.

        Args:
            group: the events.
            read: per artifact that follows the memories of the users.
        """
        if not self.members:
            return Beside({}, {})
        records: dict[tuple[int, str], bytes] = {}
        based_on: dict[tuple[int, str], bytes | None] = {}
        touched = [(place, group.users[place]) for place in np.unique(group.plan.user_N).tolist()]
        for member, folder, found in zip(self.members, self.followers, read, strict=True):
            based_on.update({(member.slot, user): found[place] for place, user in touched})
            try:
                folded = _fold(folder, group, found)
            except Exception as error:
                # Whatever is wrong with it, the artifact that is served goes on.
                self._leave_behind(member, error)
            else:
                records.update({(member.slot, user): record for user, record in folded.items()})
        return Beside(records, based_on)

    def _leave_behind(self, member: Member, error: Exception) -> None:
        """An artifact that fails keeps no events from the one that is served: it has to be built again."""
        logger.error("artifact %s cannot keep up, and is left behind: %s", member.id[:12], error)
        try:
            self.store.change_roster(self.roster, self.roster.turn(member.id, "behind"))
        except StoreConflictError:
            # Of an older epoch; so is the commit, and both are made again.
            logger.info("the list of artifacts has changed in between")


def _fold(folder: Folder, group: Group, found: Sequence[bytes | None]) -> dict[str, bytes]:
    """The memories of one artifact after a group of events, of the users of whom it holds as many as the leader."""
    states = folder.runtime.decode(found)
    even_U = states.count_B == group.before.count_B
    place_N = np.flatnonzero(even_U[group.plan.user_N])
    if not len(place_N):
        return {}
    plan = group.plan.take(place_N)
    after, _ = folder.fold(states, plan, folder.numbers(_known(folder, group.events.take(place_N)), plan)[0])
    touched = np.unique(plan.user_N)
    names = [group.users[place] for place in touched.tolist()]
    return dict(zip(names, folder.runtime.encode(after.take(touched)), strict=True))


def _known(folder: Folder, events: EventTable) -> EventTable:
    """Events without the item fields that an artifact does not have."""
    if events.fields is None:
        return events
    known = folder.artifact.catalogue.only_known
    return replace(events, fields=[fields and known(fields) for fields in events.fields])


def open_member(member: Member) -> Artifact:
    """The artifact of a member, from where it was.

    Raises:
        StoreForeignError: it is not there.
    """
    try:
        found = Artifact.open(Path(member.identity.path)) if member.identity.path else None
    except ArtifactError as error:
        raise _lost(member, error.found) from error
    if found is None or found.id != member.id:
        raise _lost(member, f"there is another one in {member.identity.path}" if found else "its folder is not known")
    return found


def _lost(member: Member, why: str) -> StoreForeignError:
    return StoreForeignError(
        f"the store also holds memories of artifact {member.id[:12]}, which cannot be opened: {why}",
        expected="every artifact whose memories are kept up to date",
        fix=f"put it back, or drop its memories: lifelong switch --drop {member.id[:12]}",
    )
