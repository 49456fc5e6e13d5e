"""The process that owns the store of a service, from its start to its end; it is started again whenever it ends.

    parent of the service --starts, watches, ends--> owner of the store
    each process that scores --connects to a socket in a folder--'      (the parent itself, or its workers)

What one of them has acknowledged, each of them knows (docs/decisions/0030-a-process-that-writes.md).

The owner ends when the parent does: at once where that was killed, as nothing is acknowledged any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lifelong.errors import StoreUnavailableError, UsageError
from lifelong.online.background import Background
from lifelong.online.serving.logs import LogFormat
from lifelong.online.store.remote import Channel

logger: logging.Logger = logging.getLogger(__name__)
BEFORE = ""
"""Statements that the process runs first; tests give it another clock."""
# The two waits follow each other, so that together they take 30 seconds at most.
CLOSE_SECONDS = 15.0
"""Seconds for the answers that are under way when a service stops, and then for the process to close its store."""
_SOCKET, _BACKLOG = "writer", 128
"""Name of the socket to which readers connect, and how many may wait there."""
CHANGES = "changes"
"""Name of the file of the `ChangeCount` that readers share."""


@dataclass(frozen=True, slots=True)
class WriterTask:
    """What a writer does.

    Args:
        folder: of what its readers share with it; only this user may open it.
        url: of the store.
        artifact: folder of the artifact.
        late: see `Updater`.
        event_log: see `Updater`.
        max_ahead: see `Updater`.
        log: format of its log.
        service: the process that it writes for; other processes see it as the owner.
    """

    folder: Path
    url: str
    artifact: Path
    late: Literal["apply", "refuse"]
    event_log: bool
    max_ahead: float
    log: LogFormat
    service: int = field(default_factory=os.getpid)


class OwnerProcess:
    """The process that owns a store.

    Args:
        task: what it does; it begins at once.

    Raises:
        UsageError: readers cannot be given a socket in the folder.
    """

    task: WriterTask

    def __init__(self, task: WriterTask) -> None:
        # The socket is made here and handed down: it outlives a process that ends, so readers that connect meanwhile
        # wait and are not refused.
        self.task, self._listening = task, _listening(task.folder / _SOCKET)
        # Held while a process is started, and when no other one may be.
        self._starting, self._closing = threading.Lock(), False
        failure = "the process that writes the store cannot be started"
        self._watcher = Background(self._watch, name="writer", failure=failure, needed=True)
        try:
            self._process, self._channel = self._start()
        except BaseException:
            self._listening.close()
            raise

    def _start(self) -> tuple[subprocess.Popen[bytes], Channel]:
        self._open = False
        # A pair without a name: nobody else can connect, and each end notices when the other process ends.
        here, there = socket.socketpair()
        # Only these are passed on. A child with more would keep clients' connections and the store's files open.
        handles = there.fileno(), self._listening.fileno()
        code = f"{BEFORE}from lifelong.online.serving.writer_process import run_writer; run_writer{handles}"
        # A signal to all processes must not reach this one before it is ready for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            process = subprocess.Popen([sys.executable, "-c", code], pass_fds=handles)
        except OSError as error:
            here.close()
            raise StoreUnavailableError(
                f"the process that writes the store cannot be started: {error}",
                fix="check RAM, and the limits of processes and descriptors",
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # The child has its own copy. If this one stayed open, the end of the child would never be seen as an end of
            # the stream.
            there.close()
        channel = Channel(here)
        with contextlib.suppress(OSError):
            # A process that has ended already gets no message; `_wait` then reads the end of the stream.
            channel.send(self.task)
        return process, channel

    def wait(self) -> None:
        """Wait until the process has opened the store; from then on it is started again whenever it ends.

        Raises:
            LifelongError: it could not open the store; as the store or the updater says it.
        """
        self._wait()
        self._watcher.start()

    def _wait(self) -> None:
        try:
            error = self._channel.receive()
        except EOFError:
            # The end of the stream is the end of the process, so this does not wait.
            error = lost(f"has ended with exit code {self._process.wait()}")
        if error is not None and not self._closing:
            raise error
        self._open = error is None

    def _watch(self) -> float | None:
        # Nothing comes any more until the process ends, and with it the stream.
        with contextlib.suppress(EOFError):
            self._channel.receive()
        code = self._process.wait()
        with self._starting:
            if self._closing:
                return None
            logger.warning("the process that writes the store has ended with exit code %d; it is started again", code)
            self._channel.close()
            self._process, self._channel = self._start()
        self._wait()
        return 0.0

    def close(self) -> None:
        """Wait until the process has closed its store and ended; it is killed if that takes `CLOSE_SECONDS`.

        Nothing acknowledged is lost: each commit has waited for the disk.
        """
        # From here on an end of the process is not a failure.
        with self._starting:
            self._closing = True
        with contextlib.suppress(OSError):
            self._channel.send("close")
        try:
            # Before the store is open nothing was acknowledged, and nothing is lost with the process.
            self._process.wait(CLOSE_SECONDS if self._open else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # It has seen the end of the process by now.
        self._watcher.close()
        self._channel.close()
        # Last: readers that still wait there are refused.
        self._listening.close()


def connect(folder: Path) -> Channel:
    """A channel to the owner, for a reader; if the owner is only starting, calls wait for it.

    Args:
        folder: in which readers find it.

    Raises:
        StoreUnavailableError: the service has ended.
    """
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(str(folder / _SOCKET))
    except OSError as error:
        connected.close()
        raise lost("has ended") from error
    return Channel(connected)


def _listening(path: Path) -> socket.socket:
    """A socket to which readers connect.

    Raises:
        UsageError: the system has no room for so long an address.
    """
    listening = socket.socket(socket.AF_UNIX)
    try:
        # The folder is open to this user alone, which is what keeps others from the socket.
        listening.bind(str(path))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"the process that writes cannot be given a socket at {path} ({len(os.fsencode(path))} bytes): {error}",
            expected="a folder for temporary files with a short path: a socket's address has about 100 bytes",
            fix="set TMPDIR to another folder, as in TMPDIR=/tmp",
        ) from error
    return listening


def lost(how: str) -> StoreUnavailableError:
    """The error of a call whose process has ended."""
    return StoreUnavailableError(
        f"the process that writes the store {how}; what it was writing may or may not be kept",
        fix="a running service starts it again by itself; then send it again",
    )
