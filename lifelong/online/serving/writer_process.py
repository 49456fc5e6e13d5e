"""What the process does that owns the store of a service; `lifelong.online.serving.writer` starts it.

    bodies of events --parsed--> wait here for their turn --folded in--> one commit --> disk
    reads of what the service has not in RAM, and its other writes ------------------> the store
    <--what each commit has written, in the order of the commits--------------------------'

It ends when the service does: at once where that was killed, as nothing is acknowledged any more. A service of several
workers has one of these: each worker connects to its socket.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lifelong.artifact.folder import Artifact
from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.launch import INTERRUPTED
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.serving.event_bodies import table_of
from lifelong.online.serving.logs import LogFormat, log_as
from lifelong.online.store.contract import ITEMS, MemoryStore
from lifelong.online.store.folder import act_for
from lifelong.online.store.messages import ChangeCount, Channel, Functions, answer_calls, packed
from lifelong.online.store.opening import open_store
from lifelong.online.store.protocol import Connection, Hold, Owner
from lifelong.online.store.record_cache import Listenable, Notice, Written

logger: logging.Logger = logging.getLogger(__name__)
_READERS = 4
"""Threads that answer all but events."""
_NICE = 5
"""How much lower the priority of this process is than that of the one that scores."""
CHANGES = "changes"
"""Name of the file of the `ChangeCount` that workers share."""
_ACCEPT_PAUSE = 0.1
"""Seconds until the next try to let a worker join: what is missing does not come back at once."""
_UNREAD_SECONDS = 2
"""Seconds after which a worker that reads nothing holds up the others no longer."""
Part = int | Sequence[dict[str, Any]]
"""The events of a request: the number of the call that parsed them, or rows that were checked."""


_PLAIN = (
    "bind", "artifact_list", "change_artifact_list", "clear", "commit", "watermark", "positions", "clock", "event_ids",
    "purge", "check_writes", "logs", "close",
)  # fmt: skip
"""Methods that are passed on to the owner's store unchanged."""


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


class EventFolder:
    """Events that wait for their turn, and the updater that folds them in.

    Args:
        updater: of the store.
        connection: to the process whose requests they are of.
    """

    updater: Updater

    def __init__(self, updater: Updater, connection: Connection) -> None:
        self.updater, self._waiting = updater, connection.held

    def parse(self, text: bytes) -> Hold | None:
        """Parse the events of a body, and keep them until it is their turn.

        Returns:
            The events, and the user of each; None if `EventsBody` has to check the body.
        """
        table = table_of(text)
        return None if table is None else Hold(table, table.user)

    def fold(self, parts: Sequence[Part]) -> list[Applied | Exception]:
        """See `Updater.apply_parts`.

        Raises:
            StoreUnavailableError: the events waited in an earlier process.
        """
        found = [self._waiting.pop(part, None) if isinstance(part, int) else EventTable.of_rows(part) for part in parts]
        # Events that are refused together with others are dropped as well: nobody will ask for them again.
        tables = [table for table in found if table is not None]
        if len(tables) < len(found):
            raise StoreUnavailableError(
                "the process that was to write the events has ended; nothing was kept", fix="send them again"
            )
        return self.updater.apply_parts(EventTable.joined(tables), list(map(len, tables)))

    def apply_table(self, table: EventTable, options: dict[str, Any]) -> Applied:
        """See `Updater.apply_table`."""
        return self.updater.apply_table(table, **options)

    def give(self, artifact: Path, codec: str) -> None:
        """Open an artifact that will be on the store's list, so that no write waits for it."""
        opened = Artifact.open(artifact, verify="sizes")
        self.updater.artifacts.give(MemoryWriter(opened, codec, self.updater.store))


class Notices(Owner[Channel]):
    """Announces the changes of a store to its readers, in the order of the commits."""

    def __init__(self, count: ChangeCount | None = None) -> None:
        super().__init__(count)
        self._saying = threading.Lock()

    def say(self, what: Notice, written: Written) -> None:
        """Announce a change; see `Listener`."""
        # Parts of a store change at the same time, and each reader gets whole changes in the order of their numbers.
        with self._saying:
            for message in self.changed(what, written):
                text = packed(message)
                for channel in list(self.readers):
                    try:
                        channel.send_packed(text)
                    except OSError:
                        # It has ended, or does not read: it joins again when it does.
                        channel.hang_up()


def functions_of(
    store: MemoryStore, channel: Channel, connection: Connection, threads: Executor, notices: Notices
) -> Functions:
    """The functions by which the owner of a store serves a `RemoteStore`.

    Args:
        store: open for writing; `notices` listen to it.
        channel: to the other process.
        connection: to it, too.
        threads: that read and write.
        notices: of the store's changes.
    """

    def join() -> tuple[int, bool]:
        # It is told of changes before anything is read for it.
        number, no_items = notices.join(channel), False
        # A store that answers nothing until its writes are checked must not keep out whoever checks them.
        with contextlib.suppress(StoreError):
            no_items = next(iter(store.scan(ITEMS)), None) is None
        return number, no_items

    def rows(number: int, most: int) -> list[tuple[str, bytes]]:
        return list(itertools.islice(connection.held[number], most))

    functions: dict[str, Callable[..., Any]] = {name: getattr(store, name) for name in _PLAIN}
    functions |= {
        "read_many": lambda names, space: store.read_many(names, space=space),
        "seen": lambda event_ids, now: store.seen(event_ids, now=now),
        "events": lambda user, last: store.events(user, last=last),
        "figures": getattr(store, "figures", dict),
        "join": join,
        "scan": lambda space: Hold(store.scan(space), None),
        "rows": rows,
    }
    return {name: (function, threads) for name, function in functions.items()}


def run_writer(descriptor: int, listening: int | None = None) -> None:
    """Work until the other end hangs up.

    Args:
        descriptor: of the socket that is shared with the service, which sends a `WriterTask` first and gets None, or
            the error, when the store is open.
        listening: of the socket to which workers connect.
    """
    # Ctrl-C and a service manager's SIGTERM reach all processes: the service stops this one when it has finished.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    channel, closed = Channel(socket.socket(fileno=descriptor)), list[bool]()
    try:
        task: WriterTask = channel.receive()
        log_as(task.log)
        act_for(task.service)
        os.nice(_NICE)
        try:
            # The service has checked every byte of it, or does it now.
            artifact = Artifact.open(task.artifact, verify="sizes")
            store = open_store(task.url)
            options: dict[str, Any] = {"late": task.late, "event_log": task.event_log, "max_ahead": task.max_ahead}
            updater = Updater(artifact, store, **options)
            notices = Notices(None if task.workers is None else ChangeCount(task.workers / CHANGES))
            if isinstance(store, Listenable):
                store.listen(notices.say)
        except Exception as error:
            channel.send(error)
            os._exit(1)
        gc.collect()
        gc.freeze()
        writing = _Writing(store, updater, notices)
        if listening is not None:
            threading.Thread(target=writing.accept, args=[socket.socket(fileno=listening)], daemon=True).start()
        channel.send(None)
        connection = Connection()
        answer_calls(channel, connection, writing.functions(channel, connection, lambda: closed.append(True)))
    except (EOFError, OSError):
        # The service has ended meanwhile.
        pass
    # What is not closed now is left as by a kill; other threads may be in the middle of something.
    os._exit(0 if closed else INTERRUPTED)


class _Writing:
    """What the process answers: to the service, and to each of its workers.

    Args:
        store: open for writing.
        updater: of the store.
        notices: of its changes.
    """

    def __init__(self, store: MemoryStore, updater: Updater, notices: Notices) -> None:
        self._store, self._updater, self._notices = store, updater, notices
        self._readers, self._writers, self._parsers = (ThreadPoolExecutor(n) for n in (_READERS, 1, 1))

    def functions(self, channel: Channel, connection: Connection, closed: Callable[[], None] | None) -> Functions:
        """The functions that one process can call.

        Args:
            channel: to it.
            connection: to it, too.
            closed: called when it has closed the store; None for a worker, which leaves it open for the others.
        """

        def close() -> None:
            if closed is not None:
                self._store.close()
                closed()

        folder = EventFolder(self._updater, connection)
        return {
            **functions_of(self._store, channel, connection, self._readers, self._notices),
            "close": (close, self._writers),
            "parse": (folder.parse, self._parsers),
            "fold": (folder.fold, self._writers),
            "apply_table": (folder.apply_table, self._writers),
            "give": (folder.give, self._readers),
        }

    def accept(self, listening: socket.socket) -> None:
        """Answer all workers that connect, each in a thread."""
        while True:
            try:
                connected, _ = listening.accept()
            except OSError as error:
                # No descriptor is free, or who connected has gone: others still come, and they wait in the backlog.
                logger.warning("a worker could not join: %s; it is tried again", error)
                time.sleep(_ACCEPT_PAUSE)
                continue
            timeout = struct.pack("ll", _UNREAD_SECONDS, 0)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            threading.Thread(target=self._answer, args=[Channel(connected)], daemon=True).start()

    def _answer(self, channel: Channel) -> None:
        connection = Connection()
        try:
            answer_calls(channel, connection, self.functions(channel, connection, None))
        finally:
            self._notices.leave(channel)
            channel.close()
