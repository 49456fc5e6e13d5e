"""Reads the histories and the targets of some passes into padded arrays: the one place where ragged becomes padded.

    Passes --targets--> Targets (one after another) --with negatives--> Targets --batch--> Batch (padded, + mask)

Targets are one flat list until the very end, so that negatives, context and counts are computed for real
targets alone; `mask_BC` then says where in the padded arrays they go.

Shapes: B users of a batch, L padded history length, C targets per user, N targets of a batch, R negatives per positive,
T tasks, F fields, K counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lifelong.config import TrainSettings
from lifelong.dataset.arrays import ranges
from lifelong.dataset.events import NO_TIME, Schema, context_numbers, gap_numbers, user_context
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.histories import FIRST_USER
from lifelong.dataset.negatives import NegativeSampler, with_negatives
from lifelong.dataset.vocabulary import PADDING, UNKNOWN
from lifelong.dtypes import BoolArray, Float32Array, Int32Array, IntArray
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.counts import count_inputs
from lifelong.offline.data.passes import Passes


@dataclass(frozen=True, slots=True)
class Targets:
    """The real targets of a batch: all of its first pass, then all of its second, ...

    Args:
        examples: N targets; positions count from the user's first event.
        place_N: place in the examples of the split; -1 for a drawn negative.
        weight_N: what each counts in the loss.
        count_B: targets of each pass.
        group: how many targets in a row are a positive and its negatives.
    """

    examples: Examples
    place_N: IntArray
    weight_N: Float32Array
    count_B: IntArray
    group: int = 1

    @property
    def mask_BC(self) -> BoolArray:  # noqa: N802  named like a field
        """Where the padded arrays hold a target. Its True places, row by row, are the targets in their order."""
        mask_BC: BoolArray = np.arange(int(self.count_B.max())) < self.count_B[:, None]
        return mask_BC

    def with_negatives(self, sampler: NegativeSampler, rng: np.random.Generator, *, weighs_like: int) -> Targets:
        """The targets, each followed by its drawn negatives.

        Args:
            sampler: draws R negatives for each.
            rng: source of randomness.
            weighs_like: the negatives of a target weigh together as much as this many of them would.
        """
        ratio = sampler.rule.ratio
        place_NG = np.full((len(self.place_N), 1 + ratio), -1)
        place_NG[:, 0] = self.place_N
        # A group of 1 + R must weigh 1 + R in all, and its negatives `weighs_like` times its positive.
        own = (1 + ratio) / (1 + weighs_like)
        weight_G = np.array([own, *[own * weighs_like / ratio] * ratio], np.float32)
        return Targets(
            with_negatives(self.examples, sampler, rng),
            place_NG.reshape(-1),
            np.tile(weight_G, len(self.place_N)),
            self.count_B * (1 + ratio),
            1 + ratio,
        )


@dataclass(frozen=True, slots=True)
class Hiding:
    """Hides some numbers in training, so that a model meets what it will meet later: new items, and rare values.

    They are replaced in place; padding stays.

    Args:
        fallback_V: for every item number the one that the item has while it is unknown.
        fields: number of item fields, which come first in a row of numbers.
        settings: shares of what is hidden.
        rng: source of randomness.
    """

    fallback_V: Int32Array
    fields: int
    settings: TrainSettings
    rng: np.random.Generator

    def items(self, number: npt.NDArray[Any]) -> None:
        """Hide items, and values of other item fields, in `number[..., F]`."""
        if self.settings.hide_items:
            hidden = self._drawn(number.shape[:-1], self.settings.hide_items)
            number[hidden, 0] = self.fallback_V[number[hidden, 0]]
        if self.settings.hide_fields and self.fields > 1:
            # A view, so that what is hidden here is hidden in the batch.
            others = number[..., 1 : self.fields]
            others[self._drawn(others.shape, self.settings.hide_fields) & (others != PADDING)] = UNKNOWN

    def _drawn(self, shape: tuple[int, ...], share: float) -> BoolArray:
        drawn: BoolArray = self.rng.random(shape, np.float32) < share
        return drawn


class Gather:
    """Reads passes of a dataset into batches.

    Args:
        dataset: where the histories are.
        examples: the targets.
        passes: over them.
        counts: whether batches have counts.
    """

    schema: Schema
    passes: Passes

    def __init__(
        self,
        dataset: Dataset,
        examples: Examples,
        passes: Passes,
        *,
        counts: bool = False,
    ) -> None:
        histories = dataset.histories
        self._dataset, self._counts = dataset, counts
        self.schema, self.passes = dataset.schema, passes
        # Plain views: indexing a memory map by many places is slower than indexing the array below it.
        self._examples = Examples(*(np.asarray(column) for column in examples.columns()))
        self._offset_U, self._row_N = np.asarray(histories.offset_U), np.asarray(histories.row_N)
        self._time_N, self._number_VF = np.asarray(histories.time_N), np.asarray(dataset.catalogue.number_VF)
        self._key_VF = np.asarray(dataset.catalogue.key_VF)
        self._profile_UF = np.asarray(dataset.profile_UF)
        self._type_N = None if histories.event_type_N is None else np.asarray(histories.event_type_N)

    def targets(self, pass_B: IntArray) -> Targets:
        """The targets of some passes."""
        count_B = self.passes.targets_P[pass_B]
        place_N = self.passes.order_N[ranges(self.passes.first_P[pass_B], count_B)]
        return Targets(self._examples.take(place_N), place_N, np.ones(len(place_N), np.float32), count_B)

    def batch(self, pass_B: IntArray, targets: Targets, hide: Hiding | None = None) -> Batch:
        """Passes and their targets as tensors.

        Args:
            pass_B: the passes.
            targets: of them, with or without negatives.
            hide: what is hidden; nothing if None.
        """
        number_BLF, row_BL, time_BL, length_B = self._history(pass_B)
        examples, mask_BC, user_B = targets.examples, targets.mask_BC, self.passes.user_P[pass_B]
        padded = _Padding(mask_BC)
        row_BC = padded(examples.row_N, PADDING)
        target_BCF = self._number_VF[row_BC].astype(np.int32)
        # Positions of a batch count from the start of the window.
        start_N = np.repeat(self.passes.start_P[pass_B], targets.count_B)
        if hide is not None:
            hide.items(number_BLF)
            hide.items(target_BCF)
        return Batch(
            history_BLF=_numbers(number_BLF),
            time_BL=_numbers(time_BL),
            length_B=_numbers(length_B),
            user_B=_numbers(FIRST_USER + user_B),
            target_BCF=_numbers(target_BCF),
            target_time_BC=_numbers(padded(examples.time_N)),
            position_BC=_numbers(padded(examples.position_N - start_N)),
            context_BCF=_numbers(padded(self._context(examples, targets.group), PADDING)),
            label_BCT=torch.from_numpy(padded(examples.label_NT)),
            mask_BC=torch.from_numpy(mask_BC),
            # Hidden numbers keep their keys: a value that is not known later is counted all the same.
            history_key_BLF=_numbers(self._key_VF[row_BL]),
            target_key_BCF=_numbers(self._key_VF[row_BC]),
            example_BC=_numbers(padded(targets.place_N, -1)),
            weight_BC=torch.from_numpy(padded(targets.weight_N)),
            count_BCK=torch.from_numpy(padded(self._count(examples))),
        )

    def _history(self, pass_B: IntArray) -> tuple[Int32Array, Int32Array, IntArray, IntArray]:
        """Field numbers `[B, L, F]`, rows and times `[B, L]`, and lengths; L is at least 1."""
        start_B, length_B = self.passes.start_P[pass_B], self.passes.length_P[pass_B]
        first_B = self._offset_U[self.passes.user_P[pass_B]]
        step_L = np.arange(max(1, int(length_B.max())))
        real_BL = step_L < length_B[:, None]
        # Padding reads event 0 of the log, so that every place can be looked up, and is overwritten.
        event_BL = np.where(real_BL, (first_B + start_B)[:, None] + step_L, 0)
        time_BL = np.where(real_BL, self._time_N[event_BL], 0)
        row_BL = np.where(real_BL, self._row_N[event_BL], PADDING)
        columns = [self._number_VF[row_BL]]
        if self._type_N is not None:
            columns.append(np.where(real_BL, self._type_N[event_BL], PADDING)[..., None])
        if "gap" in self.schema.event_fields:
            # The event before a cut window is known, and gives the window's first event its real gap.
            first_BL = (step_L == 0) & (start_B == 0)[:, None]
            before_BL = np.where(first_BL, NO_TIME, self._time_N[np.maximum(event_BL - 1, 0)])
            columns.append(np.where(real_BL, gap_numbers(time_BL, before_BL), PADDING)[..., None])
        return np.concatenate(columns, axis=-1, dtype=np.int32), row_BL, time_BL, length_B

    def _context(self, examples: Examples, group: int) -> IntArray:
        """Context numbers of targets: `[N, F]`."""
        # A negative has the user, time and position of its positive, and so its context.
        own = examples.take(slice(None, None, group))
        has_past_N = own.position_N > 0
        # The last visible event is the one before the target's position.
        last_N = self._offset_U[own.user_N] + own.position_N - 1
        last_time_N = np.where(has_past_N, self._time_N[np.where(has_past_N, last_N, 0)], NO_TIME)
        profile_NF = self._profile_UF[own.user_N].astype(np.int64)
        profile = {user_context(field): profile_NF[:, at] for at, field in enumerate(self.schema.user_fields)}
        fields = self.schema.context_fields
        return np.repeat(context_numbers(fields, own.time_N, last_time_N, profile), group, axis=0)

    def _count(self, examples: Examples) -> Float32Array:
        """Count inputs of targets, from the whole history whatever the window: `[N, K]`."""
        if not self._counts:
            return np.zeros((len(examples), 0), np.float32)
        return count_inputs(self._dataset, examples).astype(np.float32)


class _Padding:
    """Puts values of targets in the places where a mask is True.

    Args:
        mask_BC: its True places, row by row, are the targets in their order.
    """

    def __init__(self, mask_BC: BoolArray) -> None:
        self._shape, self._place_N = mask_BC.shape, np.flatnonzero(mask_BC)

    def __call__(self, value_NX: npt.NDArray[Any], fill: int = 0) -> npt.NDArray[Any]:
        """Padded values `[B, C, ...]`, `fill` where there is no target."""
        value_MX = np.full((math.prod(self._shape), *value_NX.shape[1:]), fill, value_NX.dtype)
        value_MX[self._place_N] = value_NX
        return value_MX.reshape(*self._shape, *value_NX.shape[1:])


def _numbers(values: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.int64))
