"""Real Valkey servers for tests: on loopback, on a free port, stopped at the end. Needs Debian's `valkey-server`."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE = 60
"""Seconds in which a server starts on a busy machine."""


@dataclass(slots=True)
class Server:
    """A server and its settings; it can be killed and started again.

    Args:
        folder: where it keeps its files.
        port: on loopback.
        options: of `valkey-server`, as words.
    """

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it does not; says what it wrote.
        """
        self.folder.mkdir(exist_ok=True)
        fixed = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["valkey-server", *fixed, *self.options], stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE
        while "PONG" not in (answer := self.call("ping")) and "NOAUTH" not in answer:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"valkey-server did not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)

    def call(self, *words: str) -> str:
        """What `valkey-cli` prints for a command."""
        command = ["valkey-cli", "-p", str(self.port), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        return done.stdout + done.stderr

    def kill(self) -> None:
        """End it without a chance to write anything; one that does not run is left alone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def free_port() -> int:
    """A port of loopback that nobody listens on, nor on the one 10,000 above, which a cluster's server takes too."""
    for _ in range(100):
        with socket.socket() as probe, socket.socket() as second:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 10_000))
                return port
    raise RuntimeError("no free port with a free one 10,000 above")


@contextlib.contextmanager
def server(folder: Path, *options: str) -> Iterator[Server]:
    """One server; it writes nothing to the disk unless its options say so.

    Args:
        folder: for its files.
        options: of `valkey-server`, as words.
    """
    one = Server(folder, free_port(), options)
    try:
        one.start()
        yield one
    finally:
        one.kill()


@contextlib.contextmanager
def cluster(folder: Path, *options: str) -> Iterator[list[Server]]:
    """Three servers that share the hash slots, without replicas.

    Args:
        folder: for their files.
        options: of each, as words.
    """
    with contextlib.ExitStack() as stack:
        some = [
            stack.enter_context(server(folder / str(number), "--cluster-enabled", "yes", *options))
            for number in range(3)
        ]
        addresses = [f"127.0.0.1:{one.port}" for one in some]
        some[0].call("--cluster", "create", *addresses, "--cluster-replicas", "0", "--cluster-yes")
        deadline = time.monotonic() + _PATIENCE
        while not all("cluster_state:ok" in one.call("cluster", "info") for one in some):
            if time.monotonic() > deadline:
                raise RuntimeError("the cluster did not come up")
            time.sleep(0.05)
        yield some
