"""DNN: the mean of the embedded history, then the head.

Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016; the base model of Zhou et al., "Deep
Interest Network", KDD 2018.

State: the running mean, `embedding` numbers for each field of an event: 64 numbers, 256 bytes, for four fields by
default.

Shapes: B users, L padded history length, C targets per user, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from lifelong.offline.models.base import CommonSettings, InputSpec, MemoryModel
from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.windows import mean_step, means_at


@dataclass(frozen=True)
class DnnConfig(CommonSettings):
    """Settings of `dnn`."""


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

    def __init__(self, inputs: InputSpec, config: DnnConfig) -> None:
        width = config.embedding * (len(inputs.item) + len(inputs.event))
        super().__init__(inputs, embedding=config.embedding, interest=width, dropout=config.dropout)
        self.config: DnnConfig = config
        self.remember(DnnMemory, (self.event_width,))

    def write_vector(self, memory: DnnMemory, event_BE: Tensor) -> DnnMemory:
        """Move the mean towards the event by 1 / count."""
        count_B = memory.count_B + 1
        return DnnMemory(count_B, mean_step(memory.mean_BE, event_BE, count_B))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> DnnMemory:
        """Running sums, picked at each position and divided by it."""
        return DnnMemory(position_BC, means_at(clear_padding(event_BLE, length_B), position_BC))

    def read_vector(self, memory: DnnMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The mean itself, whatever the target."""
        return memory.mean_BE.expand(*target_BCE.shape[:-1], -1), None
