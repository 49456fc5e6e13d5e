"""Which steps of a layer write, where waiting makes it more likely: each decision depends on the ones before it.

This is the compiled loop of `boundaries.Boundary`, which names the source.

Shapes: B users, L padded history length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lifelong.compiled import Array
from lifelong.offline.nn.compiled import as_array, jit


@jit
def _wait(logit_BL: Array, slope: float, length_B: Array, longest: int, waited_BL: Array, hard_BL: Array) -> None:
    for b in range(len(length_B)):
        waited = 0
        for t in range(length_B[b]):
            waited = min(waited + 1, longest)
            waited_BL[b, t] = waited
            if logit_BL[b, t] + slope * waited > 0:
                hard_BL[b, t] = True
                waited = 0


def decide(logit_BL: Tensor, slope: float, length_B: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Which steps write, where each step of waiting adds `slope` to a logit: a step writes if the sum is above 0.

    Args:
        logit_BL: logits without what waiting adds; no gradient passes.
        slope: what a step of waiting adds.
        length_B: int64 real steps of each row; those in padding neither wait nor write.
        longest: how many steps of waiting count at most.

    Returns:
        How many steps each one waited, itself included, int64; and whether it writes.

    >>> waited_BL, hard_BL = decide(torch.full((1, 5), -1.5), 1.0, torch.tensor([5]), longest=9)
    >>> waited_BL.tolist(), hard_BL.tolist()
    ([[1, 2, 1, 2, 1]], [[False, True, False, True, False]])
    """
    waited_BL, hard_BL = np.zeros(logit_BL.shape, np.int64), np.zeros(logit_BL.shape, np.bool_)
    # NumPy knows no bfloat16, which mixed precision computes in.
    plain_BL = logit_BL if logit_BL.dtype == torch.float64 else logit_BL.float()
    _wait(as_array(plain_BL.cpu()), slope, as_array(length_B.cpu()), longest, waited_BL, hard_BL)
    return torch.from_numpy(waited_BL).to(logit_BL.device), torch.from_numpy(hard_BL).to(logit_BL.device)
