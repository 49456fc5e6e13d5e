"""The head that all models share: [interest ; target ; context] -> 200 -> 80 -> one logit per task."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lifelong.nn.scaled import ScaledLinear, weights_of


class Head(nn.Module):
    """MLP with ELU and dropout, without batch normalisation; every model compared has it.

    Source: Ren et al., SIGIR 2019 (HPMN), the user response prediction.

    Args:
        width: width of interest, target and context together.
        tasks: number of logits.
        hidden: widths of the hidden layers.
        dropout: probability of dropping a hidden unit.
        scaled: whether the first layer can be given mean and deviation of its inputs.

    >>> Head(6, tasks=2)(torch.randn(4, 1), torch.randn(4, 2), torch.randn(4, 3)).shape
    torch.Size([4, 2])
    """

    takes_one_context: ClassVar[bool] = True
    """Whether one context may stand for those of all targets."""

    def __init__(
        self,
        width: int,
        tasks: int = 1,
        *,
        hidden: tuple[int, ...] = (200, 80),
        dropout: float = 0.5,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        kind: type[nn.Linear] = ScaledLinear if scaled else nn.Linear
        for size in hidden:
            layers += [kind(width, size), nn.ELU(), nn.Dropout(dropout)]
            width, kind = size, nn.Linear
        self.layers: nn.Sequential = nn.Sequential(*layers, nn.Linear(width, tasks))

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]` from parts with equal leading axes, or with one context `[B, 1, ...]` for all targets.

        Then the context's part of the first layer is computed once for all of them.
        """
        if context.dim() > 1 and context.shape[-2] == 1 and interest.shape[-2] != 1:
            weight, bias = weights_of(self.first)
            # A plain number also where a graph is traced: the parts of the weight are then constants.
            own = self.first.in_features - int(context.shape[-1])
            of_context = context @ weight[:, own:].T + bias
            hidden = torch.cat([interest, target], dim=-1) @ weight[:, :own].T + of_context
            return self.above(hidden)
        whole: Tensor = self.layers(torch.cat([interest, target, context], dim=-1))
        return whole

    @property
    def first(self) -> nn.Linear:
        """The first layer."""
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def above(self, hidden: Tensor) -> Tensor:
        """Logits `[..., T]` from what the first layer gives."""
        logit: Tensor = self.layers[1:](hidden)
        return logit
