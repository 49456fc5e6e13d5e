"""DNN: the mean of the embedded history, then the head.

Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016; the base model of Zhou et al., "Deep
Interest Network", KDD 2018.

State: the running mean, which is the running sum divided by the count, but bounded: `embedding` numbers for each field
of an event, 64 numbers, 256 bytes, for four fields by default.

Shapes: B users, L padded history length, C targets per user, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from lifelong.data.events import InputSpec
from lifelong.models.base import MemoryModel
from lifelong.nn.masks import clear_padding
from lifelong.nn.recurrent import states_at


@dataclass(frozen=True)
class DnnConfig:
    """Settings of `dnn`."""

    embedding: Annotated[int, Field(gt=0)] = field(default=16, metadata={"help": "width of each field's vector"})
    dropout: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.1, metadata={"help": "share of the head's hidden units dropped in training"}
    )


class DnnMemory(NamedTuple):
    """Mean of the embedded events, zeros before the first."""

    count_B: Tensor
    mean_BE: Tensor


class Dnn(MemoryModel[DnnMemory]):
    """Mean pooling: knows what was in the history, not when."""

    Config = DnnConfig
    title = "DNN"
    source = "Covington et al., RecSys 2016; Zhou et al., KDD 2018 (base model)"
    state = "running mean"

    def __init__(self, inputs: InputSpec, *, embedding: int = 16, dropout: float = 0.1) -> None:
        width = embedding * (len(inputs.item) + len(inputs.event))
        super().__init__(inputs, embedding=embedding, interest=width, dropout=dropout)

    def initial_memory(self, num_users: int) -> DnnMemory:
        """Zeros."""
        weight = next(self.parameters())
        count_B = torch.zeros(num_users, dtype=torch.int64, device=weight.device)
        return DnnMemory(count_B, weight.new_zeros(num_users, self.event_width))

    def write_vector(self, memory: DnnMemory, event_BE: Tensor) -> DnnMemory:
        """Move the mean towards the event by 1 / count."""
        count_B = memory.count_B + 1
        step_BE = (event_BE - memory.mean_BE) / count_B.unsqueeze(-1).to(event_BE.dtype)
        return DnnMemory(count_B, memory.mean_BE + step_BE)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> DnnMemory:
        """Running sums, picked at each position and divided by it."""
        sum_BCE = states_at(clear_padding(event_BLE, length_B).cumsum(dim=1), position_BC)
        return DnnMemory(position_BC, sum_BCE / position_BC.clamp(min=1).unsqueeze(-1).to(sum_BCE.dtype))

    def read_vector(self, memory: DnnMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The mean itself, whatever the target."""
        return memory.mean_BE.expand(*target_BCE.shape[:-1], -1), None
