"""What the processes of one run tell each other: sums, and what the first one decides.

    process 0 --share, spread--> all      a decision, an error, weights
    all --sum--> all                      gradients, logits; the same numbers everywhere, bit for bit

Alone, a process asks nobody and none of this needs a process group. A process that is not answered in time, or whose
peer has ended, gets a `LostProcessError` and does not wait for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from lifelong.errors import LostProcessError, MismatchError, UsageError, require
from lifelong.launch import Launch, launch

if TYPE_CHECKING:
    from lightning.fabric import Fabric

T = TypeVar("T")
TIMEOUT = 10.0
"""Minutes after which a process gives up waiting for another one."""


class Processes:
    """The processes of a run, as one of them sees them.

    Args:
        place: which one this is.
        minutes: how long it waits for the others.
    """

    def __init__(self, place: Launch | None = None, *, minutes: float = TIMEOUT) -> None:
        self.place = place or Launch()
        self.rank, self.count, self._minutes = self.place.rank, self.place.count, minutes

    @property
    def first(self) -> bool:
        """Whether this one decides, writes and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def share(self, value: T) -> T:
        """The first one's value, everywhere."""
        if not self.several:
            return value
        with self._asking():
            values: list[Any] = [value if self.first else None]
            dist.broadcast_object_list(values, src=0, device=self._device)
        return cast(T, values[0])

    def on_first(self, function: Callable[[], T]) -> T:
        """Call it in the first process; its outcome everywhere.

        Raises:
            LostProcessError: it failed there; the first process itself raises the error that it met.
        """
        found: T | None = None
        failure: Exception | None = None
        if self.first:
            try:
                found = function()
            except Exception as error:
                failure = error
        text, found = self.share((None if failure is None else str(failure), found))
        if failure is not None:
            raise failure
        if text is not None:
            raise LostProcessError(f"process 0 failed: {text}")
        return cast(T, found)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each by the sum of all processes' tensors of its place."""
        if self.several:
            with self._asking():
                moved = [(tensor, tensor.to(self._device).contiguous()) for tensor in tensors]
                for work in [dist.all_reduce(there, async_op=True) for _, there in moved]:
                    work.wait()
                for here, there in moved:
                    if here.data_ptr() != there.data_ptr():
                        here.copy_(there)

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Replace each by the first process's."""
        if self.several:
            with self._asking():
                for tensor in tensors:
                    there = tensor.detach().to(self._device).contiguous()
                    dist.broadcast(there, src=0)
                    tensor.detach().copy_(there)

    def rows(self, index_N: Tensor, value_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of all processes, one process after another; each may have another number of them."""
        if not self.several:
            return index_N, value_ND
        with self._asking():
            device = self._device
            count_P = torch.zeros(self.count, dtype=torch.int64, device=device)
            count_P[self.rank] = len(index_N)
            dist.all_reduce(count_P)
            counts = count_P.tolist()
            gathered = []
            for part in (index_N, value_ND):
                padded = part.new_zeros(max(1, *counts), *part.shape[1:], device=device)
                padded[: len(part)] = part.to(device)
                parts = [torch.empty_like(padded) for _ in counts]
                dist.all_gather(parts, padded)
                whole = torch.cat([found[:count] for found, count in zip(parts, counts, strict=True)])
                gathered.append(whole.to(part.device))
        return gathered[0], gathered[1]

    def check_same(self, values: Mapping[str, Any]) -> None:
        """Refuse processes that do not work on the same.

        Raises:
            MismatchError: in every process; names what differs and where.
        """
        if not self.several:
            return
        with self._asking():
            everyones: list[Any] = [None] * self.count
            dist.all_gather_object(everyones, (str(self.place), dict(values)))
        (_, wanted), *others = everyones
        found = [
            f"{name} is {mine[name]!r} in {place}, but {wanted[name]!r} in process 0"
            for place, mine in others
            for name in wanted
            if mine[name] != wanted[name]
        ]
        if found:
            raise MismatchError(
                "; ".join(found),
                expected="the same in all processes",
                fix="give every machine the same data, settings and version",
            )

    @property
    def _device(self) -> torch.device:
        """Where the group's backend takes tensors."""
        return (
            torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        # What the backends raise where a peer has gone or is silent.
        except RuntimeError as error:
            raise LostProcessError(
                f"{self.place} was not answered by the others: {_reason(error)}",
                expected=f"all processes alive, and an answer within {self._minutes:g} minutes",
                fix="look for the process that ended first (torchrun names it), then go on with --resume",
            ) from error


def _reason(error: RuntimeError) -> str:
    """The first sentence of an error of gloo or NCCL, without the place in their code."""
    line = str(error).splitlines()[0].rpartition(".cc:")[2].partition("] ")
    return (line[2] or line[0]).partition(". ")[0]


def open_fabric(device: Literal["cpu", "cuda"], precision: Any, *, minutes: float = TIMEOUT) -> Fabric:
    """Device and precision of this process; where there are several, the group that they form.

    Raises:
        UsageError: a machine has fewer GPUs than processes, or machines have different numbers of processes.
        MissingExtraError: lightning is not installed.
        LostProcessError: not all processes have come.
    """
    module = require("lightning.fabric", extra="train", purpose="training")
    place = launch()
    if not place.several:
        alone: Fabric = module.Fabric(accelerator=device, devices=1, precision=precision)
        return alone
    _check_place(place, device)
    strategies = require("lightning.fabric.strategies", extra="train", purpose="training")
    timeout = timedelta(minutes=minutes)
    fabric: Fabric = module.Fabric(
        accelerator=device,
        devices=place.local_count,
        num_nodes=place.count // place.local_count,
        strategy=strategies.DDPStrategy(timeout=timeout),
        precision=precision,
    )
    with Processes(place, minutes=minutes)._asking(), _no_banner():
        if place.restarts and not dist.is_initialized():
            _meet_again(place, device, timeout)
        fabric.launch()
    return fabric


def _meet_again(place: Launch, device: str, timeout: timedelta) -> None:
    """Form the group of a run that torchrun has started anew.

    Its store outlives the processes of the attempt before, and the new ones would look for these at their addresses.
    """
    store, _, _ = next(iter(rendezvous("env://", timeout=timeout)))
    own = torch.device("cuda", place.local_rank) if device == "cuda" else None
    dist.init_process_group(
        "gloo" if own is None else "nccl",
        store=dist.PrefixStore(f"attempt-{place.restarts}", store),  # type: ignore[attr-defined]
        rank=place.rank,
        world_size=place.count,
        timeout=timeout,
        device_id=own,
    )


@contextmanager
def _no_banner() -> Iterator[None]:
    """Lightning tells in every process that it has begun."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


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
