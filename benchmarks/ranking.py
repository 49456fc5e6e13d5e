"""Ranking of the whole catalogue by several artifacts: the same baskets, and differences with intervals over users.

    python benchmarks/ranking.py DATA TALLY TIFU_KNN UPCF --split test --users 220
    python benchmarks/ranking.py DATA TALLY TIFU_KNN --split validation --users 300 --counts

Users are those of `lifelong evaluate --ranking-users 100`, and then others. Models that learn from drawn negatives are
ranked by logit plus log popularity.

With `--counts` only items that the user had, and the 200 most popular ones, are ranked, since hardly anything else is
ever found. Then weights of the first model's logit, log popularity and exact counts of the user's own events (all, and
decayed by days and by trips) are fitted to the baskets of half of the users (a conditional logit: the item that was
bought against the others), and measured on those of the other half, both ways. This shows what the order of a user's
own items could be, if the model were trained for it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lifelong import open_artifact
from lifelong.artifact.export import load_model
from lifelong.data.arrays import is_first
from lifelong.data.catalogue import FIRST_ROW
from lifelong.data.dataset import Dataset
from lifelong.data.examples import Examples
from lifelong.data.negatives import drawn_counts, log_popularity
from lifelong.evaluation.evaluate import learns_from_negatives, predict
from lifelong.evaluation.ranking import USERS, measured, ranks

AT_ONCE, POPULAR, CUTOFF, RESAMPLES = 20, 200, 10, 5_000
DAYS, TRIPS = (7, 21, 60, 180), (3, 10, 30)
"""Half-lives of counts."""
Measured = dict[str, dict[int, np.ndarray[Any, Any]]]
"""Measure -> user -> its value for each basket."""


def positives(dataset: Dataset, split: str, users: int) -> tuple[Examples, np.ndarray[Any, Any]]:
    """The examples to be found, and the users in the order in which they are taken."""
    found = dataset.examples(split)
    found = found.take(np.asarray(found.label_NT[:, 0]) >= 0.5)
    everyone = np.unique(found.user_N)
    first = np.random.default_rng(0).choice(everyone, min(USERS, len(everyone)), replace=False)
    others = np.random.default_rng(1).permutation(np.setdiff1d(everyone, first))
    return found, np.concatenate([first, others])[:users]


def ranked(model: Any, dataset: Dataset, found: Examples, users: np.ndarray[Any, Any]) -> Measured:
    """Recall and NDCG of every basket."""
    drawn = drawn_counts(dataset) if learns_from_negatives(model) else None
    values: Measured = {"recall": {}, "ndcg": {}}
    for start in range(0, len(users), AT_ONCE):
        some = found.take(np.isin(found.user_N, users[start : start + AT_ONCE]))
        of = ranks(lambda asked: predict(model, dataset, asked)[:, 0], dataset, some, minutes=1e9, drawn=drawn, seed=0)
        keep(values, of.user_N, of.basket_N, measured(of.rank_N, of.basket_N, int(of.basket_N.max()) + 1, CUTOFF))
        print(f"{min(start + AT_ONCE, len(users))} of {len(users)} users", file=sys.stderr)
    return values


def keep(values: Measured, user_N: Any, basket_N: Any, measured_M: Any) -> None:
    """Sort the measures of baskets by their users."""
    user_M = user_N[np.unique(basket_N, return_index=True)[1]]
    for name, value_M in zip(values, measured_M, strict=False):
        for user in np.unique(user_M):
            values[name][int(user)] = value_M[user_M == user]


def paired(values: dict[str, Measured]) -> dict[str, Any]:
    """Means over baskets, and the first model less each other one, with intervals over users."""
    first, *others = values
    shown: dict[str, Any] = {}
    for name in values[first]:
        users = sorted(values[first][name])
        number_U = np.array([len(values[first][name][user]) for user in users])
        sums = {model: np.array([values[model][name][user].sum() for user in users]) for model in values}
        weight_RU = np.random.default_rng(0).multinomial(len(users), np.full(len(users), 1 / len(users)), RESAMPLES)
        of: dict[str, Any] = {model: round(float(sums[model].sum() / number_U.sum()), 4) for model in values}
        for other in others:
            difference_U = sums[first] - sums[other]
            low, high = np.quantile((weight_RU @ difference_U) / (weight_RU @ number_U), [0.025, 0.975])
            mean = difference_U.sum() / number_U.sum()
            of[f"{first} - {other}"] = [round(float(value), 4) for value in (mean, low, high)]
        shown[f"{name}@{CUTOFF}"] = of
    return shown | {"users": len(users), "baskets": int(number_U.sum())}


def with_counts(models: dict[str, Any], dataset: Dataset, found: Examples, users: Any) -> dict[str, Any]:
    """Recall and NDCG of the models among the user's own and popular items, and of the first one with exact counts."""
    drawn_V = drawn_counts(dataset)
    if drawn_V is None:
        sys.exit("--counts is for a dataset with drawn negatives: prepare it with --negatives popularity")
    popularity_V = log_popularity(drawn_V[FIRST_ROW:])
    popular = np.argsort(-popularity_V)[:POPULAR] + FIRST_ROW
    some = found.take(np.isin(found.user_N, users))
    some = some.take(np.lexsort((some.row_N, some.time_N, some.user_N)))
    first_M = np.flatnonzero(is_first(some.user_N, some.time_N))
    row_N, basket_N, count_NK, hit_N, size_M = candidates(dataset, some, first_M, popular)
    asked = some.take(first_M[basket_N])
    asked = Examples(asked.user_N, row_N.astype(np.int32), *asked.columns()[2:])
    scores = {name: predict(model, dataset, asked)[:, 0] for name, model in models.items()}
    popularity_N, (name, logit_N) = popularity_V[row_N - FIRST_ROW], next(iter(scores.items()))
    for model in models:
        scores[model] = scores[model] + popularity_N * learns_from_negatives(models[model])
    input_NK = np.column_stack([logit_N, popularity_N, count_NK])
    # Every second user, by number: their baskets fit the weights that are measured on the others'.
    half_M = np.isin(some.user_N[first_M], np.unique(some.user_N[first_M])[::2])
    for label, columns in (("count", [0, 1, 2]), ("counts", list(range(input_NK.shape[1])))):
        scores[f"{name} + {label}"] = np.zeros(len(row_N))
        for fitted_M in (half_M, ~half_M):
            weight = conditional_logit(input_NK[:, columns], basket_N, hit_N, fitted_M)
            test_N = ~fitted_M[basket_N]
            scores[f"{name} + {label}"][test_N] = input_NK[test_N][:, columns] @ weight
    return {name: top(score_N, basket_N, hit_N, size_M) for name, score_N in scores.items()} | {"baskets": len(first_M)}


def candidates(dataset: Dataset, some: Examples, first_M: Any, popular: Any) -> tuple[Any, ...]:
    """Rows to rank for each basket, its number, counts of the user's events, whether it was bought; baskets' sizes."""
    histories, bound_M = dataset.histories, np.append(first_M, len(some))
    user_M, time_M = some.user_N[first_M], np.asarray(some.time_N)[first_M]
    position_M = histories.positions(user_M, time_M)
    parts: list[tuple[Any, ...]] = []
    for basket, (user, moment, position) in enumerate(zip(user_M, time_M, position_M, strict=True)):
        events = histories.of(int(user))
        row_L = np.asarray(histories.row_N[events])[:position]
        time_L = np.asarray(histories.time_N[events])[:position]
        row_L, time_L = row_L[row_L >= FIRST_ROW], time_L[row_L >= FIRST_ROW]
        own = np.unique(np.concatenate([row_L, popular]))
        # An item counts once a trip.
        trip, trip_L = np.unique(time_L, return_inverse=True)
        at, of = np.unique(np.stack([np.searchsorted(own, row_L), trip_L]), axis=1)
        days, back = (moment - trip[of]) / 86_400, len(trip) - of
        weights = [
            np.ones(len(at)),
            *(0.5 ** (days / half) for half in DAYS),
            *(0.5 ** (back / half) for half in TRIPS),
        ]
        count_NK = np.log1p(np.stack([np.bincount(at, weight, len(own)) for weight in weights], axis=1))
        bought = np.unique(some.row_N[bound_M[basket] : bound_M[basket + 1]])
        parts.append((own, np.full(len(own), basket), count_NK, np.isin(own, bought), [len(bought)]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def conditional_logit(input_NK: Any, basket_N: Any, hit_N: Any, chosen_M: Any) -> Any:
    """Weights under which the items of the chosen baskets are likeliest among all candidates; baskets count alike."""
    keep_N = chosen_M[basket_N] & np.isin(basket_N, basket_N[hit_N])
    scale_K = input_NK[keep_N].std(axis=0) + 1e-9
    input_NK, hit_N = torch.tensor(input_NK[keep_N] / scale_K), torch.tensor(hit_N[keep_N].astype(float))
    basket_N = torch.tensor(np.unique(basket_N[keep_N], return_inverse=True)[1])
    baskets = int(basket_N.max()) + 1
    bought_M = torch.zeros(baskets, dtype=torch.float64).index_add(0, basket_N, hit_N)
    weight_K = torch.zeros(input_NK.shape[1], dtype=torch.float64)
    # It begins with logit plus log popularity.
    weight_K[:2] = torch.tensor(scale_K[:2])
    begin_K = weight_K.clone()
    weight_K.requires_grad_()
    optimiser = torch.optim.LBFGS([weight_K], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        score_N = input_NK @ weight_K
        highest_M = torch.full((baskets,), -1e30, dtype=torch.float64)
        highest_M = highest_M.scatter_reduce(0, basket_N, score_N.detach(), "amax")
        power_N = (score_N - highest_M[basket_N]).exp()
        whole_M = torch.zeros(baskets, dtype=torch.float64).index_add(0, basket_N, power_N).log() + highest_M
        log_N = hit_N * (score_N - whole_M[basket_N]) / bought_M[basket_N]
        value = -log_N.sum() / baskets + 1e-3 * ((weight_K - begin_K) ** 2).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weight_K.detach().numpy() / scale_K


def top(score_N: Any, basket_N: Any, hit_N: Any, size_M: Any) -> dict[str, float]:
    """Mean Recall and NDCG of the baskets."""
    tie_N = np.random.default_rng(0).permutation(len(score_N))
    order_N = np.lexsort((tie_N, -score_N, basket_N))
    start_M = np.flatnonzero(np.diff(basket_N, prepend=-1))
    rank_N = np.empty(len(score_N), np.int64)
    rank_N[order_N] = np.arange(len(score_N)) - start_M[basket_N] + 1
    # What was bought and is not among the candidates has the last place of all.
    missing_M = size_M - np.bincount(basket_N, hit_N, len(size_M)).astype(np.int64)
    basket = np.concatenate([basket_N[hit_N], np.repeat(np.arange(len(size_M)), missing_M)])
    rank = np.concatenate([rank_N[hit_N], np.full(int(missing_M.sum()), np.iinfo(np.int64).max // 2)])
    recall_M, ndcg_M, _ = measured(rank, basket, len(size_M), CUTOFF)
    return {f"recall@{CUTOFF}": round(float(recall_M.mean()), 4), f"ndcg@{CUTOFF}": round(float(ndcg_M.mean()), 4)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+", help="the first one is compared with each of the others")
    parser.add_argument("--split", default="test")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--counts", action="store_true")
    arguments = parser.parse_args()
    dataset = Dataset(arguments.data)
    # By their whole paths: `compare` names the folder of every artifact alike.
    models = {str(path): load_model(open_artifact(path)) for path in arguments.artifacts}
    found, users = positives(dataset, arguments.split, arguments.users)
    if arguments.counts:
        document = with_counts(models, dataset, found, users)
    else:
        document = paired({name: ranked(model, dataset, found, users) for name, model in models.items()})
    for name, value in document.items():
        print(f"{name}: {json.dumps(value)}")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
