"""A second artifact that scores what the served one scores, in a thread of its own; no client ever waits for it.

    events --users who had one--> catch up from the event log --.
    answers --bounded queue, full: dropped and counted----------`--> score the same request --> compare, count, log

The store's list has it in the phase `behind`: writers do not update its memories, so its slowness and its faults harm
nothing else. Two scores are compared only if both memories hold equally many events of the user.
"""

from __future__ import annotations

import logging
import queue
import threading
import time as clock
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lifelong.background import Background
from lifelong.memory import takeover
from lifelong.memory.rebuild import Rebuild
from lifelong.memory.writer import MemoryWriter
from lifelong.scoring.scorer import Scorer

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.scoring.answer import Answer
    from lifelong.serving.service import Scored, Service
    from lifelong.store.contract import MemoryStore

logger: logging.Logger = logging.getLogger(__name__)
WAITING = 1_000
"""Requests that wait to be scored, at most."""
_USERS, _GROUP = 100_000, 64
"""Users who wait to be caught up, at most; and how many are caught up at once."""
_PATIENCE = 0.2
"""Seconds to sleep if there is no work."""
_SHARE = 1.0
"""Seconds to sleep for each second of work, so that requests are answered meanwhile."""
_APART = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class ShadowMetrics:
    """What is counted of an artifact in shadow.

    Args:
        registry: the service's registry.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.candidates: Counter = Counter(
            "lifelong_shadow_candidates", "Candidates for the artifact in shadow", ("outcome",), registry=registry
        )
        self.apart: Histogram = Histogram(
            "lifelong_shadow_score_difference",
            "Difference of the two scores of a candidate, without sign",
            buckets=_APART,
            registry=registry,
        )
        self.first: Counter = Counter(
            "lifelong_shadow_first",
            "Requests of several candidates, by whether both artifacts put the same one first",
            ("same",),
            registry=registry,
        )
        self.seconds: Histogram = Histogram(
            "lifelong_shadow_seconds", "Time of scoring one request in shadow", registry=registry
        )
        self.behind: Gauge = Gauge(
            "lifelong_shadow_waiting_users",
            "Users with events that it has yet to see",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )


class Shadow:
    """Runs an artifact in shadow.

    Its own listeners, `on_answers`, are called with each request that it scored.

    Args:
        service: it serves another artifact.
        artifact: the one in shadow.

    Raises:
        ArtifactError: the artifact cannot be served.
        StoreError: the store holds its memories in another codec.
        MismatchError: its unit of time is not that of the served artifact.
    """

    service: Service
    store: MemoryStore
    artifact: Artifact

    def __init__(self, service: Service, artifact: Artifact) -> None:
        self.service, self.store, self.artifact = service, service.store, artifact
        self.on_answers: list[Callable[[Scored], object]] = []
        stored = takeover.add(self.store, artifact, phase="behind")
        self.writer: MemoryWriter = MemoryWriter(artifact, stored.identity.codec, self.store)
        service.give(self.writer)
        self.scorer: Scorer = Scorer(artifact, self.store, base_rate=service.settings.base_rate, complete=False)
        self.metrics: ShadowMetrics = ShadowMetrics(service.metrics.registry)
        self._rebuild = Rebuild(self.store, self.writer)
        self._queue: queue.Queue[Scored] = queue.Queue(WAITING)
        self._users: dict[str, None] = {}
        self._everyone: Iterator[str] | None = None
        self._lock = threading.Lock()
        self._background = Background(
            self._pass, name="shadow", failure="the artifact in shadow failed", retry=_PATIENCE
        )
        service.on_events.append(self.touch)
        service.on_answers.append(self.offer)

    def start(self) -> None:
        """Begin."""
        self._background.start()

    def close(self) -> None:
        """Stop after the current request; what still waits is not scored."""
        self._background.close()

    def offer(self, scored: Scored) -> None:
        """Take a request that was answered, or drop it if too many wait; returns at once."""
        try:
            self._queue.put_nowait(scored)
        except queue.Full:
            self.metrics.candidates.labels("dropped").inc(len(scored.answer.scores))

    def touch(self, users: Iterable[str]) -> None:
        """Note users who had an event; returns at once."""
        with self._lock:
            if len(self._users) < _USERS:
                self._users.update(dict.fromkeys(users))
            else:
                # Too many to remember: all users are checked again.
                self._everyone = None

    def step(self) -> bool:
        """Score a request, else catch up users with new events, else check the next users; whether there was work."""
        try:
            scored = self._queue.get_nowait()
        except queue.Empty:
            return self._catch_up_some()
        size = len(scored.answer.scores)
        try:
            outcome = self._compare(scored)
        except Exception as error:
            logger.warning("the artifact in shadow failed on a request: %s", error)
            outcome = "failed"
        self.metrics.candidates.labels(outcome).inc(size)
        return True

    def _pass(self) -> float:
        began, worked = clock.perf_counter(), self.step()
        return _SHARE * (clock.perf_counter() - began) if worked else _PATIENCE

    def _catch_up_some(self) -> bool:
        with self._lock:
            some = list(islice(self._users, _GROUP))
            for user in some:
                del self._users[user]
            self.metrics.behind.set(len(self._users))
        if not some:
            if self._everyone is None:
                self._everyone = self._all()
            some = list(islice(self._everyone, _GROUP))
        if some:
            self._catch_up(some)
        return bool(some)

    def _all(self) -> Iterator[str]:
        served = self.store.artifact_list().served
        if served is not None:
            for user, _ in self.store.scan(served.space):
                yield user

    def _catch_up(self, users: list[str]) -> None:
        """Replay the events that users lack; a user who is written meanwhile gets another turn."""
        artifact_list = self.store.artifact_list()
        stored = artifact_list.find(self.artifact.id)
        if stored is None or stored.phase != "behind":
            # It was dropped, or writers update it now.
            return
        if self._rebuild.catch_up(users, artifact_list):
            self.touch(users)

    def _compare(self, scored: Scored) -> str:
        """Score a request and compare the scores; returns the outcome."""
        if self.service.artifact.id == self.artifact.id:
            return "served"
        if self.store.artifact_list().find(self.artifact.id) is None:
            return "gone"
        began = clock.perf_counter()
        self._catch_up([scored.request.user])
        # As of the moment of the request, whenever it is scored.
        request = replace(scored.request, time=scored.time)
        answer = self.scorer.answer([request])[0]
        self.metrics.seconds.observe(clock.perf_counter() - began)
        if answer.count != scored.answer.count:
            return "skewed"
        self._observe(scored.answer, answer)
        shadowed = replace(scored, scorer=self.scorer, request=request, answer=answer, role="shadow")
        for take in self.on_answers:
            take(shadowed)
        return "scored"

    def _observe(self, one: Answer, other: Answer) -> None:
        pairs = [(a.score, b.score) for a, b in zip(one.scores, other.scores, strict=True)]
        for a, b in pairs:
            self.metrics.apart.observe(abs(a - b))
        if len(pairs) > 1:
            same = _first([a for a, _ in pairs]) == _first([b for _, b in pairs])
            self.metrics.first.labels("yes" if same else "no").inc()


def _first(scores: list[float]) -> int:
    """Place of the largest score."""
    return scores.index(max(scores))
