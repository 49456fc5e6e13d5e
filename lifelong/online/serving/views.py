"""The artifacts of a store, which a request may look at instead of the one that is served."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from lifelong.artifact.folder import Artifact
from lifelong.errors import StoreForeignError, UsageError
from lifelong.online.memory.writer import OpenArtifacts
from lifelong.online.opening import open_stored
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.serving.errors import NotFoundError, RefusedError
from lifelong.online.store.artifact_list import StoredArtifact
from lifelong.online.store.contract import MemoryStore


@dataclass(frozen=True, slots=True)
class ListedArtifact:
    """One artifact that the store holds memories of."""

    id: str
    title: Annotated[str | None, Field(description="of its model; null where it is not open in this process")]
    phase: Annotated[str, Field(description="ready; building, or behind: its memories may lack events")]
    served: Annotated[bool, Field(description="whether it answers requests")]


class Views:
    """Opens the artifacts that requests look at, and keeps them open. Threads may share it.

    Args:
        store: bound to the served artifact.
        artifacts: those that are open for writing.
        base_rate: share of positives in production: of the first task, or task -> share.
    """

    store: MemoryStore
    artifacts: OpenArtifacts
    base_rate: float | Mapping[str, float] | None

    def __init__(
        self, store: MemoryStore, artifacts: OpenArtifacts, *, base_rate: float | Mapping[str, float] | None
    ) -> None:
        self.store, self.artifacts, self.base_rate = store, artifacts, base_rate
        self._lock = threading.Lock()
        self._scorers: dict[str, Scorer] = {}

    def listed(self) -> list[ListedArtifact]:
        """The artifacts of the store, in the order in which they came."""
        known = self.store.artifact_list()
        found = []
        for stored in known.artifacts:
            writer = self.artifacts.writer(stored.id)
            title = None if writer is None else writer.artifact.config.title
            found.append(ListedArtifact(stored.id, title, stored.phase, stored.id == known.active))
        return found

    def of(self, served: Scorer, artifact: str) -> Scorer:
        """The scorer of an artifact.

        Args:
            served: the scorer that answers requests.
            artifact: id of an artifact of the store, or its first characters.

        Raises:
            NotFoundError: the store holds no such artifact.
            RefusedError: the artifact cannot be opened.
        """
        try:
            stored = self.store.artifact_list().named(artifact)
        except UsageError as error:
            raise NotFoundError(error.found, expected=error.expected, fix="GET /v1/artifacts lists them") from error
        return served if stored.id == served.artifact.id else self._other(stored)

    def _other(self, stored: StoredArtifact) -> Scorer:
        # Two requests that ask for the same artifact at once must not both open it.
        with self._lock:
            self._forget_dropped()
            if stored.id not in self._scorers:
                artifact = self._artifact(stored)
                rate = self.base_rate
                if isinstance(rate, Mapping):
                    rate = {task: rate[task] for task in artifact.config.dataset_schema.tasks if task in rate}
                # Its memories may be behind, which the counts in the answers say.
                self._scorers[stored.id] = Scorer(artifact, self.store, base_rate=rate, complete=False)
            return self._scorers[stored.id]

    def _artifact(self, stored: StoredArtifact) -> Artifact:
        writer = self.artifacts.writer(stored.id)
        try:
            return open_stored(stored) if writer is None else writer.artifact
        except StoreForeignError as error:
            raise RefusedError(error.found, expected=error.expected, fix=error.fix) from error

    def _forget_dropped(self) -> None:
        """Let go of the artifacts that were dropped from the store, with their weights."""
        known = {stored.id for stored in self.store.artifact_list().artifacts}
        for gone in self._scorers.keys() - known:
            del self._scorers[gone]
