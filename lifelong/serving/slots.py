"""What the parts of a memory mean: slots, their periods, whether they are empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lifelong.artifact.folder import is_recent

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.state import States

_WRITES = ("rate", "age")
"""Fields of a memory that say how its slots were written."""
LONGEST_AGE = 1024
"""Events of an age of 1."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of one user's memory.

    Args:
        field: field of the memory that holds it.
        slot: its place there, from 0.
        period: written every so many events; None if the model has no periods.
        empty: not written yet.
        norm: Euclidean length of its vector; 0 for a recent history, which is no vector.
        covers: events folded into it, counted from the user's first.
        rate: share of her events that wrote it, of a model that decides that itself; None of others.
    """

    field: str
    slot: int
    period: int | None
    empty: bool
    norm: float
    covers: int
    rate: float | None = None

    @property
    def written(self) -> str:
        """When it is written, in words."""
        if self.rate is not None and self.rate < 1:
            return f"at {self.rate:.0%} of the events"
        if self.period is None or self.period == 1:
            return "at every event"
        return f"every {self.period} events"

    @property
    def window(self) -> tuple[int, int] | None:
        """First and last position (from 1) of the events of its last write; None while empty."""
        # Of a slot without a period: as many as it takes in on average.
        size = self.period or (round(1 / self.rate) if self.rate else 1)
        return None if self.empty else (max(1, self.covers - size + 1), self.covers)


def slots_of(artifact: Artifact, states: States, place: int) -> list[Slot]:
    """The slots of one user.

    Args:
        artifact: whose memory it is.
        states: memories of some users.
        place: which of them.
    """
    count, slots = int(states.count_B[place]), []
    if is_recent(artifact.config.memory or ()):
        return [Slot("history", 0, None, count == 0, 0.0, count)]
    if {"slot", *_WRITES} <= states.fields.keys():
        return _dynamic(states, place)
    for part in artifact.config.memory or ():
        if part.dtype != "float32":
            # Counters are no vectors: see `lifelong.serving.counted`.
            continue
        vectors = states.fields[part.name][place]
        rows = vectors if len(part.shape) > 1 else vectors[None]
        periods = _periods(artifact.config.settings, len(rows))
        for slot, (row, period) in enumerate(zip(rows, periods, strict=True)):
            covers = count // (period or 1) * (period or 1)
            slots.append(Slot(part.name, slot, period, covers == 0, float(np.linalg.norm(row)), covers))
    return slots


def _dynamic(states: States, place: int) -> list[Slot]:
    """Slots of a model that decides when it writes, and keeps of each how often and when it last did."""
    count, vectors = int(states.count_B[place]), states.fields["slot"][place]
    found = []
    for slot, (row, rate, age) in enumerate(
        zip(vectors, *(states.fields[name][place] for name in _WRITES), strict=True)
    ):
        covers = max(0, count - round(float(age) * LONGEST_AGE))
        found.append(Slot("slot", slot, None, rate == 0, float(np.linalg.norm(row)), covers, float(rate)))
    return found


def _periods(model: Mapping[str, object], rows: int) -> Sequence[int | None]:
    """Period of each slot, where the model's settings name them."""
    periods = model.get("periods")
    if isinstance(periods, Sequence) and len(periods) == rows:
        return [int(period) for period in periods]
    return [None] * rows
