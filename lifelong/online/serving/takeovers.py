"""Takeovers in a running service: memories are built in a thread of their own, and a switch interrupts nothing."""

from __future__ import annotations

import asyncio
import logging
import time as clock
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import ConfigDict, Field, with_config

from lifelong.artifact.folder import Artifact
from lifelong.errors import (
    ArtifactError,
    DataError,
    LifelongError,
    StoreForeignError,
    StoreUnavailableError,
    UsageError,
)
from lifelong.online.background import Background, Patience, may_pass
from lifelong.online.memory import takeover
from lifelong.online.memory.rebuild import Rebuild
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.opening import open_stored
from lifelong.online.serving.errors import DeadlineError, RefusedError

if TYPE_CHECKING:
    from lifelong.dataset.folder import Dataset
    from lifelong.online.serving.service import Service
    from lifelong.online.store.artifact_list import ArtifactList, StoredArtifact
    from lifelong.online.store.contract import MemoryStore

T = TypeVar("T")
logger: logging.Logger = logging.getLogger(__name__)
_SHARE = 1.0
"""Seconds to sleep for each second of building, so that requests are answered meanwhile."""
_START_SECONDS = 30.0
"""Seconds for which a process that starts waits for a store that does not answer."""
# A worker serves the earlier artifact for about this long after a switch by another one.
_LOOK = 1.0
"""Seconds between two reads of a shared store's list."""
SWITCH_SECONDS, _STEP = 10.0, 0.02
"""Seconds that a switch waits for the other workers, and seconds between two looks at what they serve."""
_IDLE = 3600.0
"""Seconds between two looks for something to build, unless somebody asks for it."""


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
    error: Annotated[str | None, Field(description="why its build has stopped; while it runs, why it waits")]


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
        self._dataset_of: dict[str, Dataset | None] = {}
        # On a shared store another process may empty what was dropped.
        self._unemptied = not self.store.shared
        # One thread: add, switch and drop each read the list and then change it, and must not interleave.
        self._steps = ThreadPoolExecutor(1, thread_name_prefix="lifelong-takeover")
        self._looker = Background(self._look, name="look", failure="the store's list of artifacts cannot be followed")
        self._builder = Background(self._build_all, name="build", failure="memories of another artifact are not built")

    def start(self) -> None:
        """Continue what an earlier process left unfinished, and follow the list of a shared store."""
        if self.store.shared:
            # Before the first request: a switch waits only for processes that served already. A worker that fails while
            # it starts ends the whole service, so one that starts while the store's writer is replaced waits for it.
            Patience(_START_SECONDS)(self.service.refresh)
            self._looker.start()
        self._builder.start()

    def close(self) -> None:
        """Stop builds; they continue at the next start."""
        self._looker.close()
        self._builder.close()
        # Last: a build that still runs may hand a step over, and waits for it.
        self._steps.shutdown(wait=True)

    async def add(self, path: Path, data: Path | None, codec: str | None) -> ArtifactStates:
        """Put an artifact on the list and build its memories in the background."""
        return await self._step(lambda: self._add(path, data, codec))

    async def switch(self, artifact: str | None) -> ArtifactStates:
        """Serve another artifact; None for the one before."""

        def step() -> ArtifactStates:
            if artifact is None:
                takeover.back(self.store)
            else:
                # The store first: if this process ends before it serves the artifact, the next start finds the new one
                # on the list.
                takeover.switch(self.store, artifact)
            self.service.refresh()
            self._wait_for_others()
            return self.states()

        return await self._step(step)

    def _wait_for_others(self) -> None:
        """Wait until every worker of this service answers with the artifact that this one serves.

        Raises:
            DeadlineError: one does not yet.
        """
        # The id is cut as in the label of the figure that it is compared with.
        until, served = clock.monotonic() + SWITCH_SECONDS, self.service.artifact.id[:12]
        while (together := self.service.metrics.together) is not None:
            served_by = together.elsewhere("lifelong_build_info")
            if not (behind := sorted(pid for pid, labels in served_by.items() if labels["artifact"] != served)):
                return
            if clock.monotonic() > until:
                raise DeadlineError(
                    f"artifact {served} is served, but not yet by the worker{'s' * (len(behind) > 1)} with process id "
                    + ", ".join(map(str, behind)),
                    expected=f"all workers within {SWITCH_SECONDS:g} seconds",
                    fix="one that does not answer follows when it does, or is replaced after half a minute; one that"
                    " answers says in the log why it does not follow",
                )
            # What the other workers serve is in files that they write, which nobody announces.
            clock.sleep(_STEP)

    async def drop(self, artifact: str) -> ArtifactStates:
        """Drop the memories of an artifact that is not served."""

        def step() -> ArtifactStates:
            try:
                takeover.drop(self.store, artifact)
            except StoreUnavailableError:
                # It may be off the list already: then nobody could drop it again.
                self._unemptied = True
                raise
            finally:
                self._builder.wake()
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
            [self._state(stored, artifact_list) for stored in artifact_list.artifacts],
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
            **asdict(progress),
        )

    def _add(self, path: Path, data: Path | None, codec: str | None) -> ArtifactStates:
        artifact, dataset = _opened(path), None
        if data is not None:
            from lifelong.dataset.folder import Dataset

            dataset = Dataset(data)
        listed = self.store.artifact_list().find(artifact.id)
        chosen = codec or (artifact.config.codec if listed is None else listed.identity.codec)
        writer = MemoryWriter(artifact, chosen, self.store)
        # A dataset that does not fit is refused before anything is written.
        Rebuild(self.store, writer, dataset=dataset)
        # Before it is on the list: from then on every write needs the opened artifact, and opening it would hold writes
        # up.
        self.service.give(writer)
        takeover.add(self.store, artifact, codec=codec)
        # Before the builder wakes, which would build without the dataset that was given.
        self._progress[artifact.id], self._dataset_of[artifact.id] = Progress(running=True), dataset
        self._builder.wake()
        return self.states()

    def _open(self, stored: StoredArtifact) -> MemoryWriter:
        # The updater's own writer, if it has one: a second copy would double the artifact's RAM.
        opened = self.service.updater.artifacts.writer(stored.id)
        return opened or MemoryWriter(open_stored(stored), stored.identity.codec, self.store)

    def _build_all(self) -> float:
        """Empty what was dropped, and build what is to be built, until neither is left."""
        # Where nobody else writes, nobody else would see that the store has to be brought back.
        with self.service.noted():
            while True:
                if self._unemptied:
                    # In turn with the steps: two must not empty the same space.
                    self._steps.submit(self._empty).result()
                if (stored := self._next()) is None:
                    return _IDLE
                self._build(stored)

    def _empty(self) -> None:
        takeover.empty_dropped(self.store)
        self._unemptied = False

    def _next(self) -> StoredArtifact | None:
        """The next artifact to build; on a shared store others may build what this process was not asked for.

        Raises:
            LifelongError: there is none, and one has stopped, until it is asked for again or dropped.
        """
        stopped: LifelongError | None = None
        for stored in self.store.artifact_list().artifacts:
            progress = self._progress.setdefault(stored.id, Progress(running=not self.store.shared))
            if stored.phase != "building":
                # Nothing is to be done, though it was asked for again.
                progress.running = False
            elif progress.running:
                return stored
            elif progress.error is not None:
                stopped = LifelongError(
                    f"the build of artifact {stored.id[:12]} has stopped: {progress.error}",
                    fix="fix the cause, and start it again by `lifelong backfill`; or drop the artifact",
                )
        if stopped is not None:
            raise stopped
        return None

    def _build(self, stored: StoredArtifact) -> None:
        """Build one artifact's memories, and note how it goes.

        Raises:
            Exception: it failed, and may succeed later.
        """
        progress = self._progress[stored.id]
        progress.built = progress.looked = 0

        def tell(looked: int, built: int) -> None:
            # Only a user who was built shows that the cause of an earlier error has gone; looking at users does not.
            if built > progress.built:
                self._builder.works()
                progress.error = None
            # Each pass begins again with the first user.
            self.service.metrics.built.inc(looked - progress.looked if looked > progress.looked else looked)
            progress.looked, progress.built = looked, built

        try:
            rebuild = Rebuild(self.store, self._open(stored), dataset=self._dataset_of.get(stored.id))
            # The rest is in proportion to the work, so that a slow model leaves requests the same share of the time as
            # a fast one.
            report = rebuild.build(progress=tell, pause=lambda seconds: self._builder.rest(_SHARE * seconds))
        except Exception as error:
            progress.error = str(error)
            # The background tries again after what can pass, such as a store that is away. Anything else would fail the
            # same way every time.
            if may_pass(error):
                raise
            progress.running = False
        else:
            progress.running, progress.error = False, None
            # The dataset is needed no more, and may hold mapped files open.
            self._dataset_of.pop(stored.id, None)
            logger.info("the memories of artifact %s are complete: %s", stored.id[:12], report)

    def unbuilt(self) -> int:
        """How many artifacts are not complete yet that this service has to build."""
        elsewhere = self.store.shared and self.service.writer is None
        artifacts = self.store.artifact_list().artifacts
        return sum(
            stored.phase == "building" and (stored.id in self._dataset_of or not elsewhere) for stored in artifacts
        )

    def _look(self) -> float:
        """Follow the list of a shared store, which other processes change."""
        self.service.refresh()
        return _LOOK

    async def _step(self, work: Callable[[], T]) -> T:
        try:
            with self.service.noted():
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
