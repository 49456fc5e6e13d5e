"""A file that an operator changes while the service runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from lifelong.errors import UsageError

T = TypeVar("T")
logger: logging.Logger = logging.getLogger(__name__)
_LOOK = 1.0
"""Seconds between two checks."""


class WatchedFile(Generic[T]):
    """What a file says, read again when it changes; a change that cannot be read leaves it as it was.

    Args:
        path: the file.
        read: reads it.
        what: is in it, in words.
        now: a clock, in seconds.

    Raises:
        UsageError: see `read`.
    """

    path: Path

    def __init__(
        self, path: Path, read: Callable[[Path], T], *, what: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self._read, self._what, self._now = path, read, what, now
        # The stamp before the content: a change while the file is read is then noticed at the next look.
        self._looked, self._state = now(), self._stamp()
        self._content = read(path)

    def content(self) -> T:
        """What it says now; the same object as long as it has not changed."""
        # Not for each request, since a file on a network drive may answer slowly.
        if self._now() - self._looked >= _LOOK:
            self._looked = self._now()
            if (stamp := self._stamp()) != self._state:
                # Before it is read: an error in the file is logged once, and not at each look.
                self._state = stamp
                self._read_again()
        return self._content

    def _read_again(self) -> None:
        try:
            self._content = self._read(self.path)
        except UsageError as error:
            logger.error("the %s stay as they were: %s", self._what, error)
        else:
            logger.warning("%s was read again", self.path)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        # Not the time alone: a file that is moved here may be as old as the one before, and has another inode.
        return status.st_mtime_ns, status.st_size, status.st_ino
