"""What the parts of a memory mean: slots, their periods, whether they are empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lifelong.artifact.folder import Artifact, is_recent
from lifelong.memory.state import States
from lifelong.scoring.explanation import CoveredSlot

_WRITES = ("rate", "age")
"""Fields of a memory that say how its slots were written."""
LONGEST_AGE = 1024
"""Events of an age of 1."""


def slots_of(artifact: Artifact, states: States, place: int) -> list[CoveredSlot]:
    """The slots of one user.

    Args:
        artifact: the model of the memory.
        states: memories of some users.
        place: which of them.
    """
    count, slots = int(states.count_B[place]), []
    if is_recent(artifact.config.memory or ()):
        return [_slot("history", 0, covers=count)]
    if {"slot", *_WRITES} <= states.fields.keys():
        return _dynamic(states, place)
    for part in artifact.config.memory or ():
        if part.dtype != "float32" or part.name == "sums":
            # Counters are no vectors (see `lifelong.scoring.counted`), and sums of fixed factors are no slots.
            continue
        vectors = states.fields[part.name][place]
        rows = vectors if len(part.shape) > 1 else vectors[None]
        periods = _periods(artifact.config.settings, len(rows))
        for at, (row, period) in enumerate(zip(rows, periods, strict=True)):
            # Events after the last full period wait for the slot's next write.
            covers = count // (period or 1) * (period or 1)
            slots.append(_slot(part.name, at, covers=covers, norm=float(np.linalg.norm(row)), period=period))
    return slots


def _dynamic(states: States, place: int) -> list[CoveredSlot]:
    """Slots of a model that decides when it writes, and keeps of each how often and when it last did."""
    count = int(states.count_B[place])
    columns = (states.fields[name][place] for name in ("slot", *_WRITES))
    return [
        _slot(
            "slot",
            at,
            covers=max(0, count - round(float(age) * LONGEST_AGE)),
            norm=float(np.linalg.norm(row)),
            rate=float(rate),
        )
        for at, (row, rate, age) in enumerate(zip(*columns, strict=True))
    ]


def _slot(
    field: str, at: int, *, covers: int, norm: float = 0.0, period: int | None = None, rate: float | None = None
) -> CoveredSlot:
    empty = covers == 0 if rate is None else rate == 0
    # A write takes in the events since the one before it: as many as the period says, or as many as at this rate lie
    # between two writes on average.
    size = period or (round(1 / rate) if rate else 1)
    window = None if empty else (max(1, covers - size + 1), covers)
    return CoveredSlot(field, at, period, rate, _written(period, rate), empty, norm, covers, window)


def _written(period: int | None, rate: float | None) -> str:
    if rate is not None and rate < 1:
        return f"at {rate:.0%} of the events"
    return "at every event" if period in (None, 1) else f"every {period} events"


def _periods(model: Mapping[str, object], rows: int) -> Sequence[int | None]:
    """Period of each slot, where the model's settings name them."""
    periods = model.get("periods")
    if isinstance(periods, Sequence) and len(periods) == rows:
        return [int(period) for period in periods]
    return [None] * rows
