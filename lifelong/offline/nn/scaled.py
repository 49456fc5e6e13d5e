"""A linear layer that sees its inputs at mean 0 and deviation 1.

Adam moves all weights by steps of about the same size. So an input that varies little, such as a cosine, is learned
slowly, and one that is far from 0, such as an age in steps, moves the sum whenever its weight moves. Source: LeCun et
al., "Efficient BackProp", 1998, section 4.3.

Mean and deviation are constants of the training period. They are multiplied into the weight, not into the inputs: a
service computes what it would of a plain layer.

Shapes: X inputs, Y outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class ScaledLinear(nn.Linear):
    """W ((x - mean) * scale) + b; a plain linear layer until mean and scale are set.

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
