"""minGRU: stacked linear recurrences whose gates depend on the input alone.

Feng et al., "Were RNNs All We Needed?", arXiv 2410.01201, 2024; linear recurrences for recommendation: Yue et al.,
"Linear Recurrent Units for Sequential Recommendation", WSDM 2024.

    z_t = sigmoid(W_z x_t + b_z)       h~_t = W_h x_t + b_h       h_t = (1 - z_t) h_{t-1} + z_t h~_t            (minGRU)

Neither z nor h~ depends on the last state, so a whole history is a parallel scan and an event is one step. Layer l + 1
reads the states of layer l. Differs from the paper: the scan, by doubling, is not in log space, which is stable because
the factors are in (0, 1). h~ therefore needs no positive activation (the paper's log-space form replaces h~ by g(h~)).
There are no blocks with residuals, norms and MLPs; instead the head reads the states of all layers.

State: one vector per layer, `layers` x `width` numbers: 64 numbers, 256 bytes, by default.

Shapes: B users, L padded history length, C targets per user, S layers, D state width, E width of an embedded event.
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
class MinGruConfig(CommonSettings):
    """Settings of `mingru`."""

    width: PositiveInt = setting(32, "width of each layer's state")
    layers: PositiveInt = setting(2, "number of stacked recurrences")


class MinGruMemory(NamedTuple):
    """The state of each layer, zeros before the first event."""

    count_B: Tensor
    state_BSD: Tensor


class MinGru(MemoryModel[MinGruMemory]):
    """Each layer moves its state towards a linear map of its input, by a gate of that input."""

    Config = MinGruConfig
    title = "minGRU"
    source = "Feng et al., 2024; Yue et al., WSDM 2024"
    state = "one vector per layer"

    def __init__(self, inputs: InputSpec, config: MinGruConfig) -> None:
        super().__init__(
            inputs, embedding=config.embedding, interest=config.layers * config.width, dropout=config.dropout
        )
        self.config: MinGruConfig = config
        self.remember(MinGruMemory, (config.layers, config.width))
        sizes = [self.event_width] + [config.width] * (config.layers - 1)
        # Rows: the gate z, then the new state h~.
        self.layers: nn.ModuleList = nn.ModuleList(nn.Linear(size, 2 * config.width) for size in sizes)

    def write_vector(self, memory: MinGruMemory, event_BE: Tensor) -> MinGruMemory:
        """One step of each layer, the lowest first."""
        layer_input, states = event_BE, []
        for layer, state_BD in zip(self.layers, memory.state_BSD.unbind(1), strict=True):
            gate, new = layer(layer_input).chunk(2, dim=-1)
            gate = torch.sigmoid(gate)
            layer_input = (1 - gate) * state_BD + gate * new
            states.append(layer_input)
        return MinGruMemory(memory.count_B + 1, torch.stack(states, dim=1))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> MinGruMemory:
        """One scan per layer, then the states at each position."""
        state_BLD, states = clear_padding(event_BLE, length_B), []
        for layer in self.layers:
            gate_BLD, new_BLD = layer(state_BLD).chunk(2, dim=-1)
            # 1 - sigmoid(x) is sigmoid(-x), which keeps its digits where the gate is nearly open.
            state_BLD = linear_scan(torch.sigmoid(-gate_BLD), torch.sigmoid(gate_BLD) * new_BLD)
            states.append(states_at(state_BLD, position_BC))
        return MinGruMemory(position_BC, torch.stack(states, dim=2))

    def read_vector(self, memory: MinGruMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The states of all layers, concatenated, whatever the target."""
        return memory.state_BSD.flatten(-2).expand(*target_BCE.shape[:-1], -1), None
