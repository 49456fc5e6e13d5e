"""The mean of everything seen so far, per event and for a whole history at once."""

from __future__ import annotations

from torch import Tensor

from lifelong.nn.recurrent import states_at


def mean_step(mean_BD: Tensor, value_BD: Tensor, count_B: Tensor) -> Tensor:
    """The mean after one more value, the `count`-th: `[B, D]`.

    What was above 0 in one value of at least 0 never falls to 0 again.
    """
    return mean_BD + (value_BD - mean_BD) / count_B.unsqueeze(-1).to(value_BD.dtype)


def means_at(value_BLD: Tensor, count_BC: Tensor) -> Tensor:
    """The mean of the first `count` values, zeros where `count` is 0: `[B, C, D]`.

    Args:
        value_BLD: finite in padding, too; L may be 0.
        count_BC: int64, at most L.
    """
    sum_BCD = states_at(value_BLD.cumsum(dim=1), count_BC)
    return sum_BCD / count_BC.clamp(min=1).unsqueeze(-1).to(sum_BCD.dtype)
