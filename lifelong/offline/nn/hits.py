"""Search in a history: scores without ties, the best events for each target, values at these hits, and how long ago.

Source: what the exact search units of SIM (Pi et al., CIKM 2020), ETA (Chen et al., 2021) and TWIN (Chang et al., KDD
2023) share.

Shapes: B users, L padded history length, C targets per user, M retrieved events, H heads, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from lifelong.dataset.events import GAP_NUMBERS

# 12 bits of a unit: coarser than the rounding errors of a product in single precision, finer than any difference that
# matters.
_STEPS = 4096
"""Steps of a score per unit."""
# 24 bits for the place and 39 for the score fit, with the sign, into an int64.
_PLACES = 2**24
"""How many events a history may have."""
_ROUGH = 1e-3
"""An error larger than that of any logarithm."""


def best_events(score_BCL: Tensor, visible_BCL: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Places of the events with the largest scores, best first, and which of them are events: `[B, C, M]`, M = `most`.

    An event that a target may not see is never among them, whatever its score. Where a target sees fewer than M events
    the rest are no hits, and their place is 0.

    Args:
        score_BCL: whole or floating numbers, finite where visible; no gradient passes. L may be 0.
        visible_BCL: which events each target may see.
        most: M.

    >>> score_BCL, visible_BCL = torch.tensor([[[3.0, 9.0, 5.0]]]), torch.tensor([[[True, False, True]]])
    >>> place_BCM, hit_BCM = best_events(score_BCL, visible_BCL, most=3)
    >>> place_BCM.tolist(), hit_BCM.tolist()
    ([[[2, 0, 0]]], [[[True, True, False]]])
    """
    score_BCL = score_BCL.detach()
    lowest = -torch.inf if score_BCL.is_floating_point() else torch.iinfo(score_BCL.dtype).min
    # M more columns that no target sees, so that M can always be taken.
    score_BCX = pad(score_BCL.masked_fill(~visible_BCL, lowest), (0, most), value=lowest)
    best_BCM, place_BCM = score_BCX.topk(most, dim=-1)
    hit_BCM = best_BCM > lowest
    return place_BCM.masked_fill(~hit_BCM, 0), hit_BCM


def take_events(value_BLD: Tensor, place_BCM: Tensor, hit_BCM: Tensor) -> Tensor:
    """The values at the hits, zeros where there is no hit: `[B, C, M, D]`.

    Args:
        value_BLD: one row per event; L may be 0.
        place_BCM: int64, below L where `hit_BCM`.
        hit_BCM: which places are hits.

    >>> value_BLD = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> take_events(value_BLD, torch.tensor([[[2, 0]]]), torch.tensor([[[True, False]]])).tolist()
    [[[[3.0], [0.0]]]]
    """
    users, length, width = value_BLD.shape
    # One long table: a row of zeros, then the rows of all users, so that user b begins at row 1 + L b. Its backward
    # pass adds whole rows, which is fast everywhere.
    table_ND = torch.cat([value_BLD.new_zeros(1, width), value_BLD.reshape(-1, width)])
    first_B11 = 1 + length * torch.arange(users, device=place_BCM.device).view(-1, 1, 1)
    row_BCM = (first_B11 + place_BCM).masked_fill(~hit_BCM, 0)
    return table_ND.index_select(0, row_BCM.flatten()).view(*row_BCM.shape, width)


def over_events(weight_BCM: Tensor, place_BCM: Tensor, length: int) -> Tensor:
    """Weights of hits at the places of their events, those of one event summed, 0 elsewhere: `[B, C, L]`.

    Args:
        weight_BCM: 0 where there is no hit.
        place_BCM: int64, from 0 to L - 1 where there is a hit, and at most L elsewhere.
        length: L.

    >>> over_events(torch.tensor([[[0.7, 0.2, 0.1]]]), torch.tensor([[[2, 0, 2]]]), length=4)
    tensor([[[0.2000, 0.0000, 0.8000, 0.0000]]])
    """
    # One place more than there are events, as hits that are none have a place, too, also where L is 0.
    weight_BCX = weight_BCM.new_zeros(*weight_BCM.shape[:-1], length + 1)
    return weight_BCX.scatter_add(-1, place_BCM, weight_BCM)[..., :length]


def products_at(query_BCHD: Tensor, value_BLD: Tensor, place_BCM: Tensor) -> Tensor:
    """Inner products of a target's queries with the values at its hits: `[B, C, H, M]`.

    All products are made, and those of the hits picked: a copy of the values for each target would be far larger.

    Args:
        query_BCHD: queries, one per head.
        value_BLD: one row per event, or `[L, D]` for all users; L may be 0.
        place_BCM: int64, below L where there is a hit, and 0 elsewhere.
    """
    users, targets, heads, _ = query_BCHD.shape
    # A row more than there are events, so that there is one where L is 0.
    row_BLD = pad(value_BLD, (0, 0, 0, 1))
    product_BNL = query_BCHD.flatten(1, 2) @ row_BLD.transpose(-1, -2)
    place_BCHM = place_BCM.unsqueeze(2).expand(-1, -1, heads, -1)
    return product_BNL.view(users, targets, heads, -1).gather(-1, place_BCHM)


def sums_at(weight_BCHM: Tensor, value_BLD: Tensor, place_BCM: Tensor) -> Tensor:
    """Sums of the values at the hits under each head's weights: `[B, C, H, D]`.

    Args:
        weight_BCHM: 0 where there is no hit.
        value_BLD: one row per event, or `[L, D]` for all users; L may be 0.
        place_BCM: int64, see `over_events`.
    """
    users, targets, heads, _ = weight_BCHM.shape
    place_BCHM = place_BCM.unsqueeze(2).expand(-1, -1, heads, -1)
    weight_BCHL = over_events(weight_BCHM, place_BCHM, value_BLD.shape[-2])
    return (weight_BCHL.flatten(1, 2) @ value_BLD).view(users, targets, heads, -1)


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
    # Single precision holds whole seconds only up to 2^24, about 194 days, and would put a long gap into a neighbouring
    # bucket.
    size = seconds.clamp(min=1).double()
    # Logarithms of powers of two come out a little too small or too large, in an exported graph more so. So the
    # exponent is rounded down from a little less, and compared with the next power of two, which is exact.
    low = torch.floor(torch.log2(size) - _ROUGH)
    exponent = low.long() + (size >= torch.exp2(low + 1)).long()
    return torch.where(seconds > 0, 3 + exponent, 2).clamp(max=GAP_NUMBERS - 1)
