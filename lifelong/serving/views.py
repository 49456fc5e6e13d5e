"""What a request may look at instead of the served artifact's memories of now: another artifact, an earlier moment."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from lifelong.artifact.folder import Artifact
from lifelong.data.dataset import Dataset
from lifelong.errors import MismatchError, StoreForeignError, UsageError
from lifelong.memory.artifacts import OpenArtifacts, open_stored
from lifelong.memory.replaying import Replayer
from lifelong.memory.writer import MemoryWriter
from lifelong.scoring.earlier import earlier
from lifelong.scoring.scorer import Scorer
from lifelong.serving.errors import NotFoundError, RefusedError
from lifelong.store.artifact_list import StoredArtifact
from lifelong.store.contract import MemoryStore


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at.

    Args:
        artifact: id of an artifact that the store holds memories of, or its first characters; None for the served one.
        after_events: the memory after so many of the user's first events; None for all of them.
    """

    artifact: str | None = None
    after_events: int | None = None


SERVED = View()


@dataclass(frozen=True, slots=True)
class ListedArtifact:
    """One artifact that the store holds memories of."""

    id: str
    title: Annotated[str | None, Field(description="of its model; null where it is not open in this process")]
    phase: Annotated[str, Field(description="ready; building, or behind: its memories may lack events")]
    served: Annotated[bool, Field(description="whether it answers requests")]


class Views:
    """Opens what requests look at, and keeps it open. Threads may share it.

    Args:
        store: bound to the served artifact.
        artifacts: those that are open for writing.
        dataset: each user's first events, where the log lacks them.
        base_rate: share of positives in production: of the first task, or task -> share.
    """

    store: MemoryStore
    artifacts: OpenArtifacts
    dataset: Dataset | None
    base_rate: float | Mapping[str, float] | None

    def __init__(
        self,
        store: MemoryStore,
        artifacts: OpenArtifacts,
        *,
        dataset: Dataset | None,
        base_rate: float | Mapping[str, float] | None,
    ) -> None:
        self.store, self.artifacts, self.dataset, self.base_rate = store, artifacts, dataset, base_rate
        self._lock = threading.Lock()
        self._scorers: dict[str, Scorer] = {}
        self._replayers: dict[str, Replayer] = {}

    def listed(self) -> list[ListedArtifact]:
        """The artifacts of the store, in the order in which they came."""
        known = self.store.artifact_list()
        found = []
        for stored in known.artifacts:
            writer = self.artifacts.writer(stored.id)
            title = None if writer is None else writer.artifact.config.title
            found.append(ListedArtifact(stored.id, title, stored.phase, stored.id == known.active))
        return found

    def of(self, served: Scorer, view: View) -> Scorer:
        """The scorer of a view.

        Raises:
            NotFoundError: the store holds no such artifact.
            RefusedError: the artifact cannot be opened.
            MomentError: too many events would have to be folded again.
        """
        scorer = served
        if view.artifact is not None:
            try:
                stored = self.store.artifact_list().named(view.artifact)
            except UsageError as error:
                raise NotFoundError(error.found, expected=error.expected, fix="GET /v1/artifacts lists them") from error
            scorer = served if stored.id == served.artifact.id else self._other(stored)
        return (
            scorer if view.after_events is None else earlier(scorer, view.after_events, replayer=self._replayer(scorer))
        )

    def _other(self, stored: StoredArtifact) -> Scorer:
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
        for kept in (self._scorers, self._replayers):
            for gone in kept.keys() - known:
                del kept[gone]

    def writer(self, scorer: Scorer) -> MemoryWriter:
        """Folds events into memories of a scorer's artifact."""
        return self._replayer(scorer).writer

    def _replayer(self, scorer: Scorer) -> Replayer:
        with self._lock:
            if scorer.artifact.id not in self._replayers:
                self._replayers[scorer.artifact.id] = self._made(scorer)
            return self._replayers[scorer.artifact.id]

    def _made(self, scorer: Scorer) -> Replayer:
        codec, writer = scorer.identity.codec, self.artifacts.writer(scorer.artifact.id)
        if writer is None or writer.runtime.codec.name != codec:
            writer = MemoryWriter(scorer.artifact, codec, self.store)
        try:
            return Replayer(self.store, writer, self.dataset)
        except MismatchError:
            # The dataset is that of another artifact: the log alone may do.
            return Replayer(self.store, writer)
