"""The fields of a memory that count, written and read by compiled loops and not by graphs.

    numbers of an event --keys, gap, factors--> cells, clock ... of its user                 write
    numbers of a candidate --keys, popularity, factors--> known, kind --> read graph         find

`lifelong.tally` says what is written and read. The write graph knows the slots alone, and is left out without slots.

Shapes: B users, N events, C candidates per user, F item fields, X numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import Artifact
from lifelong.artifact.manifest import AGAIN
from lifelong.dtypes import FloatArray, IntArray
from lifelong.errors import ArtifactError, require
from lifelong.memory.packed_cells import PackedCells
from lifelong.memory.state import States
from lifelong.tally.plan import Plan, plan_of, seconds_of
from lifelong.tally.spec import AGES, COUNTS, FEATURES, KEYS, KINDS

Fields = dict[str, npt.NDArray[Any]]
_PARTS = ("cell", "clock", "repeats", "sums")
"""The fields that count, as `kernel.Memory` has them."""


class Counting:
    """Counts events, and finds what is known of candidates.

    Args:
        plan: the sizes.
        tables: of each item field what a number embeds to: the vector, the weights of its features, its popularity, and
            of the first fields their factors.
        dim: width of a vector.
        gap: place of the gap among an event's numbers; None without times.
    """

    plan: Plan
    names: tuple[str, ...]
    """Names of the fields that count."""

    def __init__(
        self, plan: Plan, tables: Mapping[str, npt.NDArray[np.float32]], dim: int, gap: int | None = None
    ) -> None:
        require("numba", extra="serve", purpose="a memory that counts")
        from lifelong.tally import kernel

        self.plan, self._kernel, self._rules, self._gap = plan, kernel, kernel.rules_of(plan), gap
        self.names = tuple(part.name for part in plan.layout if part.name in _PARTS)
        at = dim + FEATURES
        self._popularity = [np.ascontiguousarray(table[:, at]) for table in tables.values()]
        with_factors = [*tables.values()][: len(plan.widths_G)]
        self._factors = [np.ascontiguousarray(table[:, at + 1 :]) for table in with_factors]

    @classmethod
    def of(cls, artifact: Artifact, tables: Mapping[str, npt.NDArray[np.float32]]) -> Counting | None:
        """Of a model that counts; None of another one.

        Args:
            artifact: that is served.
            tables: field -> what its numbers embed to.

        Raises:
            ArtifactError: its settings do not fit its memory's layout, beyond which compiled loops would read.
        """
        config, layout = artifact.config, artifact.config.memory or ()
        if not any(part.cells is not None for part in layout):
            return None
        inputs, settings, event = config.input_spec, config.settings, config.dataset_schema.history_fields
        wrong = None
        try:
            plan = plan_of(settings, list(inputs.item.values()), timed="gap" in inputs.event)
            cells = next(part.cells for part in layout if part.cells is not None)
            if [(part.name, part.shape, part.dtype) for part in layout] != [tuple(part) for part in plan.layout]:
                wrong = "the layout of its memory is not that of its settings"
            elif cells != plan.packing or min(map(len, (tables[field] for field in inputs.item))) < 1:
                wrong = "its cells are not those of its settings"
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"its settings give no memory: {error}"
        if wrong is not None:
            raise ArtifactError(f"{artifact.path}: {wrong}", expected="a config.json as training wrote it", fix=AGAIN)
        # No request is to wait for it.
        compile_reads()
        gap = event.index("gap") if "gap" in event and plan.levels > 1 else None
        return cls(plan, {field: tables[field] for field in inputs.item}, settings["embedding"], gap)

    def write(self, states: States, user_N: IntArray, number_NF: IntArray, count_N: IntArray) -> Fields:
        """The fields of all users after events, folded in one after another.

        Args:
            states: before, as a codec gives them; these fields are changed in place.
            user_N: place of each event's user.
            number_NF: numbers of `schema.history_fields`.
            count_N: number of each event among its user's, from 1.
        """
        item_NF, gap_N = number_NF[:, : len(self.plan.sizes_F)], np.zeros(len(user_N), np.int64)
        if self._gap is not None:
            gap_N = seconds_of(number_NF[:, self._gap])
        memory, factor_ND = self._memory(states, slice(None)), self._of_factors(item_NF)
        self._kernel.write(memory, user_N, np.ascontiguousarray(number_NF), gap_N, factor_ND, count_N, self._rules)
        return {name: states.fields[name] for name in self.names}

    def find(self, states: States, chosen: slice, number_BCF: IntArray) -> Fields:
        """What memories know of candidates: inputs of the read graph.

        Args:
            states: memories, as a codec gives them.
            chosen: B of them.
            number_BCF: numbers of the candidates' item fields.
        """
        found = self._found(states, chosen, number_BCF)
        known_BCY = found.known_NY.reshape(*number_BCF.shape[:2], self.plan.known)
        return {"known": known_BCY, "kind": found.kind_NF.reshape(number_BCF.shape)}

    def numbers(self, states: States, number_BCF: IntArray) -> FloatArray:
        """What memories count of candidates' values: how often, events ago, hours ago, rank; `[B, C, F, 4]`.

        Of a value that is not kept the first three are 0.

        Args:
            states: memories of B users, as a codec gives them.
            number_BCF: numbers of the candidates' item fields.
        """
        found = self._found(states, slice(0, len(states)), number_BCF)
        return np.asarray(found.number_NFX, np.float64).reshape(*number_BCF.shape, 4)

    def kinds(self, states: States, number_BCF: IntArray) -> IntArray:
        """Kind of each value's cell `[B, C, F]`: 0 for none, above for a cell."""
        found = self._found(states, slice(0, len(states)), number_BCF)
        kind_BCF: IntArray = (found.kind_NF % KINDS).reshape(number_BCF.shape)
        return kind_BCF

    def kept(self, states: States, place: int, field: int) -> tuple[IntArray, IntArray, IntArray]:
        """Keys, counts and ages in events of the cells that one memory has in use in a field."""
        first, end = self._rules.start_F[field : field + 2]
        kept_X, packed_X = states.fields["cell"][place, first:end].astype(np.int64).T
        # The level of an empty cell is 0.
        level_X, step_X = np.divmod(packed_X, 256)
        used = level_X > 0
        return kept_X[used] + KEYS // 2, np.array(COUNTS)[level_X[used]], np.array(AGES)[step_X[used]]

    def _found(self, states: States, chosen: slice, number_BCF: IntArray) -> Any:
        users, candidates, fields = number_BCF.shape
        number_NF, row_N = number_BCF.reshape(-1, fields), np.repeat(np.arange(users), candidates)
        popularity = [column_V[number_NF[:, field]] for field, column_V in enumerate(self._popularity)]
        given = np.ascontiguousarray(number_NF), np.stack(popularity, axis=-1), self._of_factors(number_NF)
        targets = self._kernel.Targets(row_N, *given)
        found = self._kernel.unknown(self.plan, len(row_N))
        self._kernel.read(self._memory(states, chosen), states.count_B[chosen], targets, self._rules, found)
        return found

    def _of_factors(self, number_NF: IntArray) -> npt.NDArray[np.float32]:
        parts = [table_VD[number_NF[:, field]] for field, table_VD in enumerate(self._factors)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(number_NF), 0), np.float32)

    def _memory(self, states: States, chosen: slice) -> Any:
        """The kernel's view of states; the parts that the plan lacks have no numbers."""
        fields = {name: states.fields[name][chosen] for name in self.names}
        if len(fields) == len(_PARTS):
            return self._kernel.Memory(*(fields[name] for name in _PARTS))
        without = self._kernel.empty(self.plan, len(states.count_B[chosen]))
        return self._kernel.Memory(*(fields.get(name, part) for name, part in zip(_PARTS, without, strict=True)))


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
    """The same for all: for an image.

    >>> compile_all()
    """
    compile_writes()


def _smallest() -> tuple[PackedCells, Counting, States]:
    """A memory of two cells."""
    plan = Plan(sizes_F=(11,), cells_F=(2,), widths_G=(1,), repeats=True)
    fields = {part.name: np.zeros((1, *part.shape), part.dtype) for part in plan.layout}
    counting = Counting(plan, {"item": np.zeros((11, 2 + FEATURES + 1), np.float32)}, dim=1)
    return PackedCells(plan.packing), counting, States(np.zeros(1, np.int64), np.zeros(1, np.int64), fields)
