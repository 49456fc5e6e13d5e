"""Real Valkey servers for tests: on loopback, on a free port, stopped at the end. Needs Debian's `valkey-server`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE = 300
"""Seconds in which a server starts on a busy machine."""


@dataclass(slots=True)
class Server:
    """A server and its settings; it can be killed and started again.

    Args:
        folder: where it keeps its files.
        port: on loopback.
        options: of `valkey-server`, as words.
        settings: file of a Sentinel, which notes there what it finds out; None for a server.
        environment: variables that it gets next to our own.
    """

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    settings: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it does not; says what it wrote.
        """
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            words, environment = ["valkey-server", *self._words()], os.environ | self.environment
            self._process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + _PATIENCE
        while "PONG" not in (answer := self.call("ping")) and "NOAUTH" not in answer:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"valkey-server did not start: {(self.folder / 'log').read_text(errors='replace')[-500:]}"
                )
            time.sleep(0.02)

    def _words(self) -> list[str]:
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        if self.settings is None:
            # A replica need not wait for others to come.
            return [*place, "--save", "", "--repl-diskless-sync-delay", "0", *self.options]
        return [str(self.settings), "--sentinel", *place, *self.options]

    def pause(self) -> None:
        """Let it answer nothing until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the server does not run")
        self._process.send_signal(number)

    def wait_for(self, text: str, *words: str) -> None:
        """Return when the answer to a command holds a text.

        Raises:
            RuntimeError: it does not come; says the last answer.
        """
        deadline = time.monotonic() + _PATIENCE
        while text not in (answer := self.call(*words)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(words)} does not say {text}: {answer}")
            time.sleep(0.05)

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
def replica(folder: Path, primary: Server, *options: str) -> Iterator[Server]:
    """A server that follows another one; it has what that one has.

    Args:
        folder: for its files.
        primary: the other one.
        options: of `valkey-server`, as words.
    """
    with server(folder, *options, "--replicaof", f"127.0.0.1 {primary.port}") as one:
        one.wait_for("master_link_status:up", "info", "replication")
        primary.wait_for("state=online", "info", "replication")
        yield one


@contextlib.contextmanager
def sentinel(folder: Path, primary: Server, *options: str) -> Iterator[Server]:
    """A Sentinel that watches a primary and its replica under the name "main", and knows both.

    Args:
        folder: for its files.
        primary: one that has a replica.
        options: of a Sentinel, as words; one that wants a password may not know both yet.
    """
    folder.mkdir(exist_ok=True)
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 5000\n"
    )
    one = Server(folder, free_port(), options, settings)
    try:
        one.start()
        if "NOAUTH" not in one.call("ping"):
            # Known from the primary's own words first; promoted only after it was asked itself.
            one.wait_for("master-link-status\nok", "sentinel", "replicas", "main")
        yield one
    finally:
        one.kill()


@contextlib.contextmanager
def cluster(folder: Path, *options: str, replicas: int = 0) -> Iterator[list[Server]]:
    """Three servers that share the hash slots, and their replicas behind them.

    Args:
        folder: for their files.
        options: of each, as words.
        replicas: of each of the three.
    """
    with contextlib.ExitStack() as stack:
        some = [
            stack.enter_context(server(folder / str(number), "--cluster-enabled", "yes", *options))
            for number in range(3 * (1 + replicas))
        ]
        addresses = [f"127.0.0.1:{one.port}" for one in some]
        some[0].call("--cluster", "create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes")
        for one in some:
            one.wait_for("cluster_state:ok", "cluster", "info")
        for one in some[:3] if replicas else ():
            one.wait_for(f"connected_slaves:{replicas}", "info", "replication")
        for one in some[3:]:
            one.wait_for("master_link_status:up", "info", "replication")
        yield some


def url_of_cluster(some: Iterable[Server], options: str = "") -> str:
    """Of a store on a cluster.

    Args:
        some: servers of it.
        options: more options of the URL.
    """
    return f"redis://{','.join(f'127.0.0.1:{one.port}' for one in some)}/?cluster=true{options}"


@contextlib.contextmanager
def grown(folder: Path, some: Sequence[Server]) -> Iterator[Server]:
    """One more primary of a cluster, which has got its share of the hash slots and of the keys in them.

    Args:
        folder: for its files.
        some: the primaries that there are.

    Raises:
        RuntimeError: it did not get them; says what `valkey-cli` printed.
    """
    share = 16_384 // (len(some) + 1)
    with server(folder, "--cluster-enabled", "yes") as one:
        new, old = (f"127.0.0.1:{each.port}" for each in (one, some[0]))
        said = one.call("--cluster", "add-node", new, old)
        for each in (*some, one):
            each.wait_for(f"cluster_known_nodes:{len(some) + 1}", "cluster", "info")
            each.wait_for("cluster_state:ok", "cluster", "info")
        said += one.call("--cluster", "rebalance", old, "--cluster-use-empty-masters")
        if f"{share} slots" not in (found := one.call("--cluster", "check", new)):
            raise RuntimeError(f"{new} has not got {share} slots: {said[-500:]} {found}")
        yield one


def wait_for_takeover(some: Sequence[Server], lost: Server) -> None:
    """Return when a replica has taken the place of a primary, and all the others of the cluster know it.

    Args:
        some: all servers, the three primaries first.
        lost: one that does not run.
    """
    while not any("role:master" in one.call("info", "replication") for one in some[3:]):
        time.sleep(0.1)
    for one in some:
        if one is not lost:
            one.wait_for("cluster_state:ok", "cluster", "info")
