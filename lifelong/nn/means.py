"""The mean of all values so far, per event and for whole histories at once."""

from __future__ import annotations

from torch import Tensor

from lifelong.nn.recurrent import states_at


def mean_step(mean_BD: Tensor, value_BD: Tensor, count_B: Tensor) -> Tensor:
    """The mean after one more value, the `count`-th: `[B, D]`.

    Where values are at least 0, a mean that is above 0 never falls to 0 again.

    >>> import torch
    >>> mean_step(torch.tensor([[4.0]]), torch.tensor([[1.0]]), torch.tensor([3])).item()
    3.0
    """
    return mean_BD + (value_BD - mean_BD) / count_B.unsqueeze(-1).to(value_BD.dtype)


def means_at(value_BLD: Tensor, count_BC: Tensor) -> Tensor:
    """The mean of the first `count` values, zeros where `count` is 0: `[B, C, D]`.

    Args:
        value_BLD: finite in padding, too; L may be 0.
        count_BC: int64, at most L.

    >>> import torch
    >>> means_at(torch.tensor([[[4.0], [2.0], [9.0]]]), torch.tensor([[0, 2, 3]])).flatten().tolist()
    [0.0, 3.0, 5.0]
    """
    sum_BCD = states_at(value_BLD.cumsum(dim=1), count_BC)
    return sum_BCD / count_BC.clamp(min=1).unsqueeze(-1).to(sum_BCD.dtype)
