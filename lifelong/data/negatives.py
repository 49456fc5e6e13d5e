"""Sampled negatives: which item stands beside a positive with label 0.

    uniform         every item with an event in the split's period alike
    popularity      in proportion to event counts in the split's period
    same_category   the same, among the items of the target's category

The period is that of the target's own split: with training popularity, an item that is new in test could only ever be a
positive. A drawn item that stands in the target's own moment (an event of the same user at the same time) is drawn
again; whatever else the history holds does not matter. Where `ROUNDS` draws by the rule do not help, the item is drawn
by popularity, then among all items of the catalogue, and at last among those of them that are not in the moment;
`counted` says how often.

The paper's protocol is an exception: `uniform` there is uniform over all items of the log but the true one.

Shapes: N targets, V catalogue rows, P items of a period, R negatives per positive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import CHUNK, user_chunks
from lifelong.data.catalogue import FIRST_ROW, Catalogue
from lifelong.data.dataset import Dataset, NegativeRule
from lifelong.data.examples import SPLITS, Examples, Split
from lifelong.data.histories import Histories
from lifelong.errors import DataError, MismatchError, UsageError

ROUNDS = 16
"""Draws by one rule before the next one is tried."""

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int32]


class NegativeSampler:
    """Draws negatives for the targets of one split.

    Args:
        histories: all events.
        count_V: events of each catalogue row in the split's period.
        rule: what to draw by, and how many for each target.
        category_V: category number of each catalogue row; needed by `same_category` alone.
        whole_moment: whether all items of the target's moment are excluded, or the target's own item alone.

    Attributes:
        counted: `drawn` negatives, `redrawn` proposals that stood in the target's own moment, and how many negatives
            came from a `fallback_popularity`, `fallback_catalogue` or `fallback_exact` draw.
    """

    def __init__(
        self,
        histories: Histories,
        count_V: IntArray,
        rule: NegativeRule,
        *,
        category_V: npt.NDArray[np.integer] | None = None,
        whole_moment: bool = True,
    ) -> None:
        self.rule, self.counted = rule, Counter[str]()
        self._histories, self._whole_moment, self._num_rows = histories, whole_moment, len(count_V)
        row_P = np.flatnonzero(count_V)
        if not len(row_P):
            raise DataError("no negatives can be drawn: the split's period has no events", fix="choose other cut times")
        self._category_V = category_V
        if rule.rule == "same_category":
            if category_V is None:
                raise UsageError("same_category needs the category of each item", fix="give category_V")
            row_P = row_P[np.argsort(category_V[row_P], kind="stable")]
            self._category_P = category_V[row_P]
        self._row_P = row_P.astype(np.int32)
        self._below_P = np.concatenate([[0], np.cumsum(count_V[row_P])])

    @classmethod
    def open(cls, dataset: Dataset, split: Split, *, ratio: int | None = None) -> NegativeSampler:
        """The sampler of one split of a prepared dataset.

        Args:
            dataset: with sampled labels.
            split: whose period's items are drawn.
            ratio: negatives of each target; as many as the dataset's rule says if None.

        Raises:
            MismatchError: the dataset's labels are logged, so nothing is to be drawn.
        """
        manifest, catalogue = dataset.manifest, dataset.catalogue
        rule = manifest.negatives if ratio is None else manifest.negatives.model_copy(update={"ratio": ratio})
        if rule.rule == "none":
            raise MismatchError(
                "this dataset holds logged labels, no negatives are drawn for it",
                expected="a dataset with sampled labels",
                fix="use its examples as they are",
            )
        everything = manifest.protocol == "paper" and rule.rule == "uniform"
        return cls.over(dataset.histories, _counts_of_split(dataset, None if everything else split), rule, catalogue)

    @classmethod
    def over(cls, histories: Histories, count_V: IntArray, rule: NegativeRule, catalogue: Catalogue) -> NegativeSampler:
        """The sampler of a rule over counted items.

        Raises:
            MismatchError: the catalogue lacks the category that the rule looks at.
        """
        category_V = None
        if rule.rule == "same_category":
            if rule.category_field not in catalogue.fields:
                raise MismatchError(
                    f"negatives of the same category need the item field {rule.category_field!r}",
                    expected=f"one of {', '.join(catalogue.fields)}",
                    fix="prepare the data with a category_field that they have",
                )
            category_V = np.array(catalogue.number_VF[:, catalogue.fields.index(rule.category_field)])
        whole_moment = not (rule.stored and rule.rule == "uniform")
        return cls(histories, count_V, rule, category_V=category_V, whole_moment=whole_moment)

    def draw(self, examples: Examples, rng: np.random.Generator) -> Rows:
        """Negatives of each target, drawn independently.

        Args:
            examples: N positive targets.
            rng: source of randomness; the same state gives the same rows.

        Returns:
            Catalogue rows, int32 `[N, R]`.

        Raises:
            DataError: the catalogue holds no item outside a target's moment.
        """
        drawn_NR = np.empty((len(examples), self.rule.ratio), np.int32)
        for start in range(0, len(examples), CHUNK):
            part = slice(start, start + CHUNK)
            drawn_NR[part] = self._draw_chunk(examples.take(part), rng)
        return drawn_NR

    def _draw_chunk(self, examples: Examples, rng: np.random.Generator) -> Rows:
        excluded = _Excluded(self._histories, examples, self._num_rows, self._whole_moment)
        target_N = np.repeat(np.arange(len(examples)), self.rule.ratio)
        true_N = np.asarray(examples.row_N)[target_N]
        drawn_N = np.empty(len(target_N), np.int32)
        pending_N = np.arange(len(target_N))
        stages: list[tuple[str, Callable[[Rows, np.random.Generator], Rows]]] = [
            ("", self._by_rule),
            ("fallback_popularity", self._by_popularity),
            ("fallback_catalogue", self._from_catalogue),
        ]
        for name, propose in stages:
            if name and len(pending_N):
                self.counted[name] += len(pending_N)
            for _ in range(ROUNDS):
                if not len(pending_N):
                    break
                drawn_N[pending_N] = propose(true_N[pending_N], rng)
                pending_N = pending_N[excluded.holds(target_N[pending_N], drawn_N[pending_N])]
                self.counted["redrawn"] += len(pending_N)
        for place in pending_N:
            drawn_N[place] = rng.choice(excluded.rest(int(target_N[place])))
        self.counted["fallback_exact"] += len(pending_N)
        self.counted["drawn"] += len(drawn_N)
        return drawn_N.reshape(len(examples), self.rule.ratio)

    def _by_rule(self, true_N: Rows, rng: np.random.Generator) -> Rows:
        if self.rule.rule == "uniform":
            return self._row_P[rng.integers(0, len(self._row_P), len(true_N))]
        return self._by_category(true_N, rng) if self.rule.rule == "same_category" else self._by_popularity(true_N, rng)

    def _by_popularity(self, true_N: Rows, rng: np.random.Generator) -> Rows:
        event_N = rng.integers(0, self._below_P[-1], len(true_N))
        return self._row_P[np.searchsorted(self._below_P, event_N, side="right") - 1]

    def _by_category(self, true_N: Rows, rng: np.random.Generator) -> Rows:
        assert self._category_V is not None
        wanted_N = self._category_V[true_N]
        low_N = self._below_P[np.searchsorted(self._category_P, wanted_N, side="left")]
        high_N = self._below_P[np.searchsorted(self._category_P, wanted_N, side="right")]
        # A category without an event in the period has nothing to draw: the true item is proposed, and drawn again.
        empty_N = low_N == high_N
        event_N = low_N + (rng.random(len(true_N)) * (high_N - low_N)).astype(np.int64)
        place_N = np.searchsorted(self._below_P, np.where(empty_N, 0, event_N), side="right") - 1
        return np.where(empty_N, true_N, self._row_P[place_N])

    def _from_catalogue(self, true_N: Rows, rng: np.random.Generator) -> Rows:
        return rng.integers(FIRST_ROW, self._num_rows, len(true_N)).astype(np.int32)


class _Excluded:
    """Which items may not be drawn for which target: those of its moment."""

    def __init__(self, histories: Histories, examples: Examples, num_rows: int, whole_moment: bool) -> None:
        self._num_rows = num_rows
        user_N, time_N = np.asarray(examples.user_N), np.asarray(examples.time_N)
        # Targets of one moment stand side by side; each moment is looked up once.
        first_N = np.ones(len(user_N), bool)
        if whole_moment:
            first_N[1:] = (user_N[1:] != user_N[:-1]) | (time_N[1:] != time_N[:-1])
        self._moment_N = np.cumsum(first_N) - 1
        at = np.flatnonzero(first_N)
        self._true_N = row_E = np.asarray(examples.row_N)
        moment_E = self._moment_N
        if whole_moment:
            position = np.asarray(examples.position_N)[at].astype(np.int64)
            length = histories.positions(user_N[at], time_N[at] + 1) - position
            start = histories.offset_U[user_N[at]] + position
            event = np.arange(length.sum()) + np.repeat(start - (np.cumsum(length) - length), length)
            row_E = histories.row_N[event]
            moment_E = np.repeat(np.arange(len(at)), length)
        # The last key ends every search inside the array.
        self._key_E = np.append(np.sort(moment_E * num_rows + row_E), np.iinfo(np.int64).max)

    def holds(self, target_N: npt.NDArray[np.integer], row_N: Rows) -> BoolArray:
        """Whether an item is excluded for a target."""
        key_N = self._moment_N[target_N] * self._num_rows + row_N
        place_N = np.searchsorted(self._key_E, key_N)
        found_N: BoolArray = (self._key_E[place_N] == key_N) | (row_N == self._true_N[target_N])
        return found_N

    def rest(self, target: int) -> IntArray:
        """All items that are not excluded for one target.

        Raises:
            DataError: there is none.
        """
        low = self._moment_N[target] * self._num_rows
        first, last = np.searchsorted(self._key_E, [low, low + self._num_rows])
        rest: IntArray = np.setdiff1d(np.arange(FIRST_ROW, self._num_rows), self._key_E[first:last] - low)
        rest = rest[rest != self._true_N[target]]
        if not len(rest):
            raise DataError(
                "no negative can be drawn: every item of the catalogue stands in the target's own moment",
                expected="more items than one user touches at one time",
            )
        return rest


def row_counts(
    histories: Histories,
    num_rows: int,
    keep: Callable[[IntArray, IntArray], BoolArray] | None = None,
    *,
    values: npt.NDArray[np.integer] | None = None,
) -> IntArray:
    """How many events each catalogue row has.

    Args:
        histories: all events; read in chunks.
        num_rows: V.
        keep: which events to count, from their user and time; None = all.
        values: what to count instead of the rows, one value from 0 to V - 1 per event; negative ones are left out.
    """
    count_V = np.zeros(num_rows, np.int64)
    offset_U = np.asarray(histories.offset_U)
    values = histories.row_N if values is None else values
    for first, last in user_chunks(offset_U):
        part = slice(int(offset_U[first]), int(offset_U[last]))
        value_N = np.asarray(values[part])
        if keep is not None:
            user_N = np.repeat(np.arange(first, last), np.diff(offset_U[first : last + 1]))
            value_N = value_N[keep(user_N, np.asarray(histories.time_N[part]))]
        count_V += np.bincount(value_N[value_N >= 0], minlength=num_rows)
    return count_V


def time_window(cut_times: tuple[int, ...], split: Split) -> tuple[int, int]:
    """First time inside, and first time behind, the period of a split."""
    edges = (np.iinfo(np.int64).min, *cut_times, np.iinfo(np.int64).max)
    place = SPLITS.index(split)
    return edges[place], edges[place + 1]


def _counts_of_split(dataset: Dataset, split: Split | None) -> IntArray:
    num_rows = len(dataset.catalogue)
    if split is None:
        return row_counts(dataset.histories, num_rows)
    if dataset.manifest.protocol == "paper":
        inside_U = np.zeros(dataset.histories.num_users, bool)
        inside_U[np.asarray(dataset.examples(split).user_N)] = True
        return row_counts(dataset.histories, num_rows, lambda user_N, time_N: inside_U[user_N])
    low, high = time_window(dataset.manifest.cut_times, split)
    return row_counts(dataset.histories, num_rows, lambda user_N, time_N: (time_N >= low) & (time_N < high))
