"""Ranking of the whole catalogue by several artifacts: the same baskets, and differences with intervals over users.

    python benchmarks/ranking.py DATA TALLY TIFU_KNN UPCF --users 220
    python benchmarks/ranking.py DATA TALLY TIFU_KNN UPCF --users 100000 --popular 1000 --seeds TALLY_1 TALLY_2

Users are those of `lifelong evaluate --max-users 100`, and then others. Models that learn from drawn negatives are
ranked as `evaluate` does, and with `--plain` by logit plus log popularity alone. With `--popular N` only the N most
popular items and those that the user had before are ranked, for every model; on 92,000 items this takes Tally a
twentieth of the time. `--seeds` are further trainings of the first model: intervals are then over users and seeds.
`--split vault` compares artifacts that `lifelong evaluate --split vault` has measured, and no others. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from printed import last_line

from lifelong import open_artifact
from lifelong.artifact.list_order import ListOrder
from lifelong.dataset.examples import VAULT, Examples
from lifelong.dataset.folder import Dataset
from lifelong.offline.evaluation.evaluate import added_in_lists, drawn_for, learns_from_negatives, predict, rows_in
from lifelong.offline.evaluation.ranking import USERS, measured, most_popular, ranks
from lifelong.offline.evaluation.significance import interval, over_seeds
from lifelong.offline.evaluation.vault import stored_result
from lifelong.offline.export.saving import load_model

AT_ONCE, CUTOFF, RESAMPLES = 20, 10, 5_000
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


def ranked(
    model: Any,
    order: ListOrder | None,
    dataset: Dataset,
    held: Dataset,
    found: Examples,
    users: np.ndarray[Any, Any],
    popular: np.ndarray[Any, Any] | None,
) -> Measured:
    """Recall and NDCG of every basket, which `held` has: the dataset or its vault."""
    drawn = drawn_for(dataset, held) if learns_from_negatives(model) else None

    def score(asked: Examples) -> Any:
        return predict(model, held, asked)[:, 0] + added_in_lists(model, held, asked, drawn, order)

    values: Measured = {"recall": {}, "ndcg": {}}
    for start in range(0, len(users), AT_ONCE):
        some = found.take(np.isin(found.user_N, users[start : start + AT_ONCE]))
        of = ranks(score, held, some, popular=popular, seed=0)
        keep(values, of.user_N, of.basket_N, measured(of.rank_N, of.basket_N, int(of.basket_N.max()) + 1, CUTOFF))
        print(f"{min(start + AT_ONCE, len(users))} of {len(users)} users", file=sys.stderr)
    return values


def keep(values: Measured, user_N: Any, basket_N: Any, measured_M: Any) -> None:
    """Sort the measures of baskets by their users."""
    user_M = user_N[np.unique(basket_N, return_index=True)[1]]
    for name, value_M in zip(values, measured_M, strict=False):
        for user in np.unique(user_M):
            values[name][int(user)] = value_M[user_M == user]


def paired(first: str, seeds: list[Measured], others: dict[str, Measured]) -> dict[str, Any]:
    """Means over baskets and seeds, and the first model less each other one, with intervals over users and seeds."""
    shown: dict[str, Any] = {}
    for name in seeds[0]:
        users = sorted(seeds[0][name])
        number_U = np.array([len(seeds[0][name][user]) for user in users])
        weight_RU = np.random.default_rng(0).multinomial(len(users), np.full(len(users), 1 / len(users)), RESAMPLES)
        sum_KU = np.array([[values[name][user].sum() for user in users] for values in seeds])
        mean_K = sum_KU.sum(axis=1) / number_U.sum()
        of: dict[str, Any] = {first: round(float(mean_K.mean()), 4), "seeds": mean_K.round(4).tolist()}
        for other, values in others.items():
            sum_U = np.array([values[name][user].sum() for user in users])
            mean = sum_U.sum() / number_U.sum()
            drawn_KR = (sum_KU - sum_U) @ weight_RU.T / (weight_RU @ number_U)
            low, high = interval(over_seeds(drawn_KR))
            of[other] = round(float(mean), 4)
            of[f"{first} - {other}"] = [round(float(value), 4) for value in (mean_K.mean() - mean, low, high)]
        shown[f"{name}@{CUTOFF}"] = of
    return shown | {"users": len(users), "baskets": int(number_U.sum())}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+", help="the first one is compared with each of the others")
    parser.add_argument("--seeds", type=Path, nargs="+", default=[], help="the first one, trained with other seeds")
    parser.add_argument("--split", default="test")
    parser.add_argument("--claim", help="with --split vault, a sentence: what this reading is to decide")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--popular", type=int, help="rank so many popular items and what the user had before only")
    parser.add_argument("--plain", action="store_true", help="without the weights that an artifact has for lists")
    arguments = parser.parse_args()
    dataset = Dataset(arguments.data)
    if arguments.split == VAULT:
        for path in (*arguments.artifacts, *arguments.seeds):
            stored_result(dataset, open_artifact(path))
    held = dataset.holding(arguments.split, arguments.claim)
    found, users = positives(held, arguments.split, arguments.users)
    popular = None
    if arguments.popular is not None:
        popular = rows_in(held, dataset, most_popular(dataset, arguments.popular))

    def values(path: Path) -> Measured:
        artifact = open_artifact(path)
        order = None if arguments.plain else artifact.config.list_order
        return ranked(load_model(artifact), order, dataset, held, found, users, popular)

    first, *others = arguments.artifacts
    # By their whole paths: `compare` names the folder of every artifact alike.
    document = paired(
        str(first),
        [values(path) for path in (first, *arguments.seeds)],
        {str(path): values(path) for path in others},
    )
    for name, value in document.items():
        print(f"{name}: {json.dumps(value)}")
    print(last_line(document))


if __name__ == "__main__":
    main()
