"""From histories and examples to padded batches: the one place where ragged becomes padded + mask.

Histories + Examples --plan--> passes (user, window of events, targets) --bucket by length--> Batch
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """B users, each with one window of her history and C labelled targets, each at its own position.

    Args:
        history_BLF: int64 field numbers (`schema.history_fields`), left-aligned, 0 where padded.
        time_BL: int64 event times.
        length_B: int64 number of real events.
        user_B: int64 user number (2 + index; 1 unknown).
        target_BCF: int64 field numbers (`schema.item_fields`).
        target_time_BC: int64.
        position_BC: int64, how many events *of this window* lie strictly before the target.
        context_BCF: int64 context numbers (`schema.context_fields`).
        label_BCT: float32 labels.
        mask_BC: bool, True where the target is real.
        example_BC: int64, place of the target in the examples; -1 for sampled negatives and padding.
    """

    history_BLF: Tensor
    time_BL: Tensor
    length_B: Tensor
    user_B: Tensor
    target_BCF: Tensor
    target_time_BC: Tensor
    position_BC: Tensor
    context_BCF: Tensor
    label_BCT: Tensor
    mask_BC: Tensor
    example_BC: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(**{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)})
