"""The process that owns a store for others on this machine: what it answers them, and how it announces its changes.

    reader --call--> owner --> store
           <--what a commit has written, in the order of the commits--

See `lifelong.store.protocol` for what is said, and `lifelong.store.remote` for the other end.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from lifelong.errors import StoreError
from lifelong.store.contract import ITEMS, MemoryStore
from lifelong.store.messages import Channel, Functions, packed
from lifelong.store.protocol import Connection, Hold, Owner
from lifelong.store.record_cache import Notice, Written

_PLAIN = (
    "bind", "artifact_list", "change_artifact_list", "clear", "commit", "watermark", "positions", "clock", "event_ids",
    "purge", "check_writes", "logs", "close",
)  # fmt: skip
"""Methods that are passed on to the owner's store unchanged."""


class ChangeCount:
    """How many changes of a store its owner has announced, in a file that processes map into their memory.

    Args:
        path: the file; made if it is not there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     of_owner, of_reader = ChangeCount(Path(folder, "count")), ChangeCount(Path(folder, "count"))
        ...     of_owner.value += 1
        ...     of_reader.value
        1
    """

    def __init__(self, path: Path) -> None:
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            file.write(bytes(8))
        with path.open("r+b") as file:
            # Eight bytes at the start of a page are written and read as one.
            self._number = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")

    @property
    def value(self) -> int:
        """The number."""
        return self._number[0]

    @value.setter
    def value(self, number: int) -> None:
        self._number[0] = number


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
