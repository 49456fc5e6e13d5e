"""Histories of any length: a batch in chunks of events, with the memory carried from one chunk to the next.

    batch --events 0 to n, n to 2n, ...--> chunk --forward from the memory so far--> loss --backward--> gradients add up
                                             `----memory after its last event, detached----> next chunk

A chunk's activations are freed before the next one begins, so the chunk bounds the memory use, and not the history. The
forward pass equals that of the whole history; the gradient stops at the start of a chunk. A step still takes a whole
batch, so that all its chunks see the same weights.

Shapes: B users, C targets per user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lifelong.config import TrainSettings
from lifelong.data.batch import TENSORS, Batch
from lifelong.errors import ConfigError
from lifelong.models.base import MemoryModel, Model, Output
from lifelong.training.losses import Loss, loss_of
from lifelong.training.settings import largest_period

_PER_EVENT = ("history_BLF", "time_BL")
_PER_USER = ("length_B", "user_B", "mask_BC", "position_BC")
"""Fields that are not gathered by target: a chunk computes them, or takes them unchanged."""


def chunk_size(model: Model, settings: TrainSettings) -> int | None:
    """Events of a chunk, a multiple of the model's largest period; None where histories are cut.

    Raises:
        ConfigError: chunks are asked for, and the model or `max_history` does not allow them.
    """
    if settings.history == "cut":
        return None
    problem = _problem(model, settings)
    if problem:
        raise ConfigError([f"train.history = 'chunks': {problem}"], fix="set train.history = 'cut'")
    assert settings.max_history is not None
    period = largest_period(model)
    return settings.max_history // period * period


def _problem(model: Model, settings: TrainSettings) -> str:
    if not isinstance(model, MemoryModel) or not model.continues:
        return f"{model.title} has no memory that a pass could start from"
    period = largest_period(model)
    if settings.max_history is None or settings.max_history < period:
        return f"train.max_history is {settings.max_history}, but must be at least the largest period, {period}"
    return ""


def losses_of(
    model: Model,
    batch: Batch,
    share: float,
    *,
    chunk: int | None,
    autocast: Callable[[], AbstractContextManager[None]],
    aux_shares: Callable[[Output], dict[str, float]] = lambda output: {},
) -> Iterator[Loss]:
    """The losses of a batch, or of its chunks in turn; call `backward` on each before asking for the next.

    Args:
        model: in training mode.
        batch: on the model's device.
        share: weight of the batch in the loss.
        chunk: events of a chunk; None for the whole batch at once.
        autocast: context of the forward pass.
        aux_shares: weights of auxiliary losses that are not means over labelled targets.
    """
    if chunk is None or batch.history_BLF.shape[1] <= chunk:
        with autocast():
            output = model(batch)
        yield loss_of(output, batch, share, aux_shares=aux_shares(output))
        return
    assert isinstance(model, MemoryModel)
    whole, memory = max(1, int(batch.mask_BC.sum())), model.initial_memory(len(batch.length_B))
    for part in chunks(batch, chunk):
        targets = int(part.mask_BC.sum())
        with autocast(), torch.set_grad_enabled(targets > 0):
            output, memory = model.go_on(memory, part)
        if targets:
            yield loss_of(output, part, share * targets / whole)


def chunks(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch's events, `size` at a time, each chunk with the targets between its first and its last event.

    A target belongs to the chunk in which the last event before it lies; positions count from the chunk's first event.

    Args:
        batch: each user's targets in the order of their positions, the real ones first.
        size: events per chunk.
    """
    for start in range(0, max(1, int(batch.length_B.max())), size):
        length_B = (batch.length_B - start).clamp(min=0, max=size)
        position_BC = batch.position_BC - start
        inside_BC = batch.mask_BC & (position_BC <= size)
        if start:
            inside_BC &= position_BC > 0
        # A user's targets are sorted, so those of a chunk are neighbours: `count_B` of them from the first one inside.
        longest, count_B = max(1, int(length_B.max())), inside_BC.sum(dim=1)
        step_C = torch.arange(max(1, int(count_B.max())), device=count_B.device)
        mask_BC = step_C < count_B.unsqueeze(1)
        place_BC = (inside_BC.int().argmax(dim=1, keepdim=True) + step_C).masked_fill(~mask_BC, 0)
        taken: dict[str, Any] = {
            name: getattr(batch, name)[:, start : start + longest]
            if name in _PER_EVENT
            else _at(getattr(batch, name), place_BC)
            for name in TENSORS
            if name not in _PER_USER
        }
        position_BC = _at(position_BC, place_BC).masked_fill(~mask_BC, 0)
        yield replace(batch, length_B=length_B, mask_BC=mask_BC, position_BC=position_BC, **taken)


def _at(value_BCX: Tensor, place_BC: Tensor) -> Tensor:
    user_B1 = torch.arange(len(place_BC), device=place_BC.device).unsqueeze(1)
    return value_BCX[user_B1, place_BC]
