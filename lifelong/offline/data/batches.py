"""The batches of training and of evaluation: which passes share a batch, in which order.

    Examples --passes.py--> passes (user, window of her events, targets) --by length--> batches --gather.py--> Batch

Everything that is drawn depends on (seed, epoch, number of the batch) alone: batches can be made in any order, in
another thread, or again after a resume, and come out equal.

Shapes: P passes, B users of a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from lifelong.config import TrainSettings
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import NegativeSampler
from lifelong.dtypes import IntArray
from lifelong.errors import ConfigError
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.gather import Gather, Hiding
from lifelong.offline.data.passes import Cut, pack, plan_passes

T = TypeVar("T")
_END = object()
EVALUATION_EVENTS = 65_536
EVALUATION_TARGETS = 16_384
READ = 1000
"""Last events that models read by default: `recent`."""
AHEAD = 3
"""Batches that are prepared ahead."""
_LENGTH_JITTER = 0.1
"""Passes are sorted by length times 1 +- this, so that batches do not always hold the same users."""


class TrainingBatches:
    """The batches of every epoch of a run.

    Args:
        dataset: its training split is used.
        settings: sizes, shares and the seed.
        phase: the model's largest period, 1 if it has none.
        counts: whether the model is given exact counts.

    Attributes:
        cut: what the windows leave out of sight.
        examples_per_epoch: labelled targets of an epoch, negatives included.

    Raises:
        ConfigError: windows of `max_history` events are too short for `phase`, or `negatives` are asked for where none
            are drawn.
    """

    cut: Cut

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        *,
        phase: int = 1,
        counts: bool = False,
    ) -> None:
        examples = dataset.examples("train")
        passes = plan_passes(
            examples,
            max_targets=settings.max_targets,
            max_history=settings.max_history,
            phase=phase,
            overlap=_overlap(settings, phase),
        )
        self.cut, self._settings = passes.cut(), settings
        self._gather = Gather(dataset, examples, passes, counts=counts)
        self._fallback_V, self._fields = dataset.vocabularies["item"].fallback, len(dataset.schema.item_fields)
        rule = dataset.manifest.negatives
        self._sampler, self._weighs_like, ratio = None, rule.ratio, 0
        if rule.drawn_in_training:
            ratio = settings.negatives or rule.ratio
            self._sampler = NegativeSampler.open(dataset, "train", ratio=ratio)
        elif settings.negatives is not None:
            raise ConfigError(
                [f"train.negatives = {settings.negatives}, but no negatives are drawn in training on this dataset"],
                fix="leave train.negatives out",
            )
        self._group = 1 + ratio
        self.examples_per_epoch: int = len(examples) * self._group

    def epoch(self, epoch: int) -> list[IntArray]:
        """The batches of one epoch as numbers of passes, in the order of training."""
        # Seeded by the epoch and not taken from a running generator: a resumed run has to meet the same batches in the
        # same order.
        rng = np.random.default_rng([self._settings.seed, epoch])
        passes = self._gather.passes
        # Passes of about the same length share a batch, so that little is padding. The shuffle decides among equal
        # lengths, the jitter among near ones: a batch holds other users in every epoch.
        shuffled = rng.permutation(len(passes))
        jitter = rng.uniform(1 - _LENGTH_JITTER, 1 + _LENGTH_JITTER, len(passes))
        by_length = shuffled[np.argsort((passes.length_P * jitter)[shuffled], kind="stable")]
        limits = (self._settings.batch_events, self._settings.batch_targets)
        batches = pack(by_length, passes.length_P, passes.targets_P * self._group, limits)
        return [batches[number] for number in rng.permutation(len(batches))]

    def make(self, pass_B: IntArray, epoch: int, number: int) -> Batch:
        """One batch.

        Args:
            pass_B: its passes.
            epoch: number of the epoch.
            number: place of the batch in the epoch; what is drawn depends on it.
        """
        # Batches are made ahead of the step that trains on them. With a seed of its own, a batch does not depend on how
        # far ahead, or in which process, it was made.
        rng = np.random.default_rng([self._settings.seed, epoch, number])
        targets = self._gather.targets(pass_B)
        if self._sampler is not None:
            targets = targets.with_negatives(self._sampler, rng, weighs_like=self._weighs_like)
        return self._gather.batch(pass_B, targets, Hiding(self._fallback_V, self._fields, self._settings, rng))


def _overlap(settings: TrainSettings, phase: int) -> int:
    """Events that a target after a cut sees at least: as many as models read, where windows have room for them."""
    if settings.overlap is not None or settings.max_history is None:
        return settings.overlap or 0
    # A multiple of the phase, so that rounding up leaves room for new events.
    return min(READ, settings.max_history // 2) // phase * phase


def training_batches(
    batches: TrainingBatches, *, epoch: int, first: int = 0
) -> Generator[tuple[int, Batch], None, None]:
    """The batches of one epoch, prepared ahead in a thread.

    Args:
        batches: of the run.
        epoch: number of the epoch, from 0.
        first: where to start, for a resumed run.

    Yields:
        The batch's place in the epoch, and the batch.
    """
    plan = batches.epoch(epoch)
    yield from prefetched((number, batches.make(plan[number], epoch, number)) for number in range(first, len(plan)))


def evaluation_batches(
    dataset: Dataset,
    examples: Examples,
    *,
    max_events: int = EVALUATION_EVENTS,
    max_targets: int = EVALUATION_TARGETS,
    share: tuple[int, int] = (0, 1),
    counts: bool = False,
) -> Iterator[Batch]:
    """Every example once, each user's history from her first event; nothing is hidden or drawn.

    Args:
        dataset: where the histories are.
        examples: in any order; `example_BC` are places in it. Their positions say which events are visible, so events
            are delayed by giving earlier positions.
        max_events: padded events of a batch; a longer history has a batch of its own.
        max_targets: padded targets of a batch.
        share: (place, count): only every `count`-th batch, from the one at `place` on. The shares of all places hold
            together the batches of a call without `share`.
        counts: whether the model is given exact counts.
    """
    # A quarter of a batch's targets at most: a user with very many of them would otherwise fill batches alone, and
    # every other user of such a batch would be padded to her number.
    most = max(1, max_targets // 4)
    passes = plan_passes(examples, max_targets=most)
    gather = Gather(dataset, examples, passes, counts=counts)
    # Stable, so that the plan does not depend on how a machine sorts equal lengths: the shares of several processes
    # must leave out no batch and repeat none.
    by_length = np.argsort(passes.length_P, kind="stable")
    place, count = share
    # Neighbours have nearly the same length, so that shares take nearly the same time.
    plan = pack(by_length, passes.length_P, passes.targets_P, (max_events, max_targets))[place::count]
    yield from prefetched(gather.batch(pass_B, gather.targets(pass_B)) for pass_B in plan)


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The given items, in their order, up to `AHEAD` of them made ahead in a thread.

    An error of the thread is raised here, and the thread ends when this generator is closed.

    Args:
        items: made lazily.

    >>> list(prefetched(iter("abc")))
    ['a', 'b', 'c']
    """
    with ThreadPoolExecutor(1, "lifelong-batches") as pool:
        # One thread alone, as a generator must not be resumed by two at once.
        waiting = deque[Future[Any]](pool.submit(next, items, _END) for _ in range(AHEAD))
        try:
            # The oldest future is waited for, so that items keep their order. `next` has a default, because a
            # StopIteration that leaves a future inside a generator would become a RuntimeError.
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, items, _END))
                yield item
        finally:
            # Whoever stops early waits, on leaving the pool, for the item that is being made, and for none of those
            # still queued.
            pool.shutdown(wait=False, cancel_futures=True)
