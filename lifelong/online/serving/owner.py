"""The process that owns the store of a service, from its start to its end; a service starts it, and again if it ends.

A service of several workers has one, too: their parent starts it, and each worker connects to a socket in a folder.
What one worker has acknowledged, every worker knows (docs/decisions/0030-a-process-that-writes.md).

It ends when the service does: at once where that was killed, as nothing is acknowledged any more.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lifelong.errors import StoreError, StoreUnavailableError, UsageError
from lifelong.online.background import Background
from lifelong.online.serving.logs import LogFormat
from lifelong.online.store.protocol import Reader
from lifelong.online.store.remote import Calls, ChangeCount, Channel, Connected, closed

logger: logging.Logger = logging.getLogger(__name__)
BEFORE = ""
"""Statements that the process runs first; tests give it another clock."""
CLOSE_SECONDS = 30.0
"""Seconds in which the process closes its store when the service stops; later it is killed."""
_SOCKET, _BACKLOG = "writer", 128
"""Name of the socket to which workers connect, and how many may wait there."""
_LOOK_SECONDS = 0.5
"""Seconds between two checks whether the process still runs."""
CHANGES = "changes"
"""Name of the file of the `ChangeCount` that workers share."""


@dataclass(frozen=True, slots=True)
class WriterTask:
    """What a writer does.

    Args:
        url: of the store.
        artifact: folder of the artifact.
        late: see `Updater`.
        event_log: see `Updater`.
        max_ahead: see `Updater`.
        log: format of its log.
        service: the process that it writes for; other processes see it as the owner.
        workers: folder of what several workers share with it; None for a service of one process.
    """

    url: str
    artifact: Path
    late: Literal["apply", "refuse"]
    event_log: bool
    max_ahead: float
    log: LogFormat
    service: int = 0
    workers: Path | None = None


class OwnerProcess:
    """The process that owns a store, from its start to its end.

    Args:
        task: what it does; it begins at once.
        folder: where workers find it; only this user may open it. None where it has no workers.

    Raises:
        UsageError: workers cannot be given a socket in the folder.
    """

    count: ChangeCount | None = None
    """None: this process is its only reader, or none."""

    def __init__(self, task: WriterTask, folder: Path | None = None) -> None:
        # The socket is made here and handed down: it outlives a process that ends, so workers that connect meanwhile
        # wait and are not refused.
        self._listening = None if folder is None else _listening(folder / _SOCKET)
        self._task, self._closing = replace(task, workers=folder), False
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: threading.Timer | None = None
        self._supervised: tuple[Calls, Background] | None = None
        self._started: tuple[subprocess.Popen[bytes], Channel] | None = None
        try:
            self._started = self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> tuple[subprocess.Popen[bytes], Channel]:
        # A pair without a name: nobody else can connect, and each end notices when the other process ends.
        here, there = socket.socketpair()
        # Only these are passed on. A child with more would keep clients' connections and the store's files open.
        handles = [end.fileno() for end in (there, self._listening) if end is not None]
        arguments = ", ".join(map(str, handles))
        code = f"{BEFORE}from lifelong.online.serving.writer_process import run_writer; run_writer({arguments})"
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
            # A process that has ended already cannot be told; `connect` then reads the end of the stream, and says with
            # which code.
            channel.send(replace(self._task, service=os.getpid()))
        self._process = process
        return process, channel

    def connect(self) -> Connected:
        """A channel to the process, which is started again if it has ended.

        Raises:
            LifelongError: it could not open the store; as the store or the updater says it.
        """
        if self._closing:
            raise closed()
        # The first process is started in the constructor, so that it opens the store while the service loads its own
        # part.
        process, channel = self._started or self._start()
        self._started = None
        try:
            error = channel.receive()
        except EOFError:
            error = _lost(f"has ended with exit code {process.wait()}")
        if error is not None:
            channel.close()
            process.wait()
            raise error
        return channel, lambda: self._ended(process)

    def _ended(self, process: subprocess.Popen[bytes]) -> StoreError:
        # The socket ends with the process, or just before it.
        code = process.wait()
        return closed() if code == 0 or self._closing else _lost(f"has ended with exit code {code}")

    def keep(self) -> None:
        """Wait until the process has opened the store, and start it again from then on whenever it ends: for workers.

        Raises:
            LifelongError: it could not open it.
        """
        failure = "the process that writes cannot be started"
        self._supervised = self._called(), Background(self._look, name="writer", failure=failure)
        # It looks again and again: nothing tells the parent that the process has ended but a call that fails.
        self._supervised[1].start()

    def _called(self) -> Calls:
        channel, ended = self.connect()
        return Calls(channel, Reader(0), ended=ended)

    def _look(self) -> float:
        assert self._supervised is not None
        calls, background = self._supervised
        if calls.over:
            logger.warning("the process that writes the store has ended; it is started again")
            calls.close()
            self._supervised = self._called(), background
        return _LOOK_SECONDS

    def end_soon(self) -> None:
        """Start it no more, and kill it if its store is not closed within `CLOSE_SECONDS`.

        A disk that hangs must not keep a service from stopping. Nothing acknowledged is lost: each commit has waited
        for the disk.
        """
        # First of all: a process that ends from here on is not a failure, and must not be started again.
        self._closing = True
        if self._deadline is None:
            # A timer, since whoever stops the service waits in `close` for the same process.
            self._deadline = threading.Timer(CLOSE_SECONDS, self._kill)
            self._deadline.daemon = True
            self._deadline.start()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Wait until it has ended; it is killed if its store is not closed in time."""
        self.end_soon()
        if self._supervised is not None:
            # First nothing may be started in its place.
            self._supervised[1].close()
            calls, _ = self._supervised
            with contextlib.suppress(StoreError):
                if not calls.over:
                    calls("close")
            calls.close()
        if self._started is not None:
            process, channel = self._started
            # Nobody has connected to it, so nothing was acknowledged, and nothing is lost with it.
            process.kill()
            process.wait()
            channel.close()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._listening is not None:
            self._listening.close()


class JoinedOwner:
    """The process that owns the store of several workers, as one of them sees it; their parent starts and ends it.

    Args:
        folder: in which workers find it.
    """

    count: ChangeCount | None

    def __init__(self, folder: Path) -> None:
        self._folder, self.count = folder, ChangeCount(folder / CHANGES)

    def connect(self) -> Connected:
        """A channel to it.

        Raises:
            StoreUnavailableError: it does not run.
        """
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(str(self._folder / _SOCKET))
        except OSError as error:
            connected.close()
            raise _gone() from error
        return Channel(connected), _gone

    def end_soon(self) -> None:
        """Nothing: other workers may go on."""

    def close(self) -> None:
        """Nothing."""


def _listening(path: Path) -> socket.socket:
    """A socket to which workers connect.

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
            f"workers cannot be given a socket at {path} ({len(os.fsencode(path))} bytes): {error}",
            expected="a folder for temporary files with a short path: a socket's address has about 100 bytes",
            fix="set TMPDIR to another folder, as in TMPDIR=/tmp",
        ) from error
    return listening


def _gone() -> StoreUnavailableError:
    return _lost("has ended, or did not wait for this one")


def _lost(how: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the process that writes the store {how}; what it was writing may or may not be kept",
        fix="a running service starts it again by itself; then send it again",
    )
