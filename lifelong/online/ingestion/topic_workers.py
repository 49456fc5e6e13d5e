"""A topic into a store of shards, by several processes.

    topic --all messages--> worker 0   the events of its shards' users, one commit --> shards 0, 2 ..
          `-all messages--> worker 1   the events of its shards' users, one commit --> shards 1, 3 ..

Each worker is a `Stream` for some of the users, and each shard keeps its own position in each partition: see
`lifelong.online.ingestion.workers`.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection

from lifelong.artifact.folder import Artifact
from lifelong.online.ingestion.dead_letters import DeadLetters
from lifelong.online.ingestion.kafka import MOST, Followed, Place, Stream, StreamSettings
from lifelong.online.ingestion.kafka_client import KafkaAddress
from lifelong.online.ingestion.workers import Part, Worker, outcomes, running
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.runtime import identity_of
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.part import Share
from lifelong.online.store.sharded import ShardedStore

_SIGNALLED = 2.0
"""Seconds in which a signal to all processes has reached each of them."""


@dataclass(frozen=True, slots=True)
class TopicJob:
    """What is followed, and how.

    Args:
        address: of the topic.
        settings: see `StreamSettings`.
        late: see `Updater`.
        codec: see `Updater`.
        backfilled: see `Updater`.
    """

    address: KafkaAddress
    settings: StreamSettings
    late: str = "apply"
    codec: str | None = None
    backfilled: str = "skip"

    def stream(
        self, artifact: Artifact, store: MemoryStore, letters: DeadLetters | None, share: Share | None = None
    ) -> Stream:
        """Follows the topic in this process, for the users of some shards or for all users."""
        updater = Updater(artifact, store, late=self.late, codec=self.codec, backfilled=self.backfilled)
        schema, settings = artifact.config.dataset_schema, self.settings
        if share is not None:
            # A worker reads more for as many events in a commit.
            settings = replace(settings, batch=min(settings.batch * share.of // len(share.numbers), MOST))
        apply = updater.apply_table
        return Stream(self.address, store, apply, schema, settings=settings, letters=letters, share=share)

    def run(self, part: Part) -> Followed:
        """Follow it in a worker until the parent ends it; a `Job`."""
        if not part.share.first:
            # What goes on between a client and its brokers is logged once.
            logging.getLogger("lifelong").setLevel(logging.ERROR)
        stream = self.stream(part.artifact, part.store, part.letters, part.share)
        signal.signal(signal.SIGTERM, lambda *_: stream.stop())
        return stream.run(part.report)


class StreamWorkers:
    """Follows a topic in several processes, as `Stream` does in one.

    Args:
        artifact: of a memory model.
        store: open for writing, of the artifact alone; it does not answer while the topic is followed.
        job: what is followed.
        workers: how many, from 2 up to the number of shards.
        letters: where messages that were left out are kept; not closed here.

    Raises:
        MissingExtraError: the package is not installed.
        UsageError: the settings map a column that does not exist.
    """

    address: KafkaAddress

    def __init__(
        self, artifact: Artifact, store: ShardedStore, job: TopicJob, workers: int, letters: DeadLetters | None
    ) -> None:
        self._artifact, self._store, self._job, self._letters = artifact, store, job, letters
        self.address, self._number = job.address, workers
        schema = artifact.config.dataset_schema
        self._whole = Stream(job.address, store, _apply_nothing, schema, settings=job.settings)
        self._workers: list[Worker] = []
        self._reports: dict[Connection, Followed] = {}
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End `run` after the current batches; may be called from any thread or a signal handler."""
        self._stopping.set()
        self._whole.stop()
        for worker in self._workers:
            worker.terminate()

    def report(self) -> Followed:
        """What became of the messages so far; may be called from any thread."""
        return self._of_all(list(self._reports.values()))

    def run(self, progress: Callable[[Followed], None] | None = None) -> Followed:
        """Follow the topic until `stop`, or until every worker was idle for long enough.

        Args:
            progress: see `Stream.run`.

        Raises:
            LifelongError: see `Stream.run`.
            LostProcessError: a worker was killed, or stopped by somebody else; another run continues where each shard
                stopped.
        """
        self._store.bind(identity_of(self._artifact, self._store, self._job.codec))
        # Where the topic is read from is decided once: each worker would find another end of a growing topic.
        self._whole.begin()
        job = replace(self._job, address=replace(self.address, start="beginning"))

        def note(pipe: Connection, report: Followed) -> None:
            self._reports[pipe] = report
            if progress is not None:
                progress(self.report())

        with running(self._artifact, self._store, job.run, self._number, letters=self._letters is not None) as pipes:
            self._workers = list(pipes.values())
            if self._stopping.is_set():
                self.stop()
            # A signal to all processes may reach a worker first.
            asked, endless = partial(self._stopping.wait, _SIGNALLED), self._job.settings.idle is None
            ended = outcomes(pipes, note, self._letters, stopping=asked, endless=endless)
        return self._of_all(ended)

    def _of_all(self, reports: Sequence[Followed]) -> Followed:
        found = together(reports)
        # Where a worker has said nothing yet, it is not known how far its shards are.
        return found if len(reports) == self._number else replace(found, places={})


def together(reports: Sequence[Followed]) -> Followed:
    """What became of the messages in several workers that all read the same ones.

    Example:
        >>> one = Followed(Applied(applied=3), places={0: Place(7, 0)})
        >>> other = Followed(Applied(applied=1), places={0: Place(4, 3)})
        >>> found = together([one, other])
        >>> found.applied.applied, found.places
        (4, {0: Place(offset=4, lag=3)})
    """
    places: dict[int, Place] = {}
    for report in reports:
        for partition, place in report.places.items():
            # The slowest worker's, as its users have no later events yet.
            places[partition] = min(places.get(partition, place), place, key=lambda place: place.offset)
    lost = max((report.lost for report in reports), default=0)
    return Followed(sum((report.applied for report in reports), Applied()), lost, places)


def _apply_nothing(table: EventTable, **place: object) -> Applied:
    raise AssertionError("workers apply the events")
