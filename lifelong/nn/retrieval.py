"""What a search in a history needs besides scores: the later one of equal events, and how long ago each was.

Source: this package; time gaps between events and target are those of SIM (Pi et al., CIKM 2020), section 3.3.

Shapes: B users, L padded history length, C targets per user.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.data.events import GAP_NUMBERS

_STEPS = 4096
"""Steps of a score per unit."""
_PLACES = 2**24
"""How many events a history may have."""
_ROUGH = 1e-3
"""An error larger than that of any logarithm."""


def later_of_equal(score_BCL: Tensor) -> Tensor:
    """Whole scores, no two alike, in which the later of two equal events is the better one: int64 `[B, C, L]`.

    Scores count as equal within one part in 4,096 of a unit: the rounding errors of a matrix product, which change with
    padding and neighbours, must not decide which of two visits to one item is found.

    Args:
        score_BCL: less than 2^27 in size.

    >>> later_of_equal(torch.tensor([[[0.5, 0.9, 0.5]]])).argsort(descending=True).tolist()
    [[[1, 2, 0]]]
    """
    # The score in the high bits (39), the place of the event in the low ones (24).
    whole_BCL = (score_BCL.detach() * _STEPS).round().long()
    return whole_BCL * _PLACES + torch.arange(score_BCL.shape[-1], device=score_BCL.device)


def gaps_since(time: Tensor, earlier: Tensor) -> Tensor:
    """The bucket of the seconds from `earlier` to `time`, both known: as in `events.gap_numbers`, from 2 on.

    >>> gaps_since(torch.tensor([100, 100, 100]), torch.tensor([100, 99, 36])).tolist()
    [2, 3, 9]
    """
    seconds = (time - earlier).clamp(min=0)
    size = seconds.clamp(min=1).double()
    # Logarithms of powers of two come out a little too small or too large, in an exported graph more so. So the
    # exponent is rounded down from a little less, and compared with the next power of two, which is exact.
    low = torch.floor(torch.log2(size) - _ROUGH)
    exponent = low.long() + (size >= torch.exp2(low + 1)).long()
    return torch.where(seconds > 0, 3 + exponent, 2).clamp(max=GAP_NUMBERS - 1)
