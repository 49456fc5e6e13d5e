"""The gradients of a whole batch; each process computes the users of its own part.

    batch --part_of--> own users --forward, backward, by their share--> .grad --sum over the processes--> .grad

Every process makes the same whole batch, since its users, targets and negatives depend only on the seed, and takes its
own users from it. The losses of a part are weighted by its share of the batch's labelled targets; an auxiliary loss
that is a mean over something else is weighted by its share of that. So the sum is the gradient of the whole batch, up
to rounding, for any number of processes; the mean of the processes' means would not be.

Dropout is drawn in each process, and is the only thing that depends on the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.errors import MismatchError
from lifelong.offline.data.batch import Batch
from lifelong.offline.evaluation.processes import Processes
from lifelong.offline.models.base import Model, Output
from lifelong.offline.training.compute import Compute
from lifelong.offline.training.losses import Loss, loss_of
from lifelong.offline.training.parallel import Passes, parallel_gradients, part_of

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
