"""Adam, its parameter groups, and the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from lifelong.config import TrainSettings

_FLOOR = 0.01
"""Share of the learning rate at which the cosine schedule ends."""


def build_optimiser(model: nn.Module, settings: TrainSettings) -> torch.optim.Adam:
    """Adam with an L2 term on everything but embedding tables.

    Adam divides by the size of the gradient, so an L2 term alone would wipe out the rows of a table that few batches
    touch. The fused form steps all tensors in one call, on CPU too: on tables of 50,000 rows it is several times
    faster.
    """
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [part for part in parameters if id(part) in tables], "weight_decay": 0.0},
        {"params": [part for part in parameters if id(part) not in tables], "weight_decay": settings.weight_decay},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Clip every number of every gradient to +-largest."""
    torch.nn.utils.clip_grad_value_(list(parameters), largest)


def learning_rate(settings: TrainSettings, examples: int, total: int) -> float:
    """The learning rate after so many labelled examples of a run of `total`."""
    rate = settings.learning_rate
    if examples < settings.warmup:
        return rate * (examples + 1) / (settings.warmup + 1)
    if settings.schedule == "cosine":
        done = min(1.0, (examples - settings.warmup) / max(1, total - settings.warmup))
        return rate * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))
    return rate
