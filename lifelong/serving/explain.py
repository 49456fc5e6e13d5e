"""Which time scales and which past events stand behind a score.

A model that reads the recent history itself says which of those events its weight falls on. One with a memory says
which slots, and what is named beside them is what the slots were made of.

A slot with period t was last written by the event at position w = floor(n / t) * t; what it took in since its write
before are the t events up to w, but through its own state it covers everything up to w. So the related events of that
window are named first, then earlier ones.
"""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from lifelong.serving.counted import Counted, counted_of
from lifelong.serving.past import Past, past_of
from lifelong.serving.scorer import Score, ScoreRequest
from lifelong.serving.slots import Slot, slots_of

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.serving.scorer import Answer, Scorer

RELATED = 5
"""How many related events are named for a slot."""
WEIGHED = 10
"""How many events are named with their weight; the others are summed."""
RECENT = 20
"""How many of the latest events are shown."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One past event.

    Args:
        position: 1 is the user's first event.
        item: its item; empty where only its number is known, and that is no item's own.
        time: its time.
        event_type: its type, None if the log has none or it is not known.
        seconds_ago: before the request; None for a log without times.
        fields: the item's fields, None where not known.
    """

    position: int
    item: str
    time: int
    event_type: str | None
    seconds_ago: int | None
    fields: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Related(Seen):
    """A past event that has something in common with the candidate.

    Args:
        same: what it has in common: item, category ...
        in_last_window: among the events of the slot's last write.
    """

    same: tuple[str, ...]
    in_last_window: bool


@dataclass(frozen=True, slots=True)
class SlotAttention:
    """What one slot gave to one candidate.

    Args:
        field: field of the memory that holds the slot.
        slot: its place there, from 0.
        attention: its weight in the first hop, 0 while empty.
        related: events behind it, the most related first; [] if none is known.
    """

    field: str
    slot: int
    attention: float
    related: list[Related]


@dataclass(frozen=True, slots=True)
class Weighed(Seen):
    """A past event that the model attends to.

    Args:
        attention: its weight.
    """

    attention: float


@dataclass(frozen=True, slots=True)
class Rest:
    """The events with a weight that are not named.

    Args:
        events: how many.
        attention: their weights, summed.
    """

    events: int
    attention: float


@dataclass(frozen=True, slots=True)
class CandidateExplanation(Score):
    """One candidate: its score, and what each slot or event gave to it.

    Args:
        slots: all slots; [] for a model that does not attend to slots.
        events: the events of the largest weights, whatever their sign; [] for a model that does not attend to events.
        rest: the other events; None for such a model.
        counted: what a memory with counters knows of it; None for another memory.
    """

    slots: list[SlotAttention] = field(default_factory=list)
    events: list[Weighed] = field(default_factory=list)
    rest: Rest | None = None
    counted: Counted | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What stands behind the scores of one user's candidates.

    Args:
        user: her id.
        known_user: False where the empty memory was read.
        count: events in her memory.
        last_time: time of the last of them.
        slots: her memory.
        candidates: one per item, in order.
        attention_over: what the candidates' weights are of: "slots", "events", or None if the model has none.
        attention_note: the same in words, and whether they are shares of 1.
        events_from: where the events come from: "data", "store", "memory", or several with "and"; None if nothing is
            known of them.
        events_note: the same in words, with what is missing.
        recent: her latest events, the latest first.
        artifact: id of the one that scored.
    """

    user: str
    known_user: bool
    count: int
    last_time: int | None
    slots: list[Slot]
    candidates: list[CandidateExplanation]
    attention_over: Literal["slots", "events"] | None
    attention_note: str
    events_from: str | None
    events_note: str
    recent: list[Seen]
    artifact: str


def explain(scorer: Scorer, request: ScoreRequest, *, dataset: Dataset | None = None) -> Explanation:
    """Explain one user's candidates.

    Args:
        scorer: artifact and store.
        request: the user and the candidates.
        dataset: where past events are looked up beside the store's event log.
    """
    moment = int(clock.time()) if request.time is None else request.time
    request = replace(request, time=moment)
    states, known = scorer.states([request.user])
    answer = scorer.answer_from(states, known, [request], attention=True)[0]
    slots = slots_of(scorer.artifact, states, 0)
    past = past_of(scorer, request.user, states, dataset=dataset)
    number_CF = scorer.overlay.numbers(request.items, request.fields)
    seen = _Shown(scorer, past, moment)
    counted = counted_of(scorer, states, number_CF, answer.scores, request, moment)
    return Explanation(
        user=answer.user,
        known_user=answer.known_user,
        count=answer.count,
        last_time=answer.last_time,
        slots=slots,
        candidates=[
            replace(
                _candidate(scorer, answer, place, slots=slots, shown=seen, number_F=number_CF[place]),
                counted=counted[place],
            )
            for place in range(len(answer.scores))
        ],
        attention_over=scorer.runtime.attends_to,
        attention_note=_attention_note(scorer, answer.count),
        events_from=past.source,
        events_note=past.note,
        recent=[seen.event(at) for at in range(len(past.items) - 1, -1, -1)[:RECENT]],
        artifact=answer.artifact,
    )


class _Shown:
    """Past events as they are shown."""

    def __init__(self, scorer: Scorer, past: Past, moment: int) -> None:
        self.past, self.moment = past, moment
        self.seconds = scorer.schema.time_unit == "seconds"
        self.vocabularies = scorer.artifact.vocabularies
        self.fields = scorer.schema.item_fields

    def event(self, at: int) -> Seen:
        """The event at one place of the past."""
        past, time = self.past, int(self.past.time_N[at])
        numbers = past.number_NF[at]
        return Seen(
            position=int(past.position_N[at]),
            item=past.items[at],
            time=time,
            event_type=past.types[at],
            seconds_ago=self.moment - time if self.seconds else None,
            fields={
                name: self.vocabularies[name].value_of(int(numbers[column]))
                for column, name in enumerate(self.fields)
                if column
            },
        )

    def same(self, item: str, number_F: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """For each event and item field: whether it is the candidate's, and known. Equal buckets are not enough."""
        first_known = np.array([self.vocabularies[name].first_known for name in self.fields])
        same_NF: npt.NDArray[np.bool_] = (self.past.number_NF == number_F) & (number_F >= first_known)
        same_NF[:, 0] = [past == item for past in self.past.items]
        return same_NF


def _candidate(
    scorer: Scorer,
    answer: Answer,
    place: int,
    *,
    slots: Sequence[Slot],
    shown: _Shown,
    number_F: npt.NDArray[np.int64],
) -> CandidateExplanation:
    """One candidate with what the attention, if there is any, fell on."""
    score = answer.scores[place]
    if answer.attention_CS is None:
        return CandidateExplanation(**asdict(score))
    weights = answer.attention_CS[place]
    if scorer.runtime.attends_to == "events":
        events, rest = _weighed(weights, scorer.runtime.stored(answer.count), shown)
        return CandidateExplanation(**asdict(score), events=events, rest=rest)
    same_NF = shown.same(score.item, number_F)
    # What is read is the memory's first field; others steer its writes.
    read = [slot for slot in slots if slot.field == slots[0].field]
    parts = [
        SlotAttention(slot.field, slot.slot, float(weight), _related(slot, shown, same_NF))
        for slot, weight in zip(read, weights, strict=True)
    ]
    return CandidateExplanation(**asdict(score), slots=parts)


def _weighed(weight_L: npt.NDArray[np.float32], stored: int, shown: _Shown) -> tuple[list[Weighed], Rest]:
    """The events of the largest weights, and the others.

    Args:
        weight_L: of the stored events, the oldest first, and of padding.
        stored: how many events are stored: the last ones that are known of the user.
        shown: her past.
    """
    weight_L = weight_L[:stored]
    # Of equal weights the later event first.
    order = np.lexsort((np.arange(stored), np.abs(weight_L)))[::-1][: np.count_nonzero(weight_L)]
    first = len(shown.past.items) - stored
    named, others = order[:WEIGHED].tolist(), order[WEIGHED:]
    events = [Weighed(**asdict(shown.event(first + at)), attention=float(weight_L[at])) for at in named]
    return events, Rest(len(others), float(weight_L[others].sum()))


def _attention_note(scorer: Scorer, count: int) -> str:
    """What the weights of candidates are of, in words."""
    runtime = scorer.runtime
    if runtime.attends_to is None:
        return f"{scorer.artifact.config.title} has no attention: it does not tell which events stand behind a score"
    if runtime.attends_to == "slots":
        return "the weights of the slots, which sum to 1 unless all slots are empty"
    stored = runtime.stored(count)
    if runtime.free_weights:
        return f"the weights of her last {stored:,} events, which are free: of any size and sign, no shares of 1"
    return f"the weights of her last {stored:,} events, which sum to 1 unless the model looked at none of them"


def _related(slot: Slot, shown: _Shown, same_NF: npt.NDArray[np.bool_]) -> list[Related]:
    """The most related events that a slot covers: of its last window first, then same item, more fields, later."""
    if slot.window is None:
        return []
    position_N = shown.past.position_N
    inside_N = position_N >= slot.window[0]
    chosen = np.flatnonzero(same_NF.any(1) & (position_N <= slot.covers))
    order = np.lexsort((position_N[chosen], same_NF[chosen].sum(1), same_NF[chosen, 0], inside_N[chosen]))[::-1]
    return [
        Related(
            **asdict(shown.event(at)),
            same=tuple(name for name, is_same in zip(shown.fields, same_NF[at], strict=True) if is_same),
            in_last_window=bool(inside_N[at]),
        )
        for at in chosen[order][:RELATED].tolist()
    ]
