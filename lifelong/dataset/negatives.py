"""Sampled negatives: the items that are added to a positive target with label 0.

    uniform         every item with an event in the split's period alike
    popularity      in proportion to event counts in the split's period
    windowed        in proportion to event counts in a window of time around the target, such as 28 days
    following       in proportion to event counts in the time from the target on, such as 7 days

The period is that of the target's own split: with training popularity, an item that is new in test could only ever be a
positive. The training period is many times as long as that of validation or test, and what is in season at its other
end is not hard to tell from what is in season now. So training negatives by `popularity` come from a window around the
target that is as long as the validation period (`training_window`). An item of the target's own moment (an event of the
same user at the same time) is drawn again; whatever else the history holds does not matter. Where `ROUNDS` draws by the
rule do not help, the item is drawn by popularity, then from all items of the catalogue, and at last from those of them
that are not in the moment; `counted` says how often.

What a rule can leak: a drawn item is one that was met at some time of the period, and if that was before the target,
the very event that it was drawn by is among the events that a model may count; the target's own event never is. So rare
items with a recent event are negatives, and new items positives. `following` draws by events that are as little known
at the target's time as the target itself, and close to it. `windowed` draws from what is met around the target, against
trends of a whole period. No window reaches beyond the end of the target's split: that of `windowed` begins earlier
instead, into earlier splits, which are past; that of `following` is shorter.

The paper's protocol is an exception: `uniform` there is uniform over all items of the log but the true one.

Shapes: N targets, V catalogue rows, P items of a period, R negatives per positive, G = 1 + R, T tasks, E events, W
events in order of time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lifelong.dataset.arrays import CHUNK, event_chunks, is_first, ranges
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import SPLITS, VAULT, Examples, Split
from lifelong.dataset.folder import Dataset, NegativeRule
from lifelong.dataset.histories import Histories
from lifelong.dtypes import BoolArray, Int32Array, IntArray
from lifelong.errors import DataError, MismatchError

WINDOWS = {"windowed": 28.0, "following": 7.0}
"""Rules that draw from a window of days at the target, and the default number of days."""
ROUNDS = 16
"""Draws by one rule before the next one is tried."""
DRAWN = "drawn.npy"
"""How often each row is drawn, of a dataset whose histories do not say so."""
EVENTS = 20_000_000
"""About how many events a window draws from; of a longer log, a random part."""


class NegativeSampler:
    """Draws negatives for the targets of one split.

    Args:
        histories: all events.
        count_V: events of each catalogue row in the split's period.
        rule: what to draw by, and how many for each target.
        end: time at which the split ends, None at the end of the log; looked at by rules with a window alone.
        whole_moment: whether all items of the target's moment are excluded, or the target's own item alone.

    Attributes:
        counted: `drawn` negatives, `redrawn` proposals that were items of the target's own moment, and how many
            negatives came from a `fallback_popularity`, `fallback_catalogue` or `fallback_exact` draw.
    """

    rule: NegativeRule
    counted: Counter[str]

    def __init__(
        self,
        histories: Histories,
        count_V: IntArray,
        rule: NegativeRule,
        *,
        end: int | None = None,
        whole_moment: bool = True,
    ) -> None:
        self.rule, self.counted = rule, Counter[str]()
        self._histories, self._whole_moment, self._num_rows = histories, whole_moment, len(count_V)
        row_P = np.flatnonzero(count_V)
        if not len(row_P):
            raise DataError("no negatives can be drawn: the split's period has no events", fix="choose other cut times")
        self._window = None
        if rule.rule in WINDOWS:
            self._window = _Window(histories, rule.window_seconds, end, following=rule.rule == "following")
        self._row_P = row_P.astype(np.int32)
        # Item p has the event numbers from `below_P[p]` to before `below_P[p + 1]`; an event drawn evenly draws items
        # by their counts.
        self._below_P = np.concatenate([[0], np.cumsum(count_V[row_P])])

    @classmethod
    def open(
        cls, dataset: Dataset, split: Split, *, ratio: int | None = None, since: int | None = None
    ) -> NegativeSampler:
        """The sampler of one split of a prepared dataset.

        Args:
            dataset: with sampled labels.
            split: the items of its period are drawn; in training by popularity, those of a window, `training_window`.
            ratio: negatives of each target; as many as the dataset's rule says if None.
            since: the period begins no earlier than at this time.

        Raises:
            MismatchError: the dataset's labels are logged, so nothing is to be drawn.
        """
        manifest = dataset.manifest
        rule = manifest.negatives if ratio is None else manifest.negatives.model_copy(update={"ratio": ratio})
        if rule.rule == "none":
            raise MismatchError(
                "this dataset holds logged labels, no negatives are drawn for it",
                expected="a dataset with sampled labels",
                fix="use its examples as they are",
            )
        if split == "train" and (width := training_window(rule, manifest.cut_times)) is not None:
            rule = rule.model_copy(update={"rule": "windowed", "window": width / 86_400})
        everything = manifest.protocol == "paper" and rule.rule == "uniform"
        count_V = _counts_of_split(dataset, None if everything else split, since)
        return cls.over(dataset.histories, count_V, rule, end=end_of(manifest.cut_times, split))

    @classmethod
    def over(
        cls, histories: Histories, count_V: IntArray, rule: NegativeRule, *, end: int | None = None
    ) -> NegativeSampler:
        """The sampler of a rule over counted items, of a split that ends at `end`."""
        whole_moment = not (rule.stored and rule.rule == "uniform")
        return cls(histories, count_V, rule, end=end, whole_moment=whole_moment)

    def draw(self, examples: Examples, rng: np.random.Generator) -> Int32Array:
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
            chunk = slice(start, start + CHUNK)
            drawn_NR[chunk] = self._draw_chunk(examples.take(chunk), rng)
        return drawn_NR

    def _draw_chunk(self, examples: Examples, rng: np.random.Generator) -> Int32Array:
        excluded = _Excluded(self._histories, examples, self._num_rows, self._whole_moment)
        target_N = np.repeat(np.arange(len(examples)), self.rule.ratio)
        asked = _Asked(np.asarray(examples.row_N)[target_N], np.asarray(examples.time_N)[target_N])
        drawn_N = np.empty(len(target_N), np.int32)
        pending_N = np.arange(len(target_N))
        stages: list[tuple[str, Callable[[_Asked, np.random.Generator], Int32Array]]] = [
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
                drawn_N[pending_N] = propose(asked.take(pending_N), rng)
                pending_N = pending_N[excluded.holds(target_N[pending_N], drawn_N[pending_N])]
                self.counted["redrawn"] += len(pending_N)
        # Only now is it listed what is left: for one target that takes a pass over the whole catalogue.
        for at in pending_N:
            drawn_N[at] = rng.choice(excluded.rest(int(target_N[at])))
        self.counted["fallback_exact"] += len(pending_N)
        self.counted["drawn"] += len(drawn_N)
        return drawn_N.reshape(len(examples), self.rule.ratio)

    def _by_rule(self, asked: _Asked, rng: np.random.Generator) -> Int32Array:
        if self._window is not None:
            return self._window.draw(asked, rng)
        if self.rule.rule == "uniform":
            return self._row_P[rng.integers(0, len(self._row_P), len(asked.row_N))]
        return self._by_popularity(asked, rng)

    def _by_popularity(self, asked: _Asked, rng: np.random.Generator) -> Int32Array:
        event_N = rng.integers(0, self._below_P[-1], len(asked.row_N))
        return self._row_P[np.searchsorted(self._below_P, event_N, side="right") - 1]

    def _from_catalogue(self, asked: _Asked, rng: np.random.Generator) -> Int32Array:
        return rng.integers(FIRST_ROW, self._num_rows, len(asked.row_N)).astype(np.int32)


class _Asked(NamedTuple):
    """Targets that a negative is drawn for: their own items, and their times."""

    row_N: Int32Array
    time_N: IntArray

    def take(self, place_N: IntArray) -> _Asked:
        """Some of them."""
        return _Asked(self.row_N[place_N], self.time_N[place_N])


class _Window:
    """Draws from the events around a target; holds events before the end of a split, `EVENTS` at most, 12 bytes each.

    Args:
        histories: all events.
        width: of the window, in seconds.
        end: the window never reaches beyond this time; None = the end of the log.
        following: begin at the target, and not half the width before it.
    """

    def __init__(self, histories: Histories, width: int, end: int | None, *, following: bool) -> None:
        self._width, self._following = width, following
        self._end = np.iinfo(np.int64).max if end is None else end
        time_W, row_W = np.asarray(histories.time_N), np.asarray(histories.row_N)
        inside = np.flatnonzero(time_W < self._end)
        if len(inside) > EVENTS:
            # A seed of its own: the part that is kept must not depend on what is drawn from it.
            inside = inside[np.random.default_rng(0).random(len(inside)) < EVENTS / len(inside)]
        # Stable, so that events of one time have the same order everywhere, and a seed the same draws.
        inside = inside[np.argsort(time_W[inside], kind="stable")]
        self._time_W, self._row_W = time_W[inside], row_W[inside]
        # At the end of the log a window then begins earlier, and is as wide as all others.
        if end is None and len(inside):
            self._end = int(self._time_W[-1]) + 1

    def draw(self, asked: _Asked, rng: np.random.Generator) -> Int32Array:
        """The item of an event at random; a target without an event around it is given its own item, to draw again."""
        ahead = self._width if self._following else self._width // 2
        until_N = np.minimum(asked.time_N + ahead, self._end)
        from_N = asked.time_N if self._following else until_N - self._width
        low_N = np.searchsorted(self._time_W, from_N, side="left")
        high_N = np.searchsorted(self._time_W, until_N, side="left")
        event_N = low_N + (rng.random(len(low_N)) * (high_N - low_N)).astype(np.int64)
        empty_N = low_N >= high_N
        # Place 0 stands for those that are not used: an empty window's may be past the end.
        return np.where(empty_N, asked.row_N, self._row_W[np.where(empty_N, 0, event_N)])


def training_window(rule: NegativeRule, cuts: Sequence[int]) -> int | None:
    """Width in seconds of the window that training negatives by `popularity` are drawn from: the validation period's.

    None where they are drawn from all of the training period, or by another rule: there is no validation period.
    """
    if rule.rule != "popularity" or not rule.drawn_in_training or len(cuts) < 2:
        return None
    return int(cuts[1] - cuts[0])


def end_of(cut_times: Sequence[int], split: Split) -> int | None:
    """The time at which a split ends, None at the end of the log.

    >>> end_of((80, 90), "train"), end_of((80, 90), "test")
    (80, None)
    """
    number = (*SPLITS, VAULT).index(split)
    return int(cut_times[number]) if number < len(cut_times) else None


class _Excluded:
    """Which items may not be drawn for which target: those of its moment."""

    def __init__(self, histories: Histories, examples: Examples, num_rows: int, whole_moment: bool) -> None:
        self._num_rows = num_rows
        user_N, time_N = np.asarray(examples.user_N), np.asarray(examples.time_N)
        # Targets of one moment are neighbours; each moment is looked up once.
        first_N = is_first(user_N, time_N) if whole_moment else np.ones(len(user_N), bool)
        self._moment_N = np.cumsum(first_N) - 1
        at = np.flatnonzero(first_N)
        self._true_N = row_E = np.asarray(examples.row_N)
        moment_E = self._moment_N
        if whole_moment:
            position = np.asarray(examples.position_N)[at].astype(np.int64)
            # Times are whole: events before the next second, less those before the moment, are the events of the
            # moment.
            length = histories.positions(user_N[at], time_N[at] + 1) - position
            row_E = histories.row_N[ranges(histories.offset_U[user_N[at]] + position, length)]
            moment_E = np.repeat(np.arange(len(at)), length)
        # (moment, row) as one number, so that one binary search looks a pair up. The last key keeps every search inside
        # the array.
        self._key_E = np.append(np.sort(moment_E * num_rows + row_E), np.iinfo(np.int64).max)

    def holds(self, target_N: npt.NDArray[np.integer], row_N: Int32Array) -> BoolArray:
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
        # The keys of a moment are neighbours, from its row 0 to before row 0 of the next moment.
        low = self._moment_N[target] * self._num_rows
        first, last = np.searchsorted(self._key_E, [low, low + self._num_rows])
        rest: IntArray = np.setdiff1d(np.arange(FIRST_ROW, self._num_rows), self._key_E[first:last] - low)
        rest = rest[rest != self._true_N[target]]
        if not len(rest):
            raise DataError(
                "no negative can be drawn: every item of the catalogue is in the target's own moment",
                expected="more items than one user touches at one time",
                fix="prepare a longer log, or one with more items",
            )
        return rest


def with_negatives(examples: Examples, sampler: NegativeSampler, rng: np.random.Generator) -> Examples:
    """Each positive, followed by its drawn negatives: of the same user, time and position, with label 0 for every task.

    The one function that adds negatives to targets: batches, stored examples and labelled training examples call it.

    Args:
        examples: N positives.
        sampler: draws the negatives, R for each.
        rng: source of randomness.

    Returns:
        N * (1 + R) examples; positive i is at place `i * (1 + R)`.
    """
    drawn_NR = sampler.draw(examples, rng)
    group = 1 + drawn_NR.shape[1]
    both = examples.take(np.repeat(np.arange(len(examples)), group))
    row_NG = np.array(both.row_N, np.int32).reshape(-1, group)
    row_NG[:, 1:] = drawn_NR
    label_NT = np.array(both.label_NT, np.float32)
    label_NT[np.arange(len(both)) % group > 0] = 0
    return replace(both, row_N=row_NG.reshape(-1), label_NT=label_NT)


def drawn_counts(dataset: Dataset) -> IntArray | None:
    """How often each catalogue row is among the events that training negatives are drawn from: `[V]`.

    Of the last window of the training period, where `popularity` is that of a window, and else of all of it. None where
    all items are drawn alike, or labels are logged.
    """
    manifest = dataset.manifest
    if manifest.negatives.rule in ("none", "uniform"):
        return None
    if (dataset.folder / DRAWN).exists():
        # Of the whole log, where the dataset has a part of the users.
        whole_V: IntArray = np.load(dataset.folder / DRAWN)
        return whole_V
    width = training_window(manifest.negatives, manifest.cut_times)
    return _counts_of_split(dataset, "train", None if width is None else manifest.cut_times[0] - width)


def labelled_training_examples(
    dataset: Dataset, *, seed: int, limit: int | None = None, ratio: int | None = None, since: int | None = None
) -> Examples:
    """Training examples, with drawn negatives where the split holds positives alone.

    Args:
        dataset: the prepared dataset.
        seed: of the choice and of the negatives.
        limit: at most about this many examples, chosen at random (all negatives of a chosen positive are kept).
        ratio: drawn negatives of each positive; as many as the dataset's rule says if None.
        since: targets with an earlier time are left out, and negatives are drawn from the period from then on.

    Returns:
        Examples; all positives come first, then the negatives.
    """
    rng = np.random.default_rng(seed)
    examples = dataset.examples("train")
    if since is not None:
        examples = examples.take(np.asarray(examples.time_N) >= since)
    rule = dataset.manifest.negatives
    group = 1 + (ratio or rule.ratio) if rule.drawn_in_training else 1
    most = len(examples) if limit is None else max(1, limit // group)
    if len(examples) > most:
        examples = examples.take(np.sort(rng.choice(len(examples), most, replace=False)))
    if not rule.drawn_in_training:
        return examples
    both = with_negatives(examples, NegativeSampler.open(dataset, "train", ratio=ratio, since=since), rng)
    # The order of rows decides how LightGBM bins and samples them; it has always been positives first.
    is_negative = np.arange(len(both)) % group > 0
    return both.take(np.argsort(is_negative, kind="stable"))


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
    values = histories.row_N if values is None else values
    for user_N, events in event_chunks(np.asarray(histories.offset_U)):
        value_N = np.asarray(values[events])
        if keep is not None:
            value_N = value_N[keep(user_N, np.asarray(histories.time_N[events]))]
        count_V += np.bincount(value_N[value_N >= 0], minlength=num_rows)
    return count_V


def _counts_of_split(dataset: Dataset, split: Split | None, since: int | None = None) -> IntArray:
    num_rows, first = len(dataset.catalogue), -(2**62) if since is None else since
    if split is None:
        return row_counts(dataset.histories, num_rows)
    if dataset.manifest.protocol == "paper":
        inside_U = np.zeros(dataset.histories.num_users, bool)
        inside_U[np.asarray(dataset.examples(split).user_N)] = True
        return row_counts(dataset.histories, num_rows, lambda user_N, time_N: inside_U[user_N])
    # An event at a cut time belongs to the later split.
    number, cuts = SPLITS.index(split), np.array(dataset.manifest.cut_times)
    return row_counts(
        dataset.histories,
        num_rows,
        lambda user_N, time_N: (np.searchsorted(cuts, time_N, side="right") == number) & (time_N >= first),
    )
