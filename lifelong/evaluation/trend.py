"""How well an item's trend alone tells positives from drawn negatives: what the rule of negatives leaks.

    logit = log(events of the item in the last 28 days + 1) - log(as many days of its average rate until now + 1)

Events are those of all users with a strictly earlier time than the target. It knows nothing of the user, so what it
differs from one half, in either direction, says nothing of users. Above: items of the season are distinguished from
those of a whole period. Below: a drawn item is known by the very event that it was drawn by, and the target's item is
not (`lifelong.data.negatives`).

Shapes: N examples.
"""

from __future__ import annotations

import numpy as np

from lifelong.data.dataset import Dataset
from lifelong.data.examples import Examples
from lifelong.data.item_statistics import Running
from lifelong.dtypes import FloatArray
from lifelong.evaluation import metrics

DAYS = 28
_DAY = 86_400


def item_trend(dataset: Dataset, examples: Examples, *, days: float = DAYS) -> FloatArray:
    """Logits `[N]` from the trend of each example's item; larger where it is met more often than usual.

    Args:
        dataset: with clock times; its events are sorted by item, 16 bytes each.
        examples: the targets.
        days: what counts as recent.
    """
    histories = dataset.histories
    time_N, row_N = np.asarray(examples.time_N, np.int64), np.asarray(examples.row_N)
    events = Running.of(histories.row_N, histories.time_N, None, len(dataset.catalogue))
    until_N, _ = events.before(row_N, time_N)
    earlier_N, _ = events.before(row_N, time_N - round(days * _DAY))
    passed_N = np.maximum(time_N - int(np.min(histories.time_N)), 1)
    usual_N = until_N * np.minimum(days * _DAY / passed_N, 1.0)
    logit_N: FloatArray = np.log1p(until_N - earlier_N) - np.log1p(usual_N)
    return logit_N


def trend_note(dataset: Dataset, examples: Examples) -> str | None:
    """The AUC of the trend in a sentence; None where labels are logged or times are no clock's."""
    drawn = dataset.manifest.negatives.rule != "none"
    if not drawn or dataset.schema.time_unit != "seconds" or not len(examples):
        return None
    auc = metrics.auc(np.asarray(examples.label_NT[:, 0]), item_trend(dataset, examples))
    return (
        f"An item's trend alone (its events of the last {DAYS} days over its usual rate, without the user) has AUC "
        f"{auc:.3f} on the test examples: what differs from .5 comes from how negatives were drawn "
        f"({dataset.manifest.negatives.rule})"
    )
