"""Histories without limit: a batch in chunks of events, the memory carried on from one to the next.

    batch --events 0 to n, n to 2n, ...--> chunk --forward from the memory so far--> loss --backward--> gradients add up
                                             `----memory after its last event, detached----> next chunk

A chunk's activations are gone when the next one begins, so that what training keeps is bounded by the chunk and not by
the history. The forward pass is that of the whole history; the gradient ends at the start of a chunk. A step is still a
whole batch, so that all its chunks see the same weights.

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
from lifelong.data.batches import TENSORS, Batch
from lifelong.errors import ConfigError
from lifelong.models.base import MemoryModel, Model, Output
from lifelong.training.losses import Loss, loss_of
from lifelong.training.settings import largest_period

_PER_EVENT = ("history_BLF", "time_BL")
_PER_USER = ("length_B", "user_B", "mask_BC", "position_BC")
"""Fields that a chunk makes anew, or takes as they are."""


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
        return f"{model.title} has no memory that a pass can begin with"
    if model.item_side is not None:
        return f"the items' memories of {model.title} are no part of a user's history"
    period = largest_period(model)
    if settings.max_history is None or settings.max_history < period:
        return f"train.max_history is {settings.max_history}, it has to be at least the largest period, {period}"
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
    """The losses of a batch, or of its chunks one after another; go back through each before asking for the next.

    Args:
        model: that trains.
        batch: on the model's device.
        share: what the batch counts.
        chunk: events of a chunk; None for the whole batch at once.
        autocast: context of the forward pass.
        aux_shares: of auxiliary losses that are no means over labelled targets.
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
    """The batch's events `size` at a time, each with the targets between its first event and its last.

    A target belongs to the chunk whose events end at it; positions count from the chunk's first event.

    Args:
        batch: each user's targets in the order of their positions, the real ones first.
        size: events.
    """
    for start in range(0, max(1, int(batch.length_B.max())), size):
        length_B = (batch.length_B - start).clamp(min=0, max=size)
        position_BC = batch.position_BC - start
        inside_BC = batch.mask_BC & (position_BC <= size)
        if start:
            inside_BC &= position_BC > 0
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
