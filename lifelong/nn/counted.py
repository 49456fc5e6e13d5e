"""Exact counts for the head: `lifelong.data.counts`, standardised by the training examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lifelong.data.counts import standardising

if TYPE_CHECKING:
    from lifelong.data.counts import FloatArray


class CountScale(nn.Module):
    """Takes the mean from each count and divides by the deviation; leaves counts as they are until it is fitted.

    Args:
        size: K, columns of `lifelong.data.counts.count_inputs`.
    """

    mean_K: Tensor
    scale_K: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean_K", torch.zeros(size))
        self.register_buffer("scale_K", torch.ones(size))

    def fit(self, value_NK: FloatArray) -> None:
        """Take mean and deviation of these."""
        mean_K, scale_K = standardising(value_NK)
        self.mean_K.copy_(torch.from_numpy(mean_K))
        self.scale_K.copy_(torch.from_numpy(scale_K))

    def forward(self, count_BCK: Tensor) -> Tensor:
        """Standardised counts."""
        return (count_BCK - self.mean_K) * self.scale_K
