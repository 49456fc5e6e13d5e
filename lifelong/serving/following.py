"""A topic that is followed beside other work: in a thread of a service, with numbers for Prometheus."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lifelong.errors import LifelongError, StoreUnavailableError, StreamUnavailableError
from lifelong.memory.kafka import Followed, Stream
from lifelong.memory.updater import Applied

logger = logging.getLogger(__name__)

_PAUSE = 5.0
"""Seconds before a stream is followed again whose store or brokers did not answer."""


class Follower:
    """Follows a topic in a thread; where brokers or a shared store are away it begins anew until they are back.

    Anything else that is wrong, such as a message that is no event, ends it: the rest of the service goes on, and
    `lifelong_stream_up` is 0.

    Args:
        stream: not running.
        again: whether a store that did not answer may answer later, as a server may and a folder does not.
    """

    def __init__(self, stream: Stream, *, again: bool) -> None:
        self.stream, self._again = stream, again
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifelong-stream", daemon=True)
        self.up = False

    def start(self) -> None:
        """Begin."""
        self.up = True
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch in hand, keep it, and end."""
        self._stopping.set()
        self.stream.stop()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.stream.run()
            except (StoreUnavailableError, StreamUnavailableError) as error:
                if not self._again and isinstance(error, StoreUnavailableError):
                    self._end(error)
                    return
                self.up = False
                logger.error("%s Beginning anew in %.0f seconds.", error, _PAUSE)
                self._stopping.wait(_PAUSE)
                self.up = not self._stopping.is_set()
            except Exception as error:
                self._end(error)
                return
        self.up = False

    def _end(self, error: Exception) -> None:
        self.up = False
        logger.error(
            "the stream is followed no further: %s", error, exc_info=not isinstance(error, LifelongError) and error
        )


class StreamCollector(Collector):
    """What Prometheus is told of a stream.

    Args:
        report: gives the numbers.
        up: whether the stream is followed now.
    """

    def __init__(self, report: Callable[[], Followed], up: Callable[[], bool]) -> None:
        self._report, self._up = report, up

    def collect(self) -> Iterator[Any]:
        """The numbers, as they are now."""
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
