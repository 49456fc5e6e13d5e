"""Writing the examples of all splits: positives, negatives that are drawn once, coin flips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import ArrayWriter
from lifelong.data.catalogue import Catalogue
from lifelong.data.dataset import NegativeRule
from lifelong.data.examples import SPLITS, Examples, Split
from lifelong.data.histories import Histories
from lifelong.data.negatives import NegativeSampler, row_counts
from lifelong.data.protocols import Plan

COLUMNS = {"user": np.int32, "row": np.int32, "time": np.int64, "position": np.int32, "label": np.float32}


def write_examples(
    folder: Path,
    plan: Plan,
    rule: NegativeRule,
    histories: Histories,
    catalogue: Catalogue,
    progress: Callable[[str], None],
) -> Mapping[str, int]:
    """Write the examples of all splits, with the negatives that are drawn once.

    Returns:
        How many negatives were drawn, and drawn again.
    """
    splits = [split for split in SPLITS if rule.stored or (rule.drawn_in_training and split != "train")]
    samplers = {split: _sampler(plan, rule, histories, catalogue, split) for split in splits}
    # One stream of random numbers per split, so that a split's draws do not depend on the size of another.
    generators = {split: np.random.default_rng([rule.seed, place]) for place, split in enumerate(SPLITS)}
    progress("writing examples" + (f" with {rule.rule} negatives" if samplers else ""))
    written = 0
    with ExitStack() as stack:
        writers = {split: stack.enter_context(_ExampleWriter(folder / "examples" / split)) for split in SPLITS}
        for chunk in plan.targets():
            for split, examples in chunk.items():
                sampler = samplers.get(split)
                if sampler is not None and rule.stored:
                    examples = flip(examples, sampler, generators[split])
                elif sampler is not None:
                    examples = add_negatives(examples, sampler, generators[split])
                writers[split].append(examples)
                written += len(examples)
            progress(f"writing examples: {written:,}")
    return dict(sum((sampler.counted for sampler in samplers.values()), Counter()))


def add_negatives(examples: Examples, sampler: NegativeSampler, rng: np.random.Generator) -> Examples:
    """Each positive, then its negatives with label 0 for every task."""
    row_NR = np.column_stack([examples.row_N, sampler.draw(examples, rng)])
    each = np.repeat(np.arange(len(examples)), row_NR.shape[1])
    label_NT = np.zeros((row_NR.size, examples.label_NT.shape[1]), np.float32)
    label_NT[:: row_NR.shape[1]] = examples.label_NT
    return Examples(
        examples.user_N[each],
        row_NR.reshape(-1).astype(np.int32),
        examples.time_N[each],
        examples.position_N[each],
        label_NT,
    )


def flip(examples: Examples, sampler: NegativeSampler, rng: np.random.Generator) -> Examples:
    """A coin per example: heads, it stays (label 1); tails, another item stands in its place (label 0)."""
    heads_N = rng.integers(0, 2, len(examples)).astype(bool)
    row_N = np.where(heads_N, examples.row_N, sampler.draw(examples, rng)[:, 0]).astype(np.int32)
    label_NT = examples.label_NT * heads_N[:, None].astype(np.float32)
    return Examples(examples.user_N, row_N, examples.time_N, examples.position_N, label_NT)


def _sampler(
    plan: Plan, rule: NegativeRule, histories: Histories, catalogue: Catalogue, split: Split
) -> NegativeSampler:
    everything = rule.stored and rule.rule == "uniform"
    place = SPLITS.index(split)
    keep = None if everything else lambda user, time: plan.split_of(user, time) == place
    count_V = row_counts(histories, len(catalogue), keep)
    return NegativeSampler.over(histories, count_V, rule, catalogue)


class _ExampleWriter:
    """Appends examples to the files of one split."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._writers: dict[str, ArrayWriter] = {}

    def __enter__(self) -> _ExampleWriter:
        return self

    def append(self, examples: Examples) -> None:
        """Write examples behind the ones that are there."""
        parts: list[npt.NDArray[Any]] = [examples.user_N, examples.row_N, examples.time_N]
        parts += [examples.position_N, examples.label_NT]
        if not self._writers:
            for (name, dtype), values in zip(COLUMNS.items(), parts, strict=True):
                width = values.shape[1] if values.ndim == 2 else 0
                writer = ArrayWriter(self._folder / f"{name}.npy", dtype, width=width)
                self._writers[name] = self._stack.enter_context(writer)
        for writer, values in zip(self._writers.values(), parts, strict=True):
            writer.append(values)

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
