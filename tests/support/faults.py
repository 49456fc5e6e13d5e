"""Faults that happen to services under clients, as schedules that can be made smaller; see `support.histories`.

    Step, Step, ... --> disturb --> a history --> check --> violations --shrink--> the fewest steps that still show one

`Link` is a cable between a service and its server that can be cut; `Service` a process that can be killed and paused,
and whose clock jumps, forked by a `Nursery`; `small_disk` fills up; `Pair` is a primary and its replica, which takes
over.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import mmap
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from support.histories import Clients
from support.processes import children
from support.valkey import Server, free_port

_PATIENCE = 400
"""Seconds in which a service starts on a busy machine."""
_JUMPS = (-250_000, -90_000, -3_600, -5, 5, 3_600, 90_000, 250_000)
"""Seconds by which a clock is wrong after a jump: also more than a day."""
_NUMBER = struct.Struct("<d")


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a schedule.

    Args:
        writes: that are acknowledged since the step before.
        fault: its name.
    """

    writes: int
    fault: str


def schedule(faults: Sequence[str], rounds: int, seed: int) -> list[Step]:
    """A random schedule; the same for the same seed."""
    chance = random.Random(seed)
    return [Step(chance.randint(1, 40), chance.choice(faults)) for _ in range(rounds)]


def disturb(steps: Sequence[Step], faults: Mapping[str, Callable[[], None]], clients: Clients) -> None:
    """Let the faults of a schedule happen; each heals itself.

    Raises:
        AssertionError: no writes are acknowledged for too long.
    """
    for step in steps:
        wanted, until = clients.acknowledged() + step.writes, time.monotonic() + _PATIENCE
        while clients.acknowledged() < wanted:
            assert time.monotonic() < until, f"no write is acknowledged before {step}: {clients.refused}"
            time.sleep(0.01)
        faults[step.fault]()


def shrink(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """The steps of a schedule that are needed for it to fail: parts are left out while it still does."""
    size = max(1, len(steps) // 2)
    while True:
        at, before = 0, len(steps)
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if fails(fewer):
                steps = fewer
            else:
                at += size
        if size == 1 and len(steps) == before:
            return steps
        size = max(1, size // 2)


@dataclass(slots=True)
class Forked:
    """A process that a nursery has started.

    Args:
        handle: descriptor of the process, which no other one can get.
    """

    handle: int

    def running(self) -> bool:
        """Whether it has not ended."""
        return not select.select([self.handle], [], [], 0)[0]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended gets none."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def children(self) -> list[Forked]:
        """Processes that it has started; each handle is to be closed."""
        known = Path(f"/proc/self/fdinfo/{self.handle}").read_text().splitlines()
        process = next(int(line.split()[1]) for line in known if line.startswith("Pid:"))
        found = list[Forked]()
        for child in children(process):
            # It may have ended meanwhile.
            with contextlib.suppress(ProcessLookupError):
                found.append(Forked(os.pidfd_open(child)))
        return found

    def end(self) -> None:
        """Kill it, and wait until it has ended."""
        self.signal(signal.SIGKILL)
        select.select([self.handle], [], [])
        os.close(self.handle)


class Nursery:
    """A process that has loaded what a service needs, and forks: a service then need not load it again."""

    def __init__(self) -> None:
        paths = os.pathsep.join(str(Path(__file__).parents[up]) for up in (1, 2))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.faults"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # A fork has one thread: none may be started before.
            env=os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
        )

    def fork(self, clock: Path, words: Sequence[str]) -> Forked:
        """Start a command with the clock of a file."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(clock), *words]) + "\n")
        self._process.stdin.flush()
        return Forked(os.pidfd_open(int(self._process.stdout.readline())))

    def close(self) -> None:
        """End it; what it has started goes on."""
        self._process.communicate()


@dataclass
class Service:
    """A process that serves.

    Args:
        nursery: starts it.
        artifact: its folder.
        url: of the store.
        clock: a file with the seconds by which its clock is wrong.
        options: more of the command.
    """

    nursery: Nursery
    artifact: Path
    url: str
    clock: Path
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: Forked | None = field(default=None)

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it."""
        if not self.clock.exists():
            self.clock.write_bytes(_NUMBER.pack(0))
        words = ["serve", str(self.artifact), "--store", self.url, "--port", str(self.port), *self.options]
        self.process = self.nursery.fork(self.clock, words)

    def wait(self) -> None:
        """Return when it is ready."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return
            except OSError:
                assert self.process is not None and self.process.running(), "the service ended"
                assert time.monotonic() < until, "the service does not start"
                time.sleep(0.05)

    def kill(self) -> None:
        """Kill it, and start it again."""
        self.end()
        self.start()

    def pause(self, chance: random.Random) -> None:
        """Let it, or the process that writes for it, do nothing for a moment, in which others go on."""
        assert self.process is not None
        others = self.process.children()
        one = chance.choice([self.process, *others])
        one.signal(signal.SIGSTOP)
        time.sleep(0.5)
        one.signal(signal.SIGCONT)
        for other in others:
            os.close(other.handle)

    def jump(self, chance: random.Random) -> None:
        """Set its clock, forwards or back."""
        with self.clock.open("r+b") as file:
            file.write(_NUMBER.pack(chance.choice(_JUMPS)))

    def end(self) -> None:
        """Kill it for good, and all that it has started."""
        if self.process is not None:
            # Workers would outlive it.
            others = self.process.children()
            self.process.end()
            for one in others:
                one.end()
            self.process = None


class Link:
    """A cable to a server on loopback.

    Args:
        target: port of the server.
        wait: lets so many seconds pass while a fault lasts.
    """

    def __init__(self, target: int, wait: Callable[[float], object] = time.sleep) -> None:
        self.target, self._wait = target, wait
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flowing, self._lock = threading.Event(), threading.Lock()
        self._flowing.set()
        self._open: set[socket.socket] = set()
        self._cut = self._deaf = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """Break every connection, and let none be made for a moment."""
        self._cut = True
        self.reset()
        self._wait(0.4)
        self._cut = False

    def hold(self) -> None:
        """Let nothing through for a moment; it comes later."""
        self._flowing.clear()
        self._wait(0.4)
        self._flowing.set()

    def lose_answers(self) -> None:
        """Let what is asked through and no answer, then break every connection."""
        self._deaf = True
        self._wait(0.2)
        self.reset()
        self._deaf = False

    def reset(self) -> None:
        """Break every connection."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take it away."""
        self._cut = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        self.reset()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                assert not self._cut
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except (OSError, AssertionError):
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            for pair in ((client, server, False), (server, client, True)):
                self._threads.append(threading.Thread(target=self._pump, args=pair))
                self._threads[-1].start()

    def _pump(self, source: socket.socket, to: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                self._flowing.wait()
                if not (answers and self._deaf):
                    to.sendall(data)
        with self._lock:
            for one in (source, to):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            # The other direction ends now, and has nothing to close.
            if source in self._open and to in self._open:
                self._open.discard(source)
            else:
                self._open -= {source, to}
                source.close()
                to.close()


@dataclass
class Pair:
    """A primary and its replica, which change places; links lead to the primary.

    Args:
        primary: a server that keeps a log.
        replica: one that follows it.
        links: of the services.
    """

    primary: Server
    replica: Server
    links: Sequence[Link]

    def fail_over(self) -> None:
        """Kill the primary, promote the replica, and let the other one follow it with nothing of its own."""
        self.primary.kill()
        self.replica.call("replicaof", "no", "one")
        for link in self.links:
            link.target = self.replica.port
            link.reset()
        self.primary, self.replica = self.replica, self.primary
        self.replica.start()
        self.replica.call("replicaof", "127.0.0.1", str(self.primary.port))
        # Another failover before would be to a replica that has not everything.
        self.replica.wait_for("master_link_status:up", "info", "replication")
        self.primary.wait_for("state=online", "info", "replication")

    def restart(self) -> None:
        """Kill the primary, and start it with its log."""
        self.primary.kill()
        self.primary.start()
        self.replica.wait_for("master_link_status:up", "info", "replication")
        self.primary.wait_for("state=online", "info", "replication")


@contextlib.contextmanager
def pair(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Two servers that keep a log, of which the second follows the first."""
    folder.mkdir()
    # With everysec a server that is killed may lose what it has acknowledged.
    options = ("--appendonly", "yes", "--appendfsync", "always")
    made = [Server(folder / name, free_port(), options) for name in ("one", "other")]
    try:
        for one in made:
            one.start()
        made[1].call("replicaof", "127.0.0.1", str(made[0].port))
        made[1].wait_for("master_link_status:up", "info", "replication")
        made[0].wait_for("state=online", "info", "replication")
        yield made[0], made[1]
    finally:
        for one in made:
            one.kill()


@contextlib.contextmanager
def small_disk(folder: Path, size: int = 64) -> Iterator[Callable[[], None] | None]:
    """A disk of so many MiB at a folder, and what fills it for a moment; None where this user may not mount one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False

    def fill() -> None:
        filler = folder / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                while file.write(bytes(2**14)):
                    pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
        time.sleep(0.5)
        filler.unlink()

    try:
        yield fill if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def set_clock(clock: str) -> None:
    """Give this process, and one that writes for it, the clock of a file: what it says is added to the system's."""
    with Path(clock).open("rb") as file:
        wrong = mmap.mmap(file.fileno(), _NUMBER.size, prot=mmap.PROT_READ)
    system = time.time
    time.time = lambda: system() + _NUMBER.unpack_from(wrong)[0]

    from lifelong.online.serving import owner

    owner.BEFORE = f"from support.faults import set_clock; set_clock({clock!r}); "


def run_with_clock(clock: str, *words: str) -> int:
    """Run a command with the clock of a file."""
    set_clock(clock)

    from lifelong.cli import main as run

    return run(list(words))


SERVED = ("cli.serve", *(f"online.{name}" for name in ("serving.app", "serving.run", "store.redis", "store.rocksdb")))
"""What a service loads."""


def main() -> None:
    """Load what services need, then start a command for each line that is read: the file of its clock, its words."""
    for name in SERVED:
        importlib.import_module(f"lifelong.{name}")
    # Nobody asks how they end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        process = os.fork()
        if process == 0:
            _begin(*json.loads(line))
        print(process, flush=True)


def _begin(clock: str, *words: str) -> NoReturn:
    """Become the process of a command."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):
            os.dup2(nowhere, stream)
        run_with_clock(clock, *words)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
