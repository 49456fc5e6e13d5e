"""Which of several processes this one is, as `torchrun` tells each process that it starts.

torchrun --nproc-per-node 2 -m lifelong train ...      process 0 and process 1 of 2; without torchrun there is one

And what is common to the processes that a command starts by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait

from lifelong.errors import UsageError

INTERRUPTED = 130
"""Exit code of a process that was asked to end."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The place of a process among those of its run.

    Args:
        rank: its number, from 0; process 0 writes files and speaks.
        count: processes of the run, on all machines.
        local_rank: its number on its machine, from 0.
        local_count: processes on its machine.
        restarts: how often torchrun has started the run anew after a process had ended.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    restarts: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def __str__(self) -> str:
        return f"process {self.rank} of {self.count} (on {socket.gethostname()})"


def launch(environment: Mapping[str, str] | None = None) -> Launch:
    """The place of this process; that of the only one where nothing is said.

    Raises:
        UsageError: what the environment says is no place.
    """
    said = os.environ if environment is None else environment
    if "WORLD_SIZE" not in said or "RANK" not in said:
        return Launch()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    words = {name: said.get(name, "1" if name == "LOCAL_WORLD_SIZE" else "0") for name in names}
    try:
        place = Launch(*(int(word) for word in words.values()))
    except ValueError:
        place = Launch(rank=-1)
    if not (0 <= place.rank < place.count and 0 <= place.local_rank < place.local_count <= place.count):
        raise UsageError(
            "the environment says " + ", ".join(f"{name}={word}" for name, word in words.items()),
            expected="the numbers that torchrun sets",
            fix="start with torchrun, or unset RANK and WORLD_SIZE",
        )
    return place


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """Let this process end when the one that started it has ended, however that came."""
    threading.Thread(target=_wait_for_end, name="lifelong-parent", daemon=True).start()


def _wait_for_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(INTERRUPTED)
