from dataclasses import replace

import numpy as np
import pytest

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.zoo.counts import Counts, CountsConfig
from lifelong.zoo.popularity import Popularity, PopularityConfig
from lifelong.zoo.scored_model import fit_logistic


def with_training(dataset: Dataset, rows: list[int], labels: list[float], *, rule: str) -> Dataset:
    """The dataset with other training examples, of user 2 at her first position."""
    number = len(rows)
    Examples(
        np.full(number, 2, np.int32),
        np.array(rows, np.int32),
        np.full(number, dataset.histories.time_N[dataset.histories.of(2)][0]),
        np.zeros(number, np.int32),
        np.array(labels, np.float32)[:, None],
    ).save(dataset.folder / "examples" / "train")
    changed = Dataset(dataset.folder)
    rules = changed.manifest.negatives.model_copy(update={"rule": rule})
    changed.manifest = changed.manifest.model_copy(update={"negatives": rules})
    return changed


def logits(model: Popularity | Counts, dataset: Dataset, rows: list[int]) -> list[float]:
    asked = dataset.examples("test").take(np.zeros(len(rows), np.int64))
    return model.predict(dataset, replace(asked, row_N=np.array(rows, np.int32)))[:, 0].tolist()


def test_popularity_of_logged_labels_is_the_smoothed_response_rate(dataset: Dataset) -> None:
    a, b, unseen = FIRST_ROW, FIRST_ROW + 1, FIRST_ROW + 2
    logged = with_training(dataset, [a, a, a, b], [1, 1, 0, 0], rule="none")
    model = Popularity(logged.inputs, PopularityConfig(smoothing=2.0))
    model.fit(logged)
    # The prior is (2 + 1) / (4 + 2) = 1/2: rates (2 + 1) / (3 + 2), (0 + 1) / (1 + 2), 1/2.
    assert logits(model, logged, [a, b, unseen]) == pytest.approx([np.log(3 / 2), np.log(1 / 2), 0.0])


def test_popularity_of_sampled_labels_orders_items_by_their_responses(dataset: Dataset) -> None:
    a, b, unseen = FIRST_ROW, FIRST_ROW + 1, FIRST_ROW + 2
    sampled = with_training(dataset, [a, a, a, b], [1, 1, 1, 1], rule="popularity")
    model = Popularity(sampled.inputs, PopularityConfig())
    model.fit(sampled)
    first, second, third = logits(model, sampled, [a, b, unseen])
    assert first > second > third


def test_rare_items_of_one_bucket_share_its_mean_and_not_its_sum(dataset: Dataset) -> None:
    number_V = dataset.catalogue.number_VF[FIRST_ROW:, 0]
    rare = FIRST_ROW + np.flatnonzero(number_V < dataset.vocabularies["item"].first_known)
    bucket = number_V[rare[0] - FIRST_ROW]
    members = int((number_V == bucket).sum())
    sampled = with_training(dataset, [int(rare[0])] * members + [FIRST_ROW], [1.0] * (members + 1), rule="popularity")
    model = Popularity(sampled.inputs, PopularityConfig())
    model.fit(sampled)
    of_bucket, of_known = logits(model, sampled, [int(rare[0]), FIRST_ROW])
    assert of_bucket == pytest.approx(of_known)


def test_counts_rank_the_items_of_a_user_first(dataset: Dataset) -> None:
    model = Counts(dataset.inputs, CountsConfig())
    model.fit(dataset)
    examples = dataset.examples("test")
    logit_N, label_N = model.predict(dataset, examples)[:, 0], examples.label_NT[:, 0]
    better = logit_N[label_N > 0][:, None] > logit_N[label_N == 0]
    assert better.mean() > 0.7


def test_logistic_fit_finds_the_weights_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    value_NK = rng.normal(size=(20_000, 2))
    probability_N = 1 / (1 + np.exp(-(value_NK @ np.array([1.5, -0.5]) + 0.3)))
    weight_K, bias = fit_logistic(value_NK, (rng.random(20_000) < probability_N).astype(float), l2=1.0)
    np.testing.assert_allclose([*weight_K, bias], [1.5, -0.5, 0.3], atol=0.06)


def test_logistic_fit_is_where_the_gradient_is_zero() -> None:
    rng = np.random.default_rng(1)
    value_NK, label_N = rng.normal(size=(500, 3)), (rng.random(500) < 0.2).astype(float)
    weight_K, bias = fit_logistic(value_NK, label_N, l2=2.0)
    residual_N = 1 / (1 + np.exp(-(value_NK @ weight_K + bias))) - label_N
    np.testing.assert_allclose(value_NK.T @ residual_N + 2.0 * weight_K, 0, atol=1e-2)
    assert residual_N.sum() == pytest.approx(0, abs=1e-2)


def test_logistic_fit_of_separable_labels_stays_finite() -> None:
    value_NK = np.array([[-1.0, 0.0], [1.0, 0.0]])
    weight_K, bias = fit_logistic(value_NK, np.array([0.0, 1.0]), l2=0.1)
    assert np.isfinite([*weight_K, bias]).all()
    assert weight_K[0] > 1
    assert weight_K[1] == 0
