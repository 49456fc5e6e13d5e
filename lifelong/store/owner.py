"""The process that owns a store for others on this machine: what it answers them, and how it announces its changes.

    reader --call--> owner --> store
           <--what a commit has written, in the order of the commits--

See `lifelong.store.remote` for the other end.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from lifelong.store.contract import MemoryStore
from lifelong.store.messages import Channel, Functions, packed
from lifelong.store.record_cache import Notice, Written
from lifelong.store.record_copies import pieces_of

_PLAIN = (
    "bind", "artifact_list", "change_artifact_list", "clear", "commit", "watermark", "positions", "clock", "event_ids",
    "check_writes", "logs", "close",
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


class Notices:
    """Announces the changes of a store to its readers, in the order of the commits.

    Args:
        count: of the changes, where there are several readers.
    """

    def __init__(self, count: ChangeCount | None = None) -> None:
        self._count, self._channels, self._lock = count, list[Channel](), threading.Lock()

    def add(self, channel: Channel) -> int:
        """Announce changes to one more reader; gives the number of the last one before."""
        with self._lock:
            self._channels.append(channel)
            return 0 if self._count is None else self._count.value

    def discard(self, channel: Channel) -> None:
        """Announce nothing more to a reader that has ended."""
        with self._lock:
            self._channels = [one for one in self._channels if one is not channel]

    def say(self, what: Notice, written: Written) -> None:
        """Announce a change; see `Listener`."""
        with self._lock:
            number = 0
            if self._count is not None:
                # Before it is sent: a reader that knows of it and has not got it waits.
                number = self._count.value = self._count.value + 1
            pieces = list(pieces_of(written)) or [{}]
            for at, piece in enumerate(pieces, 1):
                # Whoever has got the last one has got all of the change.
                text = packed((what, (piece, number if at == len(pieces) else 0)))
                for channel in self._channels:
                    try:
                        channel.send_packed(text)
                    except OSError:
                        # It has ended, or does not read: it joins again when it does.
                        channel.hang_up()


def functions_of(store: MemoryStore, channel: Channel, threads: Executor, notices: Notices) -> Functions:
    """The functions by which the owner of a store serves a `RemoteStore`.

    Args:
        store: open for writing; `notices` listen to it.
        channel: to the other process.
        threads: that read and write.
        notices: of the store's changes.
    """
    scans, numbers = dict[int, Iterator[tuple[str, bytes]]](), itertools.count()

    def leave(left: Sequence[int]) -> None:
        for number in left:
            scans.pop(number, None)

    def purge(left: Sequence[int]) -> bool:
        leave(left)
        return store.purge()

    def scan(space: int, left: Sequence[int]) -> int:
        leave(left)
        number = next(numbers)
        scans[number] = store.scan(space)
        return number

    def rows(number: int, most: int) -> list[tuple[str, bytes]]:
        found = list(itertools.islice(scans[number], most))
        if len(found) < most:
            del scans[number]
        return found

    functions: dict[str, Callable[..., Any]] = {name: getattr(store, name) for name in _PLAIN}
    functions |= {
        "read_many": lambda names, space: store.read_many(names, space=space),
        "seen": lambda event_ids, now: store.seen(event_ids, now=now),
        "events": lambda user, last: store.events(user, last=last),
        "figures": getattr(store, "figures", dict),
        "join": lambda: notices.add(channel),
        "empty": lambda space: next(iter(store.scan(space)), None) is None,
        "scan": scan,
        "rows": rows,
        "purge": purge,
    }
    return {name: (function, threads) for name, function in functions.items()}
