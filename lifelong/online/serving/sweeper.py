"""In the background: forgets users who have had no event for a time, and removes old events from the event log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lifelong.errors import UsageError
from lifelong.online.background import Background
from lifelong.online.memory.forgetting import Sweep, Trim, forget_inactive, moment_before, trim_logs

if TYPE_CHECKING:
    from lifelong.online.serving.service import Service

logger: logging.Logger = logging.getLogger(__name__)
EVERY = 3600.0
"""Seconds between two sweeps."""
_TRIMMED = 24
"""After how many sweeps the log is trimmed, which reads all of it."""
_REST = 0.002
"""Seconds between two users, so that requests are answered."""
_LONG_REST = 0.05
"""Seconds between the reads of the logs of two groups of users."""


class Sweeper:
    """Sweeps at the start and then every hour, and trims the log once a day, as far as the settings ask for it.

    Args:
        service: the service of these users.

    Raises:
        UsageError: the artifact's events have no times, or the number of days is not positive.
    """

    service: Service
    days: float | None
    kept: float | None

    def __init__(self, service: Service) -> None:
        self.service, self.days, self.kept = service, service.settings.forget_after, service.settings.keep_events
        self._sweeps, self._unclean = 0, False
        self._background = Background(
            self._pass, name="sweep", failure="what is old could not be forgotten", longest=EVERY
        )
        limits = {"forget_after": self.days, "keep_events": self.kept}
        days_of = {option: days for option, days in limits.items() if days is not None}
        for days in days_of.values():
            moment_before(days)
        if days_of and service.artifact.config.dataset_schema.time_unit != "seconds":
            raise UsageError(
                "users cannot be forgotten after a time: the events of this artifact have no times",
                expected="events with UTC seconds",
                fix=f"leave out {' and '.join(days_of)}",
            )

    def start(self) -> None:
        """Start, if there is a limit."""
        if self.days is not None or self.kept is not None:
            self._background.start()

    def close(self) -> None:
        """Stop; a running sweep ends after the current user."""
        self._background.close()

    def sweep(self) -> Sweep:
        """Forget all users whose last event is too old."""
        assert self.days is not None
        counter = self.service.metrics.forgotten.labels("inactive")

        def clean(users: Sequence[str]) -> None:
            # Before the first of them is erased: an erasure may be kept though its answer is lost.
            self._unclean = True
            self.service.clean(users)

        return forget_inactive(
            self.service.store,
            moment_before(self.days),
            pause=lambda: self._background.rest(_REST),
            clean=clean,
            on_forgotten=lambda user: counter.inc(),
        )

    def trim(self) -> Trim:
        """Remove events that are too old from the log."""
        assert self.kept is not None
        return trim_logs(self.service.store, moment_before(self.kept), pause=lambda: self._background.rest(_LONG_REST))

    def _pass(self) -> float:
        # Where nobody else writes, nobody else would see that the store has to be brought back.
        with self.service.noted():
            if self.days is not None:
                self._forget()
            if self.kept is not None and self._sweeps % _TRIMMED == 0:
                trim = self.trim()
                logger.info("%s events of %s users were old and are out of the log", trim.events, trim.users)
        self._sweeps += 1
        return EVERY

    def _forget(self) -> None:
        sweep = self.sweep()
        # Also next time: old files that are still being read, and what a sweep has left that did not come to its end.
        if self._unclean:
            self._unclean = not self.service.store.purge()
        if sweep.forgotten:
            logger.info("%s of %s users were inactive and are forgotten", sweep.forgotten, sweep.users)
