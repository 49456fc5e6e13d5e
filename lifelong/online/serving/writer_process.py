"""What runs in the process that owns the store of a service: it answers each process of the service that scores.

    socket in a folder --calls--> readers: reads        one thread each for
                                  parser: bodies        bodies and writes, so that
                                  writer: commits       both keep their order

It ends when the service does: at once where that was killed, as nothing is acknowledged any more.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from lifelong.artifact.folder import Artifact
from lifelong.launch import INTERRUPTED
from lifelong.online.memory.updater import Updater
from lifelong.online.serving.logs import log_as
from lifelong.online.serving.owner import CHANGES, WriterTask
from lifelong.online.serving.writer import EventFolder, Notices, functions_of
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.folder import act_for
from lifelong.online.store.opening import open_store
from lifelong.online.store.protocol import Connection
from lifelong.online.store.record_cache import Listenable
from lifelong.online.store.remote import ChangeCount, Channel, Functions, answer_calls

logger: logging.Logger = logging.getLogger(__name__)
# Reads wait for the disk, so a few can be under way at once; more would only take time from the thread that commits.
_READERS = 4
"""Threads that answer all but events."""
# Under load scores come first: an event waits for its commit anyway, and a person waits for a score.
_NICE = 5
"""How much lower the priority of this process is than that of the one that scores."""
_ACCEPT_PAUSE = 0.1
"""Seconds until the next try to let a worker join: what is missing does not come back at once."""
# A worker that lives reads at once. One that does not is cut off, and joins again later with empty copies.
_UNREAD_SECONDS = 2
"""Seconds after which a worker that reads nothing holds up the others no longer."""


def run_writer(descriptor: int, listening: int) -> None:
    """Work until the service stops or ends.

    Args:
        descriptor: of the socket that is shared with the service, which sends a `WriterTask`, gets None, or the error,
            when the store is open, and says "close" when it stops.
        listening: of the socket to which readers connect.
    """
    # Ctrl-C and a service manager's SIGTERM reach all processes: the service stops this one when it has finished.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    channel, code = Channel(socket.socket(fileno=descriptor)), INTERRUPTED
    try:
        task: WriterTask = channel.receive()
        log_as(task.log)
        act_for(task.service)
        os.nice(_NICE)
        try:
            writing = _opened(task)
        except Exception as error:
            # The error itself: the service raises it with its own text, as if it had opened the store.
            channel.send(error)
            os._exit(1)
        # What was loaded until now stays, and the collector must not look through it in the middle of commits.
        gc.collect()
        gc.freeze()
        threading.Thread(target=writing.accept, args=[socket.socket(fileno=listening)], daemon=True).start()
        channel.send(None)
        # Nothing else is said here: the next message is "close", or the service has ended.
        channel.receive()
        writing.close()
        code = 0
    except (EOFError, OSError):
        # The service has ended meanwhile.
        pass
    # What is not closed now is left as by a kill; other threads may be in the middle of something.
    os._exit(code)


def _opened(task: WriterTask) -> _Writing:
    # The service has checked every byte of it, or does it now.
    artifact = Artifact.open(task.artifact, verify="sizes")
    store = open_store(task.url)
    updater = Updater(artifact, store, late=task.late, event_log=task.event_log, max_ahead=task.max_ahead)
    notices = Notices(ChangeCount(task.folder / CHANGES))
    if isinstance(store, Listenable):
        store.listen(notices.say)
    return _Writing(store, updater, notices)


class _Writing:
    """What the process answers to each of its readers.

    Args:
        store: open for writing.
        updater: of the store.
        notices: of its changes.
    """

    def __init__(self, store: MemoryStore, updater: Updater, notices: Notices) -> None:
        self._store, self._updater, self._notices = store, updater, notices
        # One thread writes and one parses: commits, and the bodies that they are made of, keep their order.
        self._readers, self._writers, self._parsers = (ThreadPoolExecutor(n) for n in (_READERS, 1, 1))

    def functions(self, channel: Channel, connection: Connection) -> Functions:
        """The functions that one process can call.

        Args:
            channel: to it.
            connection: to it, too.
        """
        folder = EventFolder(self._updater, connection)
        return {
            **functions_of(self._store, channel, connection, self._readers, self._notices),
            "parse": (folder.parse, self._parsers),
            "fold": (folder.fold, self._writers),
            "apply_table": (lambda table, options: self._updater.apply_table(table, **options), self._writers),
            "give": (folder.give, self._readers),
        }

    def close(self) -> None:
        """Close the store, after the writes that wait."""
        # In the thread that writes, and so behind all that was accepted.
        self._writers.submit(self._store.close).result()

    def accept(self, listening: socket.socket) -> None:
        """Answer all readers that connect, each in a thread."""
        while True:
            try:
                connected, _ = listening.accept()
            except OSError as error:
                # No descriptor is free, or who connected has gone: others still come, and they wait in the backlog.
                logger.warning("a worker could not join: %s; it is tried again", error)
                time.sleep(_ACCEPT_PAUSE)
                continue
            # Changes go to all workers in turn: one that reads nothing must not keep them from the others.
            # The kernel's `timeval`: seconds and microseconds as two C longs. Python's own timeout would make reads
            # time out as well.
            timeout = struct.pack("ll", _UNREAD_SECONDS, 0)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            threading.Thread(target=self._answer, args=[Channel(connected)], daemon=True).start()

    def _answer(self, channel: Channel) -> None:
        connection = Connection()
        try:
            answer_calls(channel, connection, self.functions(channel, connection))
        finally:
            self._notices.leave(channel)
            channel.close()
