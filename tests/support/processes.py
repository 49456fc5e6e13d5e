"""Processes that a test looks after, by what Linux says of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PATIENCE = 400
"""Seconds in which something happens on a busy machine."""


def until(true: Callable[[], bool], why: str = "it did not happen") -> None:
    """Return when something is true.

    Raises:
        AssertionError: it does not become so.
    """
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def children(process: int) -> set[int]:
    """Processes that one has started, from any of its threads, and that run."""
    found = set[int]()
    for thread in Path(f"/proc/{process}/task").glob("*"):
        # A thread may have ended meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(word) for word in (thread / "children").read_text().split()}
    return {one for one in found if runs(one)}


def command_of(process: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def runs(process: int) -> bool:
    """Whether a process is there, and is not only waiting to be asked for its exit code."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def wait_until_gone(processes: Iterable[int]) -> None:
    """Return when none of some processes runs.

    Raises:
        AssertionError: one goes on.
    """
    some = set(processes)
    until(lambda: not any(map(runs, some)), f"of {sorted(some)} some go on")
