"""A new artifact takes over a store while events come in: its memories are built, then served in place of the old ones.

    add ----> build: what is behind, from DATA and the event log ----> ready ----> switch <----> back ----> drop
              the store's writers fold new events into both             (one write, at any time)

The count in a memory says which events of a user are in it, so the memories that are behind are found by comparing two
counts, and what they lack is in the event log: nothing else has to be kept, and a build that was interrupted continues
where it stopped. A built memory is written only if the served one is still the one that it was compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lifelong.artifact.folder import Artifact
from lifelong.errors import ArtifactError, MismatchError, StoreForeignError
from lifelong.online.memory.runtime import identity_of
from lifelong.online.store.artifact_list import ArtifactList, StoredArtifact
from lifelong.online.store.contract import MemoryStore, until_kept


def change(store: MemoryStore, make: Callable[[ArtifactList], ArtifactList]) -> ArtifactList:
    """Change a store's artifact list, whatever else changes it at the same time; the new list.

    Args:
        store: open for writing.
        make: gives the new list from the present one.
    """

    def attempt(refused: frozenset[str] | None) -> ArtifactList:
        before = store.artifact_list()
        after = make(before)
        store.change_artifact_list(before, after)
        return after

    return until_kept(attempt, "the store's list of artifacts changes again and again", fix="try again")


def add(store: MemoryStore, artifact: Artifact, *, codec: str | None = None) -> StoredArtifact:
    """Put an artifact on a store's list; one that is ready stays so.

    Args:
        store: that another artifact has claimed.
        artifact: of a model that is served.
        codec: of its memories; the artifact's own if None.

    Raises:
        StoreError: the store is new.
        StoreForeignError: it keeps memories of this artifact in another codec.
        MismatchError: the artifact counts time in another unit than the one that is served.
        ArtifactError: the model cannot be served, and why.
    """
    listed = store.artifact_list().find(artifact.id)
    chosen = codec or (artifact.config.codec if listed is None else listed.identity.codec)
    identity = identity_of(artifact, store, chosen)
    _check_served(store.artifact_list(), artifact)

    def with_it(artifact_list: ArtifactList) -> ArtifactList:
        stored = artifact_list.find(artifact.id)
        if stored is None:
            return artifact_list.add(identity)
        if stored.identity != identity:
            raise StoreForeignError(
                f"the store keeps memories of artifact {artifact.id[:12]} in codec {stored.identity.codec}",
                expected=f"codec {chosen}",
                fix="leave out the codec, or drop them first: lifelong switch --drop",
            )
        if stored.identity.path != identity.path:
            artifact_list = artifact_list.renew(identity)
        if stored.phase == "behind":
            artifact_list = artifact_list.turn(artifact.id, "building")
        return artifact_list

    stored = change(store, with_it).find(artifact.id)
    assert stored is not None
    return stored


def _check_served(artifact_list: ArtifactList, artifact: Artifact) -> None:
    served = artifact_list.require_served()
    try:
        old = Artifact.open(served.identity.path, verify="sizes") if served.identity.path else None
    except ArtifactError:
        # The process that serves it has it; here it was only wanted for the unit.
        return
    if old is not None and old.config.dataset_schema.time_unit != artifact.config.dataset_schema.time_unit:
        raise MismatchError(
            f"artifact {artifact.id[:12]} takes times in {artifact.config.dataset_schema.time_unit}",
            expected=f"{old.config.dataset_schema.time_unit}, as the events of this store",
            fix="train on data with such times",
        )


def switch(store: MemoryStore, artifact_id: str) -> ArtifactList:
    """Serve another artifact, named by its id or the beginning of it.

    Raises:
        UsageError: the list has no such artifact.
        StoreForeignError: its memories are not complete.
    """
    return change(store, lambda artifact_list: artifact_list.serve(artifact_id))


def back(store: MemoryStore) -> ArtifactList:
    """Serve the artifact that was served before.

    Raises:
        UsageError: there was none.
    """
    return change(store, ArtifactList.back)


def drop(store: MemoryStore, artifact_id: str) -> ArtifactList:
    """Drop the memories of an artifact that is not served, named by its id or the beginning of it.

    Raises:
        UsageError: the list has no such artifact, or it is served.
    """
    change(store, lambda artifact_list: artifact_list.drop(artifact_id))
    return empty_dropped(store)


def empty_dropped(store: MemoryStore) -> ArtifactList:
    """Empty the spaces of artifacts that were dropped; finishes what an interrupted `drop` left."""
    artifact_list = store.artifact_list()
    for space in artifact_list.dropping:
        # First every writer must know that the space belongs to no artifact any more.
        store.change_artifact_list(artifact_list, artifact_list)
        # In steps that can be repeated: an interruption leaves the space on the list.
        store.clear(space)
        artifact_list = change(store, partial(ArtifactList.emptied, space=space))
    return artifact_list
