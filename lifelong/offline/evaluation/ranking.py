"""Ranking of the whole catalogue: the ranks of a basket's items among all items.

    baskets (events of one user and time) --score with every item--> ranks of its items --> Recall, NDCG, MRR at K

    all       every item of the basket is to be found
    repeat    those that the user had before, in the same ranking
    explore   those that she had not

A model that is trained with negatives drawn by popularity learns how much more likely an item is than its popularity
says: log p(item | user) - log q(item), q being what the negatives are drawn by. That is what AUC against such negatives
asks for. To rank all items, log q is added again, as in sampled softmax (Bengio and Senecal 2008; Yi et al., RecSys
2019); without it rare items would come first. `evaluate.added_in_lists` adds it, with the weights that an artifact has.

Items with equal scores are ordered at random, once for all baskets, so that a model that cannot tell them apart gains
nothing by their order in the catalogue. Memory is bounded by `_PAIRS` scores, or by one basket with its candidates.

Users differ so much that a hundred of them decide little. Thousands can be ranked where candidates are only the items
that a user had before and the most popular ones. Any other item of a basket counts as not found. Any other item that a
model would put first takes no place, so this suits models that put known and popular items first.

Shapes: N targets, M baskets, V catalogue rows, C candidates of a basket, K cut-offs, U users, R resamples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lifelong.dataset.arrays import is_first
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import drawn_counts
from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.errors import DataError, UsageError
from lifelong.offline.evaluation.results import Estimate, RankingPart, RankingResult
from lifelong.offline.evaluation.significance import draw_weights, interval

Score = Callable[[Examples], FloatArray]
"""What the items of examples are ordered by: `[N]`."""
MEASURES = ("recall", "ndcg", "mrr")
PARTS = ("all", "repeat", "explore")
USERS = 100
"""How many users' baskets are ranked unless more are asked for: every basket is scored with every item."""
_PAIRS = 1_000_000
_NOT_FOUND = 2**40
"""Place of an item that is not among the candidates."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranking that an evaluation is asked for; see `rank_catalogue`.

    Args:
        cutoffs: K, places from 1.
        users: how many users at most; None = all.
        popular: how many of the most popular items are ranked, next to those that the user had before; None = all.
    """

    cutoffs: Sequence[int]
    users: int | None = USERS
    popular: int | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """The true items of some baskets, each with its place.

    Args:
        user_N: user of each item's basket.
        basket_N: the basket, ascending from 0.
        rank_N: place among all items, or among the candidates, from 1.
        repeat_N: whether the user had the item before.
    """

    user_N: IntArray
    basket_N: IntArray
    rank_N: IntArray
    repeat_N: BoolArray


def rank_catalogue(
    score: Score,
    dataset: Dataset,
    examples: Examples,
    cutoffs: Sequence[int],
    *,
    users: int | None = USERS,
    popular: IntArray | None = None,
    resamples: int,
    seed: int,
) -> RankingResult:
    """Rank all items of the catalogue for the baskets of a split, and measure.

    Args:
        score: what items are ordered by.
        dataset: with histories and catalogue.
        examples: of a split; those with a positive label of the first task are the items to be found.
        cutoffs: K.
        users: how many users at most, drawn at random; None = all.
        popular: rows that are ranked next to those that the user had before, see `most_popular`; None = all.
        resamples: of the users, for the intervals.
        seed: of users, ties and resamples.

    Raises:
        UsageError: no cut-off, or one below 1.
        DataError: the split has no positive example.
    """
    if not cutoffs or min(cutoffs) < 1:
        raise UsageError(
            f"ranking at {list(cutoffs)}",
            expected="places from 1 on, such as 10,20",
            fix="give whole numbers from 1 on, the places to look at",
        )
    started = time.perf_counter()
    positives = examples.take(np.asarray(examples.label_NT[:, 0]) >= 0.5)
    if not len(positives):
        raise DataError("nothing can be ranked: the split has no positive example", fix="choose another split")
    there = len(np.unique(positives.user_N))
    ranked = ranks(score, dataset, _of_users(positives, users, seed), popular=popular, seed=seed)
    return RankingResult(
        items=len(dataset.catalogue) - FIRST_ROW,
        users=len(np.unique(ranked.user_N)),
        users_in_split=there,
        popular=None if popular is None else len(popular),
        cutoffs=sorted(set(cutoffs)),
        parts=[_part(name, ranked, sorted(set(cutoffs)), resamples=resamples, seed=seed) for name in PARTS],
        seed=seed,
        seconds=time.perf_counter() - started,
    )


def _of_users(examples: Examples, users: int | None, seed: int) -> Examples:
    """The examples of this many users, drawn at random."""
    user_U = np.unique(examples.user_N)
    if users is None or users >= len(user_U):
        return examples
    # Users and not baskets are drawn, since intervals are over users and need all of a user's baskets.
    chosen_U = np.random.default_rng(seed).choice(user_U, users, replace=False)
    return examples.take(np.isin(examples.user_N, chosen_U))


def most_popular(dataset: Dataset, number: int) -> IntArray:
    """Rows of the items that are drawn most often as negatives at the end of the training period, ascending.

    Where negatives are not drawn by popularity, of those with the most positive examples in the training period.

    Args:
        dataset: whose training period it is.
        number: how many rows.
    """
    times_V = drawn_counts(dataset)
    if times_V is None:
        train = dataset.examples("train")
        times_V = np.bincount(train.row_N[np.asarray(train.label_NT[:, 0]) >= 0.5], minlength=len(dataset.catalogue))
    # Stable, so that items of equal counts are chosen by row, on every machine alike. Sorted, so that a row can be
    # found by binary search.
    return FIRST_ROW + np.sort(np.argsort(-times_V[FIRST_ROW:], kind="stable")[:number])


def ranks(
    score: Score,
    dataset: Dataset,
    examples: Examples,
    *,
    popular: IntArray | None = None,
    seed: int,
) -> Ranked:
    """The rank of each different item of each basket.

    Args:
        score: what items are ordered by.
        dataset: with histories and catalogue.
        examples: positives.
        popular: see `rank_catalogue`.
        seed: of the order of items with equal scores.
    """
    examples = _sorted(examples)
    first_M = np.flatnonzero(is_first(examples.user_N, examples.time_N))
    bound_M = np.append(first_M, len(examples))
    # Equal scores are ordered at random, once for all baskets. By row, a model that scores everything alike would be
    # rewarded wherever rows follow popularity.
    priority_V = np.random.default_rng(seed).permutation(len(dataset.catalogue) - FIRST_ROW)
    rank_N = np.empty(len(examples), np.int64)
    for baskets, scored in _scored(score, dataset, examples.take(first_M), popular):
        for basket, (row_C, score_C) in zip(range(baskets.start, baskets.stop), scored, strict=True):
            own = slice(int(bound_M[basket]), int(bound_M[basket + 1]))
            item_N = np.asarray(examples.row_N[own], np.int64)
            rank_N[own] = _places(score_C, priority_V[row_C - FIRST_ROW], row_C, item_N)
    basket_N = np.repeat(np.arange(len(first_M)), np.diff(bound_M))
    return Ranked(np.asarray(examples.user_N, np.int64), basket_N, rank_N, had_before(dataset, examples))


def _sorted(examples: Examples) -> Examples:
    """By user, time and item, each item of a basket once; targets without an item are left out."""
    user_N, row_N, time_N = (np.asarray(column) for column in examples.columns()[:3])
    order_N = np.lexsort((row_N, time_N, user_N))
    once_N = is_first(user_N[order_N], time_N[order_N], row_N[order_N]) & (row_N[order_N] >= FIRST_ROW)
    return examples.take(order_N[once_N])


def _scored(
    score: Score, dataset: Dataset, moments: Examples, popular: IntArray | None
) -> Iterator[tuple[slice, list[tuple[IntArray, FloatArray]]]]:
    """Some baskets at a time, and of each the rows of its candidates, ascending, and their scores: `[C]`."""
    rows: list[IntArray] = []
    start = 0
    for basket in range(len(moments)):
        if popular is None:
            rows.append(np.arange(FIRST_ROW, len(dataset.catalogue)))
        else:
            user, position = int(moments.user_N[basket]), int(moments.position_N[basket])
            rows.append(candidates(dataset, user, position, popular))
        sizes = [len(row_C) for row_C in rows]
        # The next basket has about as many.
        if basket + 1 < len(moments) and sum(sizes) + sizes[-1] <= _PAIRS:
            continue
        asked = moments.take(np.repeat(np.arange(start, basket + 1), sizes))
        # Each candidate is asked about as its basket's first item would be: same user, moment and visible events.
        asked = Examples(asked.user_N, np.concatenate(rows).astype(np.int32), *asked.columns()[2:])
        # The last sum is the end of the array; a split there would give an empty part.
        scores = np.split(score(asked), np.cumsum(sizes)[:-1])
        yield slice(start, basket + 1), list(zip(rows, scores, strict=True))
        rows, start = [], basket + 1


def candidates(dataset: Dataset, user: int, position: int, popular: IntArray) -> IntArray:
    """Rows of the popular items and of those among the first `position` events of a user, ascending."""
    had_L = np.asarray(dataset.histories.row_N[dataset.histories.of(user)])[:position]
    return np.union1d(had_L[had_L >= FIRST_ROW], popular).astype(np.int64)


def _places(score_C: FloatArray, priority_C: IntArray, row_C: IntArray, row_N: IntArray) -> IntArray:
    """From 1: how many candidates have a higher score than an item, or an equal one and come first."""
    place_N = np.full(len(row_N), _NOT_FOUND)
    there_N = np.isin(row_N, row_C)
    # Candidates ascend, and each of these items is one, so that this is its place and not only where it would be.
    own_N = np.searchsorted(row_C, row_N[there_N])
    score_N1, priority_N1 = score_C[own_N][:, None], priority_C[own_N][:, None]
    above_NC = (score_C > score_N1) | ((score_C == score_N1) & (priority_C < priority_N1))
    place_N[there_N] = 1 + above_NC.sum(axis=1)
    return place_N


def had_before(dataset: Dataset, examples: Examples) -> BoolArray:
    """Whether each item is among its user's events with an earlier time, `[N]`."""
    histories = dataset.histories
    # From times and not from the examples' positions: where events are hidden from a model, an item is still no new
    # one.
    position_N = histories.positions(examples.user_N, np.asarray(examples.time_N))
    had_N = np.zeros(len(examples), bool)
    order_N = np.argsort(examples.user_N, kind="stable")
    users = np.unique(np.asarray(examples.user_N)[order_N], return_index=True, return_counts=True)
    for user, start, count in zip(*users, strict=True):
        own_N = order_N[start : start + count]
        row_L = np.asarray(histories.row_N[histories.of(int(user))])
        # Where each item of the user occurs first.
        item_I, first_I = np.unique(row_L, return_index=True)
        row_N = np.asarray(examples.row_N)[own_N]
        # A row above all of the user's is looked up at her last one, where the comparison fails.
        at_N = np.minimum(np.searchsorted(item_I, row_N), max(len(item_I) - 1, 0))
        if len(item_I):
            had_N[own_N] = (item_I[at_N] == row_N) & (first_I[at_N] < position_N[own_N])
    return had_N


def _part(name: str, ranked: Ranked, cutoffs: Sequence[int], *, resamples: int, seed: int) -> RankingPart:
    """One of `PARTS`: means over the baskets that hold such an item, with intervals over users."""
    chosen_N = {"all": np.ones(len(ranked.rank_N), bool), "repeat": ranked.repeat_N, "explore": ~ranked.repeat_N}[name]
    basket_M, place_N = np.unique(ranked.basket_N[chosen_N], return_inverse=True)
    names = [f"{measure}@{cutoff}" for cutoff in cutoffs for measure in MEASURES]
    if not len(basket_M):
        none = Estimate(value=None, reason="no basket holds such an item")
        return RankingPart(name=name, baskets=0, targets=0, metrics=dict.fromkeys(names, none))
    rank_N = ranked.rank_N[chosen_N]
    columns = [column for cutoff in cutoffs for column in measured(rank_N, place_N, len(basket_M), cutoff)]
    user_M = ranked.user_N[chosen_N][np.unique(place_N, return_index=True)[1]]
    users = np.unique(ranked.user_N)
    sum_UX = np.zeros((len(users), len(columns) + 1))
    # A user occurs once for each of her baskets, and plain indexing would add only one of them.
    np.add.at(sum_UX, np.searchsorted(users, user_M), np.stack([*columns, np.ones(len(user_M))], axis=1))
    # A basket weighs 1 in the last column: a drawn mean is over as many baskets as the drawn users have.
    drawn_RX = draw_weights(len(users), resamples, np.random.default_rng(seed)) @ sum_UX
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = drawn_RX[:, :-1] / drawn_RX[:, -1:]
    metrics = {}
    for column_M, (metric, drawn_R) in zip(columns, zip(names, drawn.T, strict=True), strict=True):
        low, high = interval(drawn_R) if resamples else (None, None)
        metrics[metric] = Estimate(value=float(column_M.mean()), low=low, high=high)
    return RankingPart(name=name, baskets=len(basket_M), targets=int(chosen_N.sum()), metrics=metrics)


def measured(rank_N: IntArray, basket_N: IntArray, baskets: int, cutoff: int) -> tuple[FloatArray, ...]:
    """Recall, NDCG and MRR at a cut-off of every basket: `[M]` each.

    >>> [value.round(3).tolist() for value in measured(np.array([1, 30, 2]), np.array([0, 0, 1]), 2, 10)]
    [[0.5, 1.0], [0.613, 0.631], [1.0, 0.5]]
    """
    hit_N = rank_N <= cutoff
    number_M = np.bincount(basket_N, minlength=baskets)
    gain_M = np.bincount(basket_N, np.where(hit_N, 1 / np.log2(1 + rank_N), 0.0), baskets)
    # The best that a ranking can do: as many of the basket's items as fit, in the first places.
    ideal_L = np.append(0.0, np.cumsum(1 / np.log2(1 + np.arange(1, cutoff + 1))))
    best_M = np.full(baskets, np.inf)
    # A basket occurs once for each of its items, and plain indexing would keep only one of them.
    np.minimum.at(best_M, basket_N, rank_N.astype(np.float64))
    recall_M = np.bincount(basket_N, hit_N, baskets) / number_M
    return recall_M, gain_M / ideal_L[np.minimum(number_M, cutoff)], np.where(best_M <= cutoff, 1 / best_M, 0.0)
