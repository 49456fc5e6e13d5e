"""Takeovers in a running service: builds in a thread of their own, switches and the way back without a pause."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lifelong.artifact.folder import Artifact
from lifelong.errors import ArtifactError, DataError, LifelongError, StoreForeignError, UsageError
from lifelong.memory import takeover
from lifelong.memory.builder import Builder
from lifelong.memory.folding import Folder
from lifelong.memory.members import open_member
from lifelong.serving.errors import RefusedError

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.memory.roster import Member, Roster
    from lifelong.serving.service import Service

T = TypeVar("T")
logger = logging.getLogger(__name__)
_SHARE = 1.0
"""Seconds of rest for each second of building, so that requests are answered meanwhile."""
_LOOK = 1.0
"""Seconds between two looks at a shared store's list."""


@dataclass(slots=True)
class Progress:
    """How far a build of this process is; see `MemberReply`."""

    built: int = 0
    looked: int = 0
    running: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class MemberState:
    """One artifact whose memories the store holds; see `MemberReply`."""

    id: str
    model: str | None
    path: str
    codec: str
    phase: str
    served: bool
    built: int
    looked: int
    running: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class MemberStates:
    """All of them; see `MembersReply`."""

    served: str
    previous: str | None
    artifacts: list[MemberState]


class Takeovers:
    """Adds, builds, switches and drops artifacts of a service's store.

    Args:
        service: whose artifact changes.
    """

    def __init__(self, service: Service) -> None:
        self.service, self.store = service, service.store
        self._progress: dict[str, Progress] = {}
        self._stop = threading.Event()
        self._steps = ThreadPoolExecutor(1, thread_name_prefix="lifelong-takeover")
        self._builds = ThreadPoolExecutor(1, thread_name_prefix="lifelong-build")
        self._looker = threading.Thread(target=self._look, name="lifelong-look", daemon=True)

    def start(self) -> None:
        """Go on with what an earlier process left, and follow the list of a shared store."""
        if self.store.shared:
            self._looker.start()
            return
        # Of a shared store another process may be building.
        takeover.empty_dropped(self.store)
        for member in self.store.roster().members:
            if member.phase == "building":
                self._builds.submit(self._build, self._open(member), None)

    def close(self) -> None:
        """Stop builds; they go on at the next start."""
        self._stop.set()
        self._steps.shutdown(wait=True)
        self._builds.shutdown(wait=True)
        if self._looker.is_alive():
            self._looker.join()

    async def add(self, path: Path, data: Path | None, codec: str | None) -> MemberStates:
        """Put an artifact on the list and build its memories in the background."""
        return await self._step(lambda: self._add(path, data, codec))

    async def switch(self, artifact: str | None) -> MemberStates:
        """Serve another artifact; None for the one before."""

        def step() -> MemberStates:
            if artifact is None:
                takeover.back(self.store)
            else:
                takeover.switch(self.store, artifact)
            self.service.refresh()
            return self.states()

        return await self._step(step)

    async def drop(self, artifact: str) -> MemberStates:
        """Drop the memories of an artifact that is not served."""

        def step() -> MemberStates:
            takeover.drop(self.store, artifact)
            self.service.refresh()
            return self.states()

        return await self._step(step)

    async def look(self) -> MemberStates:
        """Which artifacts there are, and how far their builds are."""
        return await self._step(self.states)

    def states(self) -> MemberStates:
        """The same, at once."""
        roster = self.store.roster()
        return MemberStates(
            roster.active, roster.previous or None, [self._state(one, roster) for one in roster.members]
        )

    def _state(self, member: Member, roster: Roster) -> MemberState:
        progress = self._progress.get(member.id, Progress())
        folder = self.service.updater.members.folder(member.id)
        return MemberState(
            id=member.id,
            model=None if folder is None else folder.artifact.config.model,
            path=member.identity.path,
            codec=member.identity.codec,
            phase=member.phase,
            served=member.id == roster.active,
            built=progress.built,
            looked=progress.looked,
            running=progress.running,
            error=progress.error,
        )

    def _add(self, path: Path, data: Path | None, codec: str | None) -> MemberStates:
        artifact, dataset = _opened(path), None
        if data is not None:
            from lifelong.data.dataset import Dataset

            dataset = Dataset(data)
        known = self.store.roster().find(artifact.id)
        chosen = codec or (artifact.config.codec if known is None else known.identity.codec)
        folder = Folder(artifact, chosen, self.store)
        # A dataset that does not fit is refused before anything is written.
        Builder(self.store, folder, dataset=dataset)
        self.service.updater.members.give(folder)
        takeover.add(self.store, artifact, codec=codec)
        self._progress[artifact.id] = Progress(running=True)
        self._builds.submit(self._build, folder, dataset)
        return self.states()

    def _open(self, member: Member) -> Folder:
        known = self.service.updater.members.folder(member.id)
        return known or Folder(open_member(member), member.identity.codec, self.store)

    def _build(self, folder: Folder, dataset: Dataset | None) -> None:
        """Build one artifact's memories, and note how it went."""
        progress = self._progress[folder.artifact.id] = Progress(running=True)

        def tell(looked: int, built: int) -> None:
            progress.looked, progress.built = looked, built

        try:
            builder = Builder(self.store, folder, dataset=dataset)
            report = builder.build(progress=tell, pause=lambda seconds: self._stop.wait(_SHARE * seconds))
            logger.info("the memories of artifact %s are complete: %s", folder.artifact.id[:12], report)
        except LifelongError as error:
            progress.error = str(error)
            logger.warning("the build of artifact %s has stopped: %s", folder.artifact.id[:12], error)
        except Exception as error:
            progress.error = f"{type(error).__name__}: {error}"
            logger.exception("the build of artifact %s has failed", folder.artifact.id[:12])
        finally:
            progress.running = False

    def _look(self) -> None:
        """Follow the list of a shared store, which other processes change."""
        while not self._stop.wait(_LOOK):
            try:
                self.service.refresh()
            except LifelongError as error:
                logger.error("the store's list of artifacts cannot be followed: %s", error)

    async def _step(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._steps, work)
        except (ArtifactError, DataError, StoreForeignError, UsageError) as error:
            # The service itself is well.
            raise RefusedError(error.found, expected=error.expected, fix=error.fix) from error


def _opened(path: Path) -> Artifact:
    try:
        return Artifact.open(path)
    except (OSError, ValueError) as error:
        # A name that no folder can have.
        raise ArtifactError(f"{str(path)[:100]!r} is no folder: {error}", expected="an artifact folder") from error
