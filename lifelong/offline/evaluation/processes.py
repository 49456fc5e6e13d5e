"""What the processes of one run exchange: sums, and what the first one decides.

    process 0 --share, spread--> all      a decision, an error, weights
    all --sum--> all                      gradients, logits; equal numbers everywhere, bit for bit

A process that runs alone needs no process group. One that gets no answer in time, or finds its peer ended, gets a
`LostProcessError` and does not wait forever.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist

# Before a group is formed: functions of this module have the group of the moment of its import as a default argument,
# and an optimiser imports it at its first step. Such a group, and its threads, would outlive `destroy_process_group`.
import torch.distributed.nn
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from lifelong.errors import LostProcessError, MismatchError, UsageError
from lifelong.launch import Launch

T = TypeVar("T")
TIMEOUT = 10.0
"""Minutes after which a process gives up waiting for another one."""


class Processes:
    """The processes of a run, as one of them sees them.

    Args:
        place: which of the processes this is.
        minutes: how long it waits for the others.
    """

    rank: int
    count: int
    first: bool
    several: bool

    def __init__(self, place: Launch | None = None, *, minutes: float = TIMEOUT) -> None:
        self.place: Launch = place or Launch()
        self.rank, self.count, self._minutes = self.place.rank, self.place.count, minutes
        self.first, self.several = self.place.first, self.place.several

    def share(self, value: T) -> T:
        """The first process's value, in all processes."""
        if not self.several:
            return value
        with self._asking():
            # The others wait here until the first process has come, at most for the group's timeout.
            values: list[Any] = [value if self.first else None]
            dist.broadcast_object_list(values, src=0, device=self._device)
        return cast(T, values[0])

    def on_first(self, function: Callable[[], T]) -> T:
        """The outcome of a function that only the first process calls, in all processes.

        Raises:
            LostProcessError: it failed there; the first process itself raises the error of the function.
        """
        outcome: T | None = None
        failure: Exception | None = None
        if self.first:
            try:
                outcome = function()
            # Any error at all: the others are waiting for the outcome and would otherwise wait until their timeout.
            except Exception as error:
                failure = error
        text, outcome = self.share((None if failure is None else str(failure), outcome))
        if failure is not None:
            raise failure
        if text is not None:
            raise LostProcessError(
                f"process 0 failed: {text}", fix="see the log of process 0, remove the cause, and start again"
            )
        return cast(T, outcome)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the sum of the processes' tensors at its place."""
        if self.several:
            with self._asking():
                # All sums are begun before the first is waited for, so that their transfers overlap. Every process must
                # name its tensors in the same order.
                moved = [(tensor, tensor.to(self._device).contiguous()) for tensor in tensors]
                _wait_for_all([dist.all_reduce(there, async_op=True) for _, there in moved])
                for here, there in moved:
                    # A tensor that needed no copy is its own result already.
                    if here.data_ptr() != there.data_ptr():
                        here.copy_(there)

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by that of the first process."""
        if self.several:
            with self._asking():
                for tensor in tensors:
                    # Detached, as these are weights that need gradients and are written in place.
                    there = tensor.detach().to(self._device).contiguous()
                    # As bytes: gloo does not send every type of number.
                    dist.broadcast(there.flatten().view(torch.uint8), src=0)
                    tensor.detach().copy_(there)

    def rows(self, index_N: Tensor, value_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of all processes, one process after another; their numbers may differ."""
        if not self.several:
            return index_N, value_ND
        with self._asking():
            device = self._device
            # All gathered tensors must have one shape: the rows are padded to the largest number, and cut afterwards.
            count_P = torch.zeros(self.count, dtype=torch.int64, device=device)
            count_P[self.rank] = len(index_N)
            dist.all_reduce(count_P)
            counts = count_P.tolist()
            gathered = []
            for column in (index_N, value_ND):
                padded = column.new_zeros(max(1, *counts), *column.shape[1:], device=device)
                padded[: len(column)] = column.to(device)
                parts = [torch.empty_like(padded) for _ in counts]
                dist.all_gather(parts, padded)
                whole = torch.cat([gathered_rows[:count] for gathered_rows, count in zip(parts, counts, strict=True)])
                gathered.append(whole.to(column.device))
        return gathered[0], gathered[1]

    def gather(self, own_ND: Tensor, bounds: Sequence[int]) -> Tensor:
        """The rows of all processes, on the CPU, in the first one; in the others their own.

        Args:
            own_ND: rows `bounds[rank]` to `bounds[rank + 1]`.
            bounds: of all processes, the last one being the number of rows.
        """
        with self._asking():
            if not self.first:
                dist.send(own_ND.to(self._device).contiguous(), 0)
                return own_ND
            whole_ND = own_ND.new_empty(bounds[-1], *own_ND.shape[1:], device="cpu")
            whole_ND[: bounds[1]] = own_ND
            # One after another, so that no more than one part is there twice.
            for rank in range(1, self.count):
                part_ND = own_ND.new_empty(bounds[rank + 1] - bounds[rank], *own_ND.shape[1:], device=self._device)
                dist.recv(part_ND, rank)
                whole_ND[bounds[rank] : bounds[rank + 1]] = part_ND
        return whole_ND

    def check_same(self, values: Mapping[str, Any]) -> None:
        """Refuse processes with different values.

        Raises:
            MismatchError: in every process; names what differs and where.
        """
        if not self.several:
            return
        with self._asking():
            # Each process compares for itself, so that all of them fail alike and none is left waiting.
            everyones: list[Any] = [None] * self.count
            dist.all_gather_object(everyones, (str(self.place), dict(values)))
        (_, first_values), *others = everyones
        differences = [
            f"{name} is {mine[name]!r} in {place}, but {first_values[name]!r} in process 0"
            for place, mine in others
            for name in first_values
            if mine[name] != first_values[name]
        ]
        if differences:
            raise MismatchError(
                "; ".join(differences),
                expected="the same in all processes",
                fix="give every machine the same data, settings and version",
            )

    @property
    def _device(self) -> torch.device:
        """The device of the tensors that the group exchanges."""
        return (
            torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        # What the backends raise where a peer has ended or does not answer.
        except RuntimeError as error:
            raise LostProcessError(
                f"{self.place} was not answered by the others: {_reason(error)}",
                expected=f"all processes alive, and an answer within {self._minutes:g} minutes",
                fix="look for the process that ended first (torchrun names it), then continue with resume (--resume)",
            ) from error


def _wait_for_all(works: Iterable[dist.Work]) -> None:
    """Wait for all of them, then raise the first error: the group's threads must not be left with work and tensors."""
    failures = []
    for work in works:
        try:
            work.wait()
        except RuntimeError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _reason(error: RuntimeError) -> str:
    """The first sentence of an error of gloo or NCCL, without the location in their code."""
    line = str(error).splitlines()[0].rpartition(".cc:")[2].partition("] ")
    return (line[2] or line[0]).partition(". ")[0]


def join(place: Launch, device: Literal["cpu", "cuda"] = "cpu", *, minutes: float = TIMEOUT) -> None:
    """Form the group of the processes that torchrun has started; nothing to do for one alone, or a second time.

    Args:
        place: of this process.
        device: "cuda" gives each process of a machine a GPU of its own.
        minutes: how long a process waits for the others, now and later.

    Raises:
        UsageError: a machine has fewer GPUs than processes, or machines have different numbers of processes.
        LostProcessError: not all processes have come.
    """
    if not place.several or dist.is_initialized():
        return
    _check_place(place, device)
    timeout = timedelta(minutes=minutes)
    own = torch.device("cuda", place.local_rank) if device == "cuda" else None
    if own is not None:
        torch.cuda.set_device(own)
    with Processes(place, minutes=minutes)._asking():
        store, _, _ = next(iter(rendezvous("env://", timeout=timeout)))
        dist.init_process_group(
            "gloo" if own is None else "nccl",
            # The store of torchrun outlives an attempt; without a prefix of its own, a run that was started again would
            # look for its peers at the addresses of the processes that have ended.
            store=dist.PrefixStore(f"attempt-{place.restarts}", store),  # type: ignore[attr-defined]
            rank=place.rank,
            world_size=place.count,
            timeout=timeout,
            device_id=own,
        )
    # A thread of a group that is still there when the interpreter ends can abort the process (gloo; 'terminate called
    # without an active exception'); NCCL warns of it.
    atexit.register(dist.destroy_process_group)


def _check_place(place: Launch, device: str) -> None:
    if place.count % place.local_count:
        raise UsageError(
            f"{place.count} processes, {place.local_count} of them on this machine",
            expected="the same number of processes on every machine",
            fix="give torchrun the same --nproc-per-node everywhere",
        )
    if device == "cuda" and torch.cuda.device_count() < place.local_count:
        raise UsageError(
            f"{place.local_count} processes on a machine with {torch.cuda.device_count()} GPUs",
            expected="a GPU for each process",
            fix=f"torchrun --nproc-per-node {torch.cuda.device_count()}, or train.device=cpu",
        )
