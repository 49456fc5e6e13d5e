"""One process owns the store of a service of several workers: the parent runs it, and each worker connects to it.

    parent --starts it, and again if it ends--> process that owns the store <--socket in a folder-- worker, worker ...

What one worker has acknowledged, every worker knows (docs/decisions/0030-a-process-that-writes.md).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lifelong.background import Background
from lifelong.errors import StoreError, StoreUnavailableError, UsageError
from lifelong.serving.writer import Writer, WriterProcess
from lifelong.serving.writer_process import CHANGES, WriterTask
from lifelong.store.messages import Calls, ChangeCount, Channel
from lifelong.store.protocol import Reader

_SOCKET, _BACKLOG = "writer", 128
"""Name of the socket to which workers connect, and how many may wait there."""
_LOOK_SECONDS = 0.5
"""Seconds between two checks whether the process still runs."""
logger: logging.Logger = logging.getLogger(__name__)


class SharedWriterProcess:
    """The process that owns a store for several workers; if it ends, it is started again.

    Args:
        task: what it does; it begins at once.
        folder: where workers find it; only this user may open it.
    """

    def __init__(self, task: WriterTask, folder: Path) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        try:
            self._bind(folder / _SOCKET)
            self._listening.listen(_BACKLOG)
            self._writer = WriterProcess(replace(task, workers=folder), self._listening)
        except BaseException:
            self._listening.close()
            raise
        self._background = Background(self._look, name="writer", failure="the process that writes cannot be started")

    def _bind(self, path: Path) -> None:
        """Take the address that workers connect to.

        Raises:
            UsageError: the system has no room for so long an address.
        """
        try:
            self._listening.bind(str(path))
        except OSError as error:
            raise UsageError(
                f"workers cannot be given a socket at {path} ({len(os.fsencode(path))} bytes): {error}",
                expected="a folder for temporary files with a short path: a socket's address has about 100 bytes",
                fix="set TMPDIR to another folder, as in TMPDIR=/tmp",
            ) from error

    def open(self) -> None:
        """Wait until the process has opened the store, and look after it from then on.

        Raises:
            LifelongError: it could not open it.
        """
        self._calls = self._connected()
        self._background.start()

    def _connected(self) -> Calls:
        channel, ended = self._writer.connect()
        return Calls(channel, Reader(0), ended=ended)

    def _look(self) -> float:
        if self._calls.over:
            logger.warning("the process that writes the store has ended; it is started again")
            self._calls.close()
            self._calls = self._connected()
        return _LOOK_SECONDS

    def close(self) -> None:
        """Let the process close its store, and wait until it has ended."""
        self._writer.end_soon()
        if hasattr(self, "_calls"):
            self._background.close()
            with contextlib.suppress(StoreError):
                if not self._calls.over:
                    self._calls("close")
            self._calls.close()
        self._writer.close()
        self._listening.close()


class SharedWriter(Writer):
    """Folds events of one worker in, by way of the process that all workers share.

    Args:
        folder: of the `SharedWriterProcess`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(ChangeCount(folder / CHANGES))
        self._address = str(folder / _SOCKET)

    def connect(self) -> tuple[Channel, Callable[[], Exception]]:
        """A channel to the process; see `Connect`."""
        if self._closing:
            raise self._closed()
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(self._address)
        except OSError as error:
            connected.close()
            raise self._gone() from error
        return Channel(connected), self._ended

    def _ended(self) -> StoreError:
        if self._closing:
            return self._closed()
        error = self._gone()
        self.on_end(error)
        return error

    @staticmethod
    def _gone() -> StoreUnavailableError:
        return StoreUnavailableError(
            "the process that writes the store has ended, or did not wait for this one; what it was writing may or may"
            " not be kept",
            fix="a running service connects again by itself; then send it again",
        )
