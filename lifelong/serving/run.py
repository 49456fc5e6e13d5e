"""Runs the service: one process that owns the store, or several that share one on a server."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lifelong.errors import UsageError, require

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from fastapi import FastAPI

logger = logging.getLogger(__name__)

_LOOK = 0.5
"""Seconds between two looks at the workers."""
SWITCH_SECONDS = 0.0001
"""How long one thread may keep the others waiting."""
STOP_SECONDS = 30
"""How long requests that were accepted may take after the signal to stop."""


def run(app: FastAPI, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests that were accepted are answered first.

    Args:
        app: from `create_app`.
        host: address to listen on.
        port: 0 takes a free one.
        ready: called with the address once the socket listens.

    Raises:
        UsageError: the address cannot be used.
    """
    uvicorn = require("uvicorn", extra="serve", purpose="serving")
    with listen(host, port) as listening:
        ready(f"http://{host}:{listening.getsockname()[1]}")
        with signals_end_here():
            uvicorn.Server(_config(app)).run(sockets=[listening])


def run_workers(
    make_app: Callable[[], contextlib.AbstractContextManager[FastAPI]],
    *,
    workers: int,
    host: str,
    port: int,
    ready: Callable[[str], None],
) -> None:
    """Serve from several processes on one address until SIGTERM or SIGINT; one that dies is replaced.

    Args:
        make_app: called in each process; can be pickled.
        workers: how many.
        host: address to listen on.
        port: 0 takes a free one.
        ready: called with the address once the socket listens; what comes before a process runs waits.

    Raises:
        UsageError: the address cannot be used.
    """
    context, stopping = multiprocessing.get_context("spawn"), threading.Event()
    with listen(host, port) as listening, signals_end_here(stopping.set):

        def start() -> SpawnProcess:
            process = context.Process(target=_work, args=(make_app, listening))
            process.start()
            return process

        ready(f"http://{host}:{listening.getsockname()[1]}")
        processes = [start() for _ in range(workers)]
        while not stopping.wait(_LOOK):
            for place, process in enumerate(processes):
                if not process.is_alive():
                    logger.error("worker %s ended with code %s; another one takes its place", place, process.exitcode)
                    processes[place] = start()
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _work(make_app: Callable[[], contextlib.AbstractContextManager[FastAPI]], listening: socket.socket) -> None:
    """What one of several processes does."""
    uvicorn = require("uvicorn", extra="serve", purpose="serving")
    with make_app() as app, signals_end_here():
        uvicorn.Server(_config(app)).run(sockets=[listening])


def _config(app: FastAPI) -> Any:
    # A thread that folds events hands over after a tenth of a millisecond, not after five: a score waits for it at each
    # of its steps.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is there by now stays: looking through all of it for garbage would hold up requests for tens of milliseconds.
    gc.collect()
    gc.freeze()
    uvicorn = require("uvicorn", extra="serve", purpose="serving")
    return uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_SECONDS, lifespan="on"
    )


@contextlib.contextmanager
def signals_end_here(then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let the caller go on after the server has stopped; `then` is called at a signal that no server takes.

    uvicorn raises the signal that stopped it once more at its end; by default that would end the process before the
    store is closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: then()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: the address cannot be used.
    """
    listening: socket.socket | None = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named: asyncio turns Nagle's delay (40 ms an answer) off only where it reads TCP.
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
        return listening
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            expected="an address and a free port of this machine",
            fix="choose another --port or --host",
        ) from error


def check_workers(workers: int, url: str) -> None:
    """Refuse several processes on a store that only one can own.

    Raises:
        UsageError: more than one, and why that cannot be.
    """
    reasons = {
        "rocksdb": "an embedded store has one owner: its lock admits a single writing process",
        "memory": "a store in RAM is seen by its own process alone",
    }
    reason = reasons.get(url.partition(":")[0])
    if workers == 1 or reason is None:
        return
    raise UsageError(
        f"--workers {workers} on {url}: {reason}",
        expected="--workers 1",
        fix="run one worker, or put the memories into a shared store (redis://host:port/database)",
    )
