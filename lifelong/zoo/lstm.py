"""LSTM: its hidden state is the user's interest.

Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 1997, with the forget gate of Gers et al.,
"Learning to Forget", 2000.

    i, f, o = sigmoid(W x_t + U h_{t-1} + b)       g = tanh(W_g x_t + U_g h_{t-1} + b_g)
    c_t = f c_{t-1} + i g                          h_t = o tanh(c_t)

`torch.nn.LSTM` returns the hidden state after every event, but not the cells. The hidden states determine all gates,
and the cells then follow from a linear recurrence, computed by a scan. Differs from the paper in its output: the shared
head scores given targets.

State: h and c, 2 x `width` numbers: 64 numbers, 256 bytes, by default.

Shapes: B users, L padded history length, C targets per user, D state width, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import CommonSettings, InputSpec, MemoryModel, setting
from lifelong.offline.nn.linear_scan import linear_scan
from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.recurrent import states_at


@dataclass(frozen=True)
class LstmConfig(CommonSettings):
    """Settings of `lstm`."""

    width: PositiveInt = setting(32, "width of the hidden state and the cell")


class LstmMemory(NamedTuple):
    """Hidden state and cell, zeros before the first event."""

    count_B: Tensor
    hidden_BD: Tensor
    cell_BD: Tensor


class Lstm(MemoryModel[LstmMemory]):
    """One LSTM layer, stepped by every event."""

    Config = LstmConfig
    title = "LSTM"
    source = "Hochreiter and Schmidhuber, Neural Computation 1997"
    state = "hidden state and cell"

    def __init__(self, inputs: InputSpec, config: LstmConfig) -> None:
        super().__init__(inputs, embedding=config.embedding, interest=config.width, dropout=config.dropout)
        self.config: LstmConfig = config
        self.remember(LstmMemory, (config.width,), (config.width,))
        self.lstm: nn.LSTM = nn.LSTM(self.event_width, config.width, batch_first=True)

    def write_vector(self, memory: LstmMemory, event_BE: Tensor) -> LstmMemory:
        """One step of the LSTM."""
        take, keep, new, show = self._gates(event_BE, memory.hidden_BD)
        cell_BD = keep * memory.cell_BD + take * new
        return LstmMemory(memory.count_B + 1, show * torch.tanh(cell_BD), cell_BD)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> LstmMemory:
        """One pass for the hidden states, one scan for the cells, then both at each position."""
        event_BLE = clear_padding(event_BLE, length_B)
        users, steps, _ = event_BLE.shape
        if steps == 0:
            hidden_BLD = cell_BLD = event_BLE.new_zeros(users, 0, self.lstm.hidden_size)
        else:
            hidden_BLD = self._hidden(event_BLE)
            last_BLD = torch.cat([torch.zeros_like(hidden_BLD[:, :1]), hidden_BLD[:, :-1]], dim=1)
            take, keep, new, _ = self._gates(event_BLE, last_BLD)
            cell_BLD = linear_scan(keep, take * new)
        return LstmMemory(position_BC, states_at(hidden_BLD, position_BC), states_at(cell_BLD, position_BC))

    def read_vector(self, memory: LstmMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The hidden state itself, whatever the target."""
        return memory.hidden_BD.expand(*target_BCE.shape[:-1], -1), None

    def _hidden(self, event_BLE: Tensor) -> Tensor:
        """The hidden state after every event: `[B, L, D]`."""
        on_cpu = event_BLE.device.type == "cpu"
        # Torch has no LSTM in bfloat16 for every processor.
        with torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu") and not on_cpu):
            given_BLE = event_BLE.to(next(self.lstm.parameters()).dtype) if on_cpu else event_BLE
            hidden_BLD: Tensor = self.lstm(given_BLE)[0]
        return hidden_BLD

    def _gates(self, event: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Input gate, forget gate, new cell and output gate, from an event and the hidden state before it."""
        weight_x, weight_h, bias_x, bias_h = self.lstm.all_weights[0]
        part = event @ weight_x.T + bias_x + hidden @ weight_h.T + bias_h
        take, keep, new, show = part.chunk(4, dim=-1)
        return torch.sigmoid(take), torch.sigmoid(keep), torch.tanh(new), torch.sigmoid(show)
