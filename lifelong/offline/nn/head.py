"""The head that all models share: [interest ; target ; context] -> 200 -> 80 -> one logit per task."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class ScaledLinear(nn.Linear):
    """W ((x - mean) * scale) + b; a plain linear layer until mean and scale are set.

    Adam moves all weights by steps of about the same size. So an input that varies little, such as a cosine, is learned
    slowly, and one that is far from 0, such as an age in steps, moves the sum whenever its weight moves. Mean and
    deviation are constants of the training period. They are multiplied into the weight, not into the inputs: a service
    computes what it would of a plain layer.

    Source: LeCun et al., "Efficient BackProp", 1998, section 4.3.

    Shapes: X inputs, Y outputs.

    >>> layer, value_NX = ScaledLinear(3, 2), torch.tensor([[1.0, 20.0, 0.0], [3.0, 40.0, 0.0]])
    >>> layer.mean_X.copy_(value_NX.mean(dim=0)), layer.scale_X.copy_(torch.tensor([1.0, 0.1, 0.0]))
    (tensor([ 2., 30.,  0.]), tensor([1.0000, 0.1000, 0.0000]))
    >>> standard_NX = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    >>> torch.allclose(layer(value_NX), standard_NX @ layer.weight.T + layer.bias, atol=1e-6)
    True
    """

    mean_X: Tensor
    scale_X: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mean_X", torch.zeros(inputs))
        self.register_buffer("scale_X", torch.ones(inputs))

    def forward(self, input: Tensor) -> Tensor:
        """`[..., Y]` of `[..., X]`."""
        return linear(input, *weights_of(self))


def weights_of(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight `[Y, X]` and bias `[Y]` of a layer, for inputs as they are."""
    if not isinstance(layer, ScaledLinear):
        return layer.weight, layer.bias
    weight_YX = layer.weight * layer.scale_X
    return weight_YX, layer.bias - weight_YX @ layer.mean_X


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


class ContextMatch(nn.Module):
    """How well a target suits the context: products of its embedding with a linear map of the context.

    What is wanted at this hour, on this weekday, after this gap. An MLP that sees both learns such products slowly:
    Rendle et al., "Neural Collaborative Filtering vs. Matrix Factorization Revisited", RecSys 2020. It starts at zero.

    Args:
        context: width of the embedded context.
        target: D, width of the embedded target.
        tasks: T.

    >>> ContextMatch(3, 2, tasks=1)(torch.randn(4, 1, 3), torch.randn(4, 5, 2)).shape
    torch.Size([4, 5, 1])
    """

    def __init__(self, context: int, target: int, tasks: int = 1) -> None:
        super().__init__()
        self.tasks: int = tasks
        self.wanted: nn.Linear = nn.Linear(context, tasks * target, bias=False)
        nn.init.zeros_(self.wanted.weight)

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        """Terms of the logits `[..., T]` from parts with equal leading axes, or that broadcast."""
        return self._products(self.wanted(context), target)

    def at(self, context_XE: Tensor, moment_N: Tensor, target_ND: Tensor) -> Tensor:
        """The same `[N, T]`, for targets of which several share a moment's context."""
        return self._products(self.wanted(context_XE)[moment_N], target_ND)

    def _products(self, wanted: Tensor, target: Tensor) -> Tensor:
        parts = wanted.chunk(self.tasks, dim=-1)
        return torch.cat([(part * target).sum(dim=-1, keepdim=True) for part in parts], dim=-1)
