"""The preparation record: what was read, dropped and counted, kept in `dataset.json` and printed by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import read_slice, user_chunks
from lifelong.data.catalogue import FIRST_ROW
from lifelong.data.examples import SPLITS, Examples
from lifelong.data.histories import Histories
from lifelong.data.protocols import Plan, moment_starts

IntArray = npt.NDArray[np.int64]


def count_quirks(histories: Histories, type_code: Path | None) -> dict[str, Any]:
    """Ties and duplicates.

    Args:
        histories: all events.
        type_code: codes of the event types, one per event, if there are types.

    Returns:
        ties: events that share their time with the user's event before; ties_share: of all events; duplicate_events:
        events equal to another one of the same moment (kept: two equal purchases in one second are two events).
    """
    ties = duplicates = 0
    offset_U = np.asarray(histories.offset_U)
    for first, last in user_chunks(offset_U):
        low, high = int(offset_U[first]), int(offset_U[last])
        user_N = np.repeat(np.arange(first, last), np.diff(offset_U[first : last + 1]))
        start_N = moment_starts(user_N, np.asarray(histories.time_N[low:high]))
        tied_N = start_N != np.arange(len(start_N))
        ties += int(tied_N.sum())
        shared = np.flatnonzero(tied_N | np.append(tied_N[1:], False))
        keys: list[npt.NDArray[Any]] = [np.asarray(histories.row_N[low:high])[shared], start_N[shared]]
        if type_code is not None:
            keys.insert(0, read_slice(type_code, low, high)[shared])
        key = np.stack(keys)[:, np.lexsort(keys)]
        duplicates += int((key[:, 1:] == key[:, :-1]).all(axis=0).sum())
    events = histories.num_events
    return {"ties": ties, "ties_share": round(ties / max(events, 1), 4), "duplicate_events": duplicates}


def count_split(examples: Examples, trained_V: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Counts of one split's examples.

    Args:
        examples: of the split.
        trained_V: whether a catalogue row has an event (or labelled target) in the training period.

    Returns:
        examples, positives, users, without_history, new_items (distinct) and examples_of_new_items.
    """
    row_N = np.asarray(examples.row_N)
    new_N = ~trained_V[row_N]
    return {
        "examples": len(examples),
        "positives": int((np.asarray(examples.label_NT[:, 0]) > 0).sum()),
        "users": len(np.unique(examples.user_N)),
        "without_history": int((np.asarray(examples.position_N) == 0).sum()),
        "new_items": len(np.unique(row_N[new_N])),
        "examples_of_new_items": int(new_N.sum()),
    }


def count_events(histories: Histories, plan: Plan) -> dict[str, int]:
    """Events in the period of each split."""
    found = np.zeros(len(SPLITS), np.int64)
    offset_U = np.asarray(histories.offset_U)
    for first, last in user_chunks(offset_U):
        user_N = np.repeat(np.arange(first, last), np.diff(offset_U[first : last + 1]))
        split_N = plan.split_of(user_N, np.asarray(histories.time_N[offset_U[first] : offset_U[last]]))
        found += np.bincount(split_N[split_N >= 0], minlength=len(SPLITS))
    return {f"{split}_events": int(count) for split, count in zip(SPLITS, found, strict=True)}


def unseen(count_V: IntArray) -> int:
    """How many items of the catalogue have no event."""
    return int((count_V[FIRST_ROW:] == 0).sum())
