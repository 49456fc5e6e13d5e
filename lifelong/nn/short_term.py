"""The short term: attention to the last few events alone, beside whatever searches the whole history.

Shapes: B users, L padded history length, C targets per user, N last events, E width of an event, D width of the
interest, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifelong.nn.attention import attend_by_head
from lifelong.nn.chunks import in_chunks
from lifelong.nn.windows import recent_events

SHORT_WIDTH = 32
"""D, unless told otherwise."""


class ShortTerm(nn.Module):
    """Multi-head target attention over the last events before each target.

    Source: the short-term part of SIM, ETA, SDIM and TWIN. Queries and keys start in one space, so that a target and
    the events of the same values are near each other from the first step.

    Args:
        target: width of an embedded target, with which an embedded event begins.
        event: E.
        size: N.
        width: D, all heads together.
        heads: H.
    """

    def __init__(self, target: int, event: int, *, size: int, width: int = SHORT_WIDTH, heads: int = 4) -> None:
        super().__init__()
        self.size, self.width, self.heads = size, width, heads
        self.query, self.key, self.value = (nn.Linear(part, width, bias=False) for part in (target, event, event))
        nn.init.orthogonal_(self.query.weight)
        with torch.no_grad():
            self.key.weight.zero_()
            self.key.weight[:, :target] = self.query.weight

    def entries(self, event: Tensor) -> Tensor:
        """What is kept of each event, its key and its value: `[..., 2 D]`."""
        return torch.cat([self.key(event), self.value(event)], dim=-1)

    def attend(self, target_BCE: Tensor, entry_BCNX: Tensor, seen_BCN: Tensor) -> Tensor:
        """The interest `[B, C, D]`, zeros where nothing is seen.

        Args:
            target_BCE: the targets.
            entry_BCNX: entries of each target's last events, or of all targets' of a user: `[B, 1, N, 2 D]`.
            seen_BCN: which of them there are.
        """
        key_BCND, value_BCND = entry_BCNX.chunk(2, dim=-1)
        return attend_by_head(self.query(target_BCE), key_BCND, value_BCND, seen_BCN, self.heads)[0]

    def forward(self, event_BLE: Tensor, target_BCE: Tensor, position_BC: Tensor) -> Tensor:
        """`attend` over the events of whole histories, a few targets at a time.

        Args:
            event_BLE: left-aligned; L may be 0.
            target_BCE: the targets.
            position_BC: int64, at most each user's number of events.
        """
        entry_BLX = self.entries(event_BLE)

        def attend(target_BCE: Tensor, position_BC: Tensor) -> tuple[Tensor]:
            return (self.attend(target_BCE, *recent_events(entry_BLX, position_BC, self.size)),)

        numbers = event_BLE.shape[0] * self.size * 2 * self.width
        (interest_BCD,) = in_chunks(attend, target_BCE, position_BC, axis=1, numbers=numbers)
        return interest_BCD
