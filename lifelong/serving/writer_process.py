"""What the process does that owns the store of a service; `lifelong.serving.writer` starts it.

    bodies of events --parsed--> wait here for their turn --folded in--> one commit --> disk
    reads of what the service has not in RAM, and its other writes ------------------> the store

It ends when the service does: at once where that was killed, as nothing is acknowledged any more.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lifelong.artifact.folder import Artifact
from lifelong.errors import StoreUnavailableError
from lifelong.launch import INTERRUPTED
from lifelong.memory.event import EventTable
from lifelong.memory.updater import Applied, Updater
from lifelong.memory.writer import MemoryWriter
from lifelong.serving.event_bodies import table_of
from lifelong.serving.logs import LogFormat, log_as
from lifelong.store.contract import MemoryStore
from lifelong.store.folder import act_for
from lifelong.store.messages import Channel, answer_calls
from lifelong.store.opening import open_store
from lifelong.store.remote import functions_of

_READERS = 4
"""Threads that answer all but events."""
_NICE = 5
"""How much lower the priority of this process is than that of the one that scores."""
Part = int | Sequence[dict[str, Any]]
"""The events of a request: the number that `parse` gave them, or rows that were checked."""


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
    """

    url: str
    artifact: Path
    late: Literal["apply", "refuse"]
    event_log: bool
    max_ahead: float
    log: LogFormat
    service: int = 0


class EventFolder:
    """Events that wait for their turn, and the updater that folds them in.

    Args:
        updater: of the store.
    """

    updater: Updater

    def __init__(self, updater: Updater) -> None:
        self.updater = updater
        self._waiting: dict[int, EventTable] = {}

    def parse(self, number: int, text: bytes, packed: bool, left: Sequence[int]) -> Sequence[str] | None:
        """Parse the events of a body, and keep them until it is their turn.

        Args:
            number: under which they wait.
            text: of the body.
            packed: it is MessagePack, not JSON.
            left: numbers of requests that nobody waits for any more.

        Returns:
            The user of each event; None if `EventsBody` has to check the body.
        """
        for one in left:
            self._waiting.pop(one, None)
        table = table_of(text, packed=packed)
        if table is None:
            return None
        self._waiting[number] = table
        return table.user

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


def run_writer(descriptor: int) -> None:
    """Work until the other end hangs up.

    Args:
        descriptor: of the socket that is shared with the service, which sends a `WriterTask` first and gets None, or
            the error, when the store is open.
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
            folder = EventFolder(Updater(artifact, store, **options))
        except Exception as error:
            channel.send(error)
            os._exit(1)
        gc.collect()
        gc.freeze()
        channel.send(None)
        _work(channel, store, folder, lambda: closed.append(True))
    except (EOFError, OSError):
        # The service has ended meanwhile.
        pass
    # What is not closed now is left as by a kill; other threads may be in the middle of something.
    os._exit(0 if closed else INTERRUPTED)


def _work(channel: Channel, store: MemoryStore, folder: EventFolder, closed: Callable[[], None]) -> None:
    readers, writers, parsers = ThreadPoolExecutor(_READERS), ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def close() -> None:
        store.close()
        closed()

    answer_calls(
        channel,
        {
            **functions_of(store, channel, readers),
            "close": (close, writers),
            "parse": (folder.parse, parsers),
            "fold": (folder.fold, writers),
            "apply_table": (folder.apply_table, writers),
            "give": (folder.give, readers),
        },
    )
