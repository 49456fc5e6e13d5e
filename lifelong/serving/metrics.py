"""Numbers for Prometheus; a registry of its own per app, so that several apps live in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """What the service counts."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "lifelong_requests", "Answered requests", ("method", "route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "lifelong_request_seconds",
            "Time from the request's head to the end of the answer",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.events = Counter("lifelong_events", "Events by outcome", ("outcome",), registry=self._registry)
        self.candidates = Counter("lifelong_candidates", "Scored candidates", registry=self._registry)
        self.unknown_items = Counter(
            "lifelong_unknown_items", "Scored candidates that training did not know", registry=self._registry
        )
        self.unknown_users = Counter(
            "lifelong_unknown_users", "Requests scored from the empty memory", registry=self._registry
        )
        self.write_seconds = Histogram(
            "lifelong_write_seconds",
            "Time of one write, memories and store together",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.forgotten = Counter(
            "lifelong_forgotten_users", "Users who were forgotten", ("reason",), registry=self._registry
        )
        self.impressions = Counter(
            "lifelong_impressions", "Scored candidates for the impressions log", ("outcome",), registry=self._registry
        )
        self.waiting_writes = Gauge("lifelong_waiting_writes", "Writes that wait or run", registry=self._registry)

    @property
    def registry(self) -> CollectorRegistry:
        """Where other parts of the service put their numbers."""
        return self._registry

    def add(self, collector: Collector) -> None:
        """Tell these numbers too."""
        self._registry.register(collector)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
