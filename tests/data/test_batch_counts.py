"""Exact counts in batches against a loop over the events of each user."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_counts import naive_row

from lifelong.config import TrainSettings
from lifelong.dataset.folder import Dataset
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.batches import TrainingBatches, evaluation_batches, training_batches
from lifelong.offline.data.counts import NEVER, count_input_names
from lifelong.testing.datasets import tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("counted") / "data", num_users=12)


def naive_inputs(dataset: Dataset, user: int, row: int, time: int, position: int) -> list[float]:
    """Logs and flags of the counts that a loop finds."""
    found = naive_row(dataset, user, row, time, position)
    logs = [0.0 if value == NEVER else float(np.log1p(value)) for value in found.values()]
    return logs + [float(value > 0) for name, value in found.items() if ".count" in name]


def targets_of(batch: Batch) -> Iterator[tuple[int, int, int, int]]:
    """Batch row, user, place of the target and its time, of every real target."""
    for place, target in batch.mask_BC.nonzero().tolist():
        yield place, int(batch.user_B[place]) - 2, target, int(batch.target_time_BC[place, target])


def row_of(dataset: Dataset, number_F: list[int]) -> int | None:
    """The catalogue row with these numbers, if it is the only one."""
    rows = np.flatnonzero((np.asarray(dataset.catalogue.number_VF) == number_F).all(axis=1))
    return int(rows[0]) if len(rows) == 1 else None


def test_training_batches_have_the_counts_of_the_whole_history_of_positives_and_negatives(dataset: Dataset) -> None:
    settings = TrainSettings(hide_items=0, hide_fields=0, max_history=8, max_targets=5, batch_events=64)
    names, checked, behind_cut = count_input_names(dataset.schema.item_fields, timed=True), [0, 0], 0
    for _, batch in training_batches(TrainingBatches(dataset, settings, phase=2, counts=True), epoch=0):
        assert batch.count_BCK.shape == (*batch.mask_BC.shape, len(names))
        assert not batch.count_BCK[~batch.mask_BC].any()
        for place, user, target, time in targets_of(batch):
            row = row_of(dataset, batch.target_BCF[place, target].tolist())
            if row is None:
                continue
            # All events of earlier moments, however few of them the window holds.
            position = int((dataset.histories.time_N[dataset.histories.of(user)] < time).sum())
            expected = naive_inputs(dataset, user, row, time, position)
            np.testing.assert_allclose(batch.count_BCK[place, target].numpy(), expected, rtol=1e-4, atol=1e-5)
            checked[int(batch.label_BCT[place, target, 0])] += 1
            behind_cut += position > int(batch.position_BC[place, target])
    assert min(checked) > 100 and behind_cut > 100


def test_evaluation_batches_have_the_counts_before_the_position_that_each_example_is_given(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    # As with a delay: younger events are not visible.
    examples = replace(examples, position_N=np.maximum(np.asarray(examples.position_N) - 3, 0))
    seen = 0
    for batch in evaluation_batches(dataset, examples, max_events=200, counts=True):
        for place, _, target, _ in targets_of(batch):
            at = int(batch.example_BC[place, target])
            one = [int(part[at]) for part in (examples.user_N, examples.row_N, examples.time_N, examples.position_N)]
            expected = naive_inputs(dataset, *one)
            np.testing.assert_allclose(batch.count_BCK[place, target].numpy(), expected, rtol=1e-4, atol=1e-5)
            seen += 1
    assert seen == len(examples)


def test_nothing_of_the_targets_own_moment_or_later_is_counted(dataset: Dataset) -> None:
    examples = dataset.examples("test")
    at = int(np.argmax(examples.position_N))
    one = examples.take(np.array([at]))
    events = dataset.histories.of(int(one.user_N[0]))
    cut = events.start + int(one.position_N[0])

    def counts(changed: slice) -> list[float]:
        """Of the target, where its own item stands in place of these events."""
        row_N = np.array(dataset.histories.row_N)
        row_N[changed] = one.row_N[0]
        other = copy.copy(dataset)
        other.__dict__["histories"] = replace(dataset.histories, row_N=row_N)
        return next(evaluation_batches(other, one, counts=True)).count_BCK[0, 0].tolist()

    unchanged = counts(slice(0, 0))
    assert events.stop > cut
    assert counts(slice(cut, events.stop)) == unchanged
    assert counts(slice(cut - 1, cut)) != unchanged


def test_batches_have_no_counts_that_nobody_asked_for(dataset: Dataset) -> None:
    for batch in evaluation_batches(dataset, dataset.examples("test")):
        assert batch.count_BCK.shape == (*batch.mask_BC.shape, 0)


def test_a_log_without_times_has_counts_without_seconds(dataset: Dataset, tmp_path: Path) -> None:
    ordinal = copy.copy(dataset)
    schema = dataset.schema.model_copy(update={"time_unit": "ordinal"})
    ordinal.__dict__["manifest"] = dataset.manifest.model_copy(update={"dataset_schema": schema})
    names = count_input_names(schema.item_fields, timed=False)
    batch = next(evaluation_batches(ordinal, dataset.examples("test"), counts=True))
    assert batch.count_BCK.shape[-1] == len(names) and not any("seconds" in name for name in names)
