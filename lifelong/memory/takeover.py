"""A new artifact takes over a store whose users go on: memories built beside the old ones, then served in their place.

    add ----> build: what is behind, from DATA and the event log ----> ready ----> switch <----> back ----> drop
              the store's writers fold new events into both             (one write, at any time)

The count in a memory says which events of a user are in it, so the memories that are behind are found by comparing two
counts, and what they lack is in the event log: nothing else has to be kept, and a build that was interrupted goes on
where it stopped. A built memory is written only if the served one is still the one that it was compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lifelong.artifact.folder import Artifact
from lifelong.errors import ArtifactError, MismatchError, StoreConflictError, StoreError, StoreForeignError
from lifelong.memory.roster import Member, Phase, Roster
from lifelong.memory.runtime import identity_with

if TYPE_CHECKING:
    from lifelong.memory.store import MemoryStore


def change(store: MemoryStore, make: Callable[[Roster], Roster]) -> Roster:
    """Change a store's list, whatever else changes it at the same time; the new list.

    Args:
        store: open for writing.
        make: the new list from the present one.
    """
    while True:
        before = store.roster()
        after = make(before)
        try:
            store.change_roster(before, after)
        except StoreConflictError:
            continue
        return after


def add(store: MemoryStore, artifact: Artifact, *, codec: str | None = None, phase: Phase = "building") -> Member:
    """Put an artifact on a store's list; one that is ready stays so.

    Args:
        store: that another artifact has claimed.
        artifact: of a model that is served.
        codec: of its memories; the artifact's own if None.
        phase: "building", or "behind" for one in shadow.

    Raises:
        StoreError: the store is new.
        MismatchError: the artifact counts time otherwise than the one that is served.
        StoreForeignError: it, or the one that is served, has a side of items.
        ArtifactError: the model cannot be served, and why.
    """
    known = store.roster().find(artifact.id)
    chosen = codec or (artifact.config.codec if known is None else known.identity.codec)
    identity = identity_with(artifact, chosen)
    if known is None:
        _check_items(artifact)
    _check_served(store.roster(), artifact)

    def with_it(roster: Roster) -> Roster:
        member = roster.find(artifact.id)
        if member is None:
            return roster.add(identity, phase)
        if member.identity != identity:
            raise StoreError(
                f"the store keeps memories of artifact {artifact.id[:12]} in codec {member.identity.codec}",
                expected=f"codec {chosen}",
                fix="name no codec, or drop them first: lifelong switch --drop",
            )
        if member.identity.path != identity.path:
            roster = roster.renew(identity)
        if member.phase == "behind" and phase == "building":
            roster = roster.turn(artifact.id, phase)
        return roster

    member = change(store, with_it).find(artifact.id)
    assert member is not None
    return member


def _check_items(artifact: Artifact) -> None:
    """Refuse a model with a side of items: the events of an item are one record of one artifact.

    Raises:
        StoreForeignError: it is one.
    """
    if artifact.config.items is not None:
        raise StoreForeignError(
            f"artifact {artifact.id[:12]}, {artifact.config.title}, keeps events of items beside memories of users",
            expected="artifacts that keep memories of users alone, where several share a store",
            fix="fill a new store with `lifelong backfill ARTIFACT DATA`, and start a service on it",
        )


def _check_served(roster: Roster, artifact: Artifact) -> None:
    served = roster.served
    if served is None:
        raise StoreError(
            "the store is new: there are no memories to take over",
            fix="fill it with `lifelong backfill ARTIFACT DATA` or `lifelong ingest`",
        )
    try:
        old = Artifact.open(served.identity.path, verify="sizes") if served.identity.path else None
    except ArtifactError:
        # Whoever serves it has it; here it would only have told the unit.
        return
    if old is not None:
        _check_items(old)
    if old is not None and old.config.dataset_schema.time_unit != artifact.config.dataset_schema.time_unit:
        raise MismatchError(
            f"artifact {artifact.id[:12]} takes times in {artifact.config.dataset_schema.time_unit}",
            expected=f"{old.config.dataset_schema.time_unit}, as the events of this store",
            fix="train on data whose times are counted so",
        )


def switch(store: MemoryStore, artifact_id: str) -> Roster:
    """Serve another member; its id, or how it begins.

    Raises:
        UsageError: it is none.
        StoreForeignError: its memories are not complete.
    """
    return change(store, lambda roster: roster.serve(artifact_id))


def back(store: MemoryStore) -> Roster:
    """Serve the artifact that was served before.

    Raises:
        UsageError: there was none.
    """
    return change(store, Roster.back)


def drop(store: MemoryStore, artifact_id: str) -> Roster:
    """Drop the memories of a member that is not served; its id, or how it begins.

    Raises:
        UsageError: it is none, or served.
    """
    change(store, lambda roster: roster.drop(artifact_id))
    return empty_dropped(store)


def empty_dropped(store: MemoryStore) -> Roster:
    """Bring to an end what an interrupted `drop` left."""
    roster = store.roster()
    for slot in roster.dropping:
        # First every writer must know that the slot is no one's.
        store.change_roster(roster, roster)
        store.clear(slot)
        roster = change(store, partial(Roster.emptied, slot=slot))
    return roster
