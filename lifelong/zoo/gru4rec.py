"""GRU4Rec: a GRU over the history; its hidden state is the user's interest.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016. Differs from the paper in its
loss and output: like all models here it scores given targets with the shared head. Its "session" is the whole history.

State: the hidden state, `width` numbers: 32 numbers, 128 bytes, by default.

Shapes: B users, L padded history length, C targets per user, D state width, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pydantic import PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import CommonSettings, InputSpec, MemoryModel, setting
from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.recurrent import gru_pass, gru_step, states_at


@dataclass(frozen=True)
class Gru4RecConfig(CommonSettings):
    """Settings of `gru4rec`."""

    width: PositiveInt = setting(32, "width of the hidden state")


class Gru4RecMemory(NamedTuple):
    """The hidden state, zeros before the first event."""

    count_B: Tensor
    hidden_BD: Tensor


class Gru4Rec(MemoryModel[Gru4RecMemory]):
    """One GRU layer, stepped by every event."""

    Config = Gru4RecConfig
    title = "GRU4Rec"
    source = "Hidasi et al., ICLR 2016"
    state = "hidden state"

    def __init__(self, inputs: InputSpec, config: Gru4RecConfig) -> None:
        super().__init__(inputs, embedding=config.embedding, interest=config.width, dropout=config.dropout)
        self.config: Gru4RecConfig = config
        self.remember(Gru4RecMemory, (config.width,))
        self.gru: nn.GRU = nn.GRU(self.event_width, config.width, batch_first=True)

    def write_vector(self, memory: Gru4RecMemory, event_BE: Tensor) -> Gru4RecMemory:
        """One step of the GRU."""
        return Gru4RecMemory(memory.count_B + 1, gru_step(self.gru, event_BE, memory.hidden_BD))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> Gru4RecMemory:
        """One pass, then the state at each position."""
        hidden_BLD = gru_pass(self.gru, clear_padding(event_BLE, length_B), length_B)
        return Gru4RecMemory(position_BC, states_at(hidden_BLD, position_BC))

    def read_vector(self, memory: Gru4RecMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The state itself, whatever the target."""
        return memory.hidden_BD.expand(*target_BCE.shape[:-1], -1), None
