"""The last events before each of many targets, and means of the last and of all events.

Shapes: B users, L padded history length, C targets per user, N events of a window, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.offline.nn.hits import take_events
from lifelong.offline.nn.recurrent import states_at


def recent_events(vector_BLE: Tensor, position_BC: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The last `size` events before each position: `[B, C, N, E]` with N = `size`, and the mask `[B, C, N]`.

    Right-aligned: place N - 1 holds the event right before the position, place 0 the oldest. Where a history has fewer
    events, the first places are zeros and masked. No event from the position on is touched: those may hold anything,
    NaN too, and get the gradient 0.

    Args:
        vector_BLE: one vector per event, left-aligned; L may be 0.
        position_BC: int64 events before each target, at most L.
        size: N.

    >>> event_BCNE, mask_BCN = recent_events(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[3, 1]]), size=2)
    >>> event_BCNE.squeeze(-1).tolist(), mask_BCN.tolist()
    ([[[2.0, 3.0], [0.0, 1.0]]], [[[True, True], [False, True]]])
    """
    mask_BCN = _places(position_BC, size) >= 0
    return take_events(vector_BLE, recent_places(position_BC, size), mask_BCN), mask_BCN


def recent_places(position_BC: Tensor, size: int) -> Tensor:
    """Places in the history of what `recent_events` takes, 0 where there is no event: int64 `[B, C, N]`.

    >>> recent_places(torch.tensor([[3, 1]]), size=2).tolist()
    [[[1, 2], [0, 0]]]
    """
    return _places(position_BC, size).clamp(min=0)


def _places(position_BC: Tensor, size: int) -> Tensor:
    """The `size` places right before each position, below 0 where there is no event."""
    return position_BC.unsqueeze(-1) + torch.arange(-size, 0, device=position_BC.device)


def recent_mean(vector_BLE: Tensor, position_BC: Tensor, size: int) -> Tensor:
    """The mean of the last `size` events before each position, zeros where there is none: `[B, C, E]`.

    Args:
        vector_BLE: finite in padding, too; L may be 0.
        position_BC: int64, at most L.
        size: N; a mean is over as many events at most.

    >>> recent_mean(torch.tensor([[[1.0], [2.0], [6.0]]]), torch.tensor([[0, 1, 3]]), size=2).flatten().tolist()
    [0.0, 1.0, 4.0]
    """
    users, _, width = vector_BLE.shape
    # The sum of a window is a difference of two sums from the start; before the first event it is 0.
    total_BLE = torch.cat([vector_BLE.new_zeros(users, 1, width), vector_BLE.cumsum(dim=1)], 1)
    start_BC = (position_BC - size).clamp(min=0)
    ends = [place.unsqueeze(-1).expand(-1, -1, width) for place in (position_BC, start_BC)]
    sum_BCE = total_BLE.gather(1, ends[0]) - total_BLE.gather(1, ends[1])
    # Without events the sum is 0, and 0 / 1 is the zero that is promised; 0 / 0 would be NaN.
    return sum_BCE / (position_BC - start_BC).clamp(min=1).unsqueeze(-1).to(sum_BCE.dtype)


def mean_step(mean_BD: Tensor, value_BD: Tensor, count_B: Tensor) -> Tensor:
    """The mean after one more value, the `count`-th: `[B, D]`.

    Where values are at least 0, a mean that is above 0 never falls to 0 again.

    >>> mean_step(torch.tensor([[4.0]]), torch.tensor([[1.0]]), torch.tensor([3])).item()
    3.0
    """
    return mean_BD + (value_BD - mean_BD) / count_B.unsqueeze(-1).to(value_BD.dtype)


def means_at(value_BLD: Tensor, count_BC: Tensor) -> Tensor:
    """The mean of the first `count` values, zeros where `count` is 0: `[B, C, D]`.

    Args:
        value_BLD: finite in padding, too; L may be 0.
        count_BC: int64, at most L.

    >>> means_at(torch.tensor([[[4.0], [2.0], [9.0]]]), torch.tensor([[0, 2, 3]])).flatten().tolist()
    [0.0, 3.0, 5.0]
    """
    sum_BCD = states_at(value_BLD.cumsum(dim=1), count_BC)
    # Without events the sum is 0; 0 / 0 would be NaN.
    return sum_BCD / count_BC.clamp(min=1).unsqueeze(-1).to(sum_BCD.dtype)
