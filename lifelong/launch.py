"""The place of this process in its run, which `torchrun` puts into its environment; and the life of child processes.

torchrun --nproc-per-node 2 -m lifelong train ...      process 0 and process 1 of 2; without torchrun there is one
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait

from lifelong.errors import UsageError

INTERRUPTED = 130
"""Exit code of a process that was asked to end."""
# The default of some hundred would begin a search many times in each batch.
_OBJECTS = 200_000
"""Objects that are made between two runs of the garbage collector."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The place of a process among those of its run.

    Args:
        rank: its number, from 0; process 0 writes files and reports.
        count: processes of the run, on all machines.
        local_rank: its number on its machine, from 0.
        local_count: processes on its machine.
        restarts: how often torchrun has restarted the run after a process had ended.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    restarts: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports for all."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether the run has several processes."""
        return self.count > 1

    def __str__(self) -> str:
        return f"process {self.rank} of {self.count} (on {socket.gethostname()})"


def launch(environment: Mapping[str, str] | None = None) -> Launch:
    """The place of this process; the only one of its run if the environment says nothing.

    Raises:
        UsageError: the environment has impossible numbers.

    >>> launch({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}).rank
    1
    """
    said = os.environ if environment is None else environment
    if "WORLD_SIZE" not in said or "RANK" not in said:
        return Launch()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    words = {name: said.get(name, "1" if name == "LOCAL_WORLD_SIZE" else "0") for name in names}
    try:
        process = Launch(*(int(word) for word in words.values()))
    except ValueError:
        process = Launch(rank=-1)
    if not (0 <= process.rank < process.count and 0 <= process.local_rank < process.local_count <= process.count):
        raise UsageError(
            "the environment says " + ", ".join(f"{name}={word}" for name, word in words.items()),
            expected="the numbers that torchrun sets",
            fix="start with torchrun, or unset RANK and WORLD_SIZE",
        )
    return process


def cores() -> int:
    """Cores that this process may use."""
    # A process may be bound to fewer cores than the machine has; macOS cannot say.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def collect_rarely() -> None:
    """Let the garbage collector run rarely; for a process that folds in batches and does nothing else.

    Each message of a batch is several objects, which are gone with the batch. By default the collector looks through
    all of them hundreds of times in between, and finds nothing.
    """
    gc.set_threshold(_OBJECTS, 10, 10)


def end_with_parent(sentinel: int | None = None, *, grace: float = 0.0) -> None:
    """End this process when the one that started it ends, for whatever reason.

    Args:
        sentinel: a descriptor that becomes ready to read when the parent ends; None if `multiprocessing` started this
            process.
        grace: seconds that this process then has to end by itself, after a SIGTERM; 0 ends it where it is.
    """
    if sentinel is None:
        parent = multiprocessing.parent_process()
        sentinel = parent.sentinel if parent is not None else None
    if sentinel is not None:
        threading.Thread(target=_wait_for_end, args=(sentinel, grace), name="lifelong-parent", daemon=True).start()


def _wait_for_end(sentinel: int, grace: float) -> None:
    wait([sentinel])
    if grace > 0:
        # Signals are handled in the main thread, which can finish its work while this one sleeps.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
    # `sys.exit` would end this thread alone.
    os._exit(INTERRUPTED)
