"""Several cores for one step: the users of a batch in parts, each on a thread and a core of its own.

    batch --split--> parts --forward, backward (in threads)--> gradients --sum, in the order of the parts--> .grad

A recurrent pass is thousands of small operations, each too small to be shared by two cores; whole parts of a batch can
run at the same time. The sum is the gradient of the undivided batch, up to rounding.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.offline.data.batch import TENSORS, Batch
from lifelong.offline.models.base import Model
from lifelong.offline.training.losses import Loss, loss_of

_USERS = 2
"""Smallest number of users in a part."""
_PER_EVENT = ("history_BLF", "history_key_BLF", "time_BL")
_PER_USER = ("length_B", "user_B")


@dataclass(slots=True)
class Passes:
    """Wall time of the two passes so far, seconds."""

    forward: float = 0.0
    backward: float = 0.0

    def add(self, seconds: float, spent: Sequence[tuple[float, float]]) -> None:
        """Divide wall time between the passes as the parts, which ran at the same time, divided theirs."""
        forward, backward = (sum(part) for part in zip(*spent, strict=True))
        self.forward += seconds * forward / max(1e-9, forward + backward)
        self.backward += seconds * backward / max(1e-9, forward + backward)


class ParallelGradients:
    """Computes the gradients of batches in threads; until it is closed, torch uses one thread in the caller's thread.

    The losses of a part, auxiliary losses included, are weighted by its share of the batch's targets.

    Args:
        model: in training mode, `divisible`.
        threads: the largest number of parts.
        autocast: context of the forward pass.
    """

    def __init__(
        self,
        model: Model,
        threads: int,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._model, self._threads, self._autocast = model, threads, autocast
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.passes: Passes = Passes()
        # Idle threads of torch's own pool spin for a while and would take a core from the parts, so the caller uses one
        # thread too. The number of threads is set per thread; the barrier makes sure that all of them start now.
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(threads, "lifelong-step", initializer=torch.set_num_threads, initargs=(1,))
        barrier = threading.Barrier(threads)
        list(self._pool.map(lambda _: barrier.wait(), range(threads)))

    def close(self) -> None:
        """End the threads, and give torch its own threads back."""
        # Waits for the threads: after an error in one part, others may still run.
        self._pool.shutdown()
        torch.set_num_threads(self._before)

    def backward(self, batch: Batch, share: float = 1.0) -> Loss:
        """Set the gradients of all parameters to those of the batch's loss; the loss itself is detached.

        Args:
            batch: of any size.
            share: weight of the batch in the loss, if it is itself a part of one.
        """
        parts = split(batch, min(self._threads, max(1, len(batch.length_B) // _USERS)))
        counts = torch.stack([part.mask_BC.sum() for part in parts])
        shares = (share * counts / counts.sum().clamp(min=1)).tolist()
        start = time.perf_counter()
        results = list(self._pool.map(self._part, parts, shares))
        self.passes.add(time.perf_counter() - start, [spent for _, _, spent in results])
        # In the order of the parts, not of their ends: sums of floats depend on it, and runs are to be repeatable.
        for parameter, gradients in zip(
            self._parameters, zip(*(found for found, _, _ in results), strict=True), strict=True
        ):
            parameter.grad = _sum(gradients)
        total, cross_entropy = torch.stack([torch.stack(losses) for _, losses, _ in results]).sum(dim=0)
        return Loss(total, cross_entropy)

    def _part(
        self, part: Batch, share: float
    ) -> tuple[tuple[Tensor | None, ...], tuple[Tensor, Tensor], tuple[float, float]]:
        start = time.perf_counter()
        with self._autocast():
            output = self._model(part)
        loss = loss_of(output, part, share)
        middle = time.perf_counter()
        # Not `.backward()`, which would add to the same `.grad` from several threads at once.
        gradients = torch.autograd.grad(loss.total, self._parameters, allow_unused=True)
        losses = loss.total.detach(), loss.cross_entropy.detach()
        return gradients, losses, (middle - start, time.perf_counter() - middle)


def parallel_gradients(
    model: Model,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]],
) -> ParallelGradients | None:
    """Threads for the steps of a model; None where it takes a batch as a whole."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or not model.divisible:
        return None
    return ParallelGradients(model, threads, autocast)


def split(batch: Batch, parts: int) -> list[Batch]:
    """The users of a batch in parts of (nearly) equal size, each padded no further than it needs."""
    users = len(batch.length_B)
    # Rounded down at every bound: sizes differ by one at most, and no user is left out.
    bounds = [users * part // parts for part in range(parts + 1)]
    return [_take(batch, slice(low, high)) for low, high in itertools.pairwise(bounds)]


def part_of(batch: Batch, place: int, parts: int) -> Batch | None:
    """One part of a batch cut into `parts`; None where the batch has fewer users than parts and none is left."""
    users = len(batch.length_B)
    chosen = slice(users * place // parts, users * (place + 1) // parts)
    return None if chosen.start == chosen.stop else _take(batch, chosen)


def _take(batch: Batch, users: slice) -> Batch:
    longest = max(1, int(batch.length_B[users].max()))
    most = max(1, int(batch.mask_BC[users].sum(dim=1).max()))
    taken = {}
    for name in TENSORS:
        value: Tensor = getattr(batch, name)[users]
        if name not in _PER_USER:
            value = value[:, : longest if name in _PER_EVENT else most]
        taken[name] = value
    return Batch(**taken)


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    total: Tensor | None = None
    for gradient in gradients:
        # A part that does not reach a parameter has no gradient of it, which is not the same as zeros: Adam would then
        # move it by its momentum.
        if gradient is not None:
            total = gradient if total is None else total + gradient
    return total
