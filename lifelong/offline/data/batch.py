"""What a model is given at once: histories, targets and labels of some users, as tensors.

Shapes: B users, L padded history length, C padded targets per user, F fields, T tasks, K counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """B users, each with one window of her history and up to C labelled targets, each at its own position.

    Two users of four and of two events, with two targets and one, `.` being padding:

        history_BLF     e0 e1 e2 e3         length_B  4         position_BC   2  4         mask_BC   True   True
                        e5 e6  .  .                   2                       2  .                   True   False

    The first target of the first user sees e0 and e1, the second all four events: a target must be answered as if only
    the first `position` events of the window existed.

    Args:
        history_BLF: int64 field numbers (`schema.history_fields`), left-aligned, 0 where padded.
        time_BL: int64 event times.
        length_B: int64 number of real events.
        user_B: int64 user number (2 + index; 1 unknown).
        target_BCF: int64 field numbers (`schema.item_fields`).
        target_time_BC: int64.
        position_BC: int64, how many events *of this window* are strictly before the target.
        context_BCF: int64 context numbers (`schema.context_fields`).
        label_BCT: float32 labels.
        mask_BC: bool, True where the target is real.
        history_key_BLF: int64 keys of the events' item fields, by which memories count them; F is 0 in a batch that was
            made by hand, whose values are told apart by their numbers.
        target_key_BCF: the same of the targets.
        example_BC: int64, place of the target in the examples; -1 for drawn negatives and padding.
        weight_BC: float32, what the target counts in the loss; 1 on average.
        count_BCK: float32 `lifelong.offline.data.counts.count_inputs` of each target, 0 in padding, from the whole
            history whatever the window; K is 0 where no counts were asked for.
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
    history_key_BLF: Tensor
    target_key_BCF: Tensor
    example_BC: Tensor
    weight_BC: Tensor
    count_BCK: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: getattr(self, name).to(device, non_blocking=True) for name in TENSORS})


TENSORS = tuple(field.name for field in fields(Batch))
"""The fields of a batch; their first axis is the user."""
