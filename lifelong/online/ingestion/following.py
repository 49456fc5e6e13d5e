"""A topic that a service follows in a thread, with numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lifelong.online.background import Background
from lifelong.online.ingestion.kafka import Followed, Stream
from lifelong.online.memory.updater import Applied


class Follower:
    """Follows a topic in the background; see `Background`.

    An error that waiting cannot fix, such as a message that is not an event, ends it: the rest of the service
    continues, and is not ready.

    Args:
        stream: not running.
    """

    stream: Stream

    def __init__(self, stream: Stream) -> None:
        self.stream, self._started = stream, False
        self._background = Background(
            self._pass, name="stream", failure="the topic is not followed", gives_up=True, needed=True
        )

    @property
    def up(self) -> bool:
        """Whether the topic is followed."""
        return self._started and self._background.failing is None

    def start(self) -> None:
        """Start the thread."""
        self._started = True
        self._background.start()

    def close(self) -> None:
        """Commit the current batch, and end."""
        # First, since the pass that runs ends only by it.
        self.stream.stop()
        self._background.close()

    def _pass(self) -> None:
        """Follow the topic until the end.

        Raises:
            LifelongError: see `Stream.run`.
        """
        before = self.stream.report().applied

        def progress(followed: Followed) -> None:
            # A pass on a disk that is still full joins the topic, too: it works only if it applies what it reads.
            if followed.applied != before or all(place.lag == 0 for place in followed.places.values()):
                self._background.works()

        self.stream.run(progress)


class StreamCollector(Collector):
    """The metrics of a stream.

    Args:
        report: gives the numbers.
        up: says whether the stream is followed now.
    """

    def __init__(self, report: Callable[[], Followed], up: Callable[[], bool]) -> None:
        self._report, self._up = report, up

    def collect(self) -> Iterator[Any]:
        """The current values."""
        followed = self._report()
        yield GaugeMetricFamily("lifelong_stream_up", "Whether the stream is followed", value=int(self._up()))
        events = CounterMetricFamily("lifelong_stream_events", "Messages by outcome", labels=("outcome",))
        for part in fields(Applied):
            events.add_metric([part.name], getattr(followed.applied, part.name))
        yield events
        yield CounterMetricFamily("lifelong_stream_lost", "Messages deleted before they were read", value=followed.lost)
        offset = GaugeMetricFamily("lifelong_stream_offset", "Last offset in the store", labels=("partition",))
        lag = GaugeMetricFamily("lifelong_stream_lag", "Messages behind it", labels=("partition",))
        for partition, place in sorted(followed.places.items()):
            offset.add_metric([str(partition)], place.offset)
            if place.lag is not None:
                lag.add_metric([str(partition)], place.lag)
        yield offset
        yield lag
