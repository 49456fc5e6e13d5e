"""Layers that are written where a boundary is detected.

    a layer's input, and how long it has waited --Boundary--> logit --above 0?--> update, else copy

The forward decision is hard; its gradient is that of the logit's sigmoid (straight-through).

Source: Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013; for boundaries of
recurrent layers Chung et al., "Hierarchical Multiscale Recurrent Neural Networks", ICLR 2017.

Shapes: B users, L padded history length, D width of a layer's input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LONGEST_WAIT = 1024
"""How many steps of waiting count at most."""


class Boundary(nn.Module):
    """Decides where a layer is written: a logit linear in its input and in the steps it has waited, this one included.

    It starts as a clock: a boundary at every `period`-th step, whatever the input.

    Args:
        width: width of the layer's input.
        period: steps from boundary to boundary at the start.

    >>> Boundary(4, period=3).over(torch.randn(1, 7, 4), torch.tensor([7]))[0].tolist()
    [[0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]]
    """

    def __init__(self, width: int, period: int) -> None:
        super().__init__()
        self.linear: nn.Linear = nn.Linear(width, 1)
        self.slope: nn.Parameter = nn.Parameter(torch.ones(()))
        with torch.no_grad():
            self.linear.weight.zero_()
            # Half-way between the steps before the boundary and at it.
            self.linear.bias.fill_(0.5 - period)

    def forward(self, fed_BD: Tensor, waited_B: Tensor) -> Tensor:
        """1 at a boundary, else 0, with a gradient: `[B]`."""
        logit_B = self.linear(fed_BD).squeeze(-1) + self.slope * waited_B
        return straight_through(logit_B, logit_B.detach() > 0)

    def over(self, fed_BLD: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` over whole histories, and the steps waited, int64: `[B, L]` both; 0 in padding."""
        # Imported here, as compiling the loop takes seconds that models without boundaries need not wait.
        from lifelong.zoo.layers.waiting import decide

        logit_BL = self.linear(fed_BLD).squeeze(-1)
        # How long a layer has waited depends on its own decisions, so that they are made one by one. The logits are
        # then made again at once, with a gradient.
        waited_BL, hard_BL = decide(logit_BL, float(self.slope.detach()), length_B, LONGEST_WAIT)
        write_BL = straight_through(logit_BL + self.slope * waited_BL, hard_BL)
        return write_BL.masked_fill(waited_BL == 0, 0.0), waited_BL


def straight_through(logit: Tensor, hard: Tensor) -> Tensor:
    """1 where `hard`, else 0, with the gradient of the logit's sigmoid."""
    soft = torch.sigmoid(logit)
    # The difference is 0 in value: only its gradient is left.
    return hard.to(logit.dtype) + (soft - soft.detach())
