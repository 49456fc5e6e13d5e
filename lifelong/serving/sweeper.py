"""In the background: forgets users who have had no event for a time, and takes old events out of the event log."""

from __future__ import annotations

import logging
import threading
from itertools import count
from typing import TYPE_CHECKING

from lifelong.errors import LifelongError, UsageError
from lifelong.memory.forgetting import Sweep, forget_inactive, moment_before
from lifelong.memory.trimming import Trim, trim_logs

if TYPE_CHECKING:
    from lifelong.serving.service import Service

logger = logging.getLogger(__name__)
EVERY = 3600.0
"""Seconds between two sweeps."""
_TRIMMED = 24
"""Sweeps from one trimming of the log to the next, which reads all of it."""
_REST = 0.002
"""Seconds between two users, so that requests are answered."""
_LONG_REST = 0.05
"""Seconds between two groups of users whose logs are read."""


class Sweeper:
    """Sweeps at the start and then every hour, and trims the log once a day, as far as the settings say so.

    Args:
        service: whose users they are.

    Raises:
        UsageError: the artifact's events have no times, or the number of days is not positive.
    """

    def __init__(self, service: Service) -> None:
        self.service, self.days, self.kept = service, service.settings.forget_after, service.settings.keep_events
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifelong-sweep", daemon=True)
        limits = {"--forget-after": self.days, "--keep-events": self.kept}
        given = {option: days for option, days in limits.items() if days is not None}
        for days in given.values():
            moment_before(days)
        if given and service.artifact.config.dataset_schema.time_unit != "seconds":
            raise UsageError(
                "nothing can be forgotten after a time: this artifact's events have none",
                expected="events with UTC seconds",
                fix=f"leave out {' and '.join(given)}",
            )

    def start(self) -> None:
        """Begin, if there is a limit."""
        if self.days is not None or self.kept is not None:
            self._thread.start()

    def close(self) -> None:
        """End; a sweep that runs stops behind the user that it is at."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> Sweep:
        """Forget everyone whose last event is too old."""
        assert self.days is not None
        counter = self.service.metrics.forgotten.labels("inactive")
        return forget_inactive(
            self.service.store,
            moment_before(self.days),
            pause=lambda: self._stop.wait(_REST),
            on_forgotten=lambda user: counter.inc(),
        )

    def trim(self) -> Trim:
        """Take out of the log what is too old."""
        assert self.kept is not None
        return trim_logs(self.service.store, moment_before(self.kept), pause=lambda: self._stop.wait(_LONG_REST))

    def _run(self) -> None:
        for number in count():
            try:
                if self.days is not None:
                    self._forget()
                if self.kept is not None and number % _TRIMMED == 0:
                    found = self.trim()
                    logger.info("%s events of %s users were old and are out of the log", found.events, found.users)
            except LifelongError as error:
                logger.error("what is old could not be forgotten: %s", error)
            if self._stop.wait(EVERY):
                return

    def _forget(self) -> None:
        found = self.sweep()
        if found.forgotten:
            self.service.store.purge()
            logger.info("%s of %s users were inactive and are forgotten", found.forgotten, found.users)
