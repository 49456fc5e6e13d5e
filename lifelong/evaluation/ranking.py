"""Ranking of the whole catalogue: the ranks of a basket's items among all items.

    baskets (events of one user and time) --score with every item--> ranks of its items --> Recall, NDCG, MRR at K

    all       every item of the basket is to be found
    repeat    those that the user had before, in the same ranking
    explore   those that she had not

A model that is trained with negatives drawn by popularity learns how much more likely an item is than its popularity
says: log p(item | user) - log q(item), q being what the negatives are drawn by. That is what AUC against such negatives
asks for. To rank all items, log q is added again, as in sampled softmax (Bengio and Senecal 2008; Yi et al., RecSys
2019); without it rare items would come first. `evaluate.list_scores` does that, with the weights that an artifact has.

Items with equal scores are ordered at random, once for all baskets, so that a model that cannot tell them apart gains
nothing by their order in the catalogue. Memory is bounded by `_PAIRS` scores, or by one basket with every item; time by
`MINUTES`: a ranking that would take longer is refused after its first scores, with an estimate.

Shapes: N targets, M baskets, V catalogue rows, K cut-offs, U users, R resamples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lifelong.data.arrays import is_first
from lifelong.data.catalogue import FIRST_ROW
from lifelong.data.dataset import Dataset
from lifelong.data.examples import Examples
from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.errors import DataError, UsageError
from lifelong.evaluation.results import Estimate, RankingPart, RankingResult
from lifelong.evaluation.significance import interval

Score = Callable[[Examples], FloatArray]
"""What the items of examples are ordered by: `[N]`."""
MEASURES = ("recall", "ndcg", "mrr")
PARTS = ("all", "repeat", "explore")
USERS = 100
"""How many users' baskets are ranked unless more are asked for: every basket is scored with every item."""
MINUTES = 60.0
"""Minutes that a ranking may take unless more are allowed."""
_PAIRS = 1_000_000


@dataclass(frozen=True, slots=True)
class Ranking:
    """A ranking that an evaluation is asked for; see `rank_catalogue`.

    Args:
        cutoffs: K, places from 1.
        users: how many users at most; None = all.
        minutes: that scoring may take.
    """

    cutoffs: Sequence[int]
    users: int | None = USERS
    minutes: float = MINUTES


@dataclass(frozen=True, slots=True)
class Ranked:
    """The true items of some baskets, each with its place.

    Args:
        user_N: user of each item's basket.
        basket_N: the basket, ascending from 0.
        rank_N: place among all items, from 1.
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
    minutes: float = MINUTES,
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
        minutes: that scoring may take, by an estimate after the first scores.
        resamples: of the users, for the intervals.
        seed: of users, ties and resamples.

    Raises:
        UsageError: no cut-off, or one below 1; or it would take longer than `minutes`, and how long.
        DataError: the split has no positive example.
    """
    if not cutoffs or min(cutoffs) < 1:
        raise UsageError(
            f"ranking at {list(cutoffs)}",
            expected="places from 1 on, such as 10,20",
            fix="give whole numbers from 1 on, the places to look at",
        )
    started = time.perf_counter()
    found = examples.take(np.asarray(examples.label_NT[:, 0]) >= 0.5)
    if not len(found):
        raise DataError("nothing can be ranked: the split has no positive example", fix="choose another split")
    there = len(np.unique(found.user_N))
    ranked = ranks(score, dataset, _of_users(found, users, seed), minutes=minutes, seed=seed)
    return RankingResult(
        items=len(dataset.catalogue) - FIRST_ROW,
        users=len(np.unique(ranked.user_N)),
        users_in_split=there,
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
    chosen_U = np.random.default_rng(seed).choice(user_U, users, replace=False)
    return examples.take(np.isin(examples.user_N, chosen_U))


def ranks(
    score: Score,
    dataset: Dataset,
    examples: Examples,
    *,
    minutes: float = MINUTES,
    seed: int,
) -> Ranked:
    """The rank of each different item of each basket.

    Args:
        score: what items are ordered by.
        dataset: with histories and catalogue.
        examples: positives.
        minutes: see `rank_catalogue`.
        seed: of the order of items with equal scores.

    Raises:
        UsageError: it would take longer than `minutes`.
    """
    examples = _sorted(examples)
    first_M = np.flatnonzero(is_first(examples.user_N, examples.time_N))
    bound_M = np.append(first_M, len(examples))
    priority_V = np.random.default_rng(seed).permutation(len(dataset.catalogue) - FIRST_ROW)
    rank_N, started = np.empty(len(examples), np.int64), time.perf_counter()
    for part, score_MV in _scored(score, dataset, examples.take(first_M)):
        for basket, score_V in zip(range(part.start, part.stop), score_MV, strict=True):
            own = slice(int(bound_M[basket]), int(bound_M[basket + 1]))
            rank_N[own] = _places(score_V, priority_V, np.asarray(examples.row_N[own], np.int64) - FIRST_ROW)
        _check_time(time.perf_counter() - started, part.stop, len(first_M), minutes)
    basket_N = np.repeat(np.arange(len(first_M)), np.diff(bound_M))
    return Ranked(np.asarray(examples.user_N, np.int64), basket_N, rank_N, _had_before(dataset, examples))


def _check_time(seconds: float, done: int, baskets: int, minutes: float) -> None:
    """Refuse to continue where all baskets would take too long, by the time of those that are done."""
    estimate = seconds / 60 * baskets / done
    if done < baskets and estimate > minutes:
        raise UsageError(
            f"{baskets:,} baskets with every item of the catalogue would take about {estimate:,.0f} minutes: "
            f"{done:,} took {seconds:,.0f} s",
            expected=f"at most {minutes:g} minutes",
            fix="rank for fewer users (--ranking-users), or allow more (--ranking-minutes)",
        )


def _sorted(examples: Examples) -> Examples:
    """By user, time and item, each item of a basket once; targets without an item are left out."""
    user_N, row_N, time_N = (np.asarray(column) for column in examples.columns()[:3])
    order_N = np.lexsort((row_N, time_N, user_N))
    once_N = is_first(user_N[order_N], time_N[order_N], row_N[order_N]) & (row_N[order_N] >= FIRST_ROW)
    return examples.take(order_N[once_N])


def _scored(score: Score, dataset: Dataset, moments: Examples) -> Iterator[tuple[slice, FloatArray]]:
    """Scores of all items at some moments: `[M, V]`, this many moments at a time."""
    row_V = np.arange(FIRST_ROW, len(dataset.catalogue), dtype=np.int32)
    at_once = max(1, _PAIRS // max(1, len(row_V)))
    for start in range(0, len(moments), at_once):
        part = slice(start, min(start + at_once, len(moments)))
        place_N = np.repeat(np.arange(part.start, part.stop), len(row_V))
        asked = moments.take(place_N)
        asked = Examples(asked.user_N, np.tile(row_V, part.stop - part.start), *asked.columns()[2:])
        yield part, score(asked).reshape(-1, len(row_V))


def _places(score_V: FloatArray, priority_V: IntArray, item_N: IntArray) -> IntArray:
    """From 1: how many items have a higher score, or an equal one and come first."""
    own_N1 = score_V[item_N][:, None]
    above_NV = (score_V > own_N1) | ((score_V == own_N1) & (priority_V < priority_V[item_N][:, None]))
    places: IntArray = 1 + above_NV.sum(axis=1)
    return places


def _had_before(dataset: Dataset, examples: Examples) -> BoolArray:
    """Whether each item is among its user's events with an earlier time."""
    histories = dataset.histories
    position_N = histories.positions(examples.user_N, np.asarray(examples.time_N))
    had_N = np.zeros(len(examples), bool)
    for user in np.unique(examples.user_N):
        row_L = np.asarray(histories.row_N[histories.of(int(user))])
        # Where each item of the user occurs first.
        item_I, first_I = np.unique(row_L, return_index=True)
        own_N = np.flatnonzero(examples.user_N == user)
        row_N = np.asarray(examples.row_N)[own_N]
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
    drawn = _drawn(np.stack(columns, axis=1), user_M, np.unique(ranked.user_N), resamples=resamples, seed=seed)
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
    np.minimum.at(best_M, basket_N, rank_N.astype(np.float64))
    recall_M = np.bincount(basket_N, hit_N, baskets) / number_M
    return recall_M, gain_M / ideal_L[np.minimum(number_M, cutoff)], np.where(best_M <= cutoff, 1 / best_M, 0.0)


def _drawn(value_MK: FloatArray, user_M: IntArray, user_U: IntArray, *, resamples: int, seed: int) -> FloatArray:
    """Means over the baskets of resampled users: `[R, K]`."""
    place_M = np.searchsorted(user_U, user_M)
    sum_UK = np.zeros((len(user_U), value_MK.shape[1] + 1))
    np.add.at(sum_UK, place_M, np.column_stack([value_MK, np.ones(len(value_MK))]))
    rng = np.random.default_rng([seed, len(user_U)])
    weight_RU = rng.multinomial(len(user_U), np.full(len(user_U), 1 / len(user_U)), resamples)
    total_RK = weight_RU @ sum_UK
    with np.errstate(invalid="ignore", divide="ignore"):
        means: FloatArray = total_RK[:, :-1] / total_RK[:, -1:]
    return means
