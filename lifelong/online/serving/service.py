"""One process around one store: many readers, one writer.

    events, items, erasures --one thread, in order--> store          scores --several threads, no lock--> store

A request takes the scorer once, and with it an artifact and memories that belong together; a switch replaces it.
Memories are read without a lock: a write is one commit of whole memories, so a reader sees a user's state before or
after it. All writes go through one thread, so two batches never fold into the same memory at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time as clock
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import ConfigDict, Field, with_config

from lifelong.atomic import guarded
from lifelong.dataset.events import NO_TIME
from lifelong.dtypes import IntArray
from lifelong.errors import StoreCorruptError, StoreForeignError, StoreUnavailableError, StreamUnavailableError
from lifelong.online.background import running
from lifelong.online.memory.forgetting import export, forget, holds
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.answer import Answer, ScoreRequest
from lifelong.online.scoring.explain import explain, slots_of
from lifelong.online.scoring.explanation import Slot
from lifelong.online.scoring.features import FeatureTable, feature_table
from lifelong.online.scoring.online_items import Fields, OnlineItems
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.serving.errors import NotFoundError, RefusedError, TooLargeError
from lifelong.online.serving.health import WriteHealth, check_clock
from lifelong.online.serving.metrics import Metrics
from lifelong.online.serving.queues import Reads, Writes
from lifelong.online.serving.replies import ForgottenUser
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.serving.writer import ParsedEvents, Rows, Writer
from lifelong.online.store.contract import ITEMS

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.dataset.folder import Dataset
    from lifelong.online.ingestion.kafka import Erasure
    from lifelong.online.memory.event import EventTable
    from lifelong.online.memory.updater import Applied
    from lifelong.online.memory.writer import MemoryWriter
    from lifelong.online.scoring.explanation import Explanation
    from lifelong.online.serving.topic_writes import Queued, TopicWrites
    from lifelong.online.store.contract import MemoryStore

T = TypeVar("T")
logger: logging.Logger = logging.getLogger(__name__)


RECENT = 1_000
"""Latest events whose users are remembered."""
READY_SECONDS = 5.0
"""Seconds after which a store that does not answer makes the service not ready."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class UserMemory:
    """What is kept of a user."""

    user: str
    count: Annotated[int, Field(description="events in the memory")]
    last_time: Annotated[int | None, Field(description="time of the last of them")]
    bytes: Annotated[int, Field(description="size of the stored memory")]
    slots: Sequence[Slot]
    artifact: Annotated[str, Field(description="id of the artifact that the memory belongs to")]


@dataclass(frozen=True, slots=True)
class Scored:
    """One scored request, for the listeners of `Service.on_answers`.

    Args:
        request_id: the name of the request.
        scorer: the scorer that answered it.
        request: what was asked.
        answer: the answer.
        time: moment of the request, UTC seconds.
    """

    request_id: str
    scorer: Scorer
    request: ScoreRequest
    answer: Answer
    time: int


class Service:
    """Answers requests from one artifact and one store.

    It does not know what else runs in its process. Other parts add functions to its lists of listeners before the
    first request:

        on_answers: called with each scored request, in the thread that scored it; has to return at once.
        on_switch: called when another artifact is served.
        on_forget: what is kept of users outside of the store, "impressions" or "dead_letters" -> called with users
            who are forgotten; returns how many rows were theirs.
        on_export: called with a user; returns her rows of the impressions log.

    Args:
        artifact: the model; if the store was switched to another artifact, that one is served.
        store: an opened store of it; not closed here.
        settings: limits and threads.
        dataset: where explanations look up past events that the store's log does not hold.
        writer: the process that owns the store and folds events in; None where this process does.
    """

    store: MemoryStore
    writer: Writer | None
    settings: ServiceSettings
    dataset: Dataset | None
    topic: TopicWrites | None
    """Where events and erasures of a node go; None where they go into the store."""
    probe: str
    """A user whom the store is asked about."""

    def __init__(
        self,
        artifact: Artifact,
        store: MemoryStore,
        *,
        settings: ServiceSettings,
        dataset: Dataset | None = None,
        writer: Writer | None = None,
    ) -> None:
        self.store, self.settings, self.dataset, self.writer = store, settings, dataset, writer
        self.topic, self.probe, self._forgetting = None, "readiness", set[str]()
        self.updater: Updater = Updater(
            artifact, store, late=settings.late, event_log=settings.event_log, max_ahead=settings.max_ahead
        )
        self._guard = contextlib.ExitStack()
        self.scorer: Scorer = self._scorer(self.updater.artifacts.served.artifact)
        self.metrics: Metrics = Metrics()
        self.health: WriteHealth = WriteHealth(store)
        try:
            self._check_clock()
        except StoreUnavailableError as error:
            # Said here, too, for a service whose readiness nobody asks for.
            logger.warning("%s", error)
        if writer is not None:
            writer.on_end = self.health.failed
        self.stopping: bool = False
        # Of those with several events each is there as often: it costs every event less than to look for it.
        self.recent: deque[str] = deque(maxlen=RECENT)
        self.on_answers: list[Callable[[Scored], object]] = []
        self.on_switch: list[Callable[[], object]] = []
        self.on_forget: dict[str, Callable[[Collection[str]], int]] = {}
        self.on_export: list[Callable[[str], list[dict[str, Any]]]] = []
        bounds: dict[str, Any] = {"most": settings.max_waiting, "patience": settings.max_wait}
        shed = self.metrics.shed
        self.reads: Reads[ScoreRequest, Answer] = Reads(
            settings.threads,
            answer=lambda requests: self._answered(self.scorer, requests),
            on_call=self.metrics.score_requests.observe,
            on_shed=shed.labels("reads").inc,
            **bounds,
        )
        self.writes: Writes = Writes(
            self.updater,
            most_events=settings.max_events,
            fold=None if writer is None else writer.fold,
            on_commit=self._committed,
            on_shed=shed.labels("writes").inc,
            **bounds,
        )
        self._cleaner = ThreadPoolExecutor(1, thread_name_prefix="lifelong-clean")

    @property
    def artifact(self) -> Artifact:
        """The artifact that is served."""
        return self.scorer.artifact

    @property
    def online_items(self) -> OnlineItems:
        """Items that were put online, with the fields of the served artifact."""
        return self.scorer.online_items

    def _scorer(self, artifact: Artifact) -> Scorer:
        self._guard.close()
        # Training must not replace it: after a restart nothing could read the store.
        with contextlib.suppress(OSError):
            self._guard.enter_context(guarded(artifact.path))
        return Scorer(artifact, self.store, base_rate=self.settings.base_rate)

    def refresh(self) -> None:
        """Serve the artifact that the store's list names now; a request that has begun ends with the one before."""
        self.updater.artifacts.follow()
        served = self.updater.artifacts.served.artifact
        if served.id != self.artifact.id:
            self.scorer = self._scorer(served)
            for switched in self.on_switch:
                switched()
            logger.info("artifact %s is served now", served.id[:12])

    def _check_clock(self) -> None:
        if self.artifact.config.dataset_schema.time_unit == "seconds":
            check_clock(self.store, self.settings.max_ahead, clock.time())

    async def check(self) -> None:
        """Whether requests can be answered and events kept now.

        Raises:
            StoreUnavailableError: the service stops, the store does not answer or takes no writes, a topic is not
                followed, or events would be refused, since the system's clock is far behind the store's.
        """
        if self.stopping:
            raise StoreUnavailableError("the service is stopping", fix="ask another instance")

        def ask() -> None:
            self.store.read_many([self.probe])
            self._check_clock()
            self.health.check()
            for work in running():
                if work.needed and work.failing is not None:
                    # Why is for the log: a message that is not an event may name a user.
                    raise StoreUnavailableError(
                        work.failure, fix="the log says why; once the store and the brokers answer it goes on by itself"
                    )

        try:
            # In no queue: it must say the truth about a store that makes others wait.
            await asyncio.wait_for(asyncio.to_thread(ask), READY_SECONDS)
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"the store has not answered within {READY_SECONDS:g} seconds", fix="check its disk or its server"
            ) from error

    def give(self, writer: MemoryWriter) -> None:
        """Take an artifact that is open already, so that no write waits for it when the store's list names it."""
        self.updater.artifacts.give(writer)
        if self.writer is not None:
            self.writer.give(writer.artifact.path.resolve(), writer.runtime.codec.name)

    def allow(self, kind: str, number: int) -> None:
        """Refuse a request that is too large.

        Args:
            kind: events, users, candidates, items, explained or values.
            number: how many of them the request has.

        Raises:
            TooLargeError: more than the settings allow.
        """
        most: int = getattr(self.settings, f"max_{kind}")
        if number > most:
            words = {"explained": "candidates to explain", "values": "features"}.get(kind, kind)
            raise TooLargeError(
                f"{number:,} {words} in one request", expected=f"at most {most:,}", fix="send several requests"
            )

    async def add_events(self, rows: Rows | ParsedEvents) -> Applied:
        """Fold events in; all of them are written at once, or none.

        Args:
            rows: what a `UserEvent` holds, by name, checked; or those that wait in the writer.
        """
        self.allow("events", len(rows))
        with self.noted():
            applied = await self.writes.fold(rows)
        if self.topic is not None:
            await self.topic.seen(cast("Queued", applied), patience=self.settings.max_wait)
            return applied
        self.recent.extend(rows.users if isinstance(rows, ParsedEvents) else [row["user"] for row in rows])
        for outcome in fields(applied):
            self.metrics.events.labels(outcome.name).inc(getattr(applied, outcome.name))
        return applied

    def apply(
        self,
        table: EventTable,
        *,
        source: str,
        partition: int,
        offsets: Sequence[int] | IntArray,
        through: int,
        after: int,
    ) -> Applied:
        """Fold in events of a stream, in turn with those of requests; not to be called in the event loop's thread."""
        # The stream is read with the fields of the artifact that was served at its start.
        table = self.updater.artifacts.served.only_known(table)
        origin: dict[str, Any] = {"source": source, "partition": partition, "offsets": offsets}
        folder = self.updater if self.writer is None else self.writer
        # Never refused: it is in the topic, and would only come again.
        work = self.writes.submit(lambda: folder.apply_table(table, **origin, through=through, after=after))
        with self.noted():
            applied = work.result()
        self.recent.extend(table.user)
        return applied

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note whether the write inside the context fails; only a successful mark ends a failure."""
        try:
            yield
        except StoreUnavailableError as error:
            self.health.failed(error)
            raise

    async def answer(self, request: ScoreRequest, reply: Callable[[Answer], T]) -> T:
        """Score one user's candidates.

        Args:
            request: the user and the candidates.
            reply: what is made of the answer, in the thread that has made the answer: a long one takes as long again.
        """
        if len(request.items) <= self.settings.at_once and self._at_hand(request):
            answer = await self.reads.together(request, len(request.items))
            if answer is not None:
                return reply(answer)
        return await self.asked(lambda scorer: reply(self._answered(scorer, [request])[0]))

    def _answered(self, scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[Answer]:
        answers = self._logged(scorer, requests, scorer.answer(requests))
        self._count(answers)
        return answers

    def _at_hand(self, request: ScoreRequest) -> bool:
        """Whether an answer takes no longer than the way to a thread and back.

        It does take longer where a long history is read, or another process asked for what is stored.
        """
        if not self.scorer.runtime.steady:
            return False
        holds = getattr(self.store, "holds", None)
        if holds is None:
            return not self.store.shared
        return bool(holds([request.user], space=self.scorer.space) and holds(request.items, space=ITEMS))

    async def answer_each(
        self, requests: Sequence[ScoreRequest], reply: Callable[[list[Answer | StoreCorruptError]], T]
    ) -> T:
        """Score many users' candidates; a user with a damaged memory has the error in the place of her answer.

        Args:
            requests: the users and their candidates.
            reply: see `answer`.
        """
        return await self.asked(lambda scorer: reply(self._each(scorer, requests)))

    def _each(self, scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[Answer | StoreCorruptError]:
        outcomes = scorer.answer_each(requests)
        good = [
            (request, answer) for request, answer in zip(requests, outcomes, strict=True) if isinstance(answer, Answer)
        ]
        if len(good) < len(outcomes):
            # The errors themselves name users; the answer has them, the log must not.
            logger.error(
                "POST /v1/score: %d of %d stored memories are damaged", len(outcomes) - len(good), len(outcomes)
            )
        answers = self._logged(scorer, [request for request, _ in good], [answer for _, answer in good])
        self._count(answers)
        logged = iter(answers)
        return [next(logged) if isinstance(answer, Answer) else answer for answer in outcomes]

    def _count(self, answers: Sequence[Answer]) -> None:
        self.metrics.candidates.inc(sum(len(answer.scores) for answer in answers))
        self.metrics.unknown_items.inc(sum(answer.unknown_items for answer in answers))
        self.metrics.unknown_users.inc(sum(not answer.known_user for answer in answers))
        for answer in answers:
            # Of a hundred candidates, a list and `sum` take a quarter of the time of `fmean`.
            mean = sum([score.score for score in answer.scores]) / len(answer.scores)
            self.metrics.scores.labels(answer.artifact[:12]).observe(mean)

    async def explain(self, request: ScoreRequest, reply: Callable[[Explanation], T]) -> T:
        """Explain one user's candidates.

        Args:
            request: the user and the candidates.
            reply: see `answer`.
        """
        return await self.asked(lambda scorer: reply(explain(scorer, request, dataset=self.dataset)))

    async def features(
        self, user: str, items: Sequence[str], time: int | None, reply: Callable[[FeatureTable], T]
    ) -> T:
        """What the memory says of a user and candidates, as features of another ranker.

        Args:
            user: her id.
            items: the candidates.
            time: moment of the request; now if None.
            reply: see `answer`.
        """
        self.allow("candidates", len(items))

        def work(scorer: Scorer) -> T:
            columns = len(feature_table(scorer, user, [], time=time).names)
            self.allow("values", columns * len(items))
            return reply(feature_table(scorer, user, items, time=time))

        return await self.asked(work)

    async def put_items(self, items: Mapping[str, Fields]) -> int:
        """Add items or change their fields, durably."""
        self._refuse_items()
        return await self._write(lambda: self.online_items.put(items))

    async def remove_item(self, item: str) -> bool:
        """Take the fields of an item away that were put online, durably; whether it had any."""
        self._refuse_items()
        return bool(await self._write(lambda: self.online_items.remove([item])))

    def _refuse_items(self) -> None:
        """Refuse what the other nodes and the standbys would not have."""
        if self.topic is not None:
            raise RefusedError(
                "a node of several takes no items: the others would not have them",
                expected="fields that come with candidates and events",
                fix="send the fields with the request, or train with the items",
            )

    async def memory(self, user: str) -> UserMemory:
        """What is kept of a user.

        Raises:
            NotFoundError: nothing is kept.
        """
        return await self.asked(lambda scorer: _memory_of(scorer, user))

    async def erase(self, user: str, *, files: bool = False) -> bool:
        """Erase a user's memory and events; whether there was anything.

        Args:
            user: her id.
            files: of a node, whether what is left in files goes at others that follow its topic, too.
        """
        if self.topic is not None:
            return await self._erase_by(self.topic, user, files=files)
        return await self._write(lambda: forget(self.store, user))

    async def _erase_by(self, topic: TopicWrites, user: str, *, files: bool) -> bool:
        """Erase a user by a message."""
        held = await self.aside(lambda: holds(self.store, user))
        if files:
            self._forgetting.add(user)
        queued = await self._write(lambda: topic.erase(user, files=files))
        # Half of the time, so that this error comes, and not the one of a request that took too long.
        if not await topic.seen(queued, patience=self.settings.timeout / 2):
            raise StreamUnavailableError(
                "the erasure is in the topic, and not yet in the store",
                fix="it comes when the topic is followed again: see /readyz, and ask again",
            )
        return held

    def erased(self, erasures: Sequence[Erasure]) -> None:
        """Take users whom messages have erased out of files, where that was asked for, and not by a request here."""
        users = [user for user, files in erasures if files and user not in self._forgetting]
        self._forgetting.difference_update(user for user, _ in erasures)
        if users:
            self._cleaner.submit(lambda: (self.clean(users), self.store.purge()))

    async def forget(self, user: str) -> ForgottenUser:
        """Erase a user, and remove what is left of her from the files; the store answers meanwhile."""
        erased = await self.erase(user, files=True)
        with self.noted():
            # In a thread of its own: files are rewritten, and neither events nor scores wait for that.
            rows, purged = await asyncio.get_running_loop().run_in_executor(
                self._cleaner, lambda: (self.clean([user]), self.store.purge())
            )
        self.metrics.forgotten.labels("asked").inc(erased)
        impressions, dead_letters = rows.get("impressions", 0), rows.get("dead_letters", 0)
        return ForgottenUser(
            user=user, erased=erased, impressions=impressions, dead_letters=dead_letters, purged=purged
        )

    def clean(self, users: Sequence[str]) -> dict[str, int]:
        """Take users out of what is kept of them outside of the store: how many rows, by name of the place."""
        gone = set(users)
        # An event that comes meanwhile may be missing: its user is not shown as a recent one.
        # `tuple` copies in one step: others may append meanwhile, and a deque that changes cannot be iterated.
        self.recent = deque([user for user in tuple(self.recent) if user not in gone], maxlen=RECENT)
        return {holder: forget_too(users) for holder, forget_too in self.on_forget.items()}

    def _logged(self, scorer: Scorer, requests: Sequence[ScoreRequest], answers: list[Answer]) -> list[Answer]:
        """Name what was scored and give it to the listeners; unnamed where there are none."""
        if not self.on_answers:
            return answers
        now, named = int(clock.time()), []
        for request, answer in zip(requests, answers, strict=True):
            named.append(replace(answer, request_id=uuid.uuid4().hex))
            moment = now if request.time is None else request.time
            scored = Scored(str(named[-1].request_id), scorer, request, answer, moment)
            for take in self.on_answers:
                take(scored)
        return named

    async def export(self, user: str, reply: Callable[[dict[str, Any]], T]) -> T:
        """All that is kept of a user.

        Args:
            user: her id.
            reply: what is made of it, in a thread.
        """
        stored = await self.aside(lambda: export(self.store, user))

        def document() -> T:
            rows = [row for rows_of in self.on_export for row in rows_of(user)]
            return reply({**stored, "known": stored["known"] or bool(rows), "impressions": rows})

        return await asyncio.get_running_loop().run_in_executor(self._cleaner, document)

    def close(self) -> None:
        """Finish what was accepted; the store stays open."""
        self.stopping = True
        self._guard.close()
        self._cleaner.shutdown(wait=True)
        self.writes.close()
        self.reads.close()

    async def asked(self, work: Callable[[Scorer], T]) -> T:
        """What a reader finds out from the scorer that is served; once more if its memories were dropped meanwhile."""
        # Read once: a switch in between must not mix two artifacts in one answer.
        scorer = self.scorer
        try:
            return await self.aside(lambda: work(scorer))
        except StoreForeignError:
            await self.aside(self.refresh)
            # One more try, and only with another scorer: the same one would find the same store.
            if self.scorer is scorer:
                raise
            return await self.aside(lambda: work(self.scorer))

    async def aside(self, work: Callable[[], T]) -> T:
        """Read in a thread, while the event loop continues."""
        return await self.reads.run(work)

    async def _write(self, work: Callable[[], T]) -> T:
        started = clock.perf_counter()
        with self.noted():
            # A client that hangs up does not stop its write half-way: the thread continues.
            result = await self.writes.run(work)
        self._committed(1, clock.perf_counter() - started)
        return result

    def _committed(self, requests: int, seconds: float) -> None:
        self.metrics.write_seconds.observe(seconds)
        self.metrics.write_requests.observe(requests)


def _memory_of(scorer: Scorer, user: str) -> UserMemory:
    states, known_B = scorer.states([user])
    if not known_B[0]:
        raise NotFoundError(
            f"nothing is stored about user {user!r}", expected="a user with events", fix="POST /v1/events"
        )
    last = int(states.last_time_B[0])
    return UserMemory(
        user=user,
        count=int(states.count_B[0]),
        last_time=None if last == NO_TIME else last,
        bytes=scorer.runtime.codec.size,
        slots=slots_of(scorer, states, 0),
        artifact=scorer.artifact.id,
    )
