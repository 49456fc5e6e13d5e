"""What tests of history models share: inputs, and the comparison of `find` with a naive transcription."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lifelong.models.base import HistoryModel, Query, Window
from lifelong.testing.worlds import random_batch

LENGTHS = (7, 0, 1, 5)


def inputs_of(model: HistoryModel, lengths: Sequence[int] = LENGTHS, *, targets: int = 3, seed: int = 0, size: int = 9):
    """A window and a query of random numbers, whose vectors take gradients; targets at all kinds of positions."""
    batch = random_batch(list(lengths), targets=targets, size=size, inputs=model.inputs, seed=seed)
    time_BL, moment_BC = 50 * batch.time_BL**2, 50 * batch.position_BC**2 + 3
    real_BL1 = (torch.arange(size) < batch.length_B[:, None])[..., None]
    event_BLE = model.embed(batch.history_BLF, model.history_fields).detach().masked_fill(~real_BL1, 0.0)
    target_BCE = model.embed(batch.target_BCF, model.item_fields).detach()
    window = Window(event_BLE.requires_grad_(), batch.history_BLF, time_BL, batch.length_B)
    return window, Query(target_BCE.requires_grad_(), batch.target_BCF, moment_BC, batch.position_BC)


def last_events(model: HistoryModel, query: Query, user: int, target: int) -> range:
    """Places of the events that a target may use."""
    position = int(query.position_BC[user, target])
    return range(max(0, position - model.recent), position)


def assert_naive_agrees(
    model: HistoryModel, naive: Callable[[Window, Query, int, int], Tensor], window: Window, query: Query
) -> None:
    """Interest and all gradients of `find` are those of `naive`, which gives the interest in one target of one user."""
    users, targets = query.position_BC.shape
    leaves = {"events": window.vector_BLE, "targets": query.vector_BCE, **dict(model.named_parameters())}
    found = model.find(window, query).interest_BCD
    rows = [torch.stack([naive(window, query, user, target) for target in range(targets)]) for user in range(users)]
    wanted = torch.stack(rows)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=found.dtype)
    gradients = [
        torch.autograd.grad((weight * value).sum(), list(leaves.values()), allow_unused=True)
        for value in (found, wanted)
    ]
    for name, left, right in zip(leaves, *gradients, strict=True):
        zeros = torch.zeros_like(leaves[name])
        left, right = (zeros if gradient is None else gradient for gradient in (left, right))
        torch.testing.assert_close(left, right, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
