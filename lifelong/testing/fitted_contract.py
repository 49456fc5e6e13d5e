"""What every `FittedModel` must do; part of `model_contract`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifelong.data.dataset import Dataset
from lifelong.data.examples import Examples
from lifelong.models.base import FittedModel
from lifelong.testing.datasets import tiny_dataset

if TYPE_CHECKING:
    from lifelong.testing.model_contract import ModelCase


def _fitted(case: ModelCase, folder: Path, *, seed: int = 0) -> tuple[FittedModel, Dataset]:
    from lifelong.models import build

    dataset = Dataset(folder / "data") if (folder / "data").exists() else tiny_dataset(folder / "data")
    model = build(case.name, dataset.inputs, case.config)
    assert isinstance(model, FittedModel)
    model.fit(dataset, seed=seed)
    return model, dataset


def check_logits_have_one_row_per_example(case: ModelCase) -> None:
    """Finite float64 logits `[N, T]`, for examples of every split and for none at all."""
    with tempfile.TemporaryDirectory() as folder:
        model, dataset = _fitted(case, Path(folder))
        for examples in (dataset.examples("validation"), dataset.examples("test"), _none(dataset)):
            logit_NT = model.predict(dataset, examples)
            assert logit_NT.shape == (len(examples), len(dataset.inputs.tasks)) and logit_NT.dtype == np.float64
            assert np.isfinite(logit_NT).all()


def check_fit_is_repeatable(case: ModelCase) -> None:
    """The same seed gives the same logits, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        logits = []
        for _ in range(2):
            model, dataset = _fitted(case, Path(folder), seed=3)
            logits.append(model.predict(dataset, dataset.examples("test")))
        assert np.array_equal(logits[0], logits[1])


def check_saved_model_predicts_the_same(case: ModelCase) -> None:
    """`save` and `load`; no pickle among the files."""
    with tempfile.TemporaryDirectory() as folder:
        model, dataset = _fitted(case, Path(folder))
        model.save(Path(folder) / "model")
        loaded = type(model).load(Path(folder) / "model")
        examples = dataset.examples("test")
        assert np.array_equal(loaded.predict(dataset, examples), model.predict(dataset, examples))
        suffixes = {path.suffix for path in (Path(folder) / "model").rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".npy", ".txt"}, f"files of other kinds: {suffixes}"


def check_order_of_examples_changes_nothing(case: ModelCase) -> None:
    """Examples in another order have their logits in that order."""
    with tempfile.TemporaryDirectory() as folder:
        model, dataset = _fitted(case, Path(folder))
        examples = dataset.examples("test")
        order = np.random.default_rng(0).permutation(len(examples))
        whole = model.predict(dataset, examples)
        assert np.array_equal(model.predict(dataset, examples.take(order)), whole[order])


def check_events_behind_a_target_change_nothing(case: ModelCase) -> None:
    """Other items at and after the positions of all examples: the same logits."""
    with tempfile.TemporaryDirectory() as folder:
        model, dataset = _fitted(case, Path(folder))
        examples = dataset.examples("test")
        before = model.predict(dataset, examples)
        histories = dataset.histories
        row_N = np.array(histories.row_N)
        first_U = np.full(histories.num_users, histories.num_events)
        np.minimum.at(first_U, examples.user_N, histories.offset_U[examples.user_N] + examples.position_N)
        for user, first in enumerate(first_U):
            row_N[first : histories.offset_U[user + 1]] = 2
        asked = first_U[examples.user_N] == histories.offset_U[examples.user_N] + examples.position_N
        dataset.__dict__["histories"] = replace(histories, row_N=row_N)
        assert asked.any()
        assert np.array_equal(model.predict(dataset, examples)[asked], before[asked])


def check_test_period_is_not_fitted(case: ModelCase) -> None:
    """Events from the first cut on do not reach the fit."""
    with tempfile.TemporaryDirectory() as folder:
        model, dataset = _fitted(case, Path(folder))
        examples = dataset.examples("train")
        before = model.predict(dataset, examples)
        histories = dataset.histories
        late_N = np.asarray(histories.time_N) >= dataset.manifest.cut_times[0]
        changed = Dataset(dataset.folder)
        changed.__dict__["histories"] = replace(histories, row_N=np.where(late_N, 2, histories.row_N))
        model.fit(changed, seed=0)
        assert np.array_equal(model.predict(changed, examples), before)


def check_empty_history_and_unknown_item_work(case: ModelCase) -> None:
    """A target at position 0, and the catalogue's row of an unknown item: finite logits."""
    with tempfile.TemporaryDirectory() as folder:
        model, dataset = _fitted(case, Path(folder))
        examples = dataset.examples("test")
        first = replace(examples, position_N=np.zeros_like(examples.position_N))
        unknown = replace(examples, row_N=np.ones_like(examples.row_N))
        for changed in (first, unknown):
            assert np.isfinite(model.predict(dataset, changed)).all()


def _none(dataset: Dataset) -> Examples:
    return dataset.examples("test").take(slice(0, 0))


FITTED_CHECKS: list[Callable[[ModelCase], None]] = [
    check_logits_have_one_row_per_example,
    check_fit_is_repeatable,
    check_saved_model_predicts_the_same,
    check_order_of_examples_changes_nothing,
    check_events_behind_a_target_change_nothing,
    check_test_period_is_not_fitted,
    check_empty_history_and_unknown_item_work,
]
