"""A store that another process on this machine owns: `lifelong.online.store.protocol` with sockets and threads.

    threads that call --Reader--> Channel --> socket --> answer_calls --> threads of the owner
                     <--future--  one thread that receives <--'

Values are pickled: both ends are this package, in processes of one user, and nobody else has the socket. While a caller
waits it holds no lock of the interpreter.
"""

from __future__ import annotations

import contextlib
import mmap
import pickle
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity
from lifelong.online.store.contract import Commit
from lifelong.online.store.protocol import Ask, Call, Connection, Count, Held, Reader, Steps

V = TypeVar("V")
Functions = Mapping[str, tuple[Callable[..., Any], Executor]]
"""Name -> function, and the threads that call it."""

_LENGTH = struct.Struct("=Q")
_SMALL = 65_536
"""Bytes up to which a message is copied behind its length, so that one call of the system sends both."""
_BUFFER = 2**18
"""Bytes that are received at once."""
CACHE = 128 * 2**20
"""Default of the bytes of records of a space that are kept in RAM."""
_ROWS = 256
"""Rows of a scan that come in one message."""
BEHIND_SECONDS = 2.0
"""Seconds that a read waits for changes that the owner has announced."""


class Channel:
    """Whole messages over a connected socket. Many threads may send; one alone receives.

    Args:
        connected: one end of `socket.socketpair()`.

    Example:
        >>> here, there = map(Channel, socket.socketpair())
        >>> here.send(("read", ["ann"]))
        >>> there.receive()
        ('read', ['ann'])
        >>> here.close(), there.close()
        (None, None)
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket, self._sending = connected, threading.Lock()
        self._reading = connected.makefile("rb", buffering=_BUFFER)

    def send(self, message: object) -> None:
        """Send a message; waits while the other end is behind.

        Raises:
            OSError: the other end is gone.
        """
        self.send_packed(packed(message))

    def send_packed(self, text: bytes) -> None:
        """Send what `packed` gave.

        Raises:
            OSError: the other end is gone, or has read nothing for as long as the socket waits; then it may have got
                a part, and only `hang_up` is left.
        """
        head = _LENGTH.pack(len(text))
        # Two threads must not write into each other's message.
        with self._sending:
            if len(text) <= _SMALL:
                self._socket.sendall(head + text)
            else:
                self._socket.sendall(head)
                self._socket.sendall(text)

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            EOFError: the other end is gone.
        """
        # One thread alone receives, so that no lock is needed.
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))

    def _read(self, size: int) -> bytes:
        try:
            data: bytes = self._reading.read(size)
        except (OSError, ValueError) as error:
            raise EOFError from error
        if len(data) < size:
            raise EOFError
        return data

    def hang_up(self) -> None:
        """Let nothing come any more, at either end."""
        with contextlib.suppress(OSError):
            # The other end may have been faster.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up, and release everything."""
        self.hang_up()
        self._socket.close()
        # A thread that receives has got the end, and leaves it.
        self._reading.close()


Connected = tuple[Channel, Callable[[], Exception]]
"""A channel to the owner of a store, and a function that gives the error with which it ended."""


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


def packed(message: object) -> bytes:
    """A message as it is sent; to pack it once is enough for several channels."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


class Calls:
    """Calls over one connection, from its beginning to its end. Threads may share it.

    Args:
        channel: to the owner; closed here.
        reader: this process; one of its connections at a time.
        ended: called once when the connection has ended; gives the error of calls that are open, and of later ones.
    """

    over: bool
    """Whether the connection has ended."""

    def __init__(self, channel: Channel, reader: Reader[Future[Any]], *, ended: Callable[[], Exception]) -> None:
        self._channel, self._reader, self._ended = channel, reader, ended
        # Held where calls begin and end; notified when something was received, or nothing will be any more.
        self.over, self._error, self._changed = False, Exception(), threading.Condition()
        reader.connected()
        self._thread = threading.Thread(target=self._receive, name="lifelong-calls", daemon=True)
        self._thread.start()

    def begin(self, name: str, *arguments: Any) -> Future[Any]:
        """Call a function; its result, or its error, comes later."""
        return self._begin(name, arguments)[1]

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Call a function, and wait for its result."""
        return self.begin(name, *arguments).result()

    def held(self, name: str, *arguments: Any) -> tuple[Held, Any]:
        """Call a function of whose result a part waits at the owner: that part, and the result."""
        call, future = self._begin(name, arguments)
        # From now on: an error on the way leaves it, too.
        held = self._reader.held(call)
        return held, future.result()

    def _begin(self, name: str, arguments: tuple[Any, ...]) -> tuple[Call, Future[Any]]:
        future: Future[Any] = Future()
        # It cannot be cancelled: the result comes even if nobody waits for it any more.
        future.set_running_or_notify_cancel()
        # Not after the end: `_receive` fails the calls that it knows of then, and no later one.
        with self._changed:
            if self.over:
                raise self._error
            call = self._reader.call(future, name, arguments)
        try:
            self._channel.send(call)
        except OSError:
            # The other end is gone: the thread that receives finds that out, too, and fails this call.
            pass
        except Exception:
            # The arguments cannot be sent.
            with self._changed:
                self._reader.unsent(call)
            raise
        return call, future

    def run(self, steps: Steps[V]) -> V:
        """Take the steps of the reader, and wait for what it wants.

        Raises:
            StoreUnavailableError: changes that the owner has announced have not come for `BEHIND_SECONDS`.
        """
        result: Any = None
        while True:
            try:
                wish = steps.send(result)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if isinstance(wish, Ask):
                result = self(wish.name, *wish.arguments)
                continue
            came = partial(self._reader.has_seen, wish.goal)
            # Another worker may have acknowledged what this process has not received yet: reading at once would give a
            # score without that event. The thread that receives notifies.
            with self._changed:
                self._changed.wait_for(lambda: came() or self.over, BEHIND_SECONDS)  # noqa: B023
            if not came():
                raise StoreUnavailableError(
                    "the latest changes of the store have not come to this process",
                    expected=f"all of them within {BEHIND_SECONDS:g} seconds",
                    fix="send the request again; if this happens often, use fewer workers or larger requests of events",
                )
            result = None

    def close(self) -> None:
        """Hang up; calls that are open fail."""
        self._channel.close()
        # The thread that receives fails what is open; after this nobody else does.
        self._thread.join()

    def _receive(self) -> None:
        try:
            with contextlib.suppress(EOFError):
                while True:
                    self._take(self._channel.receive())
        finally:
            # Whatever has ended this thread, nobody may wait for ever.
            self._channel.hang_up()
            error = self._ended()
            with self._changed:
                self.over, self._error = True, error
                futures = self._reader.ended()
                self._changed.notify_all()
            for future in futures:
                future.set_exception(error)

    def _take(self, message: Any) -> None:
        answered = self._reader.receive(message)
        # Before the caller goes on: reads that wait for this change may go on, too.
        with self._changed:
            self._changed.notify_all()
        if answered is not None:
            future, well, value = answered
            (future.set_result if well else future.set_exception)(value)


def answer_calls(channel: Channel, connection: Connection, functions: Functions) -> None:
    """The other end of `Calls`: answer them until that one hangs up.

    Args:
        channel: to it.
        connection: to it, as the owner sees it.
        functions: that can be called.
    """

    def answer(number: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        well, value = True, None
        try:
            value = function(*arguments)
        except Exception as error:
            well, value = False, _sendable(error)
        try:
            try:
                channel.send(connection.answer(number, well, value))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                channel.send((number, False, _sendable(error)))
        except OSError:
            # Nobody waits any more, or the other end may have got a part.
            channel.hang_up()

    with contextlib.suppress(EOFError):
        while True:
            number, name, arguments = connection.receive(channel.receive())
            function, threads = functions[name]
            threads.submit(answer, number, function, arguments)


def _sendable(error: Exception) -> Exception:
    """An error that the other end can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def closed() -> StoreError:
    """The error of a store that was closed."""
    return StoreError("the store is closed", fix="open it again")


class RemoteStore:
    """A store that another process owns. Threads may share it.

    Args:
        connect: joins the owner, here, and again in `check_writes` if it has ended.
        count: of the changes; `Number()` where this process is the owner's only reader.
        cache: bytes of records of a space that are kept in RAM, about.
        shared: whether the owner has other readers.

    Raises:
        StoreError: the owner does not run.
    """

    shared: bool
    """Whether other processes write to it, too."""

    def __init__(
        self, connect: Callable[[], Connected], count: Count, *, cache: int = CACHE, shared: bool = False
    ) -> None:
        self._connect, self.shared = connect, shared
        self._reader = Reader[Future[Any]](cache, count)
        self.calls: Calls = self._connected()

    def _connected(self) -> Calls:
        channel, ended = self._connect()
        calls = Calls(channel, self._reader, ended=ended)
        try:
            calls("join")
        except BaseException:
            # An owner that nobody calls would keep the store locked.
            calls.close()
            raise
        return calls

    def bind(self, identity: StoreIdentity) -> int:
        """See `MemoryStore`."""
        return cast("int", self.calls("bind", identity))

    def artifact_list(self) -> ArtifactList:
        """See `MemoryStore`; the owner is asked once until it changes."""
        return self.calls.run(self._reader.artifact_list())

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """See `MemoryStore`."""
        self.calls("change_artifact_list", before, after)

    def clear(self, space: int) -> None:
        """See `MemoryStore`."""
        self.calls("clear", space)

    def holds(self, names: Sequence[str], *, space: int = 0) -> bool:
        """Whether `read_many` finds all of these names in this process."""
        return self._reader.current and self._reader.copies.holds(names, space)

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        """See `MemoryStore`."""
        return self.calls.run(self._reader.read(names, space))

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """See `MemoryStore`; the view is fixed when this is called, and closed when nothing refers to it."""
        calls = self.calls
        held, _ = calls.held("scan", space)
        return _rows(calls, held)

    def commit(self, change: Commit) -> None:
        """See `MemoryStore`."""
        self.calls("commit", change)

    def watermark(self, source: str, partition: int) -> int:
        """See `MemoryStore`."""
        return cast("int", self.calls("watermark", source, partition))

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """See `MemoryStore`."""
        return cast("list[int]", self.calls("positions", source, partition, users))

    def clock(self) -> int:
        """See `MemoryStore`."""
        return cast("int", self.calls("clock"))

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """See `MemoryStore`."""
        return cast("list[bool]", self.calls("seen", event_ids, now))

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """See `MemoryStore`."""
        return cast("list[bytes]", self.calls("events", user, last))

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """See `MemoryStore`."""
        return cast("list[tuple[str, int]]", self.calls("event_ids", user))

    def purge(self) -> bool:
        """See `MemoryStore`."""
        return cast("bool", self.calls("purge"))

    def check_writes(self) -> None:
        """See `MemoryStore`; if the owner has ended, the next one is joined when it has opened the store again."""
        if self.calls.over:
            # Waits for the thread of the old connection: one at a time may change what the reader holds.
            self.calls.close()
            self.calls = self._connected()
        self.calls("check_writes")

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """See `MemoryStore`."""
        return cast("list[list[tuple[int, bytes]]]", self.calls("logs", asked))

    def figures(self) -> dict[str, int]:
        """What the database counts about itself; nothing while its owner has ended."""
        with contextlib.suppress(StoreError):
            return cast("dict[str, int]", self.calls("figures"))
        return {}

    def close(self) -> None:
        """Leave the owner; a second call does nothing."""
        self.calls.close()


def _rows(calls: Calls, held: Held) -> Iterator[tuple[str, bytes]]:
    """Rows of a scan, some of them at a time."""
    while True:
        rows = calls("rows", held.number, _ROWS)
        for row in rows:
            if calls.over:
                # Its owner may have ended, and another one opens it again.
                raise StoreUnavailableError("a store was closed while it was read", fix="read it again when it is open")
            yield row
        if len(rows) < _ROWS:
            return
