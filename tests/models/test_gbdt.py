import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.rows import Make, make

pytest.importorskip("lightgbm")

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import SPLITS, Examples, Split
from lifelong.dataset.folder import Dataset
from lifelong.errors import ConfigError, MissingExtraError
from lifelong.zoo.gbdt import Gbdt, GbdtConfig
from lifelong.zoo.inputs.further import week_odds

__all__ = ["make"]
SMALL = {"leaves": 7, "leaf_examples": 20, "rounds": 40}


def fitted(dataset: Dataset, **settings: int) -> Gbdt:
    model = Gbdt(dataset.inputs, GbdtConfig(**{**SMALL, **settings}))
    model.fit(dataset)
    return model


def with_examples(dataset: Dataset, split: Split, examples: Examples) -> Dataset:
    """The dataset with other examples; what is mapped from a file is copied before that is written anew."""
    columns = ("user_N", "row_N", "time_N", "position_N", "label_NT")
    Examples(*(np.array(getattr(examples, name)) for name in columns)).save(dataset.folder / "examples" / split)
    return Dataset(dataset.folder)


def ordered(model: Gbdt, dataset: Dataset) -> float:
    """Share of pairs of a positive and a negative test example in the right order."""
    examples = dataset.examples("test")
    logit_N, label_N = model.predict(dataset, examples)[:, 0], examples.label_NT[:, 0]
    positive_N1, negative_N = logit_N[label_N > 0][:, None], logit_N[label_N == 0]
    return float(((positive_N1 > negative_N) + 0.5 * (positive_N1 == negative_N)).mean())


def test_the_items_of_a_user_are_ranked_first(dataset: Dataset) -> None:
    assert ordered(fitted(dataset), dataset) > 0.7


def test_boosting_stops_when_validation_does_not_improve(dataset: Dataset) -> None:
    impatient = fitted(dataset, patience=2, rounds=400).trees_T[0].num_trees()
    assert 0 < impatient < 400


def test_without_validation_all_rounds_are_boosted(dataset: Dataset) -> None:
    none = dataset.examples("validation").take(slice(0, 0))
    assert fitted(with_examples(dataset, "validation", none), rounds=15).trees_T[0].num_trees() == 15


def test_the_test_split_is_never_read(dataset: Dataset) -> None:
    before = fitted(dataset).trees_T[0].model_to_string()
    for path in (dataset.folder / "examples" / "test").iterdir():
        path.unlink()
    assert fitted(Dataset(dataset.folder)).trees_T[0].model_to_string() == before


def test_popularity_is_what_is_asked_about_in_training_and_the_mean_of_a_bucket(dataset: Dataset) -> None:
    number_V = dataset.catalogue.number_VF[FIRST_ROW:, 0]
    rare = FIRST_ROW + np.flatnonzero(number_V < dataset.vocabularies["item"].first_known)
    bucket = int(number_V[rare[0] - FIRST_ROW])
    members = int((number_V == bucket).sum())
    rows = np.array([FIRST_ROW] * 5 + [rare[0]] * (3 * members), np.int32)
    examples = dataset.examples("train").take(np.zeros(len(rows), np.int64))
    changed = with_examples(dataset, "train", replace(examples, row_N=rows))
    model = fitted(changed, leaf_examples=1)
    known = int(dataset.catalogue.number_VF[FIRST_ROW, 0])
    assert np.expm1(model.popularity_F[0][[known, bucket]]).tolist() == pytest.approx([5, 3])
    category = int(dataset.catalogue.number_VF[FIRST_ROW, 1])
    assert np.expm1(model.popularity_F[1][category]) >= 5


def test_popularity_does_not_look_at_labels(dataset: Dataset) -> None:
    before = fitted(dataset).popularity_F
    examples = dataset.examples("train")
    changed = with_examples(dataset, "train", replace(examples, label_NT=1 - examples.label_NT))
    after = fitted(changed).popularity_F
    assert all(np.array_equal(left, right) for left, right in zip(before, after, strict=True))


@pytest.mark.parametrize(("limit", "expected"), [(0, []), (20, [1]), (1000, [0, 1])])
def test_fields_with_few_values_are_inputs_themselves(dataset: Dataset, limit: int, expected: list[int]) -> None:
    model = fitted(dataset, categories=limit)
    assert model._few == expected
    number_NF = dataset.catalogue.number_VF[dataset.examples("test").row_N]
    if expected:
        columns = model._inputs(dataset, dataset.examples("test"), model.vectors, SPLITS)[:, -len(expected) :]
        assert np.array_equal(columns, number_NF[:, expected])


def test_each_task_has_its_own_trees(dataset: Dataset) -> None:
    inputs = replace(dataset.inputs, tasks=("click", "buy"))
    for split in SPLITS:
        examples = dataset.examples(split)
        buys = np.where(np.arange(len(examples)) % 3 == 0, examples.label_NT[:, 0], 0)
        both = np.stack([examples.label_NT[:, 0], buys], axis=1).astype(np.float32)
        changed = with_examples(dataset, split, replace(examples, label_NT=both))
    model = Gbdt(inputs, GbdtConfig(**SMALL))
    model.fit(changed)
    click_N, buy_N = model.predict(changed, changed.examples("test")).T
    assert click_N.mean() > buy_N.mean()


def test_without_lightgbm_the_extra_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r"gbdt.*lightgbm.*lifelong\[gbdt\]"):
        fitted(dataset)


def test_more_negatives_weigh_as_much_together_as_the_rule_says(dataset: Dataset) -> None:
    model = Gbdt(dataset.inputs, GbdtConfig(**SMALL, negatives=4))
    examples, weight_N = model._examples(dataset, 0)
    label_N = np.asarray(examples.label_NT[:, 0])
    assert weight_N is not None
    assert (label_N == 0).sum() == 4 * (label_N == 1).sum()
    assert weight_N[label_N == 0].sum() == pytest.approx(weight_N[label_N == 1].sum())
    model.fit(dataset)
    probability_N = 1 / (1 + np.exp(-model.predict(dataset, examples)[:, 0]))
    assert np.average(probability_N, weights=weight_N) == pytest.approx(0.5, abs=0.05)


def test_later_examples_have_negatives_of_their_own_period(dataset: Dataset) -> None:
    examples, _ = Gbdt(dataset.inputs, GbdtConfig(later=0.3))._examples(dataset, 0)
    times = np.sort(dataset.examples("train").time_N)
    assert examples.time_N.min() >= times[int(0.7 * len(times)) - 1]
    assert len(examples) == pytest.approx(2 * 0.3 * len(times), rel=0.1)
    histories, first = dataset.histories, examples.time_N.min()
    inside = (histories.time_N >= first) & (histories.time_N < dataset.manifest.cut_times[0])
    assert set(examples.row_N[examples.label_NT[:, 0] == 0]) <= set(histories.row_N[inside])


def test_vectors_that_training_examples_see_are_not_made_of_their_own_targets(dataset: Dataset) -> None:
    class Watched(Gbdt):
        def _inputs(self, dataset: Dataset, examples: Examples, vectors: Any, known: Any) -> Any:
            seen.append((int(examples.time_N.min()), vectors))
            return super()._inputs(dataset, examples, vectors, known)

    def vectors_seen(dataset: Dataset) -> tuple[Any, Any]:
        seen.clear()
        Watched(dataset.inputs, GbdtConfig(**{**SMALL, "rounds": 1, "vectors": 8})).fit(dataset)
        (first, of_training), (_, of_validation) = seen
        assert first >= since
        return of_training["item"], of_validation["item"]

    seen: list[tuple[int, Any]] = []
    since = int(np.quantile(dataset.examples("train").time_N, 0.5, method="lower"))
    before = vectors_seen(dataset)
    # What users had from the first of these targets on, the targets among it, becomes something else.
    histories = dataset.histories
    rows = np.where(np.asarray(histories.time_N) >= since, np.roll(histories.row_N, 7), histories.row_N)
    dataset.__dict__["histories"] = replace(histories, row_N=rows)
    after = vectors_seen(dataset)
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def test_log_odds_of_the_week_that_training_examples_see_end_before_them(dataset: Dataset) -> None:
    model = Gbdt(dataset.inputs, GbdtConfig(**SMALL, families=("match",)))
    model.shared = {}
    since = model._since(dataset)
    early, whole = (model._made(dataset, 0, before=before) for before in (since, None))
    for name, table_VP in week_odds(dataset, since).items():
        assert np.array_equal(early[name], table_VP)
        assert not np.array_equal(whole[name], table_VP)


def test_a_saved_model_reads_the_fields_that_it_was_fitted_with(dataset: Dataset, tmp_path: Path) -> None:
    model = fitted(dataset, families=("variety", "match", "likeness"))  # type: ignore[arg-type]
    model.save(tmp_path)
    loaded, examples = Gbdt.load(tmp_path), dataset.examples("test")
    assert loaded.further == model.further and loaded.further.kind == 1
    assert np.array_equal(loaded.predict(dataset, examples), model.predict(dataset, examples))


def test_negatives_cannot_be_asked_for_where_labels_are_logged(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="no negatives are drawn"):
        fitted(logged(dataset), negatives=2)


def logged(dataset: Dataset) -> Dataset:
    """The dataset with labels of its own: an item is answered well or badly, whoever answers it."""
    for split in SPLITS:
        examples = dataset.examples(split)
        label_NT = (examples.row_N % 2 == 0).astype(np.float32)[:, None]
        with_examples(dataset, split, replace(examples, label_NT=label_NT))
    changed = Dataset(dataset.folder)
    rule = changed.manifest.negatives.model_copy(update={"rule": "none"})
    changed.manifest = changed.manifest.model_copy(update={"negatives": rule})
    return changed


def test_items_too_many_to_be_categories_are_told_apart_by_their_mean_label(dataset: Dataset) -> None:
    changed = logged(dataset)
    assert ordered(fitted(changed, categories=0, vectors=0), changed) > 0.9


def test_the_vault_of_a_given_split_is_scored_with_the_answers_of_the_rest(make: Make) -> None:
    events = [(f"u{user}", f"i{(user * 7 + at) % 9}", at) for user in range(40) for at in range(6)]
    shown = [
        (f"u{user}", f"i{user % 9}", 6, float(user % 3 > 0), "test" if user > 19 else "train") for user in range(40)
    ]
    dataset = make(events, impressions=shown, protocol="given", time_unit="ordinal", settings={"vault": 0.1})
    model = fitted(dataset, rounds=2)
    assert np.isfinite(model.predict(dataset.vault, dataset.vault.examples("vault"))).all()
