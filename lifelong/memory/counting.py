"""The fields of a memory that count, written and read by compiled loops and not by graphs.

    numbers of an event --keys, gap--> clock, cell, faded of its user            write
    numbers of a candidate --keys--> number, flag, kind, user --> read graph                                   find

A read graph says in its metadata (`COUNTING`) that it takes what was found. One without, as earlier releases wrote,
takes the fields themselves, and its write graph gives them. One without "times" in it takes what the cells hold, from
which it makes the numbers itself.

Shapes: B users, N events, C candidates per user, F counted fields, X numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import COUNTING, FieldLayout
from lifelong.artifact.manifest import AGAIN
from lifelong.data.cell_plan import (
    AGE_KINDS,
    AGES,
    GAP_SECONDS,
    KEYS,
    LONGEST,
    MARKS,
    CellPacking,
    CellPlan,
    CellScale,
    first_kinds,
    keys_of,
)
from lifelong.dtypes import FloatArray, IntArray
from lifelong.errors import ArtifactError, require
from lifelong.memory.packed_cells import PackedCells
from lifelong.memory.state import States

Fields = dict[str, npt.NDArray[Any]]
FIELDS = ("cell", "faded", "clock")
_HOUR = 3_600.0
_MOST_PATIENCE = 2**40
_NO_KINDS = np.zeros(1, np.int64), 0
"""For a graph that makes the numbers itself."""


class Counting:
    """Counts events, and finds what is known of candidates.

    Args:
        plan: the sizes; the item fields are counted, which come first of an event's.
        event_fields: names of an event's fields.
        times: counts at which kinds of cells begin; none for a graph that makes the numbers itself.
    """

    def __init__(self, plan: CellPlan, event_fields: Sequence[str], times: Sequence[int] = ()) -> None:
        require("numba", extra="serve", purpose="a memory that counts")
        from lifelong.memory import cell_kernel

        self._kernel, self._fields = cell_kernel, len(plan.cells_F)
        self._gap = event_fields.index("gap") if "gap" in event_fields else None
        self._rules = rules_of(plan)
        self._seconds = np.array(GAP_SECONDS, np.int64)
        self._plan, self._kinds = plan, (first_kinds(times), 2 + len(times) * AGE_KINDS) if times else None

    @classmethod
    def of(
        cls, metadata: Mapping[str, str], event_fields: Sequence[str], layout: Sequence[FieldLayout]
    ) -> Counting | None:
        """As the metadata of a read graph says; None if it takes the fields themselves.

        Raises:
            ArtifactError: the metadata does not fit the memory's layout, beyond which compiled loops would read.
        """
        if COUNTING not in metadata:
            return None
        if not _fits(metadata[COUNTING], event_fields, layout):
            raise ArtifactError(
                f"the read graph counts in {metadata[COUNTING][:200]}",
                expected="the sizes of the memory's layout in config.json",
                fix=AGAIN,
            )
        # No request is to wait for it.
        compile_reads()
        return cls(plan_from(metadata[COUNTING]), event_fields, _times(metadata[COUNTING]))

    def write(self, states: States, user_N: IntArray, number_NF: IntArray, count_N: IntArray) -> Fields:
        """The fields of all users after events, folded in one after another.

        Args:
            states: before, as a codec gives them; these fields are changed in place.
            user_N: place of each event's user.
            number_NF: numbers of `schema.history_fields`.
            count_N: number of each event among its user's, from 1.
        """
        fields = {name: states.fields[name] for name in FIELDS}
        key_NF = keys_of(number_NF[:, : self._fields])
        gap_N = np.zeros(len(user_N), np.int64)
        if self._gap is not None:
            gap_N = self._seconds[np.maximum(keys_of(number_NF[:, self._gap]), 0)]
        memory = fields["cell"], fields["faded"], fields["clock"]
        self._kernel.write(memory, user_N, key_NF, gap_N, count_N, self._rules, LONGEST)
        return fields

    def find(self, states: States, chosen: slice, number_BCF: IntArray) -> Fields:
        """What memories know of candidates: inputs of the read graph.

        Args:
            states: memories, as a codec gives them.
            chosen: B of them.
            number_BCF: numbers of the candidates' item fields.
        """
        key_BCF, plan = keys_of(number_BCF), self._plan
        found, numbers = self._found(states, chosen, key_BCF)
        if self._kinds is None:
            return found
        clock_BJX = states.fields["clock"][chosen]
        width = 1 + clock_BJX.shape[1] + plan.repeats
        user_BCX, count_B = np.empty((*key_BCF.shape[:2], width), np.float32), states.count_B[chosen]
        self._kernel.describe(count_B, clock_BJX, int(plan.repeats), user_BCX)
        return numbers | {"user": user_BCX}

    def numbers(self, states: States, number_BCF: IntArray) -> FloatArray:
        """What memories count of candidates' values: how often, events ago, hours ago, rank; `[B, C, F, 4]`.

        Args:
            states: memories of B users, as a codec gives them.
            number_BCF: numbers of the candidates' item fields.

        Returns:
            As `lifelong.nn.tally.SeenNumbers` has them: of a value that is not kept the first three are 0.
        """
        key_BCF, age_A = keys_of(number_BCF), np.array(self._plan.scale.ages())
        found, _ = self._found(states, slice(0, len(states)), key_BCF)
        parts = [found["times"], age_A[found["age"]], found["seconds"] / _HOUR, np.maximum(key_BCF, 0)]
        return np.stack(parts, axis=-1)

    def _found(self, states: States, chosen: slice, key_BCF: IntArray) -> tuple[Fields, Fields]:
        """What the cells hold, and the numbers that are made of it, for a graph that takes them."""
        shape, kinds = key_BCF.shape, self._kinds or _NO_KINDS
        found = {
            "times": np.empty(shape, np.int64),
            "age": np.empty(shape, np.int64),
            "faded": np.empty(shape, np.bool_),
            "seconds": np.empty(shape, np.float32),
        }
        numbers = {
            "number": np.empty((*shape, 4), np.float32),
            "flag": np.empty((*shape, 2), np.float32),
            "kind": np.empty(shape, np.int64),
        }
        memory, outputs = tuple(states.fields[name][chosen] for name in FIELDS), (*found.values(),)
        count_B = states.count_B[chosen]
        self._kernel.find(memory, count_B, key_BCF, self._rules, kinds, outputs, (*numbers.values(),))
        return found, numbers


@cache
def compile_reads(*, backwards: bool = False) -> None:
    """Compile what reads memories that count, or load it from where it is kept.

    Args:
        backwards: begin with what comes last otherwise. Of two processes that start at the same time, each then finds
            half of it compiled by the other.
    """
    packed, counting, states = _smallest()
    steps: list[Callable[[], object]] = [
        lambda: packed.unpack(np.zeros((0, packed.size), np.uint8)),
        lambda: counting.find(states, slice(0, 1), np.zeros((1, 1, 1), np.int64)),
    ]
    for step in reversed(steps) if backwards else steps:
        step()


@cache
def compile_writes() -> None:
    """The same for what writes them, too."""
    compile_reads()
    (packed, counting, states), place_N = _smallest(), np.zeros(1, np.int64)
    packed.pack(states.fields["cell"])
    counting.write(states, place_N, place_N[:, None], place_N + 1)


@cache
def begin_to_compile_writes() -> Thread:
    """`compile_writes` in a thread, once in a process: it can read, and say so, before it can write.

    A write waits for the loop that it needs. The process does not end before the thread, which takes seconds at most.
    """
    thread = Thread(target=compile_writes, name="lifelong-compile")
    thread.start()
    return thread


@cache
def compile_all() -> None:
    """The same for all, with what only a backfill needs: for an image.

    >>> compile_all()
    """
    compile_writes()
    packed, _, states = _smallest()
    # An empty cell before a filled one has to be sorted.
    states.fields["cell"][0, 1] = 1 - KEYS // 2, AGES
    packed.pack(states.fields["cell"])


def rules_of(
    plan: CellPlan,
) -> tuple[IntArray, IntArray, tuple[IntArray, IntArray, IntArray], int, int, int]:
    """A plan as the loops of `cell_kernel` take it: its `Rules`."""
    scale, start_F = plan.scale, np.cumsum([0, *plan.cells_F], dtype=np.int64)
    levels = _table(scale.counts()), _table(plan.bonuses()), _table(scale.waits())
    return start_F, _table(scale.ages()), levels, scale.age_steps, plan.bits, int(plan.repeats)


def _table(values: Sequence[int]) -> IntArray:
    """Values by their index, and zeros for indices that only a damaged memory has."""
    found = np.zeros(AGES, np.int64)
    found[: len(values)] = values
    return found


def _smallest() -> tuple[PackedCells, Counting, States]:
    """A memory of two cells and one word."""
    shapes = {"cell": ((1, 2, 2), np.int16), "faded": ((1, 1), np.int16), "clock": ((1, 1, 2), np.int32)}
    states = States(np.zeros(1, np.int64), np.zeros(1, np.int64), {name: np.zeros(*of) for name, of in shapes.items()})
    return PackedCells(CellPacking((2,), (9,))), Counting(CellPlan((2,), words=1, patience=0), ["item"], [1]), states


def _fits(text: str, event_fields: Sequence[str], layout: Sequence[FieldLayout]) -> bool:
    """Whether a plan's sizes are those of a layout."""
    try:
        plan = plan_from(text)
        sizes = {"cell": (plan.cells, 2), "faded": (plan.words,)}
        bounded = min(*plan.cells_F, plan.words) > 0 and 0 <= plan.patience < _MOST_PATIENCE
        bounded = bounded and all(0 < one < other < KEYS for one, other in pairwise([*_times(text), KEYS - 1]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    found = {part.name: part for part in layout}
    if not bounded or len(plan.cells_F) > len(event_fields) or not found.keys() >= set(FIELDS):
        return False
    types, packing = {name: found[name].dtype for name in FIELDS}, found["cell"].cells
    return (
        (packing is None or packing.scale == plan.scale)
        and types == {"cell": "int16", "faded": "int16", "clock": "int32"}
        and all(found[name].shape == shape for name, shape in sizes.items())
        and found["clock"].shape[1:] == (MARKS,)
        and found["clock"].shape[0] > plan.repeats
    )


def plan_from(text: str) -> CellPlan:
    """A plan out of the metadata of a graph; `lifelong.artifact.graphs` writes it."""
    found = json.loads(text)
    # Earlier releases counted no repeats, and had the fine scale.
    repeats, scale = bool(found.get("repeats", False)), CellScale(found.get("scale", "fine"))
    return CellPlan(tuple(found["cells_F"]), found["words"], found["patience"], repeats, scale)


def _times(text: str) -> list[int]:
    """Counts at which kinds of cells begin, by the same metadata; none of a graph that makes the numbers itself."""
    return [int(times) for times in json.loads(text).get("times", [])]
