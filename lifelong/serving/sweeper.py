"""Forgets users who have had no event for a time, in the background; a user with a new event stays."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from lifelong.errors import LifelongError, UsageError
from lifelong.memory.forgetting import Sweep, forget_inactive, moment_before

if TYPE_CHECKING:
    from lifelong.serving.service import Service

logger = logging.getLogger(__name__)
EVERY = 3600.0
"""Seconds between two sweeps."""
_REST = 0.002
"""Seconds between two users, so that requests are answered."""


class Sweeper:
    """Sweeps at the start and then every hour, if the settings say after how many days users are forgotten.

    Args:
        service: whose users they are.

    Raises:
        UsageError: the artifact's events have no times, or the number of days is not positive.
    """

    def __init__(self, service: Service) -> None:
        self.service, self.days = service, service.settings.forget_after
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifelong-sweep", daemon=True)
        if self.days is None:
            return
        moment_before(self.days)
        if service.artifact.config.dataset_schema.time_unit != "seconds":
            raise UsageError(
                "users cannot be forgotten after a time: this artifact's events have none",
                expected="events with UTC seconds",
                fix="leave out --forget-after",
            )

    def start(self) -> None:
        """Begin, if there is a limit."""
        if self.days is not None:
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

    def _run(self) -> None:
        while True:
            try:
                found = self.sweep()
                if found.forgotten:
                    self.service.store.purge()
                    logger.info("%s of %s users were inactive and are forgotten", found.forgotten, found.users)
            except LifelongError as error:
                logger.error("inactive users could not be forgotten: %s", error)
            if self._stop.wait(EVERY):
                return
