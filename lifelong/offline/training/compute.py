"""The device that a run computes on, and its precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from lifelong.config import TrainSettings
from lifelong.errors import UsageError
from lifelong.launch import launch
from lifelong.offline.evaluation.processes import join

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Compute:
    """A device and a precision.

    Args:
        device: of the model and its batches.
        bf16: forward passes run in bfloat16 where torch thinks that safe; weights and gradients stay float32.

    >>> Compute().device, Compute().precision
    (device(type='cpu'), '32-true')
    """

    device: torch.device = _CPU
    bf16: bool = False

    @property
    def precision(self) -> str:
        """The precision's name in the record of a training."""
        return "bf16-mixed" if self.bf16 else "32-true"

    def seed(self, number: int) -> None:
        """Seed what is drawn on the device, as `torch.manual_seed`, which takes a traceback for each kind of GPU."""
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()


def open_compute(settings: TrainSettings) -> Compute:
    """The device and the precision of a run; under torchrun the processes find each other here.

    Raises:
        UsageError: a GPU is asked for and there is none, or too few for the processes of a machine.
        LostProcessError: not all processes have come.
    """
    kind, _, number = settings.device.partition(":")
    gpus, process = torch.cuda.device_count() if torch.cuda.is_available() else 0, launch()
    if kind == "cuda" and not gpus:
        raise UsageError(f"train.device = {settings.device!r}, but torch finds no GPU", fix="set train.device=auto")
    if number and (int(number) >= gpus or process.several):
        why = "torchrun gives each process its own" if process.several else f"the GPUs are cuda:0 to cuda:{gpus - 1}"
        raise UsageError(f"train.device = {settings.device!r}, but {why}", fix="set train.device=cuda")
    if kind == "auto":
        kind = "cuda" if gpus else "cpu"
    join(process, "cuda" if kind == "cuda" else "cpu", minutes=settings.answer_minutes)
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and kind == "cuda")
    return Compute(torch.device("cuda", int(number or process.local_rank)) if kind == "cuda" else _CPU, bf16)
