"""The last events before each of many targets, and their mean.

Shapes: B users, L padded history length, C targets per user, N events of a window, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def recent_events(vector_BLE: Tensor, position_BC: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The last `size` events before each position: `[B, C, N, E]` with N = `size`, and the mask `[B, C, N]`.

    Right-aligned: place N - 1 holds the event right before the position, place 0 the oldest. Where a history has fewer
    events, the first places are zeros and masked. No event from the position on is touched: those may hold anything,
    NaN too, and get the gradient 0.

    Args:
        vector_BLE: one vector per event, left-aligned; L may be 0.
        position_BC: int64 events before each target, at most L.
        size: N.
    """
    users, length, width = vector_BLE.shape
    place_BCN = position_BC.unsqueeze(-1) + torch.arange(-size, 0, device=position_BC.device)
    mask_BCN = place_BCN >= 0
    # Rows of one long table, whose first is zeros: its backward pass adds whole rows, which is fast everywhere.
    table = torch.cat([vector_BLE.new_zeros(1, width), vector_BLE.reshape(users * length, width)])
    first_B11 = 1 + length * torch.arange(users, device=position_BC.device).view(-1, 1, 1)
    row_BCN = (first_B11 + place_BCN).masked_fill(~mask_BCN, 0)
    return table.index_select(0, row_BCN.flatten()).view(*row_BCN.shape, width), mask_BCN


def recent_places(position_BC: Tensor, size: int) -> Tensor:
    """Places in the history of what `recent_events` takes, 0 where there is no event: int64 `[B, C, N]`."""
    return (position_BC.unsqueeze(-1) + torch.arange(-size, 0, device=position_BC.device)).clamp(min=0)


def recent_mean(vector_BLE: Tensor, position_BC: Tensor, size: int) -> Tensor:
    """The mean of the last `size` events before each position, zeros where there is none: `[B, C, E]`.

    Args:
        vector_BLE: finite in padding, too; L may be 0.
        position_BC: int64, at most L.
        size: most events of a mean.
    """
    users, _, width = vector_BLE.shape
    total_BLE = torch.cat([vector_BLE.new_zeros(users, 1, width), vector_BLE.cumsum(dim=1)], 1)
    start_BC = (position_BC - size).clamp(min=0)
    ends = [place.unsqueeze(-1).expand(-1, -1, width) for place in (position_BC, start_BC)]
    sum_BCE = total_BLE.gather(1, ends[0]) - total_BLE.gather(1, ends[1])
    return sum_BCE / (position_BC - start_BC).clamp(min=1).unsqueeze(-1).to(sum_BCE.dtype)
