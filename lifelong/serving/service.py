"""One process around one store: many readers, one writer.

    events, items, erasures --one thread, in order--> store          scores --several threads, no lock--> store

Which artifact scores is one reference: a request takes it once, and with it memories and weights that belong together.
Memories are read without a lock: a write is one commit of whole memories, so a reader sees a user's state before or
after it. All writes go through one thread, so two batches never fold into the same memory at once.
"""

from __future__ import annotations

import asyncio
import logging
import time as clock
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lifelong.data.events import NO_TIME
from lifelong.errors import StoreCorruptError, StoreForeignError, StoreUnavailableError
from lifelong.memory.event_table import EventTable
from lifelong.memory.forgetting import export, forget
from lifelong.memory.updater import Updater
from lifelong.serving.errors import NotFoundError, TooLargeError
from lifelong.serving.impressions import ImpressionsLog, Scored
from lifelong.serving.metrics import Metrics
from lifelong.serving.overlay import Fields, ItemOverlay
from lifelong.serving.scorer import Answer, Scorer, ScoreRequest
from lifelong.serving.slots import Slot, slots_of

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.data.dataset import Dataset
    from lifelong.memory.dead_letters import DeadLetters
    from lifelong.memory.kafka import StreamSettings
    from lifelong.memory.kafka_client import KafkaAddress
    from lifelong.memory.store import MemoryStore
    from lifelong.memory.updater import Applied, UserEvent
    from lifelong.serving.explain import Explanation
    from lifelong.serving.following import Follower
    from lifelong.serving.shadow import Shadow

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What the service allows and how it runs.

    Args:
        max_body: bytes of a request's body.
        max_events: events in one request.
        max_users: users in one request.
        max_candidates: candidates in one request, over all its users.
        max_items: items in one request.
        threads: readers at the same time.
        at_once: candidates of one user that are scored without a thread's help: of so few the way to another thread
            and back takes as long as the scores.
        late: what happens to an event that is older than the user's last one: "apply" or "refuse".
        event_log: whether the store keeps the events, for explanations.
        base_rate: share of positives in the world, for probabilities: of the first task, or task -> share.
        keep_events: days after which an event is taken out of the event log; None for never.
        impressions_log: folder for what was scored; None to keep nothing.
        forget_after: days without an event after which a user is forgotten; None for never.
        timeout: seconds until a request must be answered.
        rate: requests a second that one caller may make, None without a limit.
        log_users: whether the log may name users.
    """

    max_body: int = 8 * 2**20
    max_events: int = 10_000
    max_users: int = 1_000
    max_candidates: int = 20_000
    max_items: int = 10_000
    threads: int = 2
    at_once: int = 128
    late: Literal["apply", "refuse"] = "apply"
    event_log: bool = True
    base_rate: float | Mapping[str, float] | None = None
    forget_after: float | None = None
    keep_events: float | None = None
    impressions_log: Path | None = None
    timeout: float = 30.0
    rate: float | None = None
    log_users: bool = False

    def allow(self, kind: str, number: int) -> None:
        """Refuse a request that is too large.

        Args:
            kind: events, users, candidates or items.
            number: how many of them came.

        Raises:
            TooLargeError: more than allowed.
        """
        most = int(getattr(self, f"max_{kind}"))
        if number > most:
            raise TooLargeError(
                f"{number:,} {kind} in one request", expected=f"at most {most:,}", fix="send several requests"
            )


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a user; `bytes` is the size of her stored memory."""

    user: str
    count: int
    last_time: int | None
    bytes: int
    slots: list[Slot]
    artifact: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of a user who is to be forgotten; see `ForgottenReply`."""

    user: str
    erased: bool
    impressions: int
    purged: bool


@dataclass(frozen=True, slots=True)
class Served:
    """What answers a request: an artifact, its memories and its items. It is replaced as a whole."""

    artifact: Artifact
    scorer: Scorer
    overlay: ItemOverlay


class Service:
    """Answers requests from one artifact and one store.

    Args:
        artifact: the model; where the store was switched to another artifact, that one is served.
        store: an opened store of it; not closed here.
        settings: limits and threads.
        dataset: where explanations look up past events, beside the store's log.
    """

    def __init__(
        self,
        artifact: Artifact,
        store: MemoryStore,
        *,
        settings: ServiceSettings,
        dataset: Dataset | None = None,
    ) -> None:
        self.store, self.settings, self.dataset = store, settings, dataset
        self.updater = Updater(artifact, store, late=settings.late, event_log=settings.event_log)
        leader = self.updater.members.now.leader.artifact
        self._served = self._made(leader, ItemOverlay(leader.catalogue, store, statistics=leader.item_statistics))
        self.metrics = Metrics()
        self.stopping = False
        self.follower: Follower | None = None
        self.impressions = self._impressions_log()
        self.shadow: Shadow | None = None
        self.on_switch: Callable[[], None] = lambda: None
        self._readers = ThreadPoolExecutor(settings.threads, thread_name_prefix="lifelong-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lifelong-write")
        self._cleaner = ThreadPoolExecutor(1, thread_name_prefix="lifelong-clean")

    @property
    def artifact(self) -> Artifact:
        """The one that is served."""
        return self._served.artifact

    @property
    def scorer(self) -> Scorer:
        """Its scorer."""
        return self._served.scorer

    @property
    def overlay(self) -> ItemOverlay:
        """Items put online, as it sees them."""
        return self._served.overlay

    def _made(self, artifact: Artifact, overlay: ItemOverlay) -> Served:
        scorer = Scorer(artifact, self.store, overlay=overlay, base_rate=self.settings.base_rate)
        return Served(artifact, scorer, overlay)

    def refresh(self) -> None:
        """Serve the artifact that the store's list names now; what was begun ends with the one before."""
        leader = self.updater.members.follow().leader.artifact
        if leader.id != self.artifact.id:
            overlay = self.overlay.beside(leader.catalogue, statistics=leader.item_statistics)
            self._served = self._made(leader, overlay)
            self.on_switch()
            logger.info("artifact %s is served now", leader.id[:12])

    async def check(self) -> None:
        """Whether requests can be answered now.

        Raises:
            StoreUnavailableError: the service stops, or the store does not answer.
        """
        if self.stopping:
            raise StoreUnavailableError("the service is stopping", fix="ask another instance")
        await self.aside(lambda: self.store.read_many(["readiness"]))

    async def add_events(self, rows: Sequence[Mapping[str, Any]]) -> Applied:
        """Fold events in; all of them are written at once, or none.

        Args:
            rows: what a `UserEvent` holds, by name; checked.
        """
        self.settings.allow("events", len(rows))
        applied = await self._write(lambda: self.updater.apply_table(EventTable.of_rows(rows)))
        self._touched(row["user"] for row in rows)
        for part in fields(applied):
            self.metrics.events.labels(part.name).inc(getattr(applied, part.name))
        return applied

    def apply(
        self,
        events: Sequence[UserEvent],
        *,
        source: str,
        partition: int,
        offsets: Sequence[int],
        through: int,
        after: int,
    ) -> Applied:
        """Fold events of a stream in, in turn with those of requests; for another thread than the event loop's."""
        # The stream is read with the fields of the artifact that was served at its start.
        known = self.updater.members.now.leader.known
        events = [replace(event, fields=known(event.fields)) if event.fields else event for event in events]
        place: dict[str, Any] = {"source": source, "partition": partition, "offsets": offsets}
        work = self._writer.submit(lambda: self.updater.apply(events, **place, through=through, after=after))
        applied = work.result()
        self._touched(event.user for event in events)
        return applied

    def _touched(self, users: Iterable[str]) -> None:
        """Tell the artifact in shadow who had an event."""
        if self.shadow is not None:
            self.shadow.touch(users)

    def follow(self, address: KafkaAddress, settings: StreamSettings, letters: DeadLetters | None) -> None:
        """Follow a topic from `start` to `close`."""
        from lifelong.memory.kafka import Stream
        from lifelong.serving.following import Follower, StreamCollector

        schema = self.artifact.config.dataset_schema
        stream = Stream(address, self.store, self.apply, schema, settings=settings, letters=letters)
        follower = Follower(stream, again=self.store.shared)
        self.metrics.add(StreamCollector(stream.report, lambda: follower.up))
        self.follower = follower

    def start(self) -> None:
        """Begin to follow the topic, and to score in shadow, if there is such."""
        if self.shadow is not None:
            self.shadow.start()
        if self.follower is not None:
            self.follower.start()

    async def answer(self, request: ScoreRequest) -> Answer:
        """Score one user's candidates."""
        self._allow([request])
        answers = await self._ask(
            lambda served: self._logged(served, [request], served.scorer.answer([request])),
            at_once=len(request.items) <= self.settings.at_once,
        )
        self._count(answers)
        return answers[0]

    async def answer_each(self, requests: Sequence[ScoreRequest]) -> list[Answer | StoreCorruptError]:
        """Score many users' candidates; a user whose memory is damaged has the error in the place of her answer."""
        self._allow(requests)
        found = await self._ask(lambda served: self._each(served, requests))
        self._count([answer for answer in found if isinstance(answer, Answer)])
        return found

    def _each(self, served: Served, requests: Sequence[ScoreRequest]) -> list[Answer | StoreCorruptError]:
        found = served.scorer.answer_each(requests)
        good = [(one, answer) for one, answer in zip(requests, found, strict=True) if isinstance(answer, Answer)]
        if len(good) < len(found):
            # The errors themselves name users; they are in the answer.
            logger.error("POST /v1/score: %d of %d stored memories are damaged", len(found) - len(good), len(found))
        logged = iter(self._logged(served, [one for one, _ in good], [answer for _, answer in good]))
        return [next(logged) if isinstance(answer, Answer) else answer for answer in found]

    def _count(self, answers: Sequence[Answer]) -> None:
        self.metrics.candidates.inc(sum(len(answer.scores) for answer in answers))
        self.metrics.unknown_items.inc(sum(answer.unknown_items for answer in answers))
        self.metrics.unknown_users.inc(sum(not answer.known_user for answer in answers))

    async def explain(self, request: ScoreRequest) -> Explanation:
        """Explain one user's candidates."""
        from lifelong.serving.explain import explain

        self._allow([request])
        return await self._ask(lambda served: explain(served.scorer, request, dataset=self.dataset))

    async def put_items(self, items: Mapping[str, Fields]) -> int:
        """Add items or change their fields, durably."""
        self.settings.allow("items", len(items))
        return await self._write(lambda: self.overlay.put(items))

    async def memory(self, user: str) -> Kept:
        """What is kept of a user.

        Raises:
            NotFoundError: nothing.
        """
        return await self._ask(lambda served: _kept(served, user))

    async def erase(self, user: str) -> bool:
        """Erase a user's memory and events; whether there was one."""
        return await self._write(lambda: forget(self.store, user))

    async def forget(self, user: str) -> Forgotten:
        """Erase a user, and take what is left of her out of the files; the store answers meanwhile."""
        erased = await self.erase(user)
        rest = await asyncio.get_running_loop().run_in_executor(self._cleaner, lambda: self._clean(user))
        self.metrics.forgotten.labels("asked").inc(erased)
        return Forgotten(user, erased, *rest)

    def _clean(self, user: str) -> tuple[int, bool]:
        impressions = 0 if self.impressions is None else self.impressions.forget(user)
        return impressions, self.store.purge()

    def watch(self, artifact: Artifact) -> None:
        """Let another artifact score in shadow, from `start` to `close`."""
        from lifelong.serving.shadow import Shadow

        if artifact.id == self.artifact.id:
            # The same command after a switch.
            logger.warning("artifact %s is served, and so in no shadow", artifact.id[:12])
            return
        self.shadow = Shadow(self, artifact)

    def _impressions_log(self) -> ImpressionsLog | None:
        if self.settings.impressions_log is None:
            return None

        def count(outcome: str, candidates: int) -> None:
            self.metrics.impressions.labels(outcome).inc(candidates)

        return ImpressionsLog(self.settings.impressions_log, count=count)

    def _logged(self, served: Served, requests: Sequence[ScoreRequest], answers: list[Answer]) -> list[Answer]:
        """Offer what was scored to the log and to the artifact in shadow, without waiting for them."""
        if self.impressions is None and self.shadow is None:
            return answers
        now, named = int(clock.time()), []
        for request, answer in zip(requests, answers, strict=True):
            named.append(replace(answer, request_id=uuid.uuid4().hex))
            moment = now if request.time is None else request.time
            scored = Scored(str(named[-1].request_id), served.scorer, request, answer, moment)
            if self.impressions is not None:
                self.impressions.offer(scored)
            if self.shadow is not None:
                # Of the same moment, whenever it is scored.
                self.shadow.offer(replace(scored, request=replace(request, time=moment)))
        return named

    async def export(self, user: str) -> dict[str, Any]:
        """All that is kept of a user."""
        found = await self.aside(lambda: export(self.store, user))
        log = self.impressions
        rows = [] if log is None else await asyncio.get_running_loop().run_in_executor(self._cleaner, log.of, user)
        return {**found, "known": found["known"] or bool(rows), "impressions": rows}

    def close(self) -> None:
        """Finish what was accepted; the store stays open."""
        self.stopping = True
        if self.follower is not None:
            self.follower.stop()
        if self.shadow is not None:
            self.shadow.close()
        self._cleaner.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        if self.impressions is not None:
            self.impressions.close()

    def _allow(self, requests: Sequence[ScoreRequest]) -> None:
        self.settings.allow("users", len(requests))
        self.settings.allow("candidates", sum(len(request.items) for request in requests))

    async def _ask(self, work: Callable[[Served], T], *, at_once: bool = False) -> T:
        """Ask the artifact that is served; once more where its memories were dropped in between.

        Args:
            work: asks it.
            at_once: whether it takes no longer than the way to a thread and back; where a server is asked, or a long
                history read, it does.
        """
        served = self._served
        try:
            if at_once and served.scorer.runtime.steady and not self.store.shared:
                return work(served)
            return await self.aside(lambda: work(served))
        except StoreForeignError:
            await self.aside(self.refresh)
            if self._served is served:
                raise
            return await self.aside(lambda: work(self._served))

    async def aside(self, work: Callable[[], T]) -> T:
        """Do what only reads in a thread, while the event loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def _write(self, work: Callable[[], T]) -> T:
        started = clock.perf_counter()
        with self.metrics.waiting_writes.track_inprogress():
            # A client that hangs up does not stop its write half-way: the thread goes on.
            result = await asyncio.get_running_loop().run_in_executor(self._writer, work)
        self.metrics.write_seconds.observe(clock.perf_counter() - started)
        return result


def _kept(served: Served, user: str) -> Kept:
    states, known = served.scorer.states([user])
    if not known[0]:
        raise NotFoundError(f"nothing is kept of user {user!r}", expected="a user with events", fix="POST /v1/events")
    last = int(states.last_time_B[0])
    return Kept(
        user=user,
        count=int(states.count_B[0]),
        last_time=None if last == NO_TIME else last,
        bytes=served.scorer.runtime.codec.size,
        slots=slots_of(served.artifact, states, 0),
        artifact=served.artifact.id,
    )
