"""The gradients of a whole batch; each process computes the users of its own part.

    batch --part_of--> own users --forward, backward, by their share--> .grad --sum over the processes--> .grad

Every process makes the same whole batch, since its users, targets and negatives depend only on the seed, and takes its
own users from it. The losses of a part are weighted by its share of the batch's labelled targets; an auxiliary loss
that is a mean over something else is weighted by its share of that. So the sum is the gradient of the whole batch, up
to rounding, for any number of processes; the mean of the processes' means would not be.

On a CPU a process divides its part among threads, a core each (`ParallelGradients`): a recurrent pass is thousands of
small operations, each too small to be shared by two cores.

Dropout is drawn in each process, and is the only thing that depends on the number of processes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.errors import MismatchError
from lifelong.offline.data.batch import TENSORS, Batch
from lifelong.offline.evaluation.processes import Processes
from lifelong.offline.models.base import Model, Output
from lifelong.offline.training.compute import Compute


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one batch.

    Args:
        total: what is minimised, a scalar.
        cross_entropy: its first term: the mean over real targets and tasks, in nats.
    """

    total: Tensor
    cross_entropy: Tensor


def loss_of(output: Output, batch: Batch, share: float = 1.0, *, aux_shares: Mapping[str, float] | None = None) -> Loss:
    """Cross entropy of the real targets plus the auxiliary losses, in float32 whatever the model computed in.

    Where several heads learn, the total has the cross entropy of each; `cross_entropy` is that of the logit.

    Args:
        output: of the model.
        batch: a batch, or a part of one.
        share: share of the whole batch's labelled targets in this part, so that the losses of the parts add up.
        aux_shares: shares for auxiliary losses that are not means over labelled targets.
    """

    def of(logit_BCT: Tensor) -> Tensor:
        return share * masked_cross_entropy(logit_BCT.float(), batch.label_BCT, batch.mask_BC, batch.weight_BC)

    cross_entropy = of(output.logit_BCT)
    total = torch.stack([of(member) for member in output.members]).sum() if output.members else cross_entropy
    for name, term in output.aux_losses.items():
        total = total + (aux_shares or {}).get(name, share) * term.float()
    return Loss(total, cross_entropy)


def masked_cross_entropy(
    logit_BCT: Tensor, label_BCT: Tensor, mask_BC: Tensor, weight_BC: Tensor | None = None
) -> Tensor:
    """Mean cross entropy over real targets and all tasks; 0 where no target is real.

    Padded targets may hold anything, even NaN: they change neither value nor gradient. Weights, which are 1 on average
    over a whole batch, multiply the losses but not their count, so that the parts of a batch add up.

    >>> masked_cross_entropy(torch.zeros(1, 2, 1), torch.ones(1, 2, 1), torch.tensor([[True, False]]))
    tensor(0.6931)
    """
    mask_BC1 = mask_BC.unsqueeze(-1)
    loss_BCT = binary_cross_entropy_with_logits(logit_BCT.masked_fill(~mask_BC1, 0.0), label_BCT, reduction="none")
    if weight_BC is not None:
        loss_BCT = loss_BCT * weight_BC.unsqueeze(-1)
    tasks = logit_BCT.shape[-1]
    return torch.where(mask_BC1, loss_BCT, 0.0).sum() / (mask_BC.sum() * tasks).clamp(min=1)


_LARGE = 1 << 16
"""Size of a gradient from which it is sent by itself; smaller ones are sent together."""


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of the backward pass of a batch, equal in all processes.

    Args:
        loss: of the whole batch, detached.
        answers: for each question, whether any process said yes.
    """

    loss: Loss
    answers: tuple[bool, ...]


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


class Gradients:
    """Sets the gradients of a model to those of whole batches; `passes` has the time that the two passes took.

    Args:
        model: in training mode, on the device of `compute`.
        compute: device and precision.
        processes: that share the batches.

    Raises:
        MismatchError: the model cannot be trained by several processes, and why.
    """

    def __init__(self, model: Model, compute: Compute, processes: Processes) -> None:
        if processes.several and model.undivided:
            raise MismatchError(
                f"{model.title} cannot be trained by several processes: {model.undivided}", fix="train without torchrun"
            )
        self._model, self._compute, self._processes = model, compute, processes
        self._parallel = parallel_gradients(model, compute.device, compute.autocast)
        self.passes: Passes = Passes() if self._parallel is None else self._parallel.passes
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._sparse = {id(table.weight) for table in model.tables() if table.sparse}

    def close(self) -> None:
        """End the threads."""
        if self._parallel is not None:
            self._parallel.close()

    def backward(self, batch: Batch, ask: Callable[[], Sequence[bool]]) -> Step:
        """Set `.grad` of every parameter.

        Args:
            batch: the whole batch, on the CPU.
            ask: questions to which one process's yes is the answer of all; asked at the end.

        Raises:
            LostProcessError: another process does not answer.
        """
        if not self._processes.several:
            return Step(self._own(batch, 1.0), tuple(ask()))
        labelled = max(1, int(batch.mask_BC.sum()))
        part = part_of(batch, self._processes.rank, self._processes.count)
        # A process without users still has to take part in every exchange, in the same order. The others would wait for
        # it until the timeout.
        if part is None:
            self._aux_shares(None)
            nothing = torch.zeros((), device=self._compute.device)
            loss = Loss(nothing, nothing)
        else:
            loss = self._own(part, int(part.mask_BC.sum()) / labelled)
        return self._sum(loss, ask())

    def _own(self, batch: Batch, share: float) -> Loss:
        if self._parallel is not None:
            return self._parallel.backward(batch, share)
        start = time.perf_counter()
        batch = batch.to(self._compute.device)
        with self._compute.autocast():
            output = self._model(batch)
        loss = loss_of(output, batch, share, aux_shares=self._aux_shares(output))
        middle = time.perf_counter()
        torch.autograd.backward(loss.total)
        end = time.perf_counter()
        self.passes.add(end - start, [(middle - start, end - middle)])
        return Loss(loss.total.detach(), loss.cross_entropy.detach())

    def _aux_shares(self, output: Output | None) -> dict[str, float]:
        """The weights of auxiliary losses that are not means over labelled targets; `None` stands for no users."""
        shares = dict.fromkeys(self._model.aux_sums, 1.0)
        names = self._model.aux_means
        if not self._processes.several or not names:
            return shares
        # Sizes differ from process to process, so that a mean over all needs each one's share of the whole.
        own = [0.0 if output is None else float(output.aux_sizes.get(name, 0)) for name in names]
        size_N = torch.tensor(own, dtype=torch.float64)
        self._processes.sum([size_N])
        return shares | {
            name: mine / max(1.0, whole) for name, mine, whole in zip(names, own, size_N.tolist(), strict=True)
        }

    def _sum(self, loss: Loss, answers: Sequence[bool]) -> Step:
        """Add up gradients, losses and answers over the processes; a parameter without any gradient keeps none."""
        device = self._compute.device
        dense = [parameter for parameter in self._parameters if id(parameter) not in self._sparse]
        small = [parameter for parameter in dense if parameter.numel() < _LARGE]
        large = [parameter for parameter in dense if parameter.numel() >= _LARGE]
        # Questions travel with the gradients, so that they cost no exchange of their own and all processes hear the
        # answer at the same step.
        said = [float(parameter.grad is not None) for parameter in self._parameters] + [float(yes) for yes in answers]
        head_N = torch.cat([torch.stack([loss.total, loss.cross_entropy]).float(), torch.tensor(said, device=device)])
        small_N = torch.cat([_gradient(parameter).flatten() for parameter in small] or [head_N[:0]])
        sent_N = torch.cat([head_N, small_N])
        for parameter in large:
            parameter.grad = _gradient(parameter)
        self._processes.sum([sent_N, *(_gradient(parameter) for parameter in large)])
        for parameter in self._parameters:
            if id(parameter) in self._sparse:
                parameter.grad = self._sum_rows(parameter)
        head_N, small_N = sent_N[: len(head_N)], sent_N[len(head_N) :]
        parts = torch.split(small_N, [parameter.numel() for parameter in small])
        for parameter, part in zip(small, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        total, cross_entropy, *said = head_N.tolist()
        for parameter, present in zip(self._parameters, said, strict=False):
            # None and zeros are not the same to Adam, which moves by its momentum where there are zeros.
            if not present:
                parameter.grad = None
        yes = tuple(number > 0 for number in said[len(self._parameters) :])
        return Step(Loss(torch.tensor(total), torch.tensor(cross_entropy)), yes)

    def _sum_rows(self, parameter: Tensor) -> Tensor:
        """The sum of the processes' sparse gradients: only rows that a batch has touched are sent."""
        own = parameter.grad
        if own is None:
            index_N, value_ND = torch.zeros(0, dtype=torch.int64, device=parameter.device), parameter.detach()[:0]
        else:
            # A row that a batch touched several times is sent once.
            own = own.coalesce()
            index_N, value_ND = own.indices()[0], own.values()
        index_N, value_ND = self._processes.rows(index_N, value_ND)
        return torch.sparse_coo_tensor(index_N.unsqueeze(0), value_ND, parameter.shape).coalesce()


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
