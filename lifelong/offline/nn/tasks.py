"""The head of a funnel, in place of the shared bottom: tasks are steps, the first before the second.

    P(step k) = product over j <= k of sigmoid(tower_j(bottom_j(x)))

Each step is trained on all examples and not on those alone that took the step before. A bottom is x -> 64 with ELU, a
tower 64 -> 32 -> 1 with ELU and dropout. The logit is that of the product: 1 / P - 1 multiplies out, so that no
probability is made and nothing is lost near 0 and 1.

Source: Ma et al., "Entire Space Multi-Task Model", SIGIR 2018, equation 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BOTTOM, TOWER = 64, 32
"""Widths of a bottom and of a tower's hidden layer."""


class Esmm(nn.Module):
    """ESMM: a bottom and a tower for each step of a funnel, given the step before.

    Args:
        width: width of interest, target and context together.
        tasks: number of logits, at least 2.
        dropout: probability of dropping a hidden unit.

    >>> Esmm(6, tasks=2, dropout=0.1)(torch.randn(4, 1), torch.randn(4, 2), torch.randn(4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(self, width: int, tasks: int, *, dropout: float) -> None:
        super().__init__()
        self.towers: nn.ModuleList = nn.ModuleList(
            nn.Sequential(nn.Linear(BOTTOM, TOWER), nn.ELU(), nn.Dropout(dropout), nn.Linear(TOWER, 1))
            for _ in range(tasks)
        )
        self.bottoms: nn.ModuleList = nn.ModuleList(
            nn.Sequential(nn.Linear(width, BOTTOM), nn.ELU()) for _ in range(tasks)
        )

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]` of having come as far as each step, from parts with equal leading axes."""
        x = torch.cat([interest, target, context], dim=-1)
        reached = list[Tensor]()
        for bottom, tower in zip(self.bottoms, self.towers, strict=True):
            step = tower(bottom(x))
            reached.append(both(reached[-1], step) if reached else step)
        return torch.cat(reached, dim=-1)


def both(first: Tensor, second: Tensor) -> Tensor:
    """The logit of sigmoid(first) * sigmoid(second): -log(e^-a + e^-b + e^-(a + b)).

    >>> torch.sigmoid(both(torch.tensor(0.0), torch.tensor(0.0)))
    tensor(0.2500)
    """
    parts = torch.stack([-first, -second, -first - second])
    return -torch.logsumexp(parts, dim=0)
