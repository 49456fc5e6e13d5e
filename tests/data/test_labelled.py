from pathlib import Path

import numpy as np

from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import labelled_training_examples
from lifelong.testing.datasets import tiny_dataset


def test_every_positive_has_a_negative_of_the_same_user_time_and_position(dataset: Dataset) -> None:
    positives, both = dataset.examples("train"), labelled_training_examples(dataset, seed=0)
    half = len(positives)
    assert len(both) == 2 * half
    assert both.label_NT[:half].all()
    assert not both.label_NT[half:].any()
    for name in ("user_N", "time_N", "position_N"):
        assert np.array_equal(getattr(both, name)[half:], getattr(positives, name))


def test_a_limit_keeps_whole_pairs_of_positives_drawn_at_random(dataset: Dataset) -> None:
    few = labelled_training_examples(dataset, seed=0, limit=100)
    assert len(few) == 100
    assert few.label_NT.sum() == 50
    assert not np.array_equal(few.row_N, labelled_training_examples(dataset, seed=1, limit=100).row_N)


def test_a_limit_below_one_pair_keeps_one_and_one_above_all_changes_nothing(dataset: Dataset) -> None:
    every = labelled_training_examples(dataset, seed=0)
    assert len(labelled_training_examples(dataset, seed=0, limit=1)) == 2
    for limit in (len(every), len(every) + 1, 10 * len(every)):
        limited = labelled_training_examples(dataset, seed=0, limit=limit)
        assert all(np.array_equal(*columns) for columns in zip(limited.columns(), every.columns(), strict=True))


def test_a_limit_never_takes_a_positive_twice(dataset: Dataset) -> None:
    half = len(dataset.examples("train"))
    few = labelled_training_examples(dataset, seed=0, limit=2 * (half - 1)).take(slice(0, half - 1))
    chosen = np.stack([few.user_N, few.row_N, few.time_N, few.position_N], axis=1)
    positives = dataset.examples("train")
    every = np.stack([positives.user_N, positives.row_N, positives.time_N, positives.position_N], axis=1)
    assert len(np.unique(chosen, axis=0)) >= len(np.unique(every, axis=0)) - 1


def test_logged_labels_are_taken_as_they_are(tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "data")
    rule = dataset.manifest.negatives.model_copy(update={"rule": "none"})
    dataset.manifest = dataset.manifest.model_copy(update={"negatives": rule})
    assert len(labelled_training_examples(dataset, seed=0)) == len(dataset.examples("train"))
    # A row is an example, and brings no negative with it.
    assert len(labelled_training_examples(dataset, seed=0, limit=50)) == 50
