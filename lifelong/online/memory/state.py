"""Memories of users as plain arrays, and what writes and reads their fields without a graph.

    numbers of an event --keys, gap, factors--> cells, clock ... of its user                 write
    numbers of a candidate --keys, popularity, factors--> known, kind --> read graph         find
    numbers of an event --> the ring of a recent history --> a history, oldest first         append, unroll

Fields that count are written and read by compiled loops: `lifelong.tally` says what. The write graph knows the slots
alone, and is left out without slots.

Shapes: B users, N events, C candidates per user, F item fields, K cells of all fields, X numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import NUMBER, TIME, Artifact, FieldLayout
from lifelong.artifact.manifest import AGAIN
from lifelong.dataset.events import NO_TIME
from lifelong.dtypes import Float32Array, FloatArray, IntArray
from lifelong.errors import ArtifactError
from lifelong.tally.plan import SUMS, Plan, plan_of, seconds_of
from lifelong.tally.spec import AGES, COUNTS, FEATURES, FIRST, GAPS, KEYS, KINDS

Fields = dict[str, npt.NDArray[Any]]
_EVENTS = 4_096
"""Events that are counted at once."""
_PARTS = ("cell", "clock", "repeats", "sums")
"""The fields that count, as `kernel.Memory` has them."""


@dataclass(frozen=True, slots=True)
class States:
    """Memories of B users.

    Args:
        count_B: int64, events folded in.
        last_time_B: int64, time of the last event, `NO_TIME` before the first.
        fields: field name -> `[B, *shape]`, of the layout's type.

    Example:
        >>> states = States.empty([FieldLayout(name="slot", shape=(2, 3))], 5)
        >>> len(states), states.fields["slot"].shape, states.take(np.array([4, 0])).count_B
        (5, (5, 2, 3), array([0, 0]))
    """

    count_B: IntArray
    last_time_B: IntArray
    fields: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def empty(cls, layout: Sequence[FieldLayout], num_users: int) -> States:
        """Memories of users without events."""
        return cls(
            np.zeros(num_users, np.int64),
            np.full(num_users, NO_TIME, np.int64),
            {part.name: np.zeros((num_users, *part.shape), part.dtype) for part in layout},
        )

    def __len__(self) -> int:
        return len(self.count_B)

    def take(self, place_B: npt.NDArray[np.integer]) -> States:
        """A copy of the chosen users' memories, in the chosen order."""
        fields = {name: value[place_B] for name, value in self.fields.items()}
        return States(self.count_B[place_B], self.last_time_B[place_B], fields)

    def put(self, place_B: npt.NDArray[np.integer], states: States) -> None:
        """Write memories over those of the chosen (distinct) users, in place."""
        self.count_B[place_B], self.last_time_B[place_B] = states.count_B, states.last_time_B
        for name, value in states.fields.items():
            self.fields[name][place_B] = value


class Recent(NamedTuple):
    """The last events of B users, oldest first, left-aligned; zeros in padding."""

    number_BLF: IntArray
    time_BL: IntArray
    length_B: IntArray


def append(
    states: States, user_N: IntArray, rank_N: IntArray, number_NF: IntArray, time_N: IntArray
) -> dict[str, npt.NDArray[np.generic]]:
    """The fields of B users after N more events; those of `states` are not changed.

    Args:
        states: before.
        user_N: place of each event's user.
        rank_N: how many of the user's events come before, among these.
        number_NF: numbers of the events.
        time_N: their times.
    """
    number, times = states.fields[NUMBER].copy(), states.fields[TIME].copy()
    recent, size_B = times.shape[1], np.bincount(user_N, minlength=len(states))
    # A ring: the n-th event is at place n modulo its size, over the one that is now too old. Of a user's events only
    # the last `recent` are written, so that no place is written twice.
    last_N = np.flatnonzero(rank_N >= size_B[user_N] - recent)
    user, place = user_N[last_N], (states.count_B[user_N[last_N]] + rank_N[last_N]) % recent
    number[user, place], times[user, place] = number_NF[last_N], time_N[last_N]
    return {NUMBER: number, TIME: times}


def unroll(states: States, size: int = 1) -> Recent:
    """The rings of B users as histories, padded to the longest of them, or to `size` if that is more."""
    number, times = states.fields[NUMBER], states.fields[TIME]
    recent = times.shape[1]
    length_B = np.minimum(states.count_B, recent)
    step_L = np.arange(max(size, int(length_B.max(initial=0))))
    # The oldest event that is still there is number (count - length) of the user's history.
    place_BL = ((states.count_B - length_B)[:, None] + step_L) % recent
    user_B1, real_BL = np.arange(len(states))[:, None], step_L < length_B[:, None]
    return Recent(
        np.where(real_BL[..., None], number[user_B1, place_BL], 0).astype(np.int64),
        np.where(real_BL, times[user_B1, place_BL], 0),
        length_B,
    )


class Looked(NamedTuple):
    """What memories of B users know of C candidates."""

    number_BCFX: FloatArray
    """Of each value: how often, events ago, hours ago, rank; the first three are 0 if it is not kept."""
    kind_BCF: IntArray
    """0 for no cell, above for a cell."""
    cosine_BCGX: FloatArray
    """Of the factor of each of the first fields with both sums."""


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
        from lifelong.tally import kernel

        self.plan, self._kernel, self._rules, self._gap = plan, kernel, kernel.rules_of(plan), gap
        self.names = tuple(part.name for part in plan.layout if part.name in _PARTS)
        self._tables = [*tables.values()]
        # Seconds of each number of a gap.
        self._seconds_G = seconds_of(np.arange(FIRST + len(GAPS)))
        # What a number embeds to ends in its popularity and, of the first fields, its factor.
        ends = np.cumsum([table.shape[1] for table in self._tables])
        self._affinities = plan.affinities
        self._popularities = np.append(0, ends[:-1]) + dim + FEATURES
        pairs = zip(self._popularities.tolist(), ends.tolist(), strict=True)
        self._factors = [slice(first + 1, end) for first, end in pairs][: len(plan.widths_G)]
        self._with_factors = [table[:, dim + FEATURES + 1 :] for table in self._tables[: len(plan.widths_G)]]

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
        gap = event.index("gap") if "gap" in event and plan.levels > 1 else None
        return cls(plan, {field: tables[field] for field in inputs.item}, settings["embedding"], gap)

    def write(self, states: States, user_N: IntArray, number_NF: IntArray, count_N: IntArray) -> Fields:
        """The fields of all users after events, folded in one after another.

        Args:
            states: before, as a codec gives them; these fields are changed in place.
            user_N: place of each event's user.
            number_NF: numbers of `schema.history_fields`, followed by the items' keys.
            count_N: number of each event among its user's, from 1.
        """
        memory, size, fields = self._memory(states, slice(None)), len(user_N), len(self.plan.sizes_F)
        # Factors are many bytes an event: of few events at a time they stay in the processor's cache.
        for some in (slice(start, start + _EVENTS) for start in range(0, size, _EVENTS)):
            chosen_NX = number_NF[some]
            gap_N = np.zeros(len(chosen_NX), np.int64)
            if self._gap is not None:
                gap_N = self._seconds_G[chosen_NX[:, self._gap]]
            factor_ND, key_NF = self._of_factors(chosen_NX[:, :fields]), np.ascontiguousarray(chosen_NX[:, -fields:])
            self._kernel.write(memory, user_N[some], key_NF, gap_N, factor_ND, count_N[some], self._rules)
        return {name: states.fields[name] for name in self.names}

    def find(self, states: States, chosen: slice, number_BCF: IntArray, target_BCE: Float32Array) -> Fields:
        """What memories know of candidates: inputs of the read graph.

        Args:
            states: memories, as a codec gives them.
            chosen: B of them.
            number_BCF: numbers of the candidates' item fields, followed by their keys.
            target_BCE: what they embed to.
        """
        found = self._found(states, chosen, number_BCF, target_BCE)
        known_BCY = found.known_NY.reshape(*number_BCF.shape[:2], self._rules.known)
        return {"known": known_BCY, "kind": found.kind_NF.reshape(*number_BCF.shape[:2], len(self._tables))}

    def look(self, states: States, number_BCF: IntArray) -> Looked:
        """What memories know of candidates, for people.

        Args:
            states: memories of B users, as a codec gives them.
            number_BCF: numbers of the candidates' item fields, followed by their keys.
        """
        target = np.concatenate([table[number_BCF[..., at]] for at, table in enumerate(self._tables)], axis=-1)
        found = self._found(states, slice(0, len(states)), number_BCF, target)
        shape = (*number_BCF.shape[:2], len(self._tables))
        last, fields = self._rules.known - self._affinities, len(self.plan.widths_G)
        affinity_BCXGX = found.known_NY[:, last:].reshape(*shape[:2], 2, fields, SUMS)
        return Looked(
            np.asarray(found.number_NFX, np.float64).reshape(*shape, 4),
            (found.kind_NF % KINDS).reshape(shape),
            # Cosines come first, then amounts.
            affinity_BCXGX[:, :, 0],
        )

    def kept(self, states: States, place: int, field: int) -> tuple[IntArray, IntArray, IntArray]:
        """Keys, counts and ages in events of the cells that one memory has in use in a field."""
        # The cells of all fields lie one after another: those of this one from its start to that of the next.
        first, end = self._rules.start_F[field : field + 2]
        kept_X, packed_X = states.fields["cell"][place, first:end].astype(np.int64).T
        # The level of an empty cell is 0.
        level_X, step_X = np.divmod(packed_X, 256)
        used = level_X > 0
        # Keys are stored less half their number, so that they fit in 16 bits with a sign.
        return kept_X[used] + KEYS // 2, np.array(COUNTS)[level_X[used]], np.array(AGES)[step_X[used]]

    def _found(self, states: States, chosen: slice, number_BCF: IntArray, target_BCE: Float32Array) -> Any:
        (users, candidates, _), fields = number_BCF.shape, len(self._tables)
        # One row for each candidate of each user; `row_N` says which memory it asks.
        number_NX, row_N = number_BCF.reshape(-1, 2 * fields), np.repeat(np.arange(users), candidates)
        target_NE = target_BCE.reshape(-1, target_BCE.shape[-1])
        parts = [target_NE[:, part] for part in self._factors]
        factor_ND = np.concatenate(parts, axis=1) if parts else target_NE[:, :0].copy()
        number_NF, key_NF = np.ascontiguousarray(number_NX[:, :fields]), np.ascontiguousarray(number_NX[:, fields:])
        popularity_NF = target_NE.take(self._popularities, axis=1)
        targets = self._kernel.Targets(row_N, key_NF, number_NF, popularity_NF, factor_ND)
        found = self._kernel.unknown(self._rules, len(row_N))
        self._kernel.read(self._memory(states, chosen), states.count_B[chosen], targets, self._rules, found)
        return found

    def _of_factors(self, number_NF: IntArray) -> npt.NDArray[np.float32]:
        parts = [table_VD[number_NF[:, field]] for field, table_VD in enumerate(self._with_factors)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(number_NF), 0), np.float32)

    def _memory(self, states: States, chosen: slice) -> Any:
        """The kernel's view of states; the parts that the plan lacks have no numbers."""
        fields = {name: states.fields[name][chosen] for name in self.names}
        if len(fields) == len(_PARTS):
            return self._kernel.Memory(*(fields[name] for name in _PARTS))
        without = self._kernel.empty(self.plan, len(states.count_B[chosen]))
        return self._kernel.Memory(*(fields.get(name, part) for name, part in zip(_PARTS, without, strict=True)))
