"""Writes the examples of all splits: positives, negatives that are drawn once, coin flips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from lifelong.dataset.arrays import ArrayWriter
from lifelong.dataset.catalogue import Catalogue
from lifelong.dataset.examples import COLUMNS, SPLITS, Examples, Split
from lifelong.dataset.folder import NegativeRule
from lifelong.dataset.histories import Histories
from lifelong.dataset.negatives import NegativeSampler, end_of, row_counts, with_negatives
from lifelong.offline.preparation.protocols import PERIODS, Plan
from lifelong.offline.preparation.settings import Job


def write_examples(
    job: Job,
    plan: Plan,
    rule: NegativeRule,
    histories: Histories,
    catalogue: Catalogue,
    *,
    splits: Sequence[Split] = SPLITS,
) -> Mapping[str, int]:
    """Write the examples of some splits, with the negatives that are drawn once.

    Returns:
        How many negatives were drawn and redrawn (`NegativeSampler.counted`).
    """
    drawn = [split for split in splits if rule.stored or (rule.drawn_in_training and split != "train")]
    samplers = {split: _sampler(plan, rule, histories, len(catalogue), split) for split in drawn}
    # One stream of random numbers per split, so that a split's draws do not depend on the size of another.
    generators = {split: np.random.default_rng([rule.seed, place]) for place, split in enumerate(PERIODS)}
    job.progress("writing examples" + (f" with {rule.rule} negatives" if samplers else ""))
    written, width = 0, len(job.tasks(rule))
    with ExitStack() as stack:
        writers = {
            split: [stack.enter_context(writer) for writer in _writers(job.folder / "examples" / split, width)]
            for split in splits
        }
        for chunk in plan.targets():
            for split in splits:
                examples, sampler = chunk[split], samplers.get(split)
                if sampler is not None and rule.stored:
                    examples = flip(examples, sampler, generators[split])
                elif sampler is not None:
                    examples = with_negatives(examples, sampler, generators[split])
                for writer, values in zip(writers[split], examples.columns(), strict=True):
                    writer.append(values)
                written += len(examples)
            job.progress(f"writing examples: {written:,}")
    return dict(sum((sampler.counted for sampler in samplers.values()), Counter()))


def flip(examples: Examples, sampler: NegativeSampler, rng: np.random.Generator) -> Examples:
    """Flip a coin per example: heads, it stays (label 1); tails, another item takes its place (label 0)."""
    heads_N = rng.integers(0, 2, len(examples)).astype(bool)
    row_N = np.where(heads_N, examples.row_N, sampler.draw(examples, rng)[:, 0]).astype(np.int32)
    label_NT = examples.label_NT * heads_N[:, None].astype(np.float32)
    return Examples(examples.user_N, row_N, examples.time_N, examples.position_N, label_NT)


def _sampler(plan: Plan, rule: NegativeRule, histories: Histories, rows: int, split: Split) -> NegativeSampler:
    everything = rule.stored and rule.rule == "uniform"
    place = PERIODS.index(split)
    keep = None if everything else lambda user, time: plan.split_of(user, time) == place
    count_V = row_counts(histories, rows, keep)
    return NegativeSampler.over(histories, count_V, rule, end=end_of(plan.cut_times, split))


def _writers(folder: Path, tasks: int) -> Iterator[ArrayWriter]:
    """One for each column of the examples."""
    for name, dtype in COLUMNS.items():
        yield ArrayWriter(folder / f"{name}.npy", dtype, width=tasks if name == "label" else 0)
