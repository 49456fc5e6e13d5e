"""What a model that is given counts reads: standardised exact counts, and how popular the target is.

Shapes: B users, C targets per user, K counts, F item fields, V values of a field.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.dtypes import FloatArray
from lifelong.offline.data.counts import standardising


class CountScale(nn.Module):
    """Subtracts the mean from each count and divides by the deviation; leaves counts as they are until it is fitted.

    Args:
        size: K, columns of `lifelong.offline.data.counts.count_inputs`.
    """

    mean_K: Tensor
    scale_K: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean_K", torch.zeros(size))
        self.register_buffer("scale_K", torch.ones(size))

    def fit(self, value_NK: FloatArray) -> None:
        """Take the mean and deviation of each column."""
        mean_K, scale_K = standardising(value_NK)
        self.mean_K.copy_(torch.from_numpy(mean_K))
        self.scale_K.copy_(torch.from_numpy(scale_K))

    def forward(self, count_BCK: Tensor) -> Tensor:
        """Standardised counts."""
        return (count_BCK - self.mean_K) * self.scale_K


class TargetPopularity(nn.Module):
    """Looks up how often each value of the target is a target in training, as a standardised logarithm; 0 until then.

    Args:
        sizes: item field -> V.

    >>> popularity = TargetPopularity({"item": 4})
    >>> popularity.learn({"item": np.array([0.0, 0.0, 90.0, 10.0])})
    >>> popularity(torch.tensor([[[2], [3]]])).flatten()
    tensor([ 0.3333, -3.0000])
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.fields: tuple[str, ...] = tuple(sizes)
        for place, size in enumerate(sizes.values()):
            self.register_buffer(f"popular_{place}", torch.zeros(size, 1))

    def learn(self, counts: Mapping[str, FloatArray]) -> None:
        """Take in how many training targets have each number of a field: field -> `[V]`."""
        for place, field in enumerate(self.fields):
            log_V, count_V = np.log1p(counts[field]), counts[field]
            asked = count_V.sum() or 1.0
            # Mean and deviation over targets, not over values: popular values weigh more.
            mean = float(log_V @ count_V / asked)
            deviation = float(np.sqrt((log_V - mean) ** 2 @ count_V / asked))
            self.get_buffer(f"popular_{place}").copy_(torch.from_numpy((log_V - mean) / max(deviation, 1e-6))[:, None])

    def forward(self, number_BCF: Tensor) -> Tensor:
        """`[B, C, F]` of the numbers of the item fields."""
        parts = [self.get_buffer(f"popular_{place}")[number_BCF[..., place]] for place in range(len(self.fields))]
        return torch.cat(parts, dim=-1)
