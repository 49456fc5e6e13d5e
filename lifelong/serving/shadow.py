"""A second artifact that scores what the served one scores, in a thread of its own; no client ever waits for it.

    events --users who had one--> catch up from the event log --.
    answers --bounded queue, full: dropped and counted----------`--> score the same request --> compare, count, log

Its memories stand `behind` in the store's list: writers leave it alone, so its slowness and its faults are its own. Two
scores are compared only where both memories hold equally many events of the user.
"""

from __future__ import annotations

import logging
import queue
import threading
import time as clock
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lifelong.memory import takeover
from lifelong.memory.builder import Builder
from lifelong.memory.folding import Folder
from lifelong.serving.impressions import Scored
from lifelong.serving.scorer import Scorer

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.serving.scorer import Answer
    from lifelong.serving.service import Service

logger = logging.getLogger(__name__)
WAITING = 1_000
"""Requests that wait to be scored at most."""
_USERS, _GROUP = 100_000, 64
"""Users who wait to be caught up at most; and how many at once."""
_PATIENCE = 0.2
"""Seconds for which the thread waits for work."""
_SHARE = 1.0
"""Seconds of rest for each second of work, so that requests are answered meanwhile."""
_APART = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class ShadowMetrics:
    """What is counted of it.

    Args:
        registry: of the service.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.candidates = Counter(
            "lifelong_shadow_candidates", "Candidates for the artifact in shadow", ("outcome",), registry=registry
        )
        self.apart = Histogram(
            "lifelong_shadow_score_difference",
            "Difference of the two scores of a candidate, without sign",
            buckets=_APART,
            registry=registry,
        )
        self.first = Counter(
            "lifelong_shadow_first",
            "Requests of several candidates, by whether both artifacts put the same one first",
            ("same",),
            registry=registry,
        )
        self.seconds = Histogram("lifelong_shadow_seconds", "Time of scoring one request in shadow", registry=registry)
        self.behind = Gauge("lifelong_shadow_waiting_users", "Users whose events it has yet to see", registry=registry)


class Shadow:
    """Runs an artifact in shadow.

    Args:
        service: that serves another one.
        artifact: the one in shadow.

    Raises:
        ArtifactError: it cannot be served.
        StoreError: it is there in another codec.
        MismatchError: it counts time otherwise than the one that is served.
    """

    def __init__(self, service: Service, artifact: Artifact) -> None:
        self.service, self.store, self.artifact = service, service.store, artifact
        member = takeover.add(self.store, artifact, phase="behind")
        self.folder = Folder(artifact, member.identity.codec, self.store)
        service.updater.members.give(self.folder)
        overlay = service.overlay.beside(artifact.catalogue, statistics=artifact.item_statistics)
        self.scorer = Scorer(
            artifact, self.store, overlay=overlay, base_rate=service.settings.base_rate, complete=False
        )
        self.metrics = ShadowMetrics(service.metrics.registry)
        self._builder = Builder(self.store, self.folder)
        self._queue: queue.Queue[Scored] = queue.Queue(WAITING)
        self._users: dict[str, None] = {}
        self._everyone: Iterator[str] | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifelong-shadow", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End behind the request in hand; what waits is left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def offer(self, scored: Scored) -> None:
        """Take a request that was answered, or drop it where too many wait; returns at once."""
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
                # Rather all of them once more than to forget one.
                self._everyone = None

    def step(self) -> bool:
        """Do what waits longest of a request, some users, or the next of all users; whether there was anything."""
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

    def _run(self) -> None:
        while not self._stop.is_set():
            began = clock.perf_counter()
            try:
                worked = self.step()
            except Exception as error:
                logger.warning("the artifact in shadow failed: %s", error)
                worked = False
            self._stop.wait(_SHARE * (clock.perf_counter() - began) if worked else _PATIENCE)

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
        served = self.store.roster().served
        if served is not None:
            for user, _ in self.store.users(slot=served.slot):
                yield user

    def _catch_up(self, users: list[str]) -> None:
        """Replay what users lack; one who is written meanwhile comes again."""
        roster = self.store.roster()
        member = roster.find(self.artifact.id)
        if member is None or member.phase != "behind":
            # Dropped; or writers keep it up.
            return
        if self._builder.catch_up(users, roster):
            self.touch(users)

    def _compare(self, scored: Scored) -> str:
        """Score a request, and say what came of it."""
        if self.service.artifact.id == self.artifact.id:
            return "served"
        if self.store.roster().find(self.artifact.id) is None:
            return "gone"
        began = clock.perf_counter()
        self._catch_up([scored.request.user])
        answer = self.scorer.answer([scored.request])[0]
        self.metrics.seconds.observe(clock.perf_counter() - began)
        if answer.count != scored.answer.count:
            return "skewed"
        self._tell(scored.answer, answer)
        if self.service.impressions is not None:
            one = Scored(scored.request_id, self.scorer, scored.request, answer, scored.time, "shadow")
            self.service.impressions.offer(one)
        return "scored"

    def _tell(self, one: Answer, other: Answer) -> None:
        pairs = [(a.score, b.score) for a, b in zip(one.scores, other.scores, strict=True)]
        for a, b in pairs:
            self.metrics.apart.observe(abs(a - b))
        if len(pairs) > 1:
            same = _first([a for a, _ in pairs]) == _first([b for _, b in pairs])
            self.metrics.first.labels("yes" if same else "no").inc()


def _first(scores: list[float]) -> int:
    """Place of the largest."""
    return scores.index(max(scores))
