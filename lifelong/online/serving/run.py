"""Runs the service: in one process that owns the store, or in several that share a store on a server."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.errors import LifelongError, UsageError, require
from lifelong.launch import end_with_parent
from lifelong.online.store.descriptors import raise_descriptor_limit

if TYPE_CHECKING:
    from fastapi import FastAPI

ANSWER_SECONDS = 30
"""Seconds without an answer after which a worker is taken for hung and replaced; it gives none until it has started."""
SWITCH_SECONDS = 0.001
"""Seconds for which one thread may keep the others waiting."""
BACKLOG = 2_048
"""Connections that wait to be accepted, at most."""
STOP_SECONDS = 30
"""Seconds that accepted requests may take after the signal to stop."""
PORT_SECONDS = 5.0
"""Seconds that workers of a service that was killed may take to leave the port to the next one."""


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
    _favour_requests()
    server = uvicorn.Server(_config(app))

    def stop() -> None:
        server.should_exit = True

    # Who was called by `ready` may stop the service at once, before the server looks at signals.
    with listen(host, port) as listening, signals_end_here(stop):
        ready(f"http://{host}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])


def run_workers(
    make_app: Callable[[], contextlib.AbstractContextManager[FastAPI]],
    *,
    workers: int,
    host: str,
    port: int,
    ready: Callable[[str], None],
) -> None:
    """Serve from several processes on one address until SIGTERM or SIGINT; uvicorn replaces one that dies or hangs.

    When this process is killed, they answer what they have accepted, and end.

    Args:
        make_app: called in each process; can be pickled. What it opens is closed when the process ends.
        workers: how many.
        host: address to listen on.
        port: 0 takes a free one.
        ready: called with the address once the socket listens; requests wait until a process runs.

    Raises:
        UsageError: the address cannot be used.
    """
    supervisors: Any = require("uvicorn.supervisors", extra="serve", purpose="serving")
    factory = {"factory": True, "workers": workers, "timeout_worker_healthcheck": ANSWER_SECONDS}
    config = _config(partial(_worker_app, make_app), **factory)
    # At the level of a worker's log it would not say that one died.
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
    with listen(host, port, patience=PORT_SECONDS) as listening, _shared_metrics(), signals_end_here():
        # It looks at signals from here on.
        parent = supervisors.Multiprocess(config, [listening])
        # The two that start workers.
        parent.init_processes = _without_interrupt(parent.init_processes)
        parent.keep_subprocess_alive = _without_interrupt(parent.keep_subprocess_alive)
        ready(f"http://{host}:{listening.getsockname()[1]}")
        parent.run()


def _without_interrupt(start: Callable[[], None]) -> Callable[[], None]:
    """The same function, with SIGINT blocked while it runs. Processes that it starts keep it blocked.

    Ctrl-C reaches all processes of a terminal, and a worker that is still starting would end with a traceback. The
    parent ends its workers by SIGTERM instead.
    """

    def started() -> None:
        # Where it has to be started first, it lets SIGINT through again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return started


@contextlib.contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder in which processes that are started meanwhile add up what they count."""
    from lifelong.online.serving.metrics import SHARED

    # Whoever starts the service may have named a folder, which is then theirs to remove.
    if os.environ.get(SHARED):
        yield
        return
    with shared_folder() as folder:
        # In the environment, since workers inherit it, and prometheus_client looks there when it is imported.
        os.environ[SHARED] = str(folder)
        try:
            yield
        finally:
            del os.environ[SHARED]


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder for the processes of one service, which only this user may open."""
    # Workers of a service that was killed may still write into it while it is removed.
    with tempfile.TemporaryDirectory(prefix="lifelong-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _worker_app(make_app: Callable[[], contextlib.AbstractContextManager[FastAPI]]) -> FastAPI:
    """The app of one of several processes; what it was opened with is closed when it has shut down."""
    # A worker that outlived its parent would hold the port, and nobody could stop it by the parent's number.
    end_with_parent(grace=STOP_SECONDS)
    opened = contextlib.ExitStack()
    try:
        app = opened.enter_context(make_app())
    except LifelongError as error:
        # A traceback says nothing that the message does not; the parent starts another worker.
        logging.getLogger(__name__).error("a worker could not start: %s", error)
        sys.exit(1)
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        # uvicorn ends the process by a signal: nothing after the server would be run.
        with opened:
            async with inner(app) as state:
                yield state

    app.router.lifespan_context = lifespan
    _favour_requests()
    return app


def _favour_requests() -> None:
    # A thread that folds events hands over after a millisecond, not after five: a score waits for it at each of its
    # steps. After a tenth of one the two change so often that both take longer.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What was loaded until now stays: searching all of it for garbage would hold up requests for tens of milliseconds.
    gc.collect()
    gc.freeze()


def _config(app: FastAPI | Callable[[], FastAPI], **options: Any) -> Any:
    uvicorn = require("uvicorn", extra="serve", purpose="serving")
    require("zttp", extra="serve", purpose="serving")
    # Each client takes a descriptor, as each file of the store does.
    raise_descriptor_limit()
    if logging.getLogger().handlers:
        # uvicorn's lines go where all others go.
        options["log_config"] = None
    return uvicorn.Config(
        app,
        # Of uvicorn's parsers the one that bounds heads and ignores Upgrade at no cost in time.
        http="zttp",
        ws="none",
        backlog=BACKLOG,
        # Below are lines for what any client may send as often as it likes.
        log_level="error",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        lifespan="on",
        **options,
    )


@contextlib.contextmanager
def signals_end_here(then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let the caller continue after SIGINT or SIGTERM; `then` is called at a signal that no server handles.

    At its end uvicorn raises the signal that stopped it once more; without this the process would end before the store
    is closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, lambda *_: then()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def listen(host: str, port: int, *, patience: float = 0.0) -> socket.socket:
    """A listening socket.

    >>> with listen("127.0.0.1", 0) as listening:
    ...     listening.getsockname()[0]
    '127.0.0.1'

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        patience: seconds to wait for a port that is still in use.

    Raises:
        UsageError: the address cannot be used.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return _listening(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < until:
                # Workers of a killed service end a moment after it, and leave the port then.
                time.sleep(0.05)
                continue
            raise UsageError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                expected="an address and a free port of this machine",
                fix="choose another --port or --host",
            ) from error


def _listening(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # The protocol is named: asyncio turns Nagle's delay (40 ms an answer) off only on a socket that says TCP.
    listening = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        # Without it a restart would find the port taken for as long as the last connections are in TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def check_workers(workers: int, url: str, *, topic: bool = False) -> None:
    """Refuse several processes where there can be one alone.

    >>> check_workers(4, "rocksdb:///var/lib/memories")

    Args:
        workers: how many.
        url: of the store.
        topic: they follow a topic.

    Raises:
        UsageError: more than one process for a store in RAM, or for an embedded store together with an option that
            needs the process that writes.
    """
    kind = url.partition(":")[0]
    shared = "put the memories into a shared store (redis://host:port/database)"
    reason, fix = None, f"run one worker, or {shared}"
    if kind == "memory":
        reason = "a store in RAM is seen by its own process alone"
    elif kind == "rocksdb" and topic:
        reason = "the topic of an embedded store is followed by one process"
    if workers == 1 or reason is None:
        return
    raise UsageError(f"--workers {workers} on {url}: {reason}", expected="--workers 1", fix=fix)
