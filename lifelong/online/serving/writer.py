"""Events on their way to the process that owns a store, at both ends.

    service   HTTP, scores, memories in RAM          owner     bodies of events, write graph, store
       |---- body of a request of many events ----------> parses it, and keeps it for its turn
       |---- all that wait: one commit ----------------->  folds them in, writes, waits for the disk
       |<--- memories that were written, then outcomes --'
       |---- reads of what is not in RAM, other writes -->  the store

`lifelong.online.serving.owner` starts and ends the process.

Everything but events is as `lifelong.online.store.protocol` has it.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lifelong.artifact.folder import Artifact
from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.serving.event_bodies import table_of
from lifelong.online.serving.owner import CHANGES, CLOSE_SECONDS, connect, lost
from lifelong.online.store.contract import ITEMS, MemoryStore
from lifelong.online.store.protocol import Connection, Count, Held, Hold, Number, Owner
from lifelong.online.store.record_cache import Notice, Written
from lifelong.online.store.remote import ChangeCount, Channel, Connected, Functions, RemoteStore, closed, packed

Rows = Sequence[Mapping[str, Any]]
_PLAIN = (
    "bind", "artifact_list", "change_artifact_list", "clear", "commit", "watermark", "positions", "clock", "event_ids",
    "purge", "check_writes", "logs",
)  # fmt: skip
"""Methods that are passed on to the owner's store unchanged."""


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


class Writer:
    """Folds events in, by way of the process that owns the store; each process of a service that scores has one.

    Args:
        folder: in which it finds that process.
        shared: whether other processes of the service write to the store, too.
    """

    on_end: Callable[[StoreUnavailableError], object]
    """Called, in a thread of its own, if the process ends though the service does not stop."""
    store: RemoteStore
    """The store, after `open`."""

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._folder, self._shared, self._closing = folder, shared, False
        self._deadline: threading.Timer | None = None
        self.on_end = lambda error: None

    def open(self) -> RemoteStore:
        """The store, when the process has opened it.

        Raises:
            StoreUnavailableError: the process does not run.
        """
        count = ChangeCount(self._folder / CHANGES) if self._shared else Number()
        self.store = RemoteStore(self._connect, count, shared=self._shared)
        return self.store

    def _connect(self) -> Connected:
        self._channel = connect(self._folder)
        # Not before: `end_soon` says that it closes, and then hangs up the channel that it finds.
        if self._closing:
            self._channel.close()
            raise closed()
        return self._channel, self._ended

    def _ended(self) -> StoreError:
        if self._closing:
            return closed()
        error = lost("has ended, or did not wait for this one")
        self.on_end(error)
        return error

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
        # Events that the process has parsed stay there; only their number goes over the socket, and not the events once
        # more.
        requests = [request.held.number if isinstance(request, ParsedEvents) else request for request in parts]
        return cast("list[Applied | Exception]", self.store.calls("fold", requests))

    def apply_table(self, table: EventTable, **options: Any) -> Applied:
        """See `Updater.apply_table`."""
        return cast("Applied", self.store.calls("apply_table", table, options))

    def give(self, artifact: Path, codec: str) -> None:
        """Open an artifact in the process before it is on the store's list."""
        self.store.calls("give", artifact, codec)

    def end_soon(self) -> None:
        """The service stops: what the process has not answered after `CLOSE_SECONDS` fails.

        A disk that hangs must not keep a service from stopping. Nothing acknowledged is lost: each commit has waited
        for the disk.
        """
        # First of all, so that the end of the process is seen as wanted, and `on_end` is not called.
        self._closing = True
        # A timer, since whoever stops the service waits for the answers. A process that is only starting owes none.
        seconds = 0.0 if self.store.calls.over else CLOSE_SECONDS
        self._deadline = threading.Timer(seconds, lambda: self._channel.hang_up())
        self._deadline.daemon = True
        self._deadline.start()

    def close(self) -> None:
        """Leave the store."""
        self._closing = True
        # Opening may have failed.
        if hasattr(self, "store"):
            self.store.close()
        if self._deadline is not None:
            self._deadline.cancel()


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

    def fold(self, parts: Sequence[int | Sequence[dict[str, Any]]]) -> list[Applied | Exception]:
        """See `Updater.apply_parts`.

        Args:
            parts: of each request the number of the call that parsed its events, or rows that were checked.

        Raises:
            StoreUnavailableError: the events waited in an earlier process.
        """
        parsed = [
            self._waiting.pop(request, None) if isinstance(request, int) else EventTable.of_rows(request)
            for request in parts
        ]
        # Events that are refused together with others are dropped as well: nobody will ask for them again.
        tables = [table for table in parsed if table is not None]
        if len(tables) < len(parsed):
            raise StoreUnavailableError(
                "the process that was to write the events has ended; nothing was kept", fix="send them again"
            )
        return self.updater.apply_parts(EventTable.joined(tables), list(map(len, tables)))

    def give(self, artifact: Path, codec: str) -> None:
        """Open an artifact that will be on the store's list, so that no write waits for it."""
        # The service has checked the hashes of this folder already; reading gigabytes again would only delay the
        # switch.
        opened = Artifact.open(artifact, verify="sizes")
        self.updater.artifacts.give(MemoryWriter(opened, codec, self.updater.store))


class Notices(Owner[Channel]):
    """Announces the changes of a store to its readers, in the order of the commits."""

    def __init__(self, count: Count) -> None:
        super().__init__(count)
        self._saying = threading.Lock()

    def say(self, what: Notice, written: Written) -> None:
        """Announce a change; see `Listener`."""
        # Parts of a store change at the same time, and each reader gets whole changes in the order of their numbers.
        with self._saying:
            for message in self.changed(what, written):
                # A change can be large: it is packed once, not once for each reader.
                text = packed(message)
                # A copy, since a reader may join or leave in another thread meanwhile.
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
        # It is sent changes before anything is read for it: what is written in between comes twice, and not never.
        number, no_items = notices.join(channel), False
        # A store that answers nothing until its writes are checked must not keep out whoever checks them.
        with contextlib.suppress(StoreError):
            no_items = next(iter(store.scan(ITEMS)), None) is None
        return number, no_items

    def rows(number: int, most: int) -> list[tuple[str, bytes]]:
        # In pieces: a whole space in one message could be larger than the RAM of either process.
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
