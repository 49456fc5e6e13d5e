"""What every `FittedModel` must do; part of `model_contract`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lifelong.dataset.examples import Examples, Split
from lifelong.dataset.folder import Dataset
from lifelong.offline.models import build
from lifelong.offline.models.base import FittedModel
from lifelong.testing.case import ModelCase, checks_in
from lifelong.testing.datasets import tiny_dataset


@contextlib.contextmanager
def _fitted(case: ModelCase) -> Iterator[tuple[FittedModel, Dataset]]:
    """The fitted model and its dataset, which is deleted at the end."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = tiny_dataset(Path(folder) / "data")
        model = build(case.name, dataset.inputs, case.config)
        assert isinstance(model, FittedModel)
        model.fit(dataset, seed=0)
        yield model, dataset


def check_logits_have_one_row_per_example(case: ModelCase) -> None:
    """Finite float64 logits `[N, T]`, for examples of every split and for none at all."""
    with _fitted(case) as (model, dataset):
        for examples in (
            dataset.examples("validation"),
            dataset.examples("test"),
            dataset.examples("test").take(slice(0, 0)),
        ):
            logit_NT = model.predict(dataset, examples)
            assert logit_NT.shape == (len(examples), len(dataset.inputs.tasks)) and logit_NT.dtype == np.float64
            assert np.isfinite(logit_NT).all()


def check_fit_is_repeatable(case: ModelCase) -> None:
    """The same seed gives the same logits, bit for bit."""
    with _fitted(case) as (model, dataset):
        examples = dataset.examples("test")
        before = model.predict(dataset, examples)
        again = build(case.name, dataset.inputs, case.config)
        assert isinstance(again, FittedModel)
        again.fit(dataset, seed=0)
        assert np.array_equal(again.predict(dataset, examples), before)


def check_saved_model_predicts_the_same(case: ModelCase) -> None:
    """`save` and `load`; no pickle among the files."""
    with _fitted(case) as (model, dataset):
        folder, examples = dataset.folder.parent / "model", dataset.examples("test")
        model.save(folder)
        assert np.array_equal(type(model).load(folder).predict(dataset, examples), model.predict(dataset, examples))
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".npy", ".txt"}, f"files of other kinds: {suffixes}"


def check_order_of_examples_changes_nothing(case: ModelCase) -> None:
    """Examples in another order have their logits in that order."""
    with _fitted(case) as (model, dataset):
        examples = dataset.examples("test")
        order = np.random.default_rng(0).permutation(len(examples))
        whole = model.predict(dataset, examples)
        assert np.array_equal(model.predict(dataset, examples.take(order)), whole[order])


def check_events_behind_a_target_change_nothing(case: ModelCase) -> None:
    """Other items at and after the positions of all examples: the same logits."""
    with _fitted(case) as (model, dataset):
        examples = dataset.examples("test")
        before = model.predict(dataset, examples)
        histories = dataset.histories
        row_N = np.array(histories.row_N)
        first_U = np.full(histories.num_users, histories.num_events)
        # `at`, since a user may have several examples: by plain indexing only one of them would count.
        np.minimum.at(first_U, examples.user_N, histories.offset_U[examples.user_N] + examples.position_N)
        for user, first in enumerate(first_U):
            row_N[first : histories.offset_U[user + 1]] = 2
        asked = first_U[examples.user_N] == histories.offset_U[examples.user_N] + examples.position_N
        # Where the cached property looks: the files stay as they are.
        dataset.__dict__["histories"] = replace(histories, row_N=row_N)
        assert asked.any()
        assert np.array_equal(model.predict(dataset, examples)[asked], before[asked])


def check_test_period_is_not_fitted(case: ModelCase) -> None:
    """Events from the second cut on do not reach the fit, and without validation targets none from the first on."""
    with _fitted(case) as (model, dataset):
        for cut, kind in ((1, Dataset), (0, _NoValidation)):
            examples, histories = dataset.examples("train"), dataset.histories
            late_N = np.asarray(histories.time_N) >= dataset.manifest.cut_times[cut]
            usual, changed = kind(dataset.folder), kind(dataset.folder)
            changed.__dict__["histories"] = replace(histories, row_N=np.where(late_N, 2, histories.row_N))
            model.fit(usual, seed=0)
            before = model.predict(dataset, examples)
            model.fit(changed, seed=0)
            assert np.array_equal(model.predict(changed, examples), before)


class _NoValidation(Dataset):
    """Validation may decide when a fit ends: without its targets, nothing of its period is left to look at."""

    def examples(self, split: Split) -> Examples:
        examples = super().examples(split)
        return examples.take(np.arange(0)) if split == "validation" else examples


def check_empty_history_and_unknown_item_work(case: ModelCase) -> None:
    """A target at position 0, and the catalogue's row of an unknown item: finite logits."""
    with _fitted(case) as (model, dataset):
        examples = dataset.examples("test")
        first = replace(examples, position_N=np.zeros_like(examples.position_N))
        unknown = replace(examples, row_N=np.ones_like(examples.row_N))
        for changed in (first, unknown):
            assert np.isfinite(model.predict(dataset, changed)).all()


FITTED_CHECKS = checks_in(globals())
