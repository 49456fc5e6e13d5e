"""From histories and examples to padded batches: the one place where ragged becomes padded + mask.

    Examples --windows--> passes (user, window of her events, targets) --by length--> batches --gather--> Batch

A *pass* is one window of one user's history and the targets that it serves. A training window starts at a multiple of
the model's largest period (`phase`), so that layers are written at the events at which a service writes them; a target
that has too few events behind the cut of a window belongs to the window before, with which it overlaps. Thus an epoch
labels every target once.

Everything that is drawn depends on (seed, epoch, number of the batch) alone: batches can be made in any order, in
another thread, or again after a resume, and are the same.

Shapes: P passes, N targets, B users of a batch, L padded history length, C targets per user, R negatives per positive,
F fields, K counts.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lifelong.config import TrainSettings
from lifelong.data.counts import count_input_names, count_inputs
from lifelong.data.events import NO_TIME, context_numbers, gap_numbers, user_context
from lifelong.data.examples import Examples
from lifelong.data.item_windows import ItemReader, ItemSpan
from lifelong.data.negatives import NegativeSampler
from lifelong.data.recent import recent_parts
from lifelong.data.vocabulary import PADDING, UNKNOWN
from lifelong.errors import ConfigError

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
T = TypeVar("T")

EVALUATION_EVENTS = 65_536
EVALUATION_TARGETS = 16_384
_LENGTH_JITTER = 0.1
"""Passes are sorted by length times 1 +- this, so that not always the same users share a batch."""


@dataclass(frozen=True, slots=True)
class ItemWindows:
    """What a model with a side of items reads of them: W windows of items' histories, each read by some targets.

    Args:
        number_WLF: int64 field numbers of events (`InputSpec.item_side`), left-aligned, 0 where padded.
        length_W: int64 number of real events.
        position_WK: int64, behind how many events of its window each of K reads stands; 0 where there is none.
        place_BC: int64, which of the W * K reads is a target's; anything where the target is padding.
        gap_BC: int64, bucket of the time since the item's last event.
        query_BF: int64 number and profile of each user.
    """

    number_WLF: Tensor
    length_W: Tensor
    position_WK: Tensor
    place_BC: Tensor
    gap_BC: Tensor
    query_BF: Tensor

    def of(self, users: slice, mask_BC: Tensor) -> ItemWindows:
        """The windows that some of the users need.

        Args:
            users: which.
            mask_BC: True where their targets are real; no longer than the longest list of them.
        """
        place_BC = self.place_BC[users, : mask_BC.shape[1]]
        reads = self.position_WK.shape[1]
        used_W, window_N = torch.unique(place_BC[mask_BC] // reads, return_inverse=True)
        if not len(used_W):
            used_W = self.length_W.new_zeros(1)
        place = torch.zeros_like(place_BC)
        place[mask_BC] = window_N * reads + place_BC[mask_BC] % reads
        length_W = self.length_W[used_W]
        return ItemWindows(
            number_WLF=self.number_WLF[used_W, : max(1, int(length_W.max()))],
            length_W=length_W,
            position_WK=self.position_WK[used_W],
            place_BC=place,
            gap_BC=self.gap_BC[users, : mask_BC.shape[1]],
            query_BF=self.query_BF[users],
        )

    def to(self, device: torch.device | str) -> ItemWindows:
        """The same on another device."""
        return ItemWindows(
            **{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)}
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """B users, each with one window of her history and C labelled targets, each at its own position.

    Args:
        history_BLF: int64 field numbers (`schema.history_fields`), left-aligned, 0 where padded.
        time_BL: int64 event times.
        length_B: int64 number of real events.
        user_B: int64 user number (2 + index; 1 unknown).
        target_BCF: int64 field numbers (`schema.item_fields`).
        target_time_BC: int64.
        position_BC: int64, how many events *of this window* lie strictly before the target.
        context_BCF: int64 context numbers (`schema.context_fields`).
        label_BCT: float32 labels.
        mask_BC: bool, True where the target is real.
        example_BC: int64, place of the target in the examples; -1 for sampled negatives and padding.
        weight_BC: float32, what the target counts in the loss; 1 on average.
        count_BCK: float32 `lifelong.data.counts.count_inputs` of each target, 0 in padding, from the whole history
            whatever the window; K is 0 where no counts were asked for.
        items: the targets' items over their users, if that was asked for.
    """

    history_BLF: Tensor
    time_BL: Tensor
    length_B: Tensor
    user_B: Tensor
    target_BCF: Tensor
    target_time_BC: Tensor
    position_BC: Tensor
    context_BCF: Tensor
    label_BCT: Tensor
    mask_BC: Tensor
    example_BC: Tensor
    weight_BC: Tensor
    count_BCK: Tensor
    items: ItemWindows | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        parts = {name: getattr(self, name).to(device, non_blocking=True) for name in TENSORS}
        return Batch(**parts, items=None if self.items is None else self.items.to(device))


TENSORS = tuple(field.name for field in fields(Batch) if field.name != "items")
"""The fields of a batch that are tensors, whose first axis is the user."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What windows leave out of sight in training.

    Args:
        windows: windows of all users.
        cut_windows: those that do not start at the user's first event.
        events_cut: events before the starts of those windows, summed over them.
        targets: all targets.
        targets_behind_cut: targets that are served by a cut window.
    """

    windows: int
    cut_windows: int
    events_cut: int
    targets: int
    targets_behind_cut: int


@dataclass(frozen=True, slots=True)
class Passes:
    """P passes over N targets.

    Args:
        order_N: places in the examples, in the order in which passes use them.
        first_P: int64, P + 1; pass p serves the targets `order_N[first_P[p]:first_P[p + 1]]`.
        user_P: user.
        start_P: the user's event at which the window starts.
        length_P: events of the window, up to the last target's position.
    """

    order_N: IntArray
    first_P: IntArray
    user_P: IntArray
    start_P: IntArray
    length_P: IntArray

    def __len__(self) -> int:
        return len(self.user_P)

    @property
    def targets_P(self) -> IntArray:  # noqa: N802  named like the fields
        """Number of targets of each pass."""
        return np.diff(self.first_P)

    def cut(self) -> Cut:
        """What is out of sight."""
        window = np.unique(np.stack([self.user_P, self.start_P]), axis=1)
        behind = self.start_P > 0
        return Cut(
            windows=window.shape[1],
            cut_windows=int((window[1] > 0).sum()),
            events_cut=int(window[1].sum()),
            targets=len(self.order_N),
            targets_behind_cut=int(self.targets_P[behind].sum()),
        )


def plan_passes(
    examples: Examples, *, max_targets: int, max_history: int | None = None, phase: int = 1, overlap: int = 0
) -> Passes:
    """Cut users' targets into passes.

    Args:
        examples: the targets, in any order.
        max_targets: targets of one pass at most.
        max_history: events of one window at most; None = every window starts at the first event.
        phase: windows start at multiples of it; the model's largest period.
        overlap: events that a target behind a cut has at least; `phase` if that is more.

    Raises:
        ConfigError: a window of `max_history` events has no room for a new target.
    """
    user, position = np.asarray(examples.user_N, np.int64), np.asarray(examples.position_N, np.int64)
    order = np.lexsort((position, user))
    user, position = user[order], position[order]
    step, behind = _window_step(max_history, phase, overlap)
    # Window k >= 1 starts at event k * step and serves positions k * step + behind + 1 and later.
    window = np.zeros(len(user), np.int64) if step is None else np.maximum(0, (position - behind - 1) // step)
    fresh = _changes(user, window)
    first = np.flatnonzero(fresh)
    rank = np.arange(len(user)) - first[np.cumsum(fresh) - 1] if len(first) else np.zeros(0, np.int64)
    first = np.flatnonzero(fresh | (rank % max_targets == 0))
    bounds = np.append(first, len(user)).astype(np.int64)
    start = window[first] * (step or 0)
    return Passes(order, bounds, user[first], start, position[bounds[1:] - 1] - start)


def recent_passes(examples: Examples, recent: int, *, max_targets: int) -> Passes:
    """One pass per user and position, whose window holds the last `recent` events before it and no others.

    A memory that reads such a window starts empty at its first event.
    """
    user, position = np.asarray(examples.user_N, np.int64), np.asarray(examples.position_N, np.int64)
    order = np.lexsort((position, user))
    user, position = user[order], position[order]
    first = np.flatnonzero(_changes(user, position))
    rank = np.arange(len(user)) - np.repeat(first, np.diff(np.append(first, len(user))))
    first = np.flatnonzero(rank % max_targets == 0)
    bounds = np.append(first, len(user)).astype(np.int64)
    start = np.maximum(0, position[first] - recent)
    return Passes(order, bounds, user[first], start, position[first] - start)


def _window_step(max_history: int | None, phase: int, overlap: int) -> tuple[int | None, int]:
    if max_history is None:
        return None, 0
    whole = max_history // phase * phase
    behind = max(phase, -(-overlap // phase) * phase)
    if whole <= behind:
        raise ConfigError(
            [
                f"train.max_history = {max_history} leaves no room for new events: a window starts at a multiple of "
                f"the largest period {phase} and overlaps the one before by {behind} events"
            ],
            fix=f"set train.max_history to at least {behind + phase}, or a smaller train.overlap or period",
        )
    return whole - behind, behind


def _changes(*columns: IntArray) -> BoolArray:
    """Where a row differs from the one before; the first always does."""
    fresh = np.ones(len(columns[0]), bool)
    fresh[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return fresh


@dataclass(frozen=True, slots=True)
class _Targets:
    """Padded targets as numpy arrays, named as in `Batch`; rows instead of field numbers."""

    row_BC: npt.NDArray[np.int32]
    time_BC: IntArray
    position_BC: IntArray
    context_BCF: IntArray
    label_BCT: npt.NDArray[np.float32]
    mask_BC: BoolArray
    example_BC: IntArray
    weight_BC: npt.NDArray[np.float32]

    def with_negatives(self, drawn_NR: npt.NDArray[np.int32], weighs_like: int) -> _Targets:
        """The same with the negatives of each real target beside it: C becomes C * (1 + R).

        Args:
            drawn_NR: catalogue rows.
            weighs_like: a target's negatives together count as so many of them would.
        """
        ratio = drawn_NR.shape[1]
        users, targets = self.mask_BC.shape
        repeated = _Targets(*(np.repeat(getattr(self, field.name), 1 + ratio, axis=1) for field in fields(self)))
        beside = (users, targets, 1 + ratio)
        repeated.row_BC.reshape(beside)[..., 1:][self.mask_BC] = drawn_NR
        repeated.label_BCT.reshape(*beside, -1)[:, :, 1:] = 0
        repeated.example_BC.reshape(beside)[..., 1:] = -1
        own = (1 + ratio) / (1 + weighs_like)
        repeated.weight_BC.reshape(beside)[:] = [own, *[own * weighs_like / ratio] * ratio]
        return repeated


class _Gather:
    """Reads windows and targets of a dataset into padded arrays.

    Args:
        dataset: where the histories are.
        examples: the targets.
        passes: over them.
        counts: whether batches have counts.
        recent: of so many events before each target; None = of all.
        items: which events of their items targets see; None = batches have no items' windows.
        delay: seconds; younger events are not in the statistics of items.
    """

    def __init__(
        self,
        dataset: Dataset,
        examples: Examples,
        passes: Passes,
        *,
        counts: bool = False,
        recent: int | None = None,
        items: ItemSpan | None = None,
        delay: int = 0,
    ) -> None:
        histories = dataset.histories
        self._statistics, self._delay = dataset.item_statistics, delay
        self._items = None if items is None else ItemReader(dataset, items)
        self._dataset, self._counts, self._recent = dataset, counts, recent
        self.schema, self.passes, self.examples = dataset.schema, passes, examples
        # Plain views: indexing a memory map by many places is slower than indexing the array below it.
        self._offset_U, self._row_N = np.asarray(histories.offset_U), np.asarray(histories.row_N)
        self._time_N, self._number_VF = np.asarray(histories.time_N), np.asarray(dataset.catalogue.number_VF)
        self._profile_UF = np.asarray(dataset.profile_UF)
        self._type_N = None if histories.event_type_N is None else np.asarray(histories.event_type_N)

    def history(self, pass_B: IntArray) -> tuple[npt.NDArray[np.int32], IntArray, IntArray]:
        """Field numbers `[B, L, F]`, times `[B, L]` and lengths; L is at least 1."""
        start_B, length_B = self.passes.start_P[pass_B], self.passes.length_P[pass_B]
        step_L = np.arange(max(1, int(length_B.max())))
        real_BL = step_L < length_B[:, None]
        event_BL = np.where(real_BL, (self._first_event(pass_B) + start_B)[:, None] + step_L, 0)
        time_BL = np.where(real_BL, self._time_N[event_BL], 0)
        columns = [self._number_VF[np.where(real_BL, self._row_N[event_BL], PADDING)]]
        if self._type_N is not None:
            columns.append(np.where(real_BL, self._type_N[event_BL], PADDING)[..., None])
        if "gap" in self.schema.event_fields:
            # The event before a cut window is known, and gives the window's first event its real gap.
            first_BL = (step_L == 0) & (start_B == 0)[:, None]
            before_BL = np.where(first_BL, NO_TIME, self._time_N[np.maximum(event_BL - 1, 0)])
            columns.append(np.where(real_BL, gap_numbers(time_BL, before_BL), PADDING)[..., None])
        return np.concatenate(columns, axis=-1, dtype=np.int32), time_BL, length_B

    def targets(self, pass_B: IntArray) -> _Targets:
        """The targets of the passes, padded to the longest list."""
        count_B = self.passes.targets_P[pass_B]
        step_C = np.arange(int(count_B.max()))
        mask_BC = step_C < count_B[:, None]
        place_BC = np.where(mask_BC, self.passes.first_P[pass_B][:, None] + step_C, 0)
        example_BC = np.where(mask_BC, self.passes.order_N[place_BC], 0)
        time_BC = np.where(mask_BC, np.asarray(self.examples.time_N)[example_BC], 0)
        position_BC = np.where(mask_BC, np.asarray(self.examples.position_N)[example_BC], 0).astype(np.int64)
        context_BCF = self._context(pass_B, time_BC, position_BC)
        return _Targets(
            np.where(mask_BC, np.asarray(self.examples.row_N)[example_BC], PADDING).astype(np.int32),
            time_BC,
            np.where(mask_BC, position_BC - self.passes.start_P[pass_B][:, None], 0),
            np.where(mask_BC[..., None], context_BCF, PADDING),
            np.where(mask_BC[..., None], np.asarray(self.examples.label_NT)[example_BC], np.float32(0)),
            mask_BC,
            np.where(mask_BC, example_BC, -1),
            np.ones(mask_BC.shape, np.float32),
        )

    def _context(self, pass_B: IntArray, time_BC: IntArray, position_BC: IntArray) -> IntArray:
        last_BC = self._first_event(pass_B)[:, None] + position_BC - 1
        known_BC = position_BC > 0
        last_time_BC = np.where(known_BC, self._time_N[np.where(known_BC, last_BC, 0)], NO_TIME)
        profile_BF = self._profile_UF[self.passes.user_P[pass_B]].astype(np.int64)
        profile = {user_context(field): profile_BF[:, at, None] for at, field in enumerate(self.schema.user_fields)}
        return context_numbers(self.schema.context_fields, time_BC, last_time_BC, profile)

    def _with_statistics(self, targets: _Targets) -> IntArray:
        """`Batch.context_BCF`: the statistics of each target's item, which is known once negatives are drawn, too."""
        context_BCF, mask_BC = targets.context_BCF, targets.mask_BC
        if self._statistics is None:
            return context_BCF
        context_BCF = context_BCF.copy()
        # An event of the target's own moment is hidden by any delay, that of 0, too.
        before_N = targets.time_BC[mask_BC] - max(0, self._delay - 1)
        for field, number_N in self._statistics.numbers(targets.row_BC[mask_BC], before_N).items():
            context_BCF[mask_BC, self.schema.context_fields.index(field)] = number_N
        return context_BCF

    def _first_event(self, pass_B: IntArray) -> IntArray:
        return self._offset_U[self.passes.user_P[pass_B]]

    def batch(
        self,
        pass_B: IntArray,
        targets: _Targets,
        hide: Callable[[npt.NDArray[np.int32]], None] | None = None,
        hide_users: Callable[[IntArray], None] | None = None,
    ) -> Batch:
        """The passes as tensors; `hide` changes field numbers in place, `hide_users` those of users."""
        number_BLF, time_BL, length_B = self.history(pass_B)
        target_BCF = self._number_VF[targets.row_BC].astype(np.int32)
        if hide is not None:
            hide(number_BLF)
            hide(target_BCF)
        return Batch(
            history_BLF=_numbers(number_BLF),
            time_BL=_numbers(time_BL),
            length_B=_numbers(length_B),
            user_B=_numbers(2 + self.passes.user_P[pass_B]),
            target_BCF=_numbers(target_BCF),
            target_time_BC=_numbers(targets.time_BC),
            position_BC=_numbers(targets.position_BC),
            context_BCF=_numbers(self._with_statistics(targets)),
            label_BCT=torch.from_numpy(np.asarray(targets.label_BCT, np.float32)),
            mask_BC=torch.from_numpy(targets.mask_BC),
            example_BC=_numbers(targets.example_BC),
            weight_BC=torch.from_numpy(targets.weight_BC),
            count_BCK=torch.from_numpy(self._count(pass_B, targets)),
            items=self._windows(pass_B, targets, hide_users),
        )

    def _windows(
        self, pass_B: IntArray, targets: _Targets, hide_users: Callable[[IntArray], None] | None
    ) -> ItemWindows | None:
        """`Batch.items`."""
        if self._items is None:
            return None
        found = self._items.windows(self.passes.user_P[pass_B], targets.row_BC, targets.time_BC, targets.mask_BC)
        if hide_users is not None:
            hide_users(found.number_WLF)
            hide_users(found.query_BF)
        return ItemWindows(*map(_numbers, found))

    def _count(self, pass_B: IntArray, targets: _Targets) -> npt.NDArray[np.float32]:
        """`Batch.count_BCK`."""
        if not self._counts:
            return np.zeros((*targets.mask_BC.shape, 0), np.float32)
        names = count_input_names(self.schema.item_fields, timed=self.schema.time_unit == "seconds")
        user_N, target_N = np.nonzero(targets.mask_BC)
        asked = Examples(
            self.passes.user_P[pass_B][user_N].astype(np.int32),
            targets.row_BC[user_N, target_N],
            targets.time_BC[user_N, target_N],
            (targets.position_BC[user_N, target_N] + self.passes.start_P[pass_B][user_N]).astype(np.int32),
            targets.label_BCT[user_N, target_N],
        )
        value_NK = np.zeros((len(asked), len(names)), np.float32)
        if self._recent is None:
            value_NK[:] = count_inputs(self._dataset, asked)
        else:
            for chosen_N, part, seen in recent_parts(self._dataset, asked, self._recent):
                value_NK[chosen_N] = count_inputs(part, seen)
        count_BCK = np.zeros((*targets.mask_BC.shape, len(names)), np.float32)
        count_BCK[user_N, target_N] = value_NK
        return count_BCK


def _numbers(values: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.int64))


class _Hide:
    """Shows the model what it will meet later: new items, and items of which little is known."""

    def __init__(self, fallback_V: npt.NDArray[np.int32], num_fields: int, settings: TrainSettings) -> None:
        self._fallback_V, self._num_fields = fallback_V, num_fields
        self._items, self._fields = settings.hide_items, settings.hide_fields

    def __call__(self, number: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
        """Change `number[..., F]` in place; item fields come first. Padding stays."""
        if self._items:
            hidden = rng.random(number.shape[:-1], np.float32) < self._items
            number[hidden, 0] = self._fallback_V[number[hidden, 0]]
        if self._fields and self._num_fields > 1:
            others = number[..., 1 : self._num_fields]
            others[(rng.random(others.shape, np.float32) < self._fields) & (others != PADDING)] = UNKNOWN

    def users(self, number: IntArray, rng: np.random.Generator) -> None:
        """Let users, whose number comes first in `number[..., F]`, be unknown ones, in place. Padding stays."""
        if self._items:
            hidden = (rng.random(number.shape[:-1], np.float32) < self._items) & (number[..., 0] != PADDING)
            number[hidden, 0] = UNKNOWN


class TrainingBatches:
    """The batches of every epoch of a run.

    Args:
        dataset: its training split is used.
        settings: sizes, shares and the seed.
        phase: the model's largest period, 1 if it has none.
        counts: whether the model is given exact counts.
        items: which events of their items the model's targets see; None where it has no side of items.

    Raises:
        DatasetError: items' events are asked for, and the dataset was prepared without item histories.
        ConfigError: windows of `max_history` events are too short for `phase`, or `negatives` are asked for where none
            are drawn.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        *,
        phase: int = 1,
        counts: bool = False,
        items: ItemSpan | None = None,
    ) -> None:
        examples = dataset.examples("train")
        if settings.history == "chunks":
            # All of a user's targets, or her history would be gone through once for each part of them.
            passes = plan_passes(examples, max_targets=max(1, len(examples)))
        else:
            passes = plan_passes(
                examples,
                max_targets=settings.max_targets,
                max_history=settings.max_history,
                phase=phase,
                overlap=settings.overlap,
            )
        self.cut, self._settings = passes.cut(), settings
        self._gather = _Gather(dataset, examples, passes, counts=counts, items=items)
        self._hide = _Hide(dataset.vocabularies["item"].fallback, len(dataset.schema.item_fields), settings)
        rule = dataset.manifest.negatives
        self._negatives, self._ratio = None, 0
        if rule.drawn_in_training:
            self._ratio, self._weighs_like = settings.negatives or rule.ratio, rule.ratio
            self._negatives = NegativeSampler.open(dataset, "train", ratio=self._ratio)
        elif settings.negatives is not None:
            raise ConfigError(
                [f"train.negatives = {settings.negatives}, but no negatives are drawn in training on this dataset"],
                fix="leave train.negatives out",
            )
        self.examples_per_epoch = len(examples) * (1 + self._ratio)

    def epoch(self, epoch: int) -> list[IntArray]:
        """The batches of one epoch as numbers of passes, in the order of training."""
        rng = np.random.default_rng([self._settings.seed, epoch])
        passes = self._gather.passes
        shuffled = rng.permutation(len(passes))
        jitter = rng.uniform(1 - _LENGTH_JITTER, 1 + _LENGTH_JITTER, len(passes))
        by_length = shuffled[np.argsort((passes.length_P * jitter)[shuffled], kind="stable")]
        limits = (self._settings.batch_events, self._settings.batch_targets)
        batches = pack(by_length, passes.length_P, passes.targets_P * (1 + self._ratio), limits)
        return [batches[place] for place in rng.permutation(len(batches))]

    def make(self, pass_B: IntArray, epoch: int, number: int) -> Batch:
        """One batch.

        Args:
            pass_B: its passes.
            epoch: number of the epoch.
            number: place of the batch in the epoch; what is drawn depends on it.
        """
        rng = np.random.default_rng([self._settings.seed, epoch, number])
        targets = self._gather.targets(pass_B)
        if self._negatives is not None:
            chosen = self._gather.examples.take(targets.example_BC[targets.mask_BC])
            targets = targets.with_negatives(self._negatives.draw(chosen, rng), self._weighs_like)
        return self._gather.batch(
            pass_B,
            targets,
            hide=lambda number_F: self._hide(number_F, rng),
            hide_users=lambda number_F: self._hide.users(number_F, rng),
        )


def training_batches(
    batches: TrainingBatches, *, epoch: int, first: int = 0, prefetch: int = 3
) -> Generator[tuple[int, Batch], None, None]:
    """The batches of one epoch, prepared ahead in a thread.

    Args:
        batches: of the run.
        epoch: number of the epoch, from 0.
        first: where to start, for a resumed run.
        prefetch: how many batches wait at most.

    Yields:
        The batch's place in the epoch, and the batch.
    """
    plan = batches.epoch(epoch)
    yield from prefetched(
        ((number, batches.make(plan[number], epoch, number)) for number in range(first, len(plan))), prefetch
    )


def evaluation_batches(
    dataset: Dataset,
    examples: Examples,
    *,
    recent: int | None = None,
    max_events: int = EVALUATION_EVENTS,
    max_targets: int = EVALUATION_TARGETS,
    prefetch: int = 2,
    share: tuple[int, int] = (0, 1),
    counts: bool = False,
    items: ItemSpan | None = None,
    delay: int = 0,
) -> Iterator[Batch]:
    """Every example once, each user's history from her first event; nothing is hidden or drawn.

    Args:
        dataset: where the histories are.
        examples: in any order; `example_BC` are places in it. Their positions say which events are visible, so a delay
            is a matter of the positions that are given.
        recent: each target sees only so many events, the last ones before it; an event keeps its gap to the one before
            it. None = all of them.
        max_events: padded events of a batch; one longer history has a batch of its own.
        max_targets: padded targets of a batch.
        prefetch: how many batches wait at most.
        share: (place, count): only every `count`-th of these batches, from the one at `place` on. The batches of all
            places are those of a call without.
        counts: whether the model is given exact counts; where it sees the last events alone, they are of those.
        items: which events of their items the targets see; None where the model has no side of items. `recent` is of a
            user's events alone.
        delay: seconds; younger events are not in the statistics of the targets' items.

    Raises:
        DatasetError: items' events are asked for, and the dataset was prepared without item histories.
    """
    most = max(1, max_targets // 4)
    if recent is None:
        passes = plan_passes(examples, max_targets=most)
    else:
        passes = recent_passes(examples, recent, max_targets=most)
    gather = _Gather(dataset, examples, passes, counts=counts, recent=recent, items=items, delay=delay)
    by_length = np.argsort(passes.length_P, kind="stable")
    place, count = share
    # Neighbours are of nearly the same length, so that shares take nearly the same time.
    plan = pack(by_length, passes.length_P, passes.targets_P, (max_events, max_targets))[place::count]
    yield from prefetched((gather.batch(pass_B, gather.targets(pass_B)) for pass_B in plan), prefetch)


def pack(order: IntArray, length_P: IntArray, targets_P: IntArray, limits: tuple[int, int]) -> list[IntArray]:
    """Cut passes into batches, in the given order: users x longest history and users x most targets stay in limits.

    A pass that is larger than a limit has a batch of its own.
    """
    max_events, max_targets = limits
    bounds, size, longest, most = [0], 0, 0, 0
    for place, (length, targets) in enumerate(zip(length_P[order].tolist(), targets_P[order].tolist(), strict=True)):
        size, longest, most = size + 1, max(longest, length), max(most, targets)
        if size > 1 and (size * longest > max_events or size * most > max_targets):
            bounds.append(place)
            size, longest, most = 1, length, targets
    return np.split(order, bounds[1:]) if len(order) else []


def prefetched(items: Iterator[T], size: int) -> Iterator[T]:
    """The same items, made ahead in a thread; its errors are raised here, and it ends when this generator is closed."""
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=size)
    stopped = threading.Event()

    def put(item: T | _End) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def fill() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(_End(None))
        except BaseException as error:
            put(_End(error))

    thread = threading.Thread(target=fill, name="lifelong-batches", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class _End:
    """The last thing in a queue: no more items, because of an error or because all were made."""

    error: BaseException | None
