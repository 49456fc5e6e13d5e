"""Numbers for Prometheus, in registries for each app, so that a process can run several apps.

    counters, histograms --several processes: added up by prometheus_client--.
    figures: queues, store, RAM --several: those of each, by `pid`-----`--> /metrics

Several processes on one address share a folder, which `PROMETHEUS_MULTIPROC_DIR` names: whichever answers `/metrics`
speaks for all of them. What a process says of itself cannot be added up, so each writes it down once a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from lifelong.online.background import Background

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Variable of the environment that names the folder of several processes; it must be set before any is started."""
_EVERY, _OLD, _HUNG = 1.0, 10.0, 60.0
"""Seconds between two times that a process writes its figures down, after which they are those of a dead one, and after
which one that hangs has been replaced."""
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_REQUESTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SCORES = (-20, -12, -8, -6, *(half / 2 for half in range(-10, 11)), 6, 8, 12, 20)
"""Bounds of scores, which are logits: narrow where most of them are."""


class Metrics:
    """What the service counts, and the figures of its parts.

    Attributes:
        together: of all processes on one address; None if this is the only one.

    >>> metrics = Metrics()
    >>> metrics.candidates.inc(100)
    >>> "lifelong_candidates_total 100.0" in metrics.text().decode()
    True
    """

    registry: CollectorRegistry

    def __init__(self) -> None:
        self.registry, self._figures = CollectorRegistry(), CollectorRegistry()
        counter, histogram = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        by_route = ("method", "route")
        self.requests: Counter = counter("lifelong_requests", "Answered requests", (*by_route, "status"))
        self.seconds: Histogram = histogram(
            "lifelong_request_seconds", "Time from a request's head to its answer", by_route, buckets=_SECONDS
        )
        self.events: Counter = counter("lifelong_events", "Events by outcome", ("outcome",))
        self.candidates: Counter = counter("lifelong_candidates", "Scored candidates")
        self.unknown_items: Counter = counter("lifelong_unknown_items", "Scored candidates that training did not know")
        self.unknown_users: Counter = counter("lifelong_unknown_users", "Requests scored from the empty memory")
        # One number for each user of a request: the middle of them moves when data or memories change.
        self.scores: Histogram = histogram(
            "lifelong_scores", "Mean score of a user's candidates in a request", ("artifact",), buckets=_SCORES
        )
        self.score_requests: Histogram = histogram(
            "lifelong_score_requests", "Short requests for scores that one call answered", buckets=_REQUESTS
        )
        self.write_seconds: Histogram = histogram(
            "lifelong_write_seconds", "Time of one write, memories and store together", buckets=_SECONDS
        )
        self.write_requests: Histogram = histogram(
            "lifelong_write_requests", "Requests of one commit", buckets=_REQUESTS
        )
        self.forgotten: Counter = counter("lifelong_forgotten_users", "Users who were forgotten", ("reason",))
        self.impressions: Counter = counter(
            "lifelong_impressions", "Scored candidates for the impressions log", ("outcome",)
        )
        self.shed: Counter = counter(
            "lifelong_shed_requests", "Requests refused because there was too much to do", ("by",)
        )
        self.built: Counter = counter(
            "lifelong_build_users", "Users looked at by builds of another artifact's memories"
        )
        ProcessCollector(registry=self._figures)
        GCCollector(registry=self._figures)
        folder = os.environ.get(SHARED)
        self.together: Together | None = Together(Path(folder), self._figures) if folder else None

    def add(self, collector: Collector) -> None:
        """Add figures of this process."""
        self._figures.register(collector)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        if self.together is None:
            return generate_latest(self.registry) + generate_latest(self._figures)
        return generate_latest(self.together)


class Together(CollectorRegistry):
    """The numbers of all processes that share a folder.

    Args:
        folder: see `SHARED`.
        figures: of this process.
    """

    folder: Path

    def __init__(self, folder: Path, figures: CollectorRegistry) -> None:
        super().__init__()
        self.folder, self._own = folder, figures
        MultiProcessCollector(self, str(folder))  # type: ignore[no-untyped-call]
        self.register(_Each(self))
        self._background = Background(
            self._write, name="metrics", failure="the figures of this process could not be written down"
        )

    def start(self) -> None:
        """Begin to write the figures of this process down."""
        # The first time at once: who waits for this process finds it as soon as it may answer requests.
        with contextlib.suppress(OSError):
            self._write()
        self._background.start()

    def wake(self) -> None:
        """Write them down again."""
        self._background.wake()

    def elsewhere(self, name: str) -> dict[int, dict[str, str]]:
        """Pid of each other process that runs -> labels of one of its figures, as it last wrote them down."""
        labels_of: dict[int, dict[str, str]] = {}
        for file in self.folder.glob("figures-*.json"):
            pid = int(file.stem.partition("-")[2])
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # One that hangs has old figures, and is waited for until it is replaced.
                if pid != os.getpid() and time.time() - file.stat().st_mtime < _HUNG:
                    # Signal 0 only asks whether the process is there; a killed one leaves its file behind.
                    os.kill(pid, 0)
                    families = json.loads(file.read_bytes())
                    labels_of[pid] = next(samples[0][1] for family, _, _, samples in families if family == name)
        return labels_of

    def close(self) -> None:
        """End it."""
        self._background.close()
        self._file.unlink(missing_ok=True)

    def families(self) -> Iterator[Metric]:
        """The figures of each process, with its `pid`."""
        metrics: dict[str, Metric] = {}
        for pid, families in self._of_each():
            for name, text, kind, samples in families:
                family = metrics.setdefault(name, Metric(name, text, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "pid": pid}, value)
        yield from metrics.values()

    @property
    def _file(self) -> Path:
        return self.folder / f"figures-{os.getpid()}.json"

    def _of_each(self) -> Iterator[tuple[str, Any]]:
        # Its own figures as they are now: those in its file may be a second old.
        yield str(os.getpid()), _plain(self._own.collect())
        for file in sorted(self.folder.glob("figures-*.json")):
            # A process may end, and take its file away, at any moment.
            try:
                if file != self._file and time.time() - file.stat().st_mtime < _OLD:
                    yield file.stem.partition("-")[2], json.loads(file.read_bytes())
            except FileNotFoundError:
                continue

    def _write(self) -> float:
        # Written aside and renamed, since other processes read it at any moment. It is not synced: after a power
        # failure nobody asks for it.
        draft = self._file.with_suffix(".part")
        draft.write_text(json.dumps(_plain(self._own.collect())))
        draft.replace(self._file)
        return _EVERY


class _Each(Collector):
    def __init__(self, together: Together) -> None:
        self.together = together

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when they come."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        return self.together.families()


def _plain(families: Iterable[Metric]) -> list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]:
    """Families as JSON can hold them."""
    return [
        (
            metric.name,
            metric.documentation,
            metric.type,
            [(of.name, dict(of.labels), of.value) for of in metric.samples],
        )
        for metric in families
    ]
