"""The weights that order a list over the catalogue: fitted on baskets, and what they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ibis")
import pyarrow as pa
from support.artifacts import tiny_artifact
from support.results import made_result

from lifelong.artifact.folder import Artifact
from lifelong.artifact.list_order import INPUTS, NUMBERS, ListOrder, count_inputs
from lifelong.config import RunConfig, TrainSettings
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import drawn_counts
from lifelong.offline.evaluation import list_order
from lifelong.offline.evaluation.evaluate import added_in_lists, delayed, evaluate, predict
from lifelong.offline.evaluation.list_order import Choices, all_numbers, choices, fit_list_order
from lifelong.offline.evaluation.ranking import Ranking, rank_catalogue
from lifelong.offline.export.saving import load_model
from lifelong.offline.models import build
from lifelong.offline.models.base import CountingModel
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.reports.tables import ranking_table
from lifelong.offline.training.trainer import train
from lifelong.online.memory.filling import backfill
from lifelong.online.scoring import catalogue_view
from lifelong.online.scoring.catalogue_view import top_items
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.ram import InMemoryStore

START = 1_700_000_000
BASKETS, CANDIDATES = 400, 30
ORDER = ListOrder(
    popularity=0.5,
    counts={
        "item": (0.5, 1.0, 0.3, -0.5, 2.0, 0.25, 3.0, 0.125),
        "category": (0.1, 0.2, 0.1, 0.0, 0.0, -0.3, 0.4, 0.0),
    },
)


def repeating(folder: Path) -> Dataset:
    """Users who buy what they had lately and often."""
    rng, rows = np.random.default_rng(0), []
    for user in range(60):
        weight_I = rng.dirichlet(np.full(120, 0.03))
        for day in range(60):
            items = set(rng.choice(120, 3, p=weight_I).tolist())
            rows += [{"user": f"u{user}", "item": f"i{item}", "time": START + 86_400 * day} for item in sorted(items)]
    return prepare(pa.Table.from_pylist(rows), out=folder, user="user", item="item", time="time")


def planted(weight_K: list[float], *, seed: int = 0) -> tuple[Choices, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Baskets of one item each, chosen with a probability of exp(inputs times weights); five baskets a user."""
    rng = np.random.default_rng(seed)
    size = BASKETS * CANDIDATES
    logit_N, popularity_N = rng.normal(size=(2, size))
    had_N = rng.random(size) < 0.5
    counted_3N = rng.integers([[1], [0], [0]], [[13], [400], [2_000]], (3, size)) * had_N
    number_NFX = np.stack([*counted_3N, rng.integers(0, 900, size)], axis=-1)[:, None].astype(float)
    value_N = np.column_stack([logit_N, popularity_N, count_inputs(number_NFX)]) @ weight_K
    chosen_M = (value_N + rng.gumbel(size=size)).reshape(BASKETS, CANDIDATES).argmax(axis=1)
    hit_N = np.zeros(size, bool)
    hit_N[np.arange(BASKETS) * CANDIDATES + chosen_M] = True
    basket_N = np.repeat(np.arange(BASKETS), CANDIDATES)
    zero_N = np.zeros(size, np.int64)
    examples = Examples(
        (basket_N // 5).astype(np.int32), zero_N.astype(np.int32), zero_N, zero_N.astype(np.int32), hit_N[:, None] * 1.0
    )
    return Choices(examples, basket_N, hit_N), logit_N, popularity_N, number_NFX, ["item"]


def test_planted_weights_are_found() -> None:
    given = planted([2.0, 1.0, 0.0, 0.8, -0.6, 0.0, 1.6, 0.0, 0.0, 0.0])
    found = fit_list_order(*given)
    assert found is not None
    # In units of the logit.
    assert found.popularity == pytest.approx(0.5, abs=0.15)
    # The inputs are alike, so that single weights are uncertain, and their sum is not.
    true = count_inputs(given[3]) @ np.array([0.0, 0.4, -0.3, 0.0, 0.8, 0.0, 0.0, 0.0])
    assert np.corrcoef(true, found.of_counts(given[3]))[0, 1] > 0.97
    assert np.polyfit(true, found.of_counts(given[3]), 1)[0] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("seed", range(5))
def test_logit_plus_log_popularity_stays_where_nothing_is_better(seed: int) -> None:
    assert fit_list_order(*planted([1.0, 1.0] + [0.0] * INPUTS, seed=seed)) is None


def test_a_logit_that_orders_wrongly_is_not_given_a_weight() -> None:
    assert fit_list_order(*planted([-1.0, 1.0] + [0.5] * INPUTS)) is None


def test_what_is_the_same_for_all_candidates_changes_nothing() -> None:
    given, logit_N, popularity_N, number_N1X, fields = planted([2.0, 1.0, 0.0, 0.8, -0.6, 0.0, 1.6, 0.0, 0.0, 0.0])
    alone = fit_list_order(given, logit_N, popularity_N, number_N1X, fields)
    # A category that all items share.
    same_N1X = np.broadcast_to([7.0, 1.0, 3.0, 0.0], number_N1X.shape)
    both = fit_list_order(
        given, logit_N, popularity_N, np.concatenate([number_N1X, same_N1X], axis=1), [*fields, "category"]
    )
    assert alone is not None and both is not None
    assert both.popularity == pytest.approx(alone.popularity, abs=1e-5)
    assert both.counts["item"] == pytest.approx(alone.counts["item"], abs=1e-5)
    assert both.counts["category"] == (0.0,) * INPUTS


def test_a_single_user_fits_no_weights() -> None:
    given, *others = planted([2.0, 1.0, 0.0, 0.8, -0.6, 0.0, 1.6, 0.0, 0.0, 0.0])
    alone = Examples(np.zeros_like(given.examples.user_N), *given.examples.columns()[1:])
    assert fit_list_order(Choices(alone, given.basket_N, given.hit_N), *others) is None


def test_without_baskets_there_are_no_weights(dataset: Dataset) -> None:
    examples = dataset.examples("validation")
    nothing = choices(dataset, examples.take(np.zeros(0, np.int64)))
    assert fit_list_order(nothing, np.zeros(0), np.zeros(0), np.zeros((0, 1, 4)), ["item"]) is None


def test_candidates_are_what_the_user_had_before_and_the_most_popular_items(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_order, "POPULAR", 5)
    monkeypatch.setattr(list_order, "BASKETS", 10**6)
    examples, histories = dataset.examples("validation"), dataset.histories
    drawn_V = drawn_counts(dataset)
    assert drawn_V is not None
    popular = sorted(range(FIRST_ROW, len(drawn_V)), key=lambda row: (-drawn_V[row], row))[:5]
    expected: dict[tuple[int, int], tuple[set[int], set[int]]] = {}
    for at in np.flatnonzero(np.asarray(examples.label_NT[:, 0]) >= 0.5):
        user, time = int(examples.user_N[at]), int(examples.time_N[at])
        events = histories.of(user)
        had = {
            int(row) for row, when in zip(histories.row_N[events], histories.time_N[events], strict=True) if when < time
        }
        _, bought = expected.setdefault((user, time), (had | {*popular}, set()))
        bought.add(int(examples.row_N[at]))
    expected = {key: (all_of, bought & all_of) for key, (all_of, bought) in expected.items() if bought & all_of}
    given = choices(dataset, examples)
    found: dict[tuple[int, int], tuple[set[int], set[int]]] = {}
    for at, hit in enumerate(given.hit_N):
        key = int(given.examples.user_N[at]), int(given.examples.time_N[at])
        all_of, bought = found.setdefault(key, (set(), set()))
        all_of.add(int(given.examples.row_N[at]))
        bought |= {int(given.examples.row_N[at])} if hit else set()
    assert found == expected
    assert given.basket_N[-1] + 1 == len(expected)


def test_a_user_has_a_few_of_her_baskets(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = dataset.examples("validation")

    def most(limit: int) -> int:
        monkeypatch.setattr(list_order, "BASKETS", limit)
        given = choices(dataset, examples)
        pairs = np.unique(np.stack([given.examples.user_N, given.basket_N]), axis=1)
        return int(np.bincount(pairs[0]).max())

    assert most(1) == 1 and most(2) == 2 < most(10**6)


def test_users_are_drawn_until_there_are_enough_candidates(dataset: Dataset) -> None:
    examples = dataset.examples("validation")
    whole, few = choices(dataset, examples), choices(dataset, examples, pairs=1)
    assert len(np.unique(few.examples.user_N)) == 1 < len(np.unique(whole.examples.user_N))


def test_numbers_are_those_of_a_served_memory_and_so_is_the_list(dataset: Dataset, tmp_path: Path) -> None:
    artifact = tiny_artifact(tmp_path / "artifact", dataset, model="tally", list_order=ORDER)
    store = InMemoryStore()
    backfill(artifact, dataset, store)
    scorer, model, drawn_V = Scorer(artifact, store), load_model(artifact), drawn_counts(dataset)
    assert isinstance(model, CountingModel) and drawn_V is not None
    items, row_V = [*artifact.catalogue.ids.ids()], np.arange(FIRST_ROW, len(dataset.catalogue))
    for user in range(0, dataset.histories.num_users, 5):
        name, time_E = dataset.users.id_at(user), dataset.histories.time_N[dataset.histories.of(user)]
        if not len(time_E):
            continue
        moment = int(time_E[-1]) + 86_400
        asked = Examples(
            np.full(len(row_V), user, np.int32),
            row_V.astype(np.int32),
            np.full(len(row_V), moment, np.int64),
            np.full(len(row_V), len(time_E), np.int32),
            np.zeros((len(row_V), 1), np.float32),
        )
        states, _ = scorer.states([name])
        assert scorer.runtime.counting is not None
        number_BCFX = scorer.runtime.counting.look(states, scorer.online_items.numbers(items)[None]).number_BCFX
        offline_NFX = all_numbers(model, dataset, asked)
        assert number_BCFX[0] == pytest.approx(offline_NFX, rel=1e-5)
        row_L, times_V = np.asarray(dataset.histories.row_N[dataset.histories.of(user)]), offline_NFX[:, 0, 0]
        exact_V = np.bincount(row_L, minlength=len(dataset.catalogue))[FIRST_ROW:]
        # Items that are not in the vocabulary share their numbers with others.
        known_V = dataset.catalogue.number_VF[FIRST_ROW:, 0] >= dataset.vocabularies["item"].first_known
        kept_V = (times_V > 0) & (exact_V <= 8) & known_V
        assert kept_V.any() and (times_V[kept_V] == exact_V[kept_V]).all()
        value_N = predict(model, dataset, asked)[:, 0] + added_in_lists(model, dataset, asked, drawn_V, ORDER)
        listed = top_items(scorer, name, most=len(items), time=moment).items
        place = {one.item: at for at, one in enumerate(listed)}
        online_N = [listed[place[item]] for item in items]
        total_N = [one.score + (one.popularity or 0.0) + (one.from_counts or 0.0) for one in online_N]
        assert total_N == pytest.approx(value_N.tolist(), abs=1e-3)
        assert [one.rank for one in listed] == [*range(1, len(items) + 1)]
        assert sorted(total_N, reverse=True) == [total_N[items.index(one.item)] for one in listed]


def test_items_that_share_a_number_with_a_kept_one_are_not_scored_for_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tiny_artifact(tmp_path / "artifact", dataset, model="tally", settings={}, list_order=ORDER)
    store = InMemoryStore()
    backfill(artifact, dataset, store)
    monkeypatch.setattr(catalogue_view, "RANKED", 5)
    ids, drawn_V = artifact.catalogue.ids, drawn_counts(dataset)
    assert drawn_V is not None
    popular = {ids.id_at(int(at)) for at in np.argsort(-drawn_V[FIRST_ROW:], kind="stable")[:5]}
    is_known_V = dataset.catalogue.number_VF[FIRST_ROW:, 0] >= dataset.vocabularies["item"].first_known
    had_unknown = False
    for user in range(dataset.histories.num_users):
        had = {int(row) - FIRST_ROW for row in dataset.histories.row_N[dataset.histories.of(user)]}
        known = {ids.id_at(at) for at in had if is_known_V[at]}
        had_unknown |= len(had) > len(known)
        listed = top_items(Scorer(artifact, store), dataset.users.id_at(user), most=200).items
        assert {one.item for one in listed} == popular | known
    assert had_unknown


def test_a_delay_hides_events(dataset: Dataset) -> None:
    model, examples = build("tally", dataset.inputs, {}).eval(), dataset.examples("test")
    days = 60 * 86_400
    seen = all_numbers(model, dataset, delayed(dataset, examples, days))
    assert seen[:, 0, 0].sum() < all_numbers(model, dataset, examples)[:, 0, 0].sum()
    counts = {"item": (0.0, 1.0) + (0.0,) * (INPUTS - 2), "category": (0.0,) * INPUTS}
    order, drawn_V = ListOrder(popularity=0.0, counts=counts), drawn_counts(dataset)
    assert added_in_lists(model, dataset, examples, drawn_V, order, delay=days).tolist() == (
        pytest.approx(np.log1p(seen[:, 0, 0]).tolist())
    )


def test_evaluate_ranks_by_the_weights_of_the_artifact(dataset: Dataset, tmp_path: Path) -> None:
    plain = tiny_artifact(tmp_path / "plain", dataset, model="tally")
    assert plain.config.list_order is None
    by_popularity = evaluate(plain, dataset, bootstrap=2, ranking=Ranking((5,))).ranking
    fitted = tiny_artifact(tmp_path / "fitted", dataset, model="tally", list_order=ORDER)
    found = evaluate(fitted, dataset, bootstrap=2, ranking=Ranking((5,))).ranking
    assert by_popularity is not None and found is not None
    assert (by_popularity.by_counts, found.by_counts) == (False, True)
    model, drawn_V, examples = load_model(fitted), drawn_counts(dataset), dataset.examples("test")
    assert isinstance(model, CountingModel) and drawn_V is not None

    def plain_value(asked: Examples) -> np.ndarray:
        return predict(model, dataset, asked)[:, 0] + np.log(1 + drawn_V[asked.row_N])

    def value(asked: Examples) -> np.ndarray:
        weight_K = np.concatenate([ORDER.counts["item"], ORDER.counts["category"]])
        counts_N = count_inputs(all_numbers(model, dataset, asked)) @ weight_K
        return predict(model, dataset, asked)[:, 0] + 0.5 * np.log(1 + drawn_V[asked.row_N]) + counts_N

    for values, by in ((plain_value, by_popularity), (value, found)):
        assert by.parts == rank_catalogue(values, dataset, examples, (5,), resamples=2, seed=0).parts
    assert found.parts != by_popularity.parts
    table = ranking_table([made_result().model_copy(update={"ranking": found})])
    assert table is not None and "the weights of both were fitted on validation" in table.caption


@pytest.mark.parametrize(
    ("model", "settings"), [("tally", {}), ("gbdt", {"leaves": 7, "leaf_examples": 20, "rounds": 20})]
)
def test_training_fits_the_weights_where_they_are_better(tmp_path: Path, model: str, settings: dict[str, int]) -> None:
    """Users who buy the same few items again and again, the latest ones most."""
    if model == "gbdt":
        pytest.importorskip("lightgbm")
    config = RunConfig(train=TrainSettings(max_epochs=1, threads=1), model=settings)
    artifact = train(repeating(tmp_path / "data"), model, tmp_path / "artifact", config=config, progress=False)
    assert artifact.config.list_order is not None
    assert Artifact.open(artifact.path).config.list_order == artifact.config.list_order


def test_trees_are_ordered_by_exact_counts(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_order, "_AT_ONCE", 7)
    examples, histories, number_VF = dataset.examples("test"), dataset.histories, dataset.catalogue.number_VF
    expected_NFX = np.zeros((len(examples), 2, NUMBERS))
    for at, (user, row, time, position) in enumerate(zip(*examples.columns()[:4], strict=True)):
        events = slice(histories.of(user).start, histories.of(user).start + position)
        row_L, time_L = np.asarray(histories.row_N[events]), np.asarray(histories.time_N[events])
        for field, value_V in enumerate((np.arange(len(number_VF)), number_VF[:, 1])):
            rank = max(int(number_VF[row, field]) - 2, 0)
            expected_NFX[at, field, 3] = rank
            if len(same := np.flatnonzero(value_V[row_L] == value_V[row])):
                hours = (time - time_L[same[-1]]) / 3_600
                expected_NFX[at, field] = [len(same), position - same[-1], hours, rank]
    model = build("gbdt", dataset.inputs, {})
    assert all_numbers(model, dataset, examples) == pytest.approx(expected_NFX, rel=1e-6)
    drawn_V = drawn_counts(dataset)
    assert drawn_V is not None
    assert added_in_lists(model, dataset, examples, drawn_V, ORDER).tolist() == pytest.approx(
        ORDER.added(np.log1p(drawn_V[examples.row_N]), expected_NFX).tolist(), rel=1e-5, abs=1e-9
    )
