"""After how many events exactly a user's items come again: "every 61 events, so now".

    event --item--> mark of 7 bits --into the place of the oldest of 128--> marks of the last 128 events
                       `--equal to that of the j-th event before?--> returns of lag j; all halved if one would pass 127
    target --item--> its mark --at which lags is it found?--> the highest of their returns, and all of them together

When an item comes again depends on the user as much as on the item: one has a cycle of 61 events, another one of 75. A
cell says how long ago an item was met last, with two steps for each doubling, so that 61 and 75 events look alike; and
an item of a cycle may have been met since for another reason. So the memory keeps a mark of the item of each of the
last 128 events, which says at which lags a target was met, and for each lag how often an event repeated the item of
that lag. Marks of different items may be equal, one time in 127: what is counted is then a little more at all lags
alike.

Marks and returns take a byte each, four of them a number of the memory. All numbers are whole, so that they are the
same bit for bit on every path to it.

Source: this package; marks instead of items after Fan et al., "Cuckoo Filter: Practically Better Than Bloom", CoNEXT
2014; returns of each lag are an autocorrelation.

Shapes: B users, C targets per user, R = 32 rows of X = 2 numbers, G = 128 lags or places of marks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.data.cell_plan import LAGS, MARKS, MOST_RETURNS, PER_NUMBER, RHYTHM_ROWS, mark_of

SIZE = 4
"""Numbers that `rhythm_of` gives of a target."""


def marks_of(key: Tensor) -> Tensor:
    """The mark of each key, from 1 to 127; 0 of a negative one, which is never counted.

    >>> marks_of(torch.tensor([-1, 0, 1, 127])).tolist()
    [0, 1, 119, 119]
    """
    return torch.where(key >= 0, mark_of(key.clamp(min=0)), 0)


def bytes_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Marks by place, and returns by lag less 1, `[..., G]` each, in rows `[..., R, X]`: int64."""
    # Whole divisions, and not shifts, which graphs do not have for numbers with a sign.
    number = rows.long().flatten(-2).unsqueeze(-1)
    byte = torch.div(number, _worth(rows.device), rounding_mode="floor") % 256
    whole = byte.flatten(-2)
    return whole[..., :LAGS], whole[..., LAGS:]


def _worth(device: torch.device) -> Tensor:
    return 256 ** torch.arange(PER_NUMBER, device=device)


def _at_lags(value: Tensor, count: Tensor) -> Tensor:
    """What is kept by place, by lag less 1: `[..., G]`.

    Args:
        value: `[..., G]`.
        count: int64 `[...]`, events so far.
    """
    place = (count.unsqueeze(-1) - 1 - torch.arange(LAGS, device=count.device)) % LAGS
    return value.gather(-1, place)


def returned(rows_BRX: Tensor, key_B: Tensor, count_B: Tensor) -> Tensor:
    """One event further.

    Args:
        rows_BRX: int32 marks and returns.
        key_B: int64 key of the event's item.
        count_B: int64 events so far, this one included.
    """
    mark_BG, return_BG = bytes_of(rows_BRX)
    mark_B1, before_B = marks_of(key_B).unsqueeze(-1), count_B - 1
    same_BG = (_at_lags(mark_BG, before_B) == mark_B1) & (mark_B1 > 0)
    return_BG = return_BG + same_BG.long()
    full_B1 = (return_BG > MOST_RETURNS).any(dim=-1, keepdim=True)
    return_BG = torch.where(full_B1, return_BG // 2, return_BG)
    mark_BG = mark_BG.scatter(-1, (before_B % LAGS).unsqueeze(-1), mark_B1)
    byte_BNP = torch.cat([mark_BG, return_BG], dim=-1).view(len(key_B), -1, PER_NUMBER)
    return (byte_BNP * _worth(rows_BRX.device)).sum(dim=-1).view(len(key_B), RHYTHM_ROWS, MARKS).int()


def rhythm_of(rows: Tensor, key_BC: Tensor, count: Tensor, dtype: torch.dtype) -> Tensor:
    """What is known of targets: `[B, C, 4]`.

    Logarithms: of the highest returns of the lags at which the target's mark is found, of all these together, of the
    highest returns of any lag, and of all returns.

    Args:
        rows: `[B, C, R, X]` or `[B, 1, R, X]`.
        key_BC: int64 key of each target's item.
        count: int64 `[B, C]` or `[B, 1]`, events so far.
        dtype: of the result.
    """
    mark, returns = bytes_of(rows)
    own_BC1 = marks_of(key_BC).unsqueeze(-1)
    same_BCG = (_at_lags(mark, count) == own_BC1) & (own_BC1 > 0)
    here_BCG = returns * same_BCG.long()
    each = (*key_BC.shape, 1)
    parts = [here_BCG.amax(dim=-1, keepdim=True), here_BCG.sum(dim=-1, keepdim=True)]
    parts += [returns.amax(dim=-1, keepdim=True).expand(each), returns.sum(dim=-1, keepdim=True).expand(each)]
    return torch.log1p(torch.cat(parts, dim=-1).to(dtype)) / 2
