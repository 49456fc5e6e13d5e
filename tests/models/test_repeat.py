"""Baselines of repeat consumption against examples that were computed by hand from the papers' formulas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.histories import Histories
from lifelong.offline.data.cooccurrence import training_lengths
from lifelong.offline.models import build
from lifelong.zoo.inputs.baskets import basket_weights
from lifelong.zoo.neighbour_model import NeighbourModel
from lifelong.zoo.tifu_knn import TifuKnn, TifuKnnConfig
from lifelong.zoo.topfreq import TopFreq, TopFreqConfig
from lifelong.zoo.upcf import Upcf, UpcfConfig

A, B, C, D = range(FIRST_ROW, FIRST_ROW + 4)


def baskets(dataset: Dataset, *users: list[list[int]]) -> Dataset:
    """The dataset with other histories, a basket a day; all but the first user's last basket is of training."""
    rows, times, lengths = [], [], []
    for user in users:
        rows += [row for basket in user for row in basket]
        times += [day * 86_400 for day, basket in enumerate(user) for _ in basket]
        lengths.append(sum(map(len, user)))
    number, spare = len(rows), dataset.histories.num_users - len(users)
    offset_U = np.cumsum([0, *lengths, *[0] * spare])
    histories = Histories(offset_U, np.array(rows, np.int32), np.array(times), np.arange(number))
    last = [(user, lengths[user]) for user in range(len(users))]
    Examples(
        np.array([user for user, _ in last], np.int32),
        np.full(len(last), A, np.int32),
        np.full(len(last), 100 * 86_400),
        np.array([length for _, length in last], np.int32),
        np.zeros((len(last), 1), np.float32),
    ).save(dataset.folder / "examples" / "train")
    changed = Dataset(dataset.folder)
    changed.__dict__["histories"] = histories
    return changed


def scores(model: NeighbourModel | TopFreq, dataset: Dataset, position: int, *rows: int) -> list[float]:
    """Scores of items for the first user."""
    number = len(rows)
    asked = Examples(
        np.zeros(number, np.int32),
        np.array(rows, np.int32),
        np.full(number, 99 * 86_400),
        np.full(number, position, np.int32),
        np.zeros((number, 1), np.float32),
    )
    model.learned = model.learn(dataset, seed=0)
    return model.scores(dataset, asked).tolist()


def test_up_cf_is_the_paper_s_formula(dataset: Dataset) -> None:
    # u has the items A, B, C; v has A, B and D; w has D alone.
    log = baskets(dataset, [[A], [A, B], [A, C]], [[A, B], [D], [D, A]], [[D]])
    model = Upcf(log.inputs, UpcfConfig(baskets=2, locality=2.0, asymmetry=0.25))
    # Of u's last two baskets both hold A, one B, one C; of v's both D, one A and none B.
    alike = 2 / (3**0.25 * 3**0.75)
    expected = [1 + alike**2 * 0.5, 0.5, 0.5, alike**2 * 1.0]
    assert scores(model, log, 5, A, B, C, D) == pytest.approx(expected)
    # Two events earlier, after two baskets: C is not there yet.
    alike = 2 / (2**0.25 * 3**0.75)
    assert scores(model, log, 3, A, C, D) == pytest.approx([1 + alike**2 * 0.5, 0.0, alike**2])


def test_likeness_is_asymmetric(dataset: Dataset) -> None:
    log = baskets(dataset, [[A]], [[A, B, C, D]])
    for share, expected in ((0.0, 1 / 4), (1.0, 1.0), (0.5, 1 / 2)):
        model = Upcf(log.inputs, UpcfConfig(locality=1.0, asymmetry=share))
        assert scores(model, log, 1, B) == pytest.approx([expected])


def test_tifu_knn_is_the_paper_s_formula(dataset: Dataset) -> None:
    # Groups of two baskets from the latest one: u's are [1], [2, 3].
    log = baskets(dataset, [[A], [A, B], [C]], [[C], [C, D]], [[D], [D]])
    model = TifuKnn(log.inputs, TifuKnnConfig(group=2, within=0.8, between=0.5, alpha=0.6, neighbours=1))
    own = {A: (0.5 * 1 + 0.8 / 2) / 2, B: 0.8 / 2 / 2, C: 1 / 2 / 2}
    # v has one group: C in both baskets, D in the later one. It is nearer than w, who has D alone.
    near = {C: (0.8 + 1) / 2, D: 1 / 2}
    found = scores(model, log, 4, A, B, C, D)
    assert found == pytest.approx([0.6 * own.get(row, 0) + 0.4 * near.get(row, 0) for row in (A, B, C, D)])


def test_the_nearest_users_share_what_is_not_the_user_s_own(dataset: Dataset) -> None:
    log = baskets(dataset, [[A]], [[B]], [[B]], [[C]])
    model = TifuKnn(log.inputs, TifuKnnConfig(alpha=0.25, neighbours=300))
    assert scores(model, log, 1, A, B, C) == pytest.approx([0.25, 0.75 * 2 / 3, 0.75 / 3])


def test_top_freq_orders_by_the_user_s_count_and_then_by_popularity(dataset: Dataset) -> None:
    log = baskets(dataset, [[A], [A, B, B], [C]], [[B], [B]])
    personal = TopFreq(log.inputs, TopFreqConfig(everyone=False))
    assert scores(personal, log, 5, A, B, C, D) == [2, 1, 1, 0]
    both = TopFreq(log.inputs, TopFreqConfig())
    # Both training targets are A.
    assert scores(both, log, 4, A, B, C, D) == pytest.approx([2 + 2 / 3, 1, 0, 0])


def test_a_basket_counts_an_item_once_and_hidden_baskets_do_not() -> None:
    events = Histories(np.array([0, 4, 6]), np.array([2, 2, 3, 2, 3, 3]), np.array([5, 5, 7, 9, 1, 1]), np.arange(6))
    moments = (np.array([0, 1, 0]), np.array([3, 2, 0]))
    found = basket_weights(events, moments, np.array([-1, -1, 0, 1]), 2, lambda age, number: 10.0 * number + age)
    assert found.toarray().tolist() == [[21, 20], [0, 10], [0, 0]]


MODELS = {"topfreq": {}, "upcf": {"locality": 1.0}, "tifu_knn": {"neighbours": 5}}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, dataset: Dataset) -> Iterator[TopFreq | NeighbourModel]:
    made = build(request.param, dataset.inputs, MODELS[request.param])
    assert isinstance(made, TopFreq | NeighbourModel)
    made.fit(dataset)
    yield made


def test_the_items_of_a_user_are_ranked_first(model: TopFreq | NeighbourModel, dataset: Dataset) -> None:
    examples = dataset.examples("test")
    logit_N, label_N = model.predict(dataset, examples)[:, 0], examples.label_NT[:, 0]
    higher = logit_N[label_N > 0][:, None] - logit_N[label_N == 0]
    assert ((higher > 0) + 0.5 * (higher == 0)).mean() > 0.7


def test_the_logit_rises_with_the_score(model: TopFreq | NeighbourModel, dataset: Dataset) -> None:
    examples = dataset.examples("validation")
    order_N = np.argsort(model.scores(dataset, examples), kind="stable")
    assert (np.diff(model.predict(dataset, examples)[order_N, 0]) >= 0).all()


def test_other_users_lend_what_they_had_in_training_alone(dataset: Dataset) -> None:
    model = Upcf(dataset.inputs, UpcfConfig(locality=1.0))
    before, length_U = model.learn(dataset, seed=0), training_lengths(dataset)
    row_N = np.array(dataset.histories.row_N)
    for user, length in enumerate(length_U):
        row_N[dataset.histories.offset_U[user] + length : dataset.histories.offset_U[user + 1]] = D
    changed = Dataset(dataset.folder)
    changed.__dict__["histories"] = replace(dataset.histories, row_N=row_N)
    after = model.learn(changed, seed=0)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not np.array_equal(row_N, dataset.histories.row_N)


def test_of_a_very_large_log_a_part_of_the_users_lends(dataset: Dataset) -> None:
    model = Upcf(dataset.inputs, UpcfConfig(users=7))
    assert len(model.learn(dataset, seed=0)["user"]) == 7
