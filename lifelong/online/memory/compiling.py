"""Compiles the loops of memories that count, before the first request or write would wait for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Thread

import numpy as np

from lifelong.online.memory.codec import PackedCells
from lifelong.online.memory.state import Counting, States
from lifelong.tally.plan import Plan
from lifelong.tally.spec import FEATURES


@cache
def compile_reads(*, backwards: bool = False) -> None:
    """Compile what reads memories that count, or load it from where it is kept.

    Args:
        backwards: begin with what comes last otherwise. Of two processes that start at the same time, each then finds
            half of it compiled by the other.
    """
    packed, counting, states = _smallest()
    no_record, cell_BKX, nobody = np.zeros((0, packed.size), np.uint8), states.fields["cell"], np.zeros(0, np.int64)
    steps: list[Callable[[], object]] = [
        lambda: packed.take(no_record, 0, cell_BKX, nobody),
        lambda: counting.look(states, np.zeros((1, 1, 2), np.int64)),
    ]
    for step in reversed(steps) if backwards else steps:
        # Each call has the types that requests have: Numba compiles for those it meets.
        step()


@cache
def compile_writes() -> None:
    """The same for what writes them, too: all loops, as an image is to have them.

    >>> compile_writes()
    """
    compile_reads()
    (packed, counting, states), place_N = _smallest(), np.zeros(1, np.int64)
    packed.put(states.fields["cell"], np.zeros((1, packed.size), np.uint8), 0)
    counting.write(states, place_N, np.zeros((1, 2), np.int64), place_N + 1)


@cache
def begin_to_compile_writes() -> Thread:
    """`compile_writes` in a thread, once in a process: it can read, and say so, before it can write.

    A write waits for the loop that it needs. The process does not end before the thread, which takes seconds at most.
    """
    thread = Thread(target=compile_writes, name="lifelong-compile")
    thread.start()
    return thread


def _smallest() -> tuple[PackedCells, Counting, States]:
    """A memory of two cells."""
    plan = Plan(sizes_F=(11,), cells_F=(2,), widths_G=(1,), repeats=True)
    fields = {layout.name: np.zeros((1, *layout.shape), layout.dtype) for layout in plan.layout}
    counting = Counting(plan, {"item": np.zeros((11, 2 + FEATURES + 1), np.float32)}, dim=1)
    return PackedCells(plan.packing), counting, States(np.zeros(1, np.int64), np.zeros(1, np.int64), fields)
