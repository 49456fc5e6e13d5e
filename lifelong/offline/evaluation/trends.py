"""A gauge of the negatives: how well an item's trend alone, without any user, tells targets from what was drawn.

    counts of the target's item over all users, before the target's time --trees--> AUC on test

Trees learn on validation, whose negatives are drawn as those of test are, and know nothing of any user. What their AUC
differs from one half, every model may read, too, and it says nothing about users: by `popularity` a negative may be out
of season now, and was met by the very event that it was drawn by. By `following` both are met from now on.

Shapes: N targets, K features.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.histories import count_earlier
from lifelong.dtypes import FloatArray
from lifelong.errors import MissingExtraError, require
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.evaluation.results import Estimate, estimate, shown
from lifelong.offline.evaluation.significance import bootstrap

DAYS = (7, 28, 91)
"""An item's events are counted over these numbers of days."""
_DAY = 86_400
_ROUNDS = 100


def item_trends(dataset: Dataset, examples: Examples) -> FloatArray:
    """What is known of each target's item from all users' events with a strictly earlier time, `[N, K]`.

    Columns: events before; for each of `DAYS` the events of so many days; and for each of them the logarithm of these
    less that of as many days at the item's usual rate, 1 added to both.
    """
    histories, row_N, time_N = dataset.histories, np.asarray(examples.row_N), np.asarray(examples.time_N, np.int64)
    # One item after another, each in order of time, as histories are for users.
    order = np.lexsort((histories.time_N, histories.row_N))
    offset_V = np.searchsorted(np.asarray(histories.row_N)[order], np.arange(len(dataset.catalogue) + 1))
    of_rows = (offset_V, np.asarray(histories.time_N)[order], row_N)
    until_N = count_earlier(*of_rows, time_N)
    passed_N = np.maximum(time_N - int(np.min(histories.time_N)), 1)
    recent = [until_N - count_earlier(*of_rows, time_N - days * _DAY) for days in DAYS]
    usual = [until_N * np.minimum(days * _DAY / passed_N, 1.0) for days in DAYS]
    ratios = [np.log1p(of_days) - np.log1p(rate) for of_days, rate in zip(recent, usual, strict=True)]
    return np.stack([until_N, *recent, *ratios], axis=1).astype(np.float64)


def given_away(dataset: Dataset, *, resamples: int) -> Estimate | None:
    """AUC on test of trees on item trends alone, with its interval over users; .5 is nothing.

    None where nothing was drawn, times are no seconds, validation or test is empty, or LightGBM is not installed.

    Args:
        dataset: with sampled labels.
        resamples: of the users.
    """
    manifest = dataset.manifest
    if manifest.negatives.rule == "none" or dataset.schema.time_unit != "seconds":
        return None
    learned, asked = dataset.examples("validation"), dataset.examples("test")
    if not len(learned) or not len(asked):
        return None
    try:
        lightgbm: Any = require("lightgbm", extra="gbdt", purpose="the gauge of the negatives")
    except MissingExtraError:
        return None
    options = {"objective": "binary", "num_leaves": 15, "min_data_in_leaf": min(200, len(learned) // 20 + 1), "seed": 0}
    options |= {"learning_rate": 0.05, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbose": -1}
    label_N = np.asarray(learned.label_NT[:, 0] > 0, np.float32)
    data = lightgbm.Dataset(item_trends(dataset, learned), label_N, params={"verbose": -1})
    logit_N = lightgbm.train(options, data, _ROUNDS).predict(item_trends(dataset, asked), raw_score=True)
    sample = Sample.of(asked.label_NT[:, 0], logit_N, asked.user_N)
    drawn = bootstrap({"": sample}, resamples=resamples)[""]["auc"]
    return estimate("auc", metrics.auc(asked.label_NT[:, 0], logit_N), drawn, sample)


def in_words(auc: Estimate, rule: str) -> str:
    """What a rule of negatives gives away, in one line.

    >>> in_words(Estimate(value=0.502, low=0.499, high=0.504), "following")
    'Negatives by following: item trends alone, without any user, have AUC 0.5020 (0.4990 to 0.5040); 0.5 is no hint.'
    """
    value, interval = shown(auc)
    return f"Negatives by {rule}: item trends alone, without any user, have AUC {value} ({interval}); 0.5 is no hint."
