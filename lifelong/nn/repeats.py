"""How often a user comes back to what she had: two numbers that tell a creature of habit from one that explores.

    event --its item has a cell, or both faded bits--> repeat    total + 1;    recent + (repeat - recent) / 64

Whether the next item is a known one depends on the user as much as on the item. Counts of the item alone do not say it:
in a log of purchases one user buys 80 of 100 items again, another one 20. What was met before is what the cells and
faded bits know, so that no further table is needed. The recent share is a fixed-point number with 16 bits behind the
point. All numbers are whole, so that they are the same bit for bit on every path to a memory.

Source: this package; the share of distinct items is what an expert gives boosted trees (docs/models/gbdt.md).

Shapes: B users, C targets per user, X = 2 numbers: total and recent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.data.cell_plan import HALVINGS, ONE, RECENT_BITS
from lifelong.nn.cells import Found

RECENT = 2**RECENT_BITS
"""Events of the moving mean."""


def repeat(repeats_BX: Tensor, found: Found) -> Tensor:
    """One event further.

    Args:
        repeats_BX: int32 total and recent.
        found: what the memory before the event knows of the event's own values, `[B, 1, F]`; items are the first field.
    """
    met_B = ((found.count_BCF > 0) | found.faded_BCF)[:, 0, 0].long()
    total_B, recent_B = repeats_BX.long().unbind(-1)
    # An arithmetic shift rounds down, for negative numbers too, as it does in the compiled loops.
    return torch.stack([total_B + met_B, recent_B + ((met_B * ONE - recent_B) >> RECENT_BITS)], dim=-1).int()


def repeat_shares(repeats_BCX: Tensor, count_BC1: Tensor) -> Tensor:
    """Shares of repeats among all events and the recent ones, from -1 for none to 1 for all: `[B, C, X]`.

    >>> repeat_shares(torch.tensor([[[1, 2 ** 10]]]), torch.tensor([[[2.0]]]))
    tensor([[[0.0000, 0.0079]]])
    """
    # The moving mean begins at 0: its weights sum to less than 1 for the first events.
    weight_BC1 = (1 - torch.exp2(count_BC1 * -HALVINGS)).clamp(min=1 / RECENT)
    whole_BCX = torch.cat([count_BC1.clamp(min=1), weight_BC1 * ONE], dim=-1)
    return repeats_BCX.to(count_BC1.dtype) / whole_BCX * 2 - 1
