"""A process of its own owns the store of a service and folds events in, so that no score waits for a commit.

    service   HTTP, scores, memories in RAM          writer    bodies of events, write graph, store
       |---- body of a request of many events ----------> parses it
       |---- all that wait: one commit ----------------->  folds them in, writes, waits for the disk
       |<--- memories that were written, then outcomes --'

The database's binding holds the interpreter while it writes, and parsing does, too: in one process all scores would
wait for both (docs/decisions/0030-a-process-that-writes.md).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.memory.event import EventTable
from lifelong.memory.updater import Applied
from lifelong.serving.writer_process import WriterTask
from lifelong.store.messages import ChangeCount, Channel
from lifelong.store.protocol import Held
from lifelong.store.remote import RemoteStore

Rows = Sequence[Mapping[str, Any]]
BEFORE = ""
"""Statements that the process runs first; tests give it another clock."""
CLOSE_SECONDS = 30.0
"""Seconds in which the process closes its store when the service stops; later it is killed."""


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


class Writer(ABC):
    """Folds events in, by way of the process that owns the store.

    Args:
        count: see `RemoteStore`.
    """

    on_end: Callable[[StoreUnavailableError], object]
    """Called, in a thread of its own, if the process ends though nobody has stopped it."""
    store: RemoteStore
    """The store, after `open`."""

    def __init__(self, count: ChangeCount | None = None) -> None:
        self._count, self._closing = count, False
        self.on_end = lambda error: None

    @abstractmethod
    def connect(self) -> tuple[Channel, Callable[[], Exception]]:
        """A channel to the process; see `Connect`."""

    def open(self) -> RemoteStore:
        """The store, when the process has opened it.

        Raises:
            LifelongError: it could not; as the store or the updater says it.
        """
        self.store = RemoteStore(self.connect, count=self._count)
        return self.store

    def parse(self, text: bytes, packed: bool) -> ParsedEvents | None:
        """Parse and check a body of events; None if `EventsBody` has to check it.

        Raises:
            StoreUnavailableError: the process has ended.
        """
        held, users = self.store.calls.held("parse", text, packed)
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

    def close(self) -> None:
        """Leave the store."""
        self._closing = True
        if hasattr(self, "store"):
            self.store.close()

    @staticmethod
    def _closed() -> StoreError:
        return StoreError("the store is closed", fix="open it again")


class WriterProcess(Writer):
    """The process that owns a store, from its start to its end.

    Args:
        task: what it does; it begins at once.
        listening: the socket to which workers connect, if there are several.
    """

    def __init__(self, task: WriterTask, listening: socket.socket | None = None) -> None:
        super().__init__()
        self._task, self._listening = task, listening
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: threading.Timer | None = None
        self._started: tuple[subprocess.Popen[bytes], Channel] | None = self._start()

    def end_soon(self) -> None:
        """Ask the process to end; it is killed if its store is not closed within `CLOSE_SECONDS`.

        A disk that hangs must not keep a service from stopping. Nothing acknowledged is lost: each commit has waited
        for the disk.
        """
        super().end_soon()
        if self._deadline is None:
            self._deadline = threading.Timer(CLOSE_SECONDS, self._kill)
            self._deadline.daemon = True
            self._deadline.start()

    def close(self) -> None:
        """Wait until the process has ended; it is killed if its store is not closed in time."""
        self.end_soon()
        if self._started is not None:
            process, channel = self._started
            process.kill()
            process.wait()
            channel.close()
        elif hasattr(self, "store"):
            self.store.close()
        if self._deadline is not None:
            self._deadline.cancel()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _start(self) -> tuple[subprocess.Popen[bytes], Channel]:
        here, there = socket.socketpair()
        handles = [one.fileno() for one in (there, self._listening) if one is not None]
        arguments = ", ".join(map(str, handles))
        code = f"{BEFORE}from lifelong.serving.writer_process import run_writer; run_writer({arguments})"
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

    def connect(self) -> tuple[Channel, Callable[[], Exception]]:
        """A channel to the process, which is started again if it has ended; see `Connect`."""
        if self._closing:
            raise self._closed()
        process, channel = self._started or self._start()
        self._started = None
        try:
            error = channel.receive()
        except EOFError:
            error = self._lost(process.wait())
        if error is not None:
            channel.close()
            process.wait()
            raise error
        return channel, lambda: self._ended(process)

    def _ended(self, process: subprocess.Popen[bytes]) -> StoreError:
        code = process.wait()
        if code == 0 or self._closing:
            return self._closed()
        error = self._lost(code)
        self.on_end(error)
        return error

    @staticmethod
    def _lost(code: int) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the process that writes the store has ended with exit code {code}; what it was writing may or may not be"
            " kept",
            fix="a running service starts it again by itself; then send it again",
        )
