"""Takeovers in a running service: memories are built in a thread of their own, and a switch interrupts nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import ConfigDict, Field, with_config

from lifelong.artifact.folder import Artifact
from lifelong.background import Background
from lifelong.errors import ArtifactError, DataError, LifelongError, StoreForeignError, UsageError
from lifelong.memory import takeover
from lifelong.memory.artifacts import open_stored
from lifelong.memory.rebuild import Rebuild
from lifelong.memory.writer import MemoryWriter
from lifelong.serving.errors import RefusedError

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.serving.service import Service
    from lifelong.store.artifact_list import ArtifactList, StoredArtifact
    from lifelong.store.contract import MemoryStore

T = TypeVar("T")
logger: logging.Logger = logging.getLogger(__name__)
_SHARE = 1.0
"""Seconds to sleep for each second of building, so that requests are answered meanwhile."""
_LOOK = 1.0
"""Seconds between two reads of a shared store's list."""


@dataclass(slots=True)
class Progress:
    """How far a build in this process is; see `ArtifactState`."""

    built: int = 0
    looked: int = 0
    running: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ArtifactState:
    """One artifact that the store holds memories of."""

    id: str
    model: Annotated[str | None, Field(description="null where it is not open in this process")]
    path: str
    codec: str
    phase: Annotated[str, Field(description="ready: can be served; building; behind: it failed on an event")]
    served: bool
    built: Annotated[int, Field(description="users built by this process")]
    looked: Annotated[int, Field(description="users looked at in this pass of its build")]
    running: Annotated[bool, Field(description="whether this process is building it")]
    error: Annotated[str | None, Field(description="why its build has stopped")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class ArtifactStates:
    """All artifacts that the store holds memories of."""

    served: Annotated[str, Field(description="id of the artifact that answers requests")]
    previous: Annotated[str | None, Field(description="the way back")]
    artifacts: list[ArtifactState]


class Takeovers:
    """Adds, builds, switches and drops artifacts of a service's store.

    Args:
        service: the service to switch.
    """

    service: Service
    store: MemoryStore

    def __init__(self, service: Service) -> None:
        self.service, self.store = service, service.store
        self._progress: dict[str, Progress] = {}
        self._steps = ThreadPoolExecutor(1, thread_name_prefix="lifelong-takeover")
        self._builds = ThreadPoolExecutor(1, thread_name_prefix="lifelong-build")
        self._looker = Background(self._look, name="look", failure="the store's list of artifacts cannot be followed")

    def start(self) -> None:
        """Continue what an earlier process left unfinished, and follow the list of a shared store."""
        if self.store.shared:
            self._looker.start()
            return
        # Not for a shared store, where another process may be building.
        takeover.empty_dropped(self.store)
        for stored in self.store.artifact_list().artifacts:
            if stored.phase == "building":
                self._builds.submit(self._build, self._open(stored), None)

    def close(self) -> None:
        """Stop builds; they continue at the next start."""
        self._looker.close()
        self._steps.shutdown(wait=True)
        self._builds.shutdown(wait=True)

    async def add(self, path: Path, data: Path | None, codec: str | None) -> ArtifactStates:
        """Put an artifact on the list and build its memories in the background."""
        return await self._step(lambda: self._add(path, data, codec))

    async def switch(self, artifact: str | None) -> ArtifactStates:
        """Serve another artifact; None for the one before."""

        def step() -> ArtifactStates:
            if artifact is None:
                takeover.back(self.store)
            else:
                takeover.switch(self.store, artifact)
            self.service.refresh()
            return self.states()

        return await self._step(step)

    async def drop(self, artifact: str) -> ArtifactStates:
        """Drop the memories of an artifact that is not served."""

        def step() -> ArtifactStates:
            takeover.drop(self.store, artifact)
            self.service.refresh()
            return self.states()

        return await self._step(step)

    async def look(self) -> ArtifactStates:
        """Which artifacts there are, and how far their builds are; after the steps that wait."""
        return await self._step(self.states)

    def states(self) -> ArtifactStates:
        """Which artifacts there are, and how far their builds are."""
        artifact_list = self.store.artifact_list()
        return ArtifactStates(
            artifact_list.active,
            artifact_list.previous or None,
            [self._state(one, artifact_list) for one in artifact_list.artifacts],
        )

    def _state(self, stored: StoredArtifact, artifact_list: ArtifactList) -> ArtifactState:
        progress = self._progress.get(stored.id, Progress())
        writer = self.service.updater.artifacts.writer(stored.id)
        return ArtifactState(
            id=stored.id,
            model=None if writer is None else writer.artifact.config.model,
            path=stored.identity.path,
            codec=stored.identity.codec,
            phase=stored.phase,
            served=stored.id == artifact_list.active,
            built=progress.built,
            looked=progress.looked,
            running=progress.running,
            error=progress.error,
        )

    def _add(self, path: Path, data: Path | None, codec: str | None) -> ArtifactStates:
        artifact, dataset = _opened(path), None
        if data is not None:
            from lifelong.data.dataset import Dataset

            dataset = Dataset(data)
        known = self.store.artifact_list().find(artifact.id)
        chosen = codec or (artifact.config.codec if known is None else known.identity.codec)
        writer = MemoryWriter(artifact, chosen, self.store)
        # A dataset that does not fit is refused before anything is written.
        Rebuild(self.store, writer, dataset=dataset)
        self.service.give(writer)
        takeover.add(self.store, artifact, codec=codec)
        self._progress[artifact.id] = Progress(running=True)
        self._builds.submit(self._build, writer, dataset)
        return self.states()

    def _open(self, stored: StoredArtifact) -> MemoryWriter:
        known = self.service.updater.artifacts.writer(stored.id)
        return known or MemoryWriter(open_stored(stored), stored.identity.codec, self.store)

    def _build(self, writer: MemoryWriter, dataset: Dataset | None) -> None:
        """Build one artifact's memories, and note how it went."""
        progress = self._progress[writer.artifact.id] = Progress(running=True)

        def tell(looked: int, built: int) -> None:
            progress.looked, progress.built = looked, built

        try:
            rebuild = Rebuild(self.store, writer, dataset=dataset)
            report = rebuild.build(progress=tell, pause=lambda seconds: self._looker.rest(_SHARE * seconds))
            logger.info("the memories of artifact %s are complete: %s", writer.artifact.id[:12], report)
        except LifelongError as error:
            progress.error = str(error)
            logger.warning("the build of artifact %s has stopped: %s", writer.artifact.id[:12], error)
        except Exception as error:
            progress.error = f"{type(error).__name__}: {error}"
            logger.exception("the build of artifact %s has failed", writer.artifact.id[:12])
        finally:
            progress.running = False

    def _look(self) -> float:
        """Follow the list of a shared store, which other processes change."""
        self.service.refresh()
        return _LOOK

    async def _step(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._steps, work)
        except (ArtifactError, DataError, StoreForeignError, UsageError) as error:
            # The request cannot be fulfilled; nothing is wrong with the service.
            raise RefusedError(error.found, expected=error.expected, fix=error.fix) from error


def _opened(path: Path) -> Artifact:
    try:
        return Artifact.open(path)
    except (OSError, ValueError) as error:
        # No folder can have such a name.
        raise ArtifactError(
            f"{str(path)[:100]!r} is not a folder: {error}",
            expected="an artifact folder",
            fix="give the path that the folder has on the service's machine",
        ) from error
