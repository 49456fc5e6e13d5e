"""Mean labels of what a target holds, where labels are logged: how often its item, its user, ... had a positive answer.

A mean is smoothed: `STRENGTH` answers of the average label are added. What counts is known before the target:

* of a value of an item field, over all users: answers of the training split, with a time before the target's;
* of the user, and of the user's targets with the same value of a field: answers up to and including the moment of the
  last event that the target sees. So where the youngest events are hidden, answers of that age are, too; where it sees
  its last events alone, so it does the answers since the first of them.

Shapes: N targets; M answers; T tasks; F item fields; K features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lifelong.compiled import compiled
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples, Split
from lifelong.dataset.histories import first_from
from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.dtypes import Float32Array, FloatArray, IntArray

if TYPE_CHECKING:
    from lifelong.dataset.events import Schema
    from lifelong.dataset.folder import Dataset

STRENGTH = 10.0
"""Answers of average label that every mean is given beforehand."""
HALF_LIVES = (5.0, 50.0)
"""Half-lives of the user's decayed mean label, in answers."""
# Before every time, and far enough from the end of int64 that one may be added or taken off.
_LONG_AGO = -(2**62)


def label_names(schema: Schema) -> tuple[str, ...]:
    """Names of the columns of `label_means`."""
    parts = ["user.mean", *(f"user.mean_{half_life:g}" for half_life in HALF_LIVES)]
    parts += [f"{field}.{part}" for field in schema.item_fields for part in ("mean", "answers", "user_mean")]
    return tuple(f"{task}.{part}" for task in schema.tasks for part in parts)


def label_means(dataset: Dataset, examples: Examples, splits: Iterable[Split]) -> Float32Array:
    """The features of examples, float32 `[N, K]`, columns as in `label_names`.

    Args:
        dataset: with logged labels.
        examples: the targets, in any order.
        splits: the user's answers in these may be read; `train` is always read for what is said of all users.
    """
    train = _answers(dataset, "train")
    own = _joined([_answers(dataset, split) for split in splits])
    # One positive and one negative answer more than there are: a task without any of one kind has no prior of 0 or 1.
    prior_T = (np.asarray(train.label_NT, np.float64).sum(axis=0) + 1) / (len(train) + 2)
    columns: list[FloatArray] = []
    for task, prior in enumerate(prior_T):
        columns += _columns(dataset, examples, (train, own), task, float(prior))
    return np.stack(columns, axis=1).astype(np.float32)


def _answers(dataset: Dataset, split: Split) -> Examples:
    """The examples of a split; for a vault those of the dataset that it belongs to, in the vault's users and rows."""
    if (dataset.folder / "examples" / split).exists():
        return dataset.examples(split)
    outer = type(dataset)(dataset.folder.parent)
    answers = outer.examples(split)
    user_U = dataset.users.find([outer.users.id_at(user) for user in range(len(outer.users))])
    row_V = np.append([0, 1], dataset.catalogue.rows([outer.catalogue.ids.id_at(at) for at in range(_items(outer))]))
    # Users without an event in the vault's log have no place there.
    user_N = user_U[answers.user_N]
    present_N = user_N >= 0
    return replace(
        answers.take(present_N),
        user_N=user_N[present_N].astype(np.int32),
        row_N=row_V[answers.row_N][present_N].astype(np.int32),
    )


def _items(dataset: Dataset) -> int:
    return len(dataset.catalogue) - FIRST_ROW


def _columns(
    dataset: Dataset, examples: Examples, answers: tuple[Examples, Examples], task: int, prior: float
) -> list[FloatArray]:
    train, own = answers
    number_VF = np.asarray(dataset.catalogue.number_VF, np.int64)
    visible_times, always_N = _known(dataset, examples), np.full(len(examples), _LONG_AGO)
    time_N = np.asarray(examples.time_N, np.int64)
    # An answer that is above its average raises a sum, one below lowers it: a mean of nothing is the prior.
    train_M, own_M = (np.asarray(part.label_NT[:, task], np.float64) - prior for part in answers)
    of_user = _Sums.of(np.asarray(own.user_N, np.int64), np.asarray(own.time_N), own_M)
    user_N = np.asarray(examples.user_N, np.int64)
    asked = of_user.between(user_N, visible_times)
    columns = [
        prior + asked.mean(),
        *(prior + of_user.decayed(user_N, visible_times, half_life) for half_life in HALF_LIVES),
    ]
    for place in range(len(dataset.schema.item_fields)):
        value_V = np.arange(len(number_VF)) if place == 0 else number_VF[:, place]
        nothing = FIRST_ROW if place == 0 else UNKNOWN + 1
        wanted_N, size = value_V[examples.row_N], int(value_V.max(initial=0)) + 1
        wanted_N = np.where(wanted_N >= nothing, wanted_N, -1)
        everyone = _Sums.of(value_V[train.row_N], np.asarray(train.time_N), train_M).between(
            wanted_N, (always_N, time_N)
        )
        # User and value as one number; all values are below `size`.
        both_M = np.asarray(own.user_N, np.int64) * size + value_V[own.row_N]
        both_N = np.where(wanted_N >= 0, user_N * size + wanted_N, -1)
        hers = _Sums.of(both_M, np.asarray(own.time_N), own_M).between(both_N, visible_times)
        columns += [prior + everyone.mean(), everyone.number_N, prior + hers.mean()]
    return columns


def _known(dataset: Dataset, examples: Examples) -> tuple[IntArray, IntArray]:
    """From which time on, and before which, answers of each target's user are known."""
    position_N = np.asarray(examples.position_N, np.int64)
    first_N, time_N = np.asarray(dataset.histories.offset_U)[examples.user_N], np.asarray(dataset.histories.time_N)
    none_N, has_past_N = np.full(len(position_N), _LONG_AGO), position_N > 0
    if not has_past_N.any():
        return none_N, none_N
    # One more than the time of the last visible event: answers of that moment are known, and the end is exclusive.
    until_N = np.where(has_past_N, time_N[np.maximum(first_N + position_N - 1, 0)] + 1, none_N)
    return none_N, until_N


def _joined(parts: list[Examples]) -> Examples:
    return Examples(*(np.concatenate(columns) for columns in zip(*(part.columns() for part in parts), strict=True)))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Sum and number of the answers that each target knows."""

    sum_N: FloatArray
    number_N: FloatArray

    def mean(self) -> FloatArray:
        """Smoothed, less the prior."""
        return self.sum_N / (self.number_N + STRENGTH)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Answers sorted by (key, time), with running sums."""

    key_M: IntArray
    time_M: IntArray
    value_M: FloatArray

    @classmethod
    def of(cls, key_M: IntArray, time_M: IntArray, value_M: FloatArray) -> _Sums:
        order_M = np.lexsort((time_M, key_M))
        return cls(key_M[order_M], time_M[order_M], value_M[order_M])

    def between(self, key_N: IntArray, times: tuple[IntArray, IntArray]) -> _Asked:
        """The answers of each key from one time on and before another."""
        first_N, end_N = (self._place(key_N, time_N) for time_N in times)
        total_M = np.append(0.0, np.cumsum(self.value_M))
        return _Asked(total_M[end_N] - total_M[first_N], (end_N - first_N).astype(float))

    def decayed(self, key_N: IntArray, times: tuple[IntArray, IntArray], half_life: float) -> FloatArray:
        """Smoothed mean, less the prior, in which an answer weighs half as much after this many more of the key."""
        first_N, end_N = (self._place(key_N, time_N) for time_N in times)
        fade = 0.5 ** (1 / half_life)
        # Place 0 holds the sum of nothing. What came before the first answer, of this key or another, is taken off.
        sum_M: FloatArray = np.append(0.0, _faded(self.value_M, fade))
        weight_N = fade ** (end_N - first_N)
        mean_N: FloatArray = (sum_M[end_N] - weight_N * sum_M[first_N]) / ((1 - weight_N) / (1 - fade) + STRENGTH)
        return mean_N

    def _place(self, key_N: IntArray, time_N: IntArray) -> IntArray:
        """Where the first answer of each key at a time, or later, is or would be."""
        low_N, high_N = np.searchsorted(self.key_M, key_N), np.searchsorted(self.key_M, key_N, side="right")
        return first_from(self.time_M, low_N, high_N, time_N)


@compiled()
def _faded(value_M: FloatArray, fade: float) -> FloatArray:
    sum_M = np.zeros(len(value_M))
    total = 0.0
    for at in range(len(value_M)):
        total = value_M[at] + fade * total
        sum_M[at] = total
    return sum_M
