"""A topic that a service follows in a thread, with numbers for Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lifelong.background import Background
from lifelong.errors import LifelongError, StoreUnavailableError, StreamUnavailableError
from lifelong.ingestion.kafka import Followed, Stream
from lifelong.memory.updater import Applied

logger: logging.Logger = logging.getLogger(__name__)

_PAUSE = 5.0
"""Seconds before a stream is followed again after its store or its brokers did not answer."""


class Follower:
    """Follows a topic in a thread; while brokers or a shared store do not answer, it starts again until they do.

    Any other error, such as a message that is not an event, ends it: the rest of the service continues, and
    `lifelong_stream_up` is 0.

    Args:
        stream: not running.
        again: whether a store that did not answer may answer later: a server may, a folder does not.
    """

    stream: Stream
    up: bool

    def __init__(self, stream: Stream, *, again: bool) -> None:
        self.stream, self._again, self.up = stream, again, False
        failure = f"the stream starts again every {_PAUSE:.0f} seconds"
        self._background = Background(self._pass, name="stream", failure=failure, retry=_PAUSE)

    def start(self) -> None:
        """Start the thread."""
        self.up = True
        self._background.start()

    def close(self) -> None:
        """Commit the current batch, and end."""
        self.stream.stop()
        self._background.close()

    def _pass(self) -> None:
        """Follow the topic until the end.

        Raises:
            StoreUnavailableError: a shared store does not answer; a later pass may succeed.
            StreamUnavailableError: no broker answers; a later pass may succeed.
        """
        self.up = True
        try:
            self.stream.run()
        except Exception as error:
            if isinstance(error, StreamUnavailableError) or (isinstance(error, StoreUnavailableError) and self._again):
                raise
            known = isinstance(error, LifelongError)
            logger.error("the stream is followed no further: %s", error, exc_info=not known)
        finally:
            self.up = False


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
