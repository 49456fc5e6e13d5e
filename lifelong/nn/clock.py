"""A clock of bounded size: how long ago a user's events were, given how many events ago they were.

    event --gap--> time of the last event + gap --every 2^j-th event--> the last two marks of level j

A memory that knows how many events ago something was does not know whether that was yesterday or a year ago. The clock
keeps the times of every 2^j-th event, the last two of each level j, as slots of HPMN are written periodically (Ren et
al., SIGIR 2019). An event that is n events old thus lies between two marks about n events apart at most, and its time
is read off the straight line between the nearest two.

Time is the sum of the gaps between events. A model knows gaps as buckets between powers of two; each stands for one
number of seconds (`seconds_of`), and over a history the errors come to a few per cent. All numbers that are kept are
whole, so that a clock is the same bit for bit on every path to it.

Source: this package; docs/decisions/0018 says why.

Shapes: B users, L padded history length, C targets per user, F counted fields, J levels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.data.cell_plan import GAP_SECONDS, LONGEST, MARKS


def seconds_of(key: Tensor) -> Tensor:
    """Whole seconds that the key of a gap stands for: int64; 0 for the same moment, or no event before.

    >>> seconds_of(torch.tensor([-1, 0, 1, 12])).tolist()
    [0, 0, 1, 2969]
    """
    return torch.tensor(GAP_SECONDS, device=key.device)[key.clamp(0, len(GAP_SECONDS) - 1)]


def empty_clock(users: int, levels: int, *, device: torch.device) -> Tensor:
    """Marks `[B, J, 2]` of users without events: int32 zeros."""
    return torch.zeros(users, levels, MARKS, dtype=torch.int32, device=device)


def tick(clock_BJX: Tensor, gap_B: Tensor, count_B: Tensor) -> Tensor:
    """Mark one event.

    Args:
        clock_BJX: int32.
        gap_B: int64 seconds since the event before.
        count_B: int64 events so far, this one included.
    """
    before_BJX = clock_BJX.long()
    now_B = (before_BJX[:, 0, 0] + gap_B).clamp(max=LONGEST)
    latest_BJ = before_BJX[..., 0]
    marked_BJX = torch.stack([now_B.unsqueeze(-1).expand_as(latest_BJ), latest_BJ], dim=-1)
    due_BJ = count_B.unsqueeze(-1) % _sizes(latest_BJ) == 0
    return torch.where(due_BJ.unsqueeze(-1), marked_BJX, before_BJX).int()


def clock_at(gap_BL: Tensor, position_BC: Tensor, levels: int) -> Tensor:
    """The clocks after `position` events, `[B, C, J, 2]`: what folding `tick` gives.

    Args:
        gap_BL: int64 seconds since the event before; padding is not read.
        position_BC: int64, at most L.
        levels: J.
    """
    time_BL = torch.cumsum(gap_BL, dim=1).clamp(max=LONGEST)
    # Before the first event the clock is at 0.
    time_BL = torch.cat([time_BL.new_zeros(len(time_BL), 1), time_BL], dim=1)
    # The marks of level j are at the last two multiples of 2^j.
    size_J = 2 ** torch.arange(levels, device=position_BC.device)
    latest_BCJ = position_BC.unsqueeze(-1) // size_J
    marked_BCJX = torch.stack([latest_BCJ, (latest_BCJ - 1).clamp(min=0)], dim=-1) * size_J.unsqueeze(-1)
    return time_BL.gather(1, marked_BCJX.flatten(1)).reshape(marked_BCJX.shape).int()


def spans(clock_BCJX: Tensor) -> Tensor:
    """Seconds from the older mark of each level to the last event: `[B, C, J]`, of the clock's type."""
    return clock_BCJX[..., :1, 0] - clock_BCJX[..., 1]


def elapsed(clock_BCJX: Tensor, count_BC: Tensor, ago_BCF: Tensor, dtype: torch.dtype) -> Tensor:
    """Seconds from the event `ago` events before the user's last one to that last one: `[B, C, F]`.

    Args:
        clock_BCJX: `[B, C, J, 2]` or `[B, 1, J, 2]`.
        count_BC: int64 events of each memory; `[B, C]` or `[B, 1]`.
        ago_BCF: int64, 0 for the last event.
        dtype: type of the result.
    """
    levels = clock_BCJX.shape[-2]
    mark_BCX = clock_BCJX.long().flatten(-2).expand(*ago_BCF.shape[:-1], MARKS * levels)
    count_BC1 = count_BC.unsqueeze(-1)
    event_BCF = (count_BC1 - ago_BCF).clamp(min=0)
    # Level j has marks at the last two multiples of 2^j. The older mark of the first level that reaches back to the
    # event lies before it; the older mark of the level below, or the last event, comes after it.
    oldest_BCJ = (count_BC1 // _sizes(clock_BCJX[..., 0]) - 1).clamp(min=0) * _sizes(clock_BCJX[..., 0])
    too_old_BCFJ = event_BCF.unsqueeze(-1) < oldest_BCJ.unsqueeze(-2)
    level_BCF = too_old_BCFJ.sum(dim=-1).clamp(max=levels - 1)
    first_BCF, last_BCF = level_BCF > 0, (level_BCF - 1).clamp(min=0)
    place_BCJ = oldest_BCJ.expand(*ago_BCF.shape[:-1], levels)
    begin_BCF, before_BCF = place_BCJ.gather(-1, level_BCF), mark_BCX.gather(-1, level_BCF * MARKS + 1)
    end_BCF = torch.where(first_BCF, place_BCJ.gather(-1, last_BCF), count_BC1)
    now_BC1 = mark_BCX[..., :1]
    after_BCF = torch.where(first_BCF, mark_BCX.gather(-1, last_BCF * MARKS + 1), now_BC1)
    # Up to here all numbers are whole: the difference of two large times is exact.
    rest_BCF = (end_BCF - event_BCF.maximum(begin_BCF)).to(dtype) / (end_BCF - begin_BCF).clamp(min=1).to(dtype)
    return (now_BC1 - after_BCF).to(dtype) + rest_BCF * (after_BCF - before_BCF).to(dtype)


def _sizes(mark_BJ: Tensor) -> Tensor:
    return 2 ** torch.arange(mark_BJ.shape[-1], device=mark_BJ.device)
