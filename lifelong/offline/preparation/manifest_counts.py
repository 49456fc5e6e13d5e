"""The preparation record: what was read, dropped and counted, kept in `dataset.json` and printed by the command."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import event_chunks, is_first, read_slice
from lifelong.dataset.examples import SPLITS, Examples, Split
from lifelong.dataset.histories import Histories
from lifelong.dtypes import BoolArray
from lifelong.offline.preparation.protocols import Plan, moment_starts

WIDEST = 0.02
"""Models differ by hundredths: a wider interval on either side distinguishes none."""
LEAST_USERS = 30
_AUC = 0.75


def count_quirks(histories: Histories, type_code: Path | None) -> dict[str, Any]:
    """Ties, duplicates and unsorted rows, all of which are kept.

    Args:
        histories: all events.
        type_code: codes of the event types, one per event, if there are types.

    Returns:
        ties: events that share their time with the user's event before; ties_share: of all events; duplicate_events:
        events equal to another one of the same moment (two equal purchases in one second are two events);
        unsorted_events: events that the source has before one of the same user with an earlier time.
    """
    ties = duplicates = unsorted = 0
    for user_N, events in event_chunks(np.asarray(histories.offset_U)):
        start_N = moment_starts(user_N, np.asarray(histories.time_N[events]))
        tied_N = start_N != np.arange(len(start_N))
        ties += int(tied_N.sum())
        # Only events that share their moment can be duplicates: few rows are sorted in place of all.
        shared = np.flatnonzero(tied_N | np.append(tied_N[1:], False))
        keys: list[npt.NDArray[Any]] = [np.asarray(histories.row_N[events])[shared], start_N[shared]]
        if type_code is not None:
            keys.insert(0, read_slice(type_code, events)[shared])
        # Equal events become neighbours, each run of them with one first.
        order = np.lexsort(keys)
        sequence_N = np.asarray(histories.sequence_N[events])
        # The histories are sorted by time: where the place in the source falls nevertheless, the source had them the
        # other way.
        unsorted += int(((sequence_N[1:] < sequence_N[:-1]) & (user_N[1:] == user_N[:-1])).sum())
        duplicates += int((~is_first(*(key[order] for key in keys))).sum())
    share = ties / max(histories.num_events, 1)
    counted = {"ties": ties, "ties_share": round(share, 4)}
    return {**counted, "duplicate_events": duplicates, "unsorted_events": unsorted}


def count_split(examples: Examples, trained_V: BoolArray, numbered_V: BoolArray) -> dict[str, int]:
    """Counts of one split's examples.

    Args:
        examples: of the split.
        trained_V: whether a catalogue row has an event (or labelled target) in the training period.
        numbered_V: whether its item has a number of its own.

    Returns:
        examples, positives, users, without_history, new_items (distinct), examples_of_new_items, and
        examples_without_number.
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
        "examples_without_number": int((~numbered_V[row_N]).sum()),
    }


def count_events(histories: Histories, plan: Plan) -> dict[str, int]:
    """Events in the period of each split."""
    count_S = np.zeros(len(SPLITS), np.int64)
    for user_N, events in event_chunks(np.asarray(histories.offset_U)):
        split_N = plan.split_of(user_N, np.asarray(histories.time_N[events]))
        count_S += np.bincount(split_N[split_N >= 0], minlength=len(SPLITS))
    return {f"{split}_events": int(count) for split, count in zip(SPLITS, count_S, strict=True)}


def ordinal_cuts(time_unit: str, histories: Histories, plan: Plan) -> dict[str, Any]:
    """Where one number cuts the ordinal times of all users, and how many have all events before it; else {}."""
    if time_unit != "ordinal" or len(plan.cut_times) != len(SPLITS) - 1:
        return {}
    offset_U = np.asarray(histories.offset_U)
    # Users may have impressions alone; the last event of an empty history would be another user's.
    filled_U = np.flatnonzero(np.diff(offset_U))
    last_U = np.asarray(histories.time_N)[offset_U[filled_U + 1] - 1]
    alone = int((plan.split_of(filled_U, last_U) == 0).sum())
    counted = {"users": len(filled_U), "users_before_all_cuts": alone}
    return {"ordinal_cuts": {"cut_times": list(plan.cut_times), **counted}}


def too_small(splits: Mapping[Split, Mapping[str, int]]) -> dict[str, str]:
    """Split -> why nothing can be concluded from it; for those where that is so. Training is left out.

    The interval of an AUC is at least as wide as for independent examples (Hanley and McNeil, Radiology 1982); those of
    one user are not, and with fewer than `LEAST_USERS` users the draw of users decides.

    >>> many = {"examples": 40_000, "positives": 20_000, "users": 900}
    >>> too_small({"test": many, "validation": {**many, "users": 12}})
    {'validation': '40,000 examples (20,000 positives) of 12 users: too few users to compare models'}
    """
    reasons = dict[str, str]()
    for split, counted in splits.items():
        positives, negatives = counted["positives"], counted["examples"] - counted["positives"]
        width = _half_width(positives, negatives)
        size = f"{counted['examples']:,} examples ({positives:,} positives) of {counted['users']:,} users"
        if split == "train":
            continue
        if width > WIDEST:
            reasons[split] = f"{size}: an AUC of {_AUC:g} would have an interval of at least ±{width:.2g}"
        elif counted["users"] < LEAST_USERS:
            reasons[split] = f"{size}: too few users to compare models"
    return reasons


def _half_width(positives: int, negatives: int) -> float:
    """Of the 95 % interval of an AUC from this many independent examples; .5 where there is none."""
    if not positives or not negatives:
        return 0.5
    # Q1 and Q2 of Hanley and McNeil, less AUC squared, for scores of exponential distributions.
    above, below = _AUC / (2 - _AUC) - _AUC**2, 2 * _AUC**2 / (1 + _AUC) - _AUC**2
    variance = _AUC * (1 - _AUC) + (positives - 1) * above + (negatives - 1) * below
    return min(0.5, 1.96 * math.sqrt(variance / (positives * negatives)))
