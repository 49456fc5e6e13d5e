"""Baskets: the events of one moment, and the mean over the last one.

Shapes: B users, L padded history length, C targets per user, D width of a value.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lifelong.data.events import gap_numbers
from lifelong.nn.recurrent import states_at

GAP = "gap"
"""The event field that says whether an event has the time of the one before."""
SAME_MOMENT = int(gap_numbers(np.array([0]), np.array([0]))[0])
"""Number of the gap between two events of one moment."""


def last_baskets(value_BLD: Tensor, joins_BL: Tensor, position_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the last basket before each position, zeros at position 0, and its size: `[B, C, D]`, `[B, C, 1]`.

    Args:
        value_BLD: of each event; finite in padding, too.
        joins_BL: whether an event has the moment of the one before; the first one begins a basket whatever is said.
        position_BC: at most L.

    >>> value_BLD = torch.tensor([[[1.0], [2.0], [4.0]]])
    >>> joins_BL = torch.tensor([[False, False, True]])
    >>> last_baskets(value_BLD, joins_BL, torch.tensor([[0, 2, 3]]))[0].flatten().tolist()
    [0.0, 2.0, 3.0]
    """
    place_L = torch.arange(value_BLD.shape[1], device=value_BLD.device)
    begin_BL1 = place_L.where(~joins_BL, 0).cummax(dim=1).values.unsqueeze(-1)
    begin_BC = states_at(begin_BL1, position_BC).squeeze(-1)
    size_BC1 = (position_BC - begin_BC).unsqueeze(-1).to(value_BLD.dtype)
    sum_BLD = value_BLD.cumsum(dim=1)
    sum_BCD = states_at(sum_BLD, position_BC) - states_at(sum_BLD, begin_BC)
    return sum_BCD / size_BC1.clamp(min=1), size_BC1
