"""Settings against the model, the dataset against both."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.config import load_config
from lifelong.dataset.examples import SPLITS, Examples, Split
from lifelong.dataset.folder import Dataset, NegativeRule
from lifelong.errors import ConfigError, MismatchError
from lifelong.offline.data.cooccurrence import aligned_vectors, cooccurrence_vectors
from lifelong.offline.models import MODELS, check_config
from lifelong.offline.models.base import Model
from lifelong.offline.preparation.prepare import prepare
from lifelong.offline.training.settings import build_model, initialised, with_recipe
from lifelong.testing.datasets import tiny_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return tiny_dataset(tmp_path / "tiny", num_users=6)


def change(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, split: Split, examples: Examples) -> None:
    kept = {name: dataset.examples(name) for name in SPLITS} | {split: examples}
    monkeypatch.setattr(dataset, "examples", kept.__getitem__)


def test_problems_of_both_sections_come_together() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["train.seed=-1", "model.widht=3", "model.hops=0"], check_model=partial(check_config, "hpmn"))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_built_for_a_dataset(name: str, dataset: Dataset) -> None:
    assert build_model(dataset, name, {}).requirements(dataset) == []


@pytest.mark.parametrize(
    ("split", "text"), [("train", "training split has no"), ("validation", "validation split has")]
)
def test_empty_split_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, split: Split, text: str) -> None:
    change(dataset, monkeypatch, split, dataset.examples(split).take(slice(0)))
    with pytest.raises(MismatchError, match=text):
        build_model(dataset, "dnn", {})


def test_fitted_model_needs_no_validation(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    change(dataset, monkeypatch, "validation", dataset.examples("validation").take(slice(0)))
    build_model(dataset, "popularity", {})


def test_labels_of_one_class_are_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = dataset.examples("validation")
    change(dataset, monkeypatch, "validation", replace(validation, label_NT=np.zeros_like(validation.label_NT)))
    manifest = dataset.manifest.model_copy(update={"negatives": NegativeRule(rule="none")})
    monkeypatch.setattr(dataset, "manifest", manifest)
    with pytest.raises(MismatchError, match=r"training examples all have the same label.*validation examples all have"):
        build_model(dataset, "dnn", {})


def test_wrong_number_of_labels_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    train = dataset.examples("train")
    change(dataset, monkeypatch, "train", replace(train, label_NT=np.repeat(train.label_NT, 2, axis=1)))
    with pytest.raises(MismatchError, match="2 labels for 1 tasks"):
        build_model(dataset, "dnn", {})


def test_what_the_model_misses_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS["dnn"], "requirements", lambda self, dataset: ["this dataset has no event types"])
    with pytest.raises(MismatchError, match="dnn cannot be trained on this dataset: this dataset has no event types"):
        build_model(dataset, "dnn", {})


def test_what_nobody_names_is_the_models_recipe_and_what_is_named_stays(dataset: Dataset) -> None:
    given = load_config(None, ["train.negatives=1", "train.schedule=constant", "train.seed=4"])
    found = with_recipe(given, "tally", dataset).train
    assert (found.negatives, found.schedule, found.seed) == (1, "constant", 4)
    assert (found.initial_vectors, found.max_history, found.max_targets) == ("crossfitted", 8192, 128)
    assert with_recipe(given, "hpmn", dataset) == given
    assert with_recipe(given, "popularity", dataset) == given


@pytest.mark.parametrize(
    ("targets", "epochs"), [(50_000, 4), (100_000, 3), (240_000, 2), (2_500_000, 2), (2_500_001, 1)]
)
def test_a_recipe_of_few_epochs_has_as_many_as_a_log_of_this_size_takes(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, targets: int, epochs: int
) -> None:
    # Three negatives for each target make four examples of it.
    whole = dataset.examples("train")
    change(dataset, monkeypatch, "train", replace(whole, user_N=np.broadcast_to(whole.user_N[:1], targets)))
    assert with_recipe(load_config(), "tally", dataset).train.max_epochs == epochs
    for end in ("max_epochs=9", "max_examples=70", "max_minutes=1"):
        named = load_config(None, [f"train.{end}"])
        assert with_recipe(named, "tally", dataset).train.max_epochs == named.train.max_epochs


@pytest.mark.parametrize(
    ("targets", "named", "batch"),
    [
        (50_000, "seed=0", 512),
        (400_000, "seed=0", 800),
        (2_500_000, "seed=0", 2_048),
        (2_500_000, "max_examples=4000000", 1_000),
        (400_000, "max_epochs=4", 1_600),
        (50_000, "batch_targets=4096", 4_096),
    ],
)
def test_batches_of_a_recipe_are_smaller_on_a_small_log(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, targets: int, named: str, batch: int
) -> None:
    whole = dataset.examples("train")
    change(dataset, monkeypatch, "train", replace(whole, user_N=np.broadcast_to(whole.user_N[:1], targets)))
    found = with_recipe(load_config(None, [f"train.{named}"]), "tally", dataset).train
    assert found.batch_targets == batch
    # Eight events for each target, as without it; sizes that are named change nothing else.
    assert found.batch_events == (8 * batch if batch < 2_048 else 16_384)


@pytest.mark.parametrize("name", ["tally", "din"])
def test_each_group_of_users_begins_with_embeddings_that_the_others_made(tmp_path: Path, name: str) -> None:
    dataset = tiny_dataset(tmp_path / "data", num_users=40, num_items=60, mean_events=30)
    model, settings = build_model(dataset, name, {}), load_config(None, ["train.initial_vectors=crossfitted"]).train
    assert isinstance(model, Model)
    initialised(model, dataset, settings, say=lambda _: None)
    whole = cooccurrence_vectors(dataset, model.vector_width, seed=settings.seed)
    apart = aligned_vectors(dataset, whole, ["item"], seed=settings.seed)
    wanted = model.vector_spread * np.concatenate([part["item"] - whole["item"] for part in apart])
    assert np.abs(wanted).max() > 0.1
    plain = build_model(dataset, name, {})
    assert isinstance(plain, Model)
    initialised(plain, dataset, load_config(None, ["train.initial_vectors=cooccurrence"]).train, say=lambda _: None)
    assert not any(found.startswith("embed.difference") for found, _ in plain.named_buffers())
    # Kept in half precision.
    assert model.embed.get_buffer("difference_0").numpy() == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_of_logged_labels_a_recipe_draws_no_negatives(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = dataset.manifest.model_copy(update={"negatives": NegativeRule(rule="none")})
    monkeypatch.setattr(dataset, "manifest", manifest)
    assert with_recipe(load_config(), "tally", dataset).train.negatives is None


@pytest.mark.parametrize("name", ["tally", "din"])
def test_a_number_among_the_first_fields_has_no_embeddings_of_groups(tmp_path: Path, name: str) -> None:
    pandas = pytest.importorskip("pandas")
    rows = range(400)
    log = pandas.DataFrame({"user": [f"u{at % 9}" for at in rows], "item": [f"i{at * 7 % 11}" for at in rows]})
    log["price"], log["brand"], log["time"] = log["item"].str[1:] + ".5", "b" + log["item"].str[-1], rows
    fields = {"fields": ["price", "brand"], "numbers": ["price"], "min_count": 1, "time_unit": "s"}
    dataset = prepare(log, out=tmp_path / "data", progress=lambda _: None, **fields)
    model, settings = build_model(dataset, name, {}), load_config(None, ["train.initial_vectors=crossfitted"]).train
    assert isinstance(model, Model)
    batches = initialised(model.train(), dataset, settings, say=lambda _: None)
    assert torch.isfinite(model(batches.make(batches.epoch(0)[0], 0, 0)).logit_BCT).all()
    # Of the item and of the brand, which is the next field that is no number.
    assert len([found for found, _ in model.embed.named_buffers() if found.startswith("difference")]) == 2
