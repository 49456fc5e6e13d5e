"""Baskets: the events of one moment, the mean over the last one, and gaps between those that hold a value.

Shapes: B users, L padded history length, C targets per user, D width of a value, M baskets with a value.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lifelong.dataset.events import gap_numbers
from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.hits import best_events, take_events
from lifelong.offline.nn.recurrent import states_at

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
    # The running maximum of the places at which a basket begins is where the present one began.
    begin_BL1 = place_L.where(~joins_BL, 0).cummax(dim=1).values.unsqueeze(-1)
    begin_BC = states_at(begin_BL1, position_BC).squeeze(-1)
    size_BC1 = (position_BC - begin_BC).unsqueeze(-1).to(value_BLD.dtype)
    # A basket is a difference of two sums from the start, so that no target needs a loop over its events.
    sum_BLD = value_BLD.cumsum(dim=1)
    sum_BCD = states_at(sum_BLD, position_BC) - states_at(sum_BLD, begin_BC)
    # At position 0 there is no basket, and 0 / 1 is the zero that is promised.
    return sum_BCD / size_BC1.clamp(min=1), size_BC1


def baskets_of(time_BL: Tensor) -> Tensor:
    """The number of each event's basket, from 0, where a basket is all events of one time: int64 `[B, L]`.

    Args:
        time_BL: in order; anything in padding.

    >>> baskets_of(torch.tensor([[5, 5, 7, 9, 9]])).tolist()
    [[0, 0, 1, 2, 2]]
    """
    begins_BL = torch.zeros_like(time_BL)
    # The first event begins no second basket: numbers count from 0.
    begins_BL[:, 1:] = (time_BL[:, 1:] != time_BL[:, :-1]).long()
    return begins_BL.cumsum(dim=1)


def purchase_gaps(number_BL: Tensor, basket_BL: Tensor, number_BC: Tensor, position_BC: Tensor, *, size: int) -> Tensor:
    """Gaps between the last baskets before each position that hold the target's number: int64 `[B, C, size]`.

    In baskets, oldest first. The last one is the gap to the basket after the last one before the position. Where there
    are fewer, zeros are in front; so the last gap is 0 where no basket holds the number, as unknown numbers never are.

    Args:
        number_BL: of the events.
        basket_BL: number of each event's basket, rising.
        number_BC: of the targets.
        position_BC: events before each target, at most L.
        size: gaps at most.

    >>> number_BL, basket_BL = torch.tensor([[7, 8, 7, 9, 7, 7]]), torch.tensor([[0, 0, 1, 2, 4, 4]])
    >>> purchase_gaps(number_BL, basket_BL, torch.tensor([[7, 8, 5]]), torch.tensor([[6, 6, 6]]), size=3).tolist()
    [[[1, 3, 1], [0, 0, 5], [0, 0, 0]]]
    """
    users, length = number_BL.shape
    place_L = torch.arange(length, device=number_BL.device)
    once_BL = _first_in_basket(number_BL, basket_BL)

    def find(number_BC: Tensor, position_BC: Tensor) -> tuple[Tensor]:
        same_BCL = (number_BL.unsqueeze(1) == number_BC.unsqueeze(-1)) & (number_BC.unsqueeze(-1) > UNKNOWN)
        held_BCL = same_BCL & once_BL.unsqueeze(1) & (place_L < position_BC.unsqueeze(-1))
        place_BCM, hit_BCM = best_events(place_L.expand_as(held_BCL), held_BCL, size)
        held_BCM = take_events(basket_BL.unsqueeze(-1), place_BCM, hit_BCM).squeeze(-1)
        last_BC1 = states_at(basket_BL.unsqueeze(-1), position_BC)
        # Baskets come latest first, so that the one before in the row is the later neighbour. Before the first there is
        # the basket that would come next.
        later_BCM = torch.cat([last_BC1 + 1, held_BCM[..., :-1]], dim=-1)
        return ((later_BCM - held_BCM).masked_fill(~hit_BCM, 0).flip(-1),)

    return in_chunks(find, number_BC, position_BC, axis=1, numbers=2 * users * max(length, size))[0]


def _first_in_basket(number_BL: Tensor, basket_BL: Tensor) -> Tensor:
    """Whether an event is the first of its basket with its number: bool `[B, L]`."""
    # Sorted by number, events of one basket stay next to each other.
    order_BL = number_BL.argsort(dim=1, stable=True)
    number_BS, basket_BS = number_BL.gather(1, order_BL), basket_BL.gather(1, order_BL)
    first_BS = torch.ones_like(number_BS, dtype=torch.bool)
    # The first of all has no neighbour before it, and stays True.
    first_BS[:, 1:] = (number_BS[:, 1:] != number_BS[:, :-1]) | (basket_BS[:, 1:] != basket_BS[:, :-1])
    # Back from the order of numbers to that of events.
    return torch.zeros_like(first_BS).scatter(1, order_BL, first_BS)
