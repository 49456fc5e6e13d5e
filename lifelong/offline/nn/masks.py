"""Masks of left-aligned rows, and what is done with them; a mask is True where an entry is real."""

from __future__ import annotations

import torch
from torch import Tensor


def length_mask(length_B: Tensor, size: int) -> Tensor:
    """Mask `[B, size]` of left-aligned rows with `length` real entries each.

    >>> length_mask(torch.tensor([0, 2]), 3).tolist()
    [[False, False, False], [True, True, False]]
    """
    return torch.arange(size, device=length_B.device) < length_B.unsqueeze(-1)


def clear_padding(value_BLE: Tensor, length_B: Tensor) -> Tensor:
    """Zeros in place of padding, which may hold anything, NaN too, and gets no gradient."""
    # Not a product with the mask: NaN times 0 is NaN, and so is its gradient.
    return value_BLE.masked_fill(~length_mask(length_B, value_BLE.shape[1]).unsqueeze(-1), 0.0)


def masked_softmax(score: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among the entries where `mask` is True; all 0 where there is none.

    There is no NaN, nor is there one in the gradient: masked entries take no part and get none.

    >>> masked_softmax(torch.tensor([[1.0, 1.0, 9.0]]), torch.tensor([[True, True, False]])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    # The least finite number and not -inf: where no entry is real, softmax would divide 0 by 0, and the gradient of NaN
    # reaches every weight.
    weight = torch.softmax(score.masked_fill(~mask, torch.finfo(score.dtype).min), dim=-1)
    # A row without any real entry is uniform until here.
    return weight * mask
