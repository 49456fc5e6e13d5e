"""What a model is given at once: histories, targets and labels of some users, as tensors.

Shapes: B users, L padded history length, C padded targets per user, F fields, T tasks, K counts; of items W windows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ItemWindows:
    """What a model with an item side reads: W windows of items' histories, each read after up to K numbers of events.

    Targets that have their item and the start of their window in common share a window, so that it is encoded once.

    Args:
        number_WLF: int64 field numbers of events (`InputSpec.item_side`), left-aligned, 0 where padded.
        length_W: int64 number of real events.
        position_WK: int64, after how many events of the window each of its K reads takes place; 0 where there is none.
        place_BC: int64, the read of each target, where read k of window w is `w * K + k`; anything in padding.
        gap_BC: int64, bucket of the time since the item's last event.
        query_BF: int64 number and profile of each user.
    """

    number_WLF: Tensor
    length_W: Tensor
    position_WK: Tensor
    place_BC: Tensor
    gap_BC: Tensor
    query_BF: Tensor

    def of(self, users: slice, mask_BC: Tensor) -> ItemWindows:
        """The windows that some of the users need.

        Args:
            users: the users.
            mask_BC: True where their targets are real; as wide as the longest of their lists of targets.
        """
        place_BC = self.place_BC[users, : mask_BC.shape[1]]
        reads = self.position_WK.shape[1]
        # `unique` sorts, so the windows that are used keep their order and are numbered again from 0.
        used_W, window_N = torch.unique(place_BC[mask_BC] // reads, return_inverse=True)
        if not len(used_W):
            used_W = self.length_W.new_zeros(1)
        place = torch.zeros_like(place_BC)
        place[mask_BC] = window_N * reads + place_BC[mask_BC] % reads
        length_W = self.length_W[used_W]
        return ItemWindows(
            number_WLF=self.number_WLF[used_W, : max(1, int(length_W.max()))],
            length_W=length_W,
            position_WK=self.position_WK[used_W],
            place_BC=place,
            gap_BC=self.gap_BC[users, : mask_BC.shape[1]],
            query_BF=self.query_BF[users],
        )

    def to(self, device: torch.device | str) -> ItemWindows:
        """The windows on another device."""
        return ItemWindows(
            **{field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)}
        )


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
        example_BC: int64, place of the target in the examples; -1 for drawn negatives and padding.
        weight_BC: float32, what the target counts in the loss; 1 on average.
        count_BCK: float32 `lifelong.data.counts.count_inputs` of each target, 0 in padding, from the whole history
            whatever the window; K is 0 where no counts were asked for.
        items: the windows of the targets' items, None where they were not asked for.
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
    weight_BC: Tensor
    count_BCK: Tensor
    items: ItemWindows | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        parts = {name: getattr(self, name).to(device, non_blocking=True) for name in TENSORS}
        return Batch(**parts, items=None if self.items is None else self.items.to(device))


TENSORS = tuple(field.name for field in fields(Batch) if field.name != "items")
"""The fields of a batch that are tensors; their first axis is the user."""
