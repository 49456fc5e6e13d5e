"""Masks are True where real."""

from __future__ import annotations

import torch
from torch import Tensor


def length_mask(length_B: Tensor, size: int) -> Tensor:
    """Mask `[B, size]` of left-aligned rows with `length` real entries each."""
    return torch.arange(size, device=length_B.device) < length_B.unsqueeze(-1)


def clear_padding(value_BLE: Tensor, length_B: Tensor) -> Tensor:
    """Zeros in place of padding, whatever stood there: NaN too, and without a gradient to it."""
    return value_BLE.masked_fill(~length_mask(length_B, value_BLE.shape[1]).unsqueeze(-1), 0.0)


def masked_softmax(score: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among the entries where `mask` is True; all 0 where there is none.

    No NaN, backward neither: masked entries take no part and get no gradient.
    """
    weight = torch.softmax(score.masked_fill(~mask, torch.finfo(score.dtype).min), dim=-1)
    return weight * mask
