"""What a search in a history goes by beside the score: of equal events the later, and how long ago each was.

Shapes: B users, L padded history length, C targets per user.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.data.events import GAP_NUMBERS

_STEPS = 4096
"""Of a score, per unit."""
_PLACES = 2**24
"""Events of a history at most."""
_ROUGH = 1e-3
"""More than any logarithm is wrong by."""


def later_of_equal(score_BCL: Tensor) -> Tensor:
    """Whole scores, no two alike, in which the later of two equal events is the better: int64 `[B, C, L]`.

    Scores within one part in 4,096 of a unit are equal: the rounding errors of a matrix product, which change with
    padding and neighbours, must not decide which of two visits to one item is found.

    Args:
        score_BCL: less than 2^27 in size.
    """
    whole_BCL = (score_BCL.detach() * _STEPS).round().long()
    return whole_BCL * _PLACES + torch.arange(score_BCL.shape[-1], device=score_BCL.device)


def gaps_since(time: Tensor, earlier: Tensor) -> Tensor:
    """Bucket of the seconds from `earlier` to `time`, both known: as `events.gap_numbers` has it, 2 and up."""
    seconds = (time - earlier).clamp(min=0)
    size = seconds.clamp(min=1).double()
    # Logarithms of powers of two come out a little too small or too large, in an exported graph more so: the exponent
    # is taken rather too small, and held against the power itself, which is exact.
    low = torch.floor(torch.log2(size) - _ROUGH)
    exponent = low.long() + (size >= torch.exp2(low + 1)).long()
    return torch.where(seconds > 0, 3 + exponent, 2).clamp(max=GAP_NUMBERS - 1)
