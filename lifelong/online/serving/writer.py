"""A process of its own owns the store of a service and folds events in, so that no score waits for a commit.

    service   HTTP, scores, memories in RAM          writer    bodies of events, write graph, store
       |---- body of a request of many events ----------> parses it
       |---- all that wait: one commit ----------------->  folds them in, writes, waits for the disk
       |<--- memories that were written, then outcomes --'

A service of several workers has one such process, too: their parent starts it, and again if it ends, and each worker
connects to a socket in a folder. What one worker has acknowledged, every worker knows
(docs/decisions/0034-several-workers-on-an-embedded-store.md).

The database's binding holds the interpreter while it writes, and parsing does, too: in one process all scores would
wait for both (docs/decisions/0030-a-process-that-writes.md).
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from lifelong.errors import StoreError, StoreUnavailableError, UsageError
from lifelong.online.background import Background
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.updater import Applied
from lifelong.online.serving.writer_process import CHANGES, WriterTask
from lifelong.online.store.messages import Calls, ChangeCount, Channel
from lifelong.online.store.protocol import Held, Reader
from lifelong.online.store.remote import RemoteStore

logger: logging.Logger = logging.getLogger(__name__)
Connected = tuple[Channel, Callable[[], Exception]]
"""A channel to the process, and a function that gives the error with which it ended; see `Connect`."""
Rows = Sequence[Mapping[str, Any]]
BEFORE = ""
"""Statements that the process runs first; tests give it another clock."""
CLOSE_SECONDS = 30.0
"""Seconds in which the process closes its store when the service stops; later it is killed."""
_SOCKET, _BACKLOG = "writer", 128
"""Name of the socket to which workers connect, and how many may wait there."""
_LOOK_SECONDS = 0.5
"""Seconds between two checks whether the process still runs."""


@dataclass(frozen=True, slots=True)
class ParsedEvents:
    """Events of a request that wait in the writer.

    Args:
        held: names them there.
        users: of each event.
    """

    held: Held
    users: Sequence[str]

    def __len__(self) -> int:
        return len(self.users)


class OwnerProcess:
    """The process that owns a store, from its start to its end.

    Args:
        task: what it does; it begins at once.
        folder: where workers find it; only this user may open it. None where it has no workers.

    Raises:
        UsageError: workers cannot be given a socket in the folder.
    """

    def __init__(self, task: WriterTask, folder: Path | None = None) -> None:
        self._listening = None if folder is None else _listening(folder / _SOCKET)
        self._task, self._closing = replace(task, workers=folder), False
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: threading.Timer | None = None
        self._kept: tuple[Calls, Background] | None = None
        self._started: tuple[subprocess.Popen[bytes], Channel] | None = None
        try:
            self._started = self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> tuple[subprocess.Popen[bytes], Channel]:
        here, there = socket.socketpair()
        handles = [one.fileno() for one in (there, self._listening) if one is not None]
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
            there.close()
        channel = Channel(here)
        with contextlib.suppress(OSError):
            channel.send(replace(self._task, service=os.getpid()))
        self._process = process
        return process, channel

    def connect(self) -> Connected:
        """A channel to the process, which is started again if it has ended.

        Raises:
            LifelongError: it could not open the store; as the store or the updater says it.
        """
        if self._closing:
            raise _closed()
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
        code = process.wait()
        return _closed() if code == 0 or self._closing else _lost(f"has ended with exit code {code}")

    def keep(self) -> None:
        """Wait until the process has opened the store, and start it again from then on whenever it ends: for workers.

        Raises:
            LifelongError: it could not open it.
        """
        failure = "the process that writes cannot be started"
        self._kept = self._called(), Background(self._look, name="writer", failure=failure)
        self._kept[1].start()

    def _called(self) -> Calls:
        channel, ended = self.connect()
        return Calls(channel, Reader(0), ended=ended)

    def _look(self) -> float:
        assert self._kept is not None
        calls, background = self._kept
        if calls.over:
            logger.warning("the process that writes the store has ended; it is started again")
            calls.close()
            self._kept = self._called(), background
        return _LOOK_SECONDS

    def end_soon(self) -> None:
        """Start it no more, and kill it if its store is not closed within `CLOSE_SECONDS`.

        A disk that hangs must not keep a service from stopping. Nothing acknowledged is lost: each commit has waited
        for the disk.
        """
        self._closing = True
        if self._deadline is None:
            self._deadline = threading.Timer(CLOSE_SECONDS, self._kill)
            self._deadline.daemon = True
            self._deadline.start()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Wait until it has ended; it is killed if its store is not closed in time."""
        self.end_soon()
        if self._kept is not None:
            # First nothing may be started in its place.
            self._kept[1].close()
            calls, _ = self._kept
            with contextlib.suppress(StoreError):
                if not calls.over:
                    calls("close")
            calls.close()
        if self._started is not None:
            process, channel = self._started
            process.kill()
            process.wait()
            channel.close()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._listening is not None:
            self._listening.close()


class Writer:
    """Folds events in, by way of the process that owns the store.

    Args:
        owner: the process, where this one alone calls it; it is closed here. Or the folder in which workers find it.
    """

    on_end: Callable[[StoreUnavailableError], object]
    """Called, in a thread of its own, if the process ends though nobody has stopped it."""
    store: RemoteStore
    """The store, after `open`."""

    def __init__(self, owner: OwnerProcess | Path) -> None:
        self._owner, self._closing = owner, False
        self._count = ChangeCount(owner / CHANGES) if isinstance(owner, Path) else None
        self.on_end = lambda error: None

    def _connect(self) -> Connected:
        if self._closing:
            raise _closed()
        channel, why = _joined(self._owner) if isinstance(self._owner, Path) else self._owner.connect()
        return channel, lambda: self._ended(why())

    def _ended(self, error: Exception) -> Exception:
        if self._closing:
            return _closed()
        if isinstance(error, StoreUnavailableError):
            self.on_end(error)
        return error

    def open(self) -> RemoteStore:
        """The store, when the process has opened it.

        Raises:
            LifelongError: it could not; as the store or the updater says it.
        """
        self.store = RemoteStore(self._connect, count=self._count)
        return self.store

    def parse(self, text: bytes) -> ParsedEvents | None:
        """Parse and check a body of events; None if `EventsBody` has to check it.

        Raises:
            StoreUnavailableError: the process has ended.
        """
        held, users = self.store.calls.held("parse", text)
        return None if users is None else ParsedEvents(held, users)

    def fold(self, parts: Sequence[Rows | ParsedEvents]) -> list[Applied | Exception]:
        """Fold in the events of several requests, with one commit for all; see `Updater.apply_parts`.

        Raises:
            StoreUnavailableError: the process has ended; what was under way may or may not be kept.
        """
        given = [part.held.number if isinstance(part, ParsedEvents) else part for part in parts]
        return cast("list[Applied | Exception]", self.store.calls("fold", given))

    def apply_table(self, table: EventTable, **options: Any) -> Applied:
        """See `Updater.apply_table`."""
        return cast("Applied", self.store.calls("apply_table", table, options))

    def give(self, artifact: Path, codec: str) -> None:
        """Open an artifact in the process before it is on the store's list."""
        self.store.calls("give", artifact, codec)

    def end_soon(self) -> None:
        """The service stops: the process is no longer needed."""
        self._closing = True
        if isinstance(self._owner, OwnerProcess):
            self._owner.end_soon()

    def close(self) -> None:
        """Leave the store; the process that this one alone calls has ended then."""
        self.end_soon()
        if hasattr(self, "store"):
            self.store.close()
        if isinstance(self._owner, OwnerProcess):
            self._owner.close()


def _listening(path: Path) -> socket.socket:
    """A socket to which workers connect.

    Raises:
        UsageError: the system has no room for so long an address.
    """
    listening = socket.socket(socket.AF_UNIX)
    try:
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


def _joined(folder: Path) -> Connected:
    """A worker's channel to the process of all workers.

    Raises:
        StoreUnavailableError: it does not run.
    """
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(str(folder / _SOCKET))
    except OSError as error:
        connected.close()
        raise _gone() from error
    return Channel(connected), _gone


def _gone() -> StoreUnavailableError:
    return _lost("has ended, or did not wait for this one")


def _lost(how: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the process that writes the store {how}; what it was writing may or may not be kept",
        fix="a running service starts it again by itself; then send it again",
    )


def _closed() -> StoreError:
    return StoreError("the store is closed", fix="open it again")
