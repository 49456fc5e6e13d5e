"""Ranking of the catalogue against a brute force: sort all items, look where the basket's are."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import drawn_counts
from lifelong.errors import DataError, UsageError
from lifelong.offline.evaluation import ranking
from lifelong.offline.evaluation.evaluate import evaluate
from lifelong.offline.evaluation.ranking import Ranking, most_popular, rank_catalogue
from lifelong.offline.evaluation.results import RankingResult
from lifelong.offline.models import build
from lifelong.offline.reports.tables import ranking_table
from lifelong.offline.training.trainer import train
from tests.support.results import made_result

CUTOFFS = (3, 10)


def made_up(examples: Examples) -> np.ndarray:
    """A score of user, time and item, with few different values, so that many items are equal."""
    mixed = examples.row_N * 7919 + examples.user_N * 104_729 + examples.time_N // 1_000_000
    return (mixed % 17).astype(float)


def ranked(dataset: Dataset, *, users: int | None = None, popular: int | None = None, seed: int = 0) -> RankingResult:
    examples, rows = dataset.examples("test"), None if popular is None else most_popular(dataset, popular)
    return rank_catalogue(made_up, dataset, examples, CUTOFFS, users=users, popular=rows, resamples=50, seed=seed)


def met_most(dataset: Dataset, number: int) -> set[int]:
    """Of the events of the last window of the training period."""
    histories, (end, later) = dataset.histories, dataset.manifest.cut_times
    times = Counter(
        int(row)
        for row, time in zip(histories.row_N, histories.time_N, strict=True)
        if end - (later - end) <= time < end
    )
    return set(sorted(range(FIRST_ROW, len(dataset.catalogue)), key=lambda row: (-times[row], row))[:number])


def brute_force(dataset: Dataset, part: str, seed: int, popular: int | None = None) -> dict[str, list[float]]:
    """Metrics of every basket."""
    examples, histories = dataset.examples("test"), dataset.histories
    most = set() if popular is None else met_most(dataset, popular)
    priority = np.random.default_rng(seed).permutation(len(dataset.catalogue) - FIRST_ROW)
    positive = [at for at in range(len(examples)) if examples.label_NT[at, 0] == 1]
    found: dict[str, list[float]] = {}
    for user, moment in sorted({(int(examples.user_N[at]), int(examples.time_N[at])) for at in positive}):
        events = histories.of(user)
        before = {
            int(row)
            for row, time in zip(histories.row_N[events], histories.time_N[events], strict=True)
            if time < moment
        }
        basket = {
            int(examples.row_N[at]) for at in positive if (examples.user_N[at], examples.time_N[at]) == (user, moment)
        }
        wanted = {"all": basket, "repeat": basket & before, "explore": basket - before}[part]
        if not wanted:
            continue
        score = {
            row: (7919 * row + 104_729 * user + moment // 1_000_000) % 17
            for row in range(FIRST_ROW, len(dataset.catalogue))
            if popular is None or row in before or row in most
        }
        order = sorted(score, key=lambda row: (-score[row], priority[row - FIRST_ROW]))
        for cutoff in CUTOFFS:
            hits = [row in wanted for row in order[:cutoff]]
            gain = sum(hit / math.log2(2 + place) for place, hit in enumerate(hits))
            ideal = sum(1 / math.log2(2 + place) for place in range(min(cutoff, len(wanted))))
            found.setdefault(f"recall@{cutoff}", []).append(sum(hits) / len(wanted))
            found.setdefault(f"ndcg@{cutoff}", []).append(gain / ideal)
            found.setdefault(f"mrr@{cutoff}", []).append(1 / (1 + hits.index(True)) if any(hits) else 0.0)
    return found


@pytest.mark.parametrize("part", ["all", "repeat", "explore"])
def test_metrics_are_those_of_a_brute_force(dataset: Dataset, part: str) -> None:
    for seed, popular in ((0, None), (3, None), (0, 7), (0, 1)):
        found = next(of for of in ranked(dataset, popular=popular, seed=seed).parts if of.name == part)
        expected = brute_force(dataset, part, seed, popular)
        assert found.baskets == len(expected["recall@3"])
        for metric, values in expected.items():
            assert found.metrics[metric].value == pytest.approx(np.mean(values)), metric
            low, high = found.metrics[metric].low, found.metrics[metric].high
            assert low is not None and high is not None and low <= np.mean(values) <= high


def test_how_many_baskets_are_scored_at_a_time_changes_nothing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, few = ranked(dataset).parts, ranked(dataset, popular=7).parts
    for pairs in (1, 200):
        monkeypatch.setattr(ranking, "_PAIRS", pairs)
        assert ranked(dataset).parts == whole
        assert ranked(dataset, popular=7).parts == few


def test_users_are_drawn_by_the_seed_and_counted(dataset: Dataset) -> None:
    few, other, whole = ranked(dataset, users=4), ranked(dataset, users=4, seed=1), ranked(dataset)
    assert (few.users, few.users_in_split) == (4, whole.users)
    assert few.parts == ranked(dataset, users=4).parts
    assert few.parts != other.parts


def test_a_model_that_knows_nothing_finds_items_by_chance(dataset: Dataset) -> None:
    def equal(examples: Examples) -> np.ndarray:
        return np.zeros(len(examples))

    values = [
        rank_catalogue(equal, dataset, dataset.examples("test"), (10,), users=None, resamples=0, seed=seed)
        .parts[0]
        .metrics["recall@10"]
        .value
        for seed in range(30)
    ]
    assert np.mean(values) == pytest.approx(10 / (len(dataset.catalogue) - FIRST_ROW), abs=0.04)


def test_personal_popularity_finds_what_is_repeated_and_nothing_else(dataset: Dataset) -> None:
    model = build("topfreq_personal", dataset.inputs, {})
    model.fit(dataset)
    found = rank_catalogue(
        lambda asked: model.predict(dataset, asked)[:, 0],
        dataset,
        dataset.examples("test"),
        (10,),
        users=None,
        resamples=0,
        seed=0,
    )
    _, repeat, explore = (part.metrics["recall@10"].value for part in found.parts)
    assert repeat > 0.6 > 0.1 > explore


@pytest.mark.parametrize("rule", ["popularity", "windowed"])
def test_what_negatives_are_drawn_from_is_the_end_of_the_training_period_or_all_of_it(
    dataset: Dataset, rule: str
) -> None:
    histories, (end, later) = dataset.histories, dataset.manifest.cut_times
    negatives = dataset.manifest.negatives.model_copy(update={"rule": rule})
    other = Dataset(dataset.folder)
    other.manifest = other.manifest.model_copy(update={"negatives": negatives})
    time_E = np.asarray(histories.time_N)
    inside_E = (time_E < end) & ((rule != "popularity") | (time_E >= end - (later - end)))
    row_E = np.asarray(histories.row_N)[inside_E]
    assert drawn_counts(other).tolist() == np.bincount(row_E, minlength=len(dataset.catalogue)).tolist()


def test_uniform_negatives_and_logged_labels_need_no_correction(dataset: Dataset) -> None:
    for rule in ("uniform", "none"):
        other = Dataset(dataset.folder)
        negatives = other.manifest.negatives.model_copy(update={"rule": rule})
        other.manifest = other.manifest.model_copy(update={"negatives": negatives})
        assert drawn_counts(other) is None
        train = other.examples("train")
        times = Counter(int(row) for row, label in zip(train.row_N, train.label_NT[:, 0], strict=True) if label == 1)
        most = sorted(range(FIRST_ROW, len(other.catalogue)), key=lambda row: (-times[row], row))[:7]
        assert most_popular(other, 7).tolist() == sorted(most)


@pytest.mark.parametrize(("model", "corrected"), [("counts", True), ("topfreq", False), ("popularity", False)])
def test_scores_that_were_learned_from_negatives_are_ranked_with_popularity(
    dataset: Dataset, tmp_path: Path, model: str, corrected: bool
) -> None:
    artifact = train(dataset, model, tmp_path / "artifact", progress=False)
    found = evaluate(artifact, dataset, bootstrap=2, ranking=Ranking((5,)))
    assert found.ranking is not None
    assert found.ranking.by_popularity == corrected
    table = ranking_table([found])
    assert table is not None
    assert ("plus log popularity" in table.caption) == corrected


def test_nothing_to_find_is_said(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    negatives = replace(examples, label_NT=np.zeros_like(examples.label_NT))
    with pytest.raises(DataError, match="no positive example"):
        rank_catalogue(made_up, dataset, negatives, (10,), resamples=0, seed=0)
    with pytest.raises(UsageError, match="places from 1 on"):
        rank_catalogue(made_up, dataset, examples, (0,), resamples=0, seed=0)


def test_the_table_has_a_row_for_each_part(dataset: Dataset) -> None:
    result = made_result().model_copy(update={"ranking": ranked(dataset, users=3)})
    table = ranking_table([result, made_result()])
    assert table is not None
    assert [row[:2] for row in table.rows] == [["HPMN", part] for part in ("all", "repeat", "explore")]
    assert table.columns[4:] == ["Recall@3", "NDCG@3", "MRR@3", "Recall@10", "NDCG@10", "MRR@10"]
    assert table.caption.startswith(
        f"All {len(dataset.catalogue) - FIRST_ROW} items are ranked for each basket of 3 of "
    )
    few = ranking_table([made_result().model_copy(update={"ranking": ranked(dataset, popular=7)})])
    assert few is not None and few.caption.startswith("The 7 most popular of ")
    assert few.caption.endswith("Other items of a basket count as not found.")
    assert ranking_table([made_result()]) is None


def test_a_record_with_a_ranking_is_read_back(dataset: Dataset, tmp_path: Path) -> None:
    result = made_result().model_copy(update={"ranking": ranked(dataset, users=3)})
    result.save(tmp_path / "result.json")
    assert type(result).load(tmp_path / "result.json") == result
