"""Training examples with both labels at once, for models that are fitted and not trained pass by pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lifelong.data.examples import Examples

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset


def labelled_training_examples(dataset: Dataset, *, seed: int, limit: int | None = None) -> Examples:
    """Training examples, with drawn negatives where the split holds positives alone.

    Args:
        dataset: the prepared dataset.
        seed: of the choice and of the negatives.
        limit: at most about this many examples, chosen at random (all negatives of a chosen positive are kept).

    Returns:
        Examples; the negatives stand behind the positives, with label 0 for every task.
    """
    rng = np.random.default_rng(seed)
    examples = dataset.examples("train")
    rule = dataset.manifest.negatives
    sampled = rule.drawn_in_training
    most = len(examples) if limit is None else max(1, limit // (1 + rule.ratio) if sampled else limit)
    if len(examples) > most:
        examples = examples.take(np.sort(rng.choice(len(examples), most, replace=False)))
    return with_negatives(dataset, examples, rng) if sampled else examples


def with_negatives(dataset: Dataset, examples: Examples, rng: np.random.Generator) -> Examples:
    """Positives, and behind them the negatives drawn for each: same user, time and position, label 0."""
    from lifelong.data.negatives import NegativeSampler

    row_NR = NegativeSampler.open(dataset, "train").draw(examples, rng)
    ratio = row_NR.shape[1]

    def repeat(part: np.ndarray) -> np.ndarray:
        return np.concatenate([part, np.repeat(part, ratio, axis=0)])

    label_NT = np.concatenate(
        [examples.label_NT, np.zeros((row_NR.size, examples.label_NT.shape[1]), np.float32)], dtype=np.float32
    )
    row_N = np.concatenate([examples.row_N, row_NR.reshape(-1)], dtype=np.int32)
    return Examples(repeat(examples.user_N), row_N, repeat(examples.time_N), repeat(examples.position_N), label_NT)
