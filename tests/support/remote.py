"""A store whose owner is a thread of the same process, in place of a process of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lifelong.errors import StoreUnavailableError
from lifelong.online.serving.writer import Notices, functions_of
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.opening import open_store
from lifelong.online.store.protocol import Connection, Count, Number
from lifelong.online.store.record_cache import Listenable
from lifelong.online.store.remote import Channel, RemoteStore, answer_calls


class Owner:
    """Opens a store when it is asked to, answers for it, and leaves it when the other end hangs up.

    Args:
        url: of the store.
        count: of its changes.
    """

    store: MemoryStore

    def __init__(self, url: str, count: Count | None = None) -> None:
        self._url, self._count = url, count or Number()

    def __call__(self) -> tuple[Channel, Callable[[], Exception]]:
        """See `lifelong.online.store.remote.Connected`."""
        here, self._there = map(Channel, socket.socketpair())
        self.store = open_store(self._url)
        threads = ThreadPoolExecutor(4)
        notices = Notices(self._count)
        if isinstance(self.store, Listenable):
            self.store.listen(notices.say)
        connection = Connection()
        functions = functions_of(self.store, self._there, connection, threads, notices)

        def work() -> None:
            answer_calls(self._there, connection, functions)
            threads.shutdown()
            self.store.close()
            self._there.close()

        self._thread = threading.Thread(target=work)
        self._thread.start()
        return here, self._ended

    def _ended(self) -> StoreUnavailableError:
        self._thread.join()
        return StoreUnavailableError("the owner has ended", fix="ask again")

    def end(self) -> None:
        """Hang up, as if it had ended."""
        self._there.close()
        self._thread.join()


def open_remote(url: str) -> RemoteStore:
    """The store of a URL, owned by a thread."""
    return RemoteStore(Owner(url), Number())
