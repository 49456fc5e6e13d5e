"""AUGRU: a GRU with its update gate scaled by an attention weight at each step.

Shapes: B users, L padded history length, C targets per user, D state width; G = 3 D gates: reset, update, new.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifelong.nn.chunks import in_chunks
from lifelong.nn.traced import is_traced, runs_compiled, traced_states


class Augru(nn.Module):
    """Steps a state of each target over its user's history; a step of weight 0 leaves the state as it is.

    With a the weight, and u, r, n as in a GRU: h' = (1 - a u) h + a u n.

    Source: Zhou et al., "Deep Interest Evolution Network", AAAI 2019, the interest evolving layer.

    Args:
        inputs: width of a step's input.
        width: D.

    >>> augru, input_BLE = Augru(3, 4), torch.randn(1, 5, 3)
    >>> weight_BCL = torch.tensor([[[0.0, 0.0, 0.0, 0.0, 0.0], [0.2, 0.5, 0.3, 0.0, 0.0]]])
    >>> augru(augru.input(input_BLE), weight_BCL, end_BC=torch.tensor([[5, 3]])).any(dim=-1).tolist()
    [[False, True]]
    """

    input: nn.Linear
    recurrent: nn.Linear

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.input, self.recurrent = nn.Linear(inputs, 3 * width), nn.Linear(width, 3 * width, bias=False)

    def forward(self, gate_BLG: Tensor, weight_BCL: Tensor, end_BC: Tensor) -> Tensor:
        """The state of each target after the last step, zeros before the first: `[B, C, D]`.

        In single precision on the CPU the compiled scan does it, else a loop for a few targets at a time.

        Args:
            gate_BLG: `self.input` of the inputs, the same for all targets of a user; L may be 0.
            weight_BCL: attention of each target, 0 from step `end` on.
            end_BC: int64.
        """
        if runs_compiled(gate_BLG, self.recurrent.weight):
            from lifelong.nn.augru_scan import augru_scan

            return augru_scan(gate_BLG, weight_BCL, end_BC, self.recurrent.weight)
        numbers = gate_BLG.shape[0] * gate_BLG.shape[1] * self.width
        (state_BCD,) = in_chunks(lambda some: (self.loop(gate_BLG, some),), weight_BCL, axis=1, numbers=numbers)
        return state_BCD

    def loop(self, gate_BLG: Tensor, weight_BCL: Tensor) -> Tensor:
        """`forward` step after step: the specification."""
        state_BCD = gate_BLG.new_zeros(*weight_BCL.shape[:2], self.width)
        # Steps come first in memory and are cut once: the backward pass of a slice `x[:, t]` in the loop would fill a
        # tensor as large as x for each step, and be quadratic in L.
        gate_LB1G = gate_BLG.transpose(0, 1).contiguous().unsqueeze(2)
        weight_LBC1 = weight_BCL.permute(2, 0, 1).contiguous().unsqueeze(-1)
        rows = (*torch.split(gate_LB1G, [2 * self.width, self.width], dim=-1), weight_LBC1)
        if is_traced():
            return traced_states(self._step, state_BCD, *rows)[-1]
        for row in zip(*(value.unbind(0) for value in rows), strict=True):
            state_BCD = self._step(state_BCD, *row)
        return state_BCD

    def _step(self, state_BCD: Tensor, other_B1G: Tensor, new_B1D: Tensor, weight_BC1: Tensor) -> Tensor:
        other_BCG, part_BCD = torch.split(self.recurrent(state_BCD), [2 * self.width, self.width], dim=-1)
        reset_BCD, update_BCD = torch.sigmoid(other_B1G + other_BCG).chunk(2, dim=-1)
        new_BCD = torch.tanh(torch.addcmul(new_B1D, reset_BCD, part_BCD))
        return torch.lerp(state_BCD, new_BCD, weight_BC1 * update_BCD)
