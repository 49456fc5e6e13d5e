"""What the cells of a counting memory know of a candidate, and what each of them did to its score.

    memory --without the cells of one field--> score again --difference--> that field's effect

Effects are differences of scores of one and the same model, not shares: fields act together, so that effects need not
sum to anything.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lifelong.data.cell_plan import AGES, KEYS, NO_KEY, WORD, CellPlan, ages, faded_bits, key_of, plan_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lifelong.artifact.folder import Artifact
    from lifelong.memory.state import States
    from lifelong.serving.scorer import Score, Scorer, ScoreRequest

IntArray = npt.NDArray[np.int64]
_AGES = ages()


@dataclass(frozen=True, slots=True)
class CountedValue:
    """What is counted of one value of a candidate.

    Args:
        field: its item field.
        value: the value, None where it is not known.
        state: "counted" has a cell; "faded" had one, by all signs; "new" has never been seen; "unknown" is not counted.
        times: how often the user met it, 0 without a cell; counting stops at 127.
        events_ago: about how many events ago she last did, 1 for her last event; None without a cell.
        effect: the score less what it would be without this.
    """

    field: str
    value: str | None
    state: Literal["counted", "faded", "new", "unknown"]
    times: int
    events_ago: int | None
    effect: float


@dataclass(frozen=True, slots=True)
class Counted:
    """What a counting memory knows of one candidate.

    Args:
        values: one per item field.
        slots_effect: the score less what it would be with empty slots; None for a memory without slots.
    """

    values: list[CountedValue]
    slots_effect: float | None


def counts_values(artifact: Artifact) -> bool:
    """Whether an artifact's memory has counting cells."""
    return any(part.cells is not None for part in artifact.config.memory or ())


def counted_of(
    scorer: Scorer, states: States, number_CF: IntArray, scores: Sequence[Score], request: ScoreRequest, time: int
) -> list[Counted | None]:
    """What the memory knows of each candidate; None for each where it does not count.

    Args:
        scorer: artifact and store.
        states: the memory of one user.
        number_CF: numbers of the candidates' item fields.
        scores: of the candidates, from this memory.
        request: that was answered.
        time: its moment.
    """
    if not counts_values(scorer.artifact) or not len(scores):
        return [None] * len(scores)
    cells = _Cells(scorer, states)
    without_CX = cells.without(number_CF, request, time)
    fields = number_CF.shape[1]
    found: list[Counted | None] = []
    for number_F, score, without_X in zip(number_CF, scores, without_CX, strict=True):
        effect_X = [score.score - float(other) for other in without_X]
        values = [cells.value(field, int(number), effect_X[field]) for field, number in enumerate(number_F)]
        found.append(Counted(values, effect_X[fields] if cells.has_slots else None))
    return found


class _Cells:
    """The cells of one user's memory."""

    def __init__(self, scorer: Scorer, states: States) -> None:
        config = scorer.artifact.config
        self.scorer, self.states = scorer, states
        self.plan: CellPlan = plan_of(config.settings, config.input_spec)
        bounds = np.cumsum([0, *self.plan.cells_F])
        self.part_F = [slice(int(start), int(end)) for start, end in itertools.pairwise(bounds)]
        self.has_slots = "slot" in states.fields

    def value(self, field: int, number: int, effect: float) -> CountedValue:
        """What is known of one number."""
        name, key = self.scorer.schema.item_fields[field], key_of(number)
        text = self.scorer.artifact.vocabularies[name].value_of(number)
        if key == NO_KEY:
            return CountedValue(name, text, "unknown", 0, None, 0.0)
        kept_X, packed_X = self.states.fields["cell"][0, self.part_F[field]].astype(np.int64).T
        at = np.flatnonzero((packed_X >= AGES) & (kept_X == key - KEYS // 2))
        if len(at):
            times, age = divmod(int(packed_X[at[0]]), AGES)
            return CountedValue(name, text, "counted", times, 1 + _AGES[age], effect)
        if self._is_faded(field, key):
            return CountedValue(name, text, "faded", 0, None, effect)
        # The memory says nothing of it; a difference of scores is one of rounding.
        return CountedValue(name, text, "new", 0, None, 0.0)

    def _is_faded(self, field: int, key: int) -> bool:
        faded_W = self.states.fields["faded"][0].astype(np.int64)
        return all(faded_W[bit // WORD] >> bit % WORD & 1 for bit in faded_bits(key, field, self.plan.bits))

    def without(self, number_CF: IntArray, request: ScoreRequest, time: int) -> npt.NDArray[Any]:
        """Scores of the candidates without the cells of each field and, last, without slots: `[C, F (+ 1)]`."""
        candidates, fields = number_CF.shape
        variants = fields + self.has_slots
        states = self.states.take(np.zeros(candidates * variants, np.int64))
        for candidate in range(candidates):
            for field in range(fields):
                place = candidate * variants + field
                states.fields["cell"][place, self.part_F[field]] = 0
                self._clear(states.fields["faded"][place], field, key_of(int(number_CF[candidate, field])))
            if self.has_slots:
                states.fields["slot"][candidate * variants + fields] = 0
        time_B = np.full(len(states), time, np.int64)
        fields_C = request.fields or [None] * candidates
        of_one = [
            replace(request, items=[item], fields=[given])
            for item, given in zip(request.items, fields_C, strict=True)
            for _ in range(variants)
        ]
        context_BCF = self.scorer.context(of_one, time_B, states.last_time_B)
        number_BCF = np.repeat(number_CF, variants, axis=0)[:, None]
        logit_BCT = self.scorer.runtime.score(states, number_BCF, context_BCF, time_B)[0]
        return logit_BCT[:, 0, 0].reshape(candidates, variants)

    def _clear(self, faded_W: npt.NDArray[Any], field: int, key: int) -> None:
        if key != NO_KEY:
            for bit in faded_bits(key, field, self.plan.bits):
                faded_W[bit // WORD] &= ~(1 << bit % WORD)
