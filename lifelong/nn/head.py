"""The head that all models share: [interest ; target ; context] -> 200 -> 80 -> one logit per task."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """MLP with ELU and dropout, no batch normalisation (HPMN, section 4; same for every model compared).

    Args:
        width: width of interest + target + context together.
        tasks: number of logits.
        hidden: widths of the hidden layers.
        dropout: probability of dropping a hidden unit.
    """

    def __init__(
        self, width: int, tasks: int = 1, *, hidden: tuple[int, ...] = (200, 80), dropout: float = 0.5
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ELU(), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, tasks))

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]` from parts with equal leading axes."""
        logit: Tensor = self.layers(torch.cat([interest, target, context], dim=-1))
        return logit
