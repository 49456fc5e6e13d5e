"""The short term: attention to the last few events alone, next to a search in the whole history.

Shapes: B users, L padded history length, C targets per user, N last events, E width of an event, D width of the
interest, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifelong.offline.nn.attention import attend_by_head
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.windows import recent_events

SHORT_WIDTH = 32
"""D by default."""


class ShortTerm(nn.Module):
    """Multi-head target attention over the last events before each target.

    Queries and keys start in one space, so that a target and events with its values are near each other from the first
    step on.

    Source: the short-term part of SIM (Pi et al., CIKM 2020), ETA, SDIM and TWIN.

    Args:
        target: width of an embedded target; an embedded event begins with the same fields.
        event: E.
        size: N.
        width: D, all heads together.
        heads: H.

    >>> short, target_BCE = ShortTerm(3, 5, size=2, width=4, heads=2), torch.randn(1, 2, 3)
    >>> short(torch.randn(1, 6, 5), target_BCE, position_BC=torch.tensor([[0, 6]])).any(dim=-1).tolist()
    [[False, True]]
    """

    size: int
    width: int
    heads: int
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear

    def __init__(self, target: int, event: int, *, size: int, width: int = SHORT_WIDTH, heads: int = 4) -> None:
        super().__init__()
        self.size, self.width, self.heads = size, width, heads
        self.query, self.key, self.value = (nn.Linear(part, width, bias=False) for part in (target, event, event))
        nn.init.orthogonal_(self.query.weight)
        with torch.no_grad():
            self.key.weight.zero_()
            self.key.weight[:, :target] = self.query.weight

    def entries(self, event: Tensor) -> Tensor:
        """The key and the value of each event: `[..., 2 D]`."""
        return torch.cat([self.key(event), self.value(event)], dim=-1)

    def attend(self, target_BCE: Tensor, entry_BCNX: Tensor, seen_BCN: Tensor) -> Tensor:
        """The interest `[B, C, D]`, zeros where there is no event.

        Args:
            target_BCE: embedded targets.
            entry_BCNX: entries of each target's last events; `[B, 1, N, 2 D]` where a user's targets share them.
            seen_BCN: True where there is an event.
        """
        key_BCND, value_BCND = entry_BCNX.chunk(2, dim=-1)
        return attend_by_head(self.query(target_BCE), key_BCND, value_BCND, seen_BCN, self.heads)[0]

    def forward(self, event_BLE: Tensor, target_BCE: Tensor, position_BC: Tensor) -> Tensor:
        """`attend` over the events of whole histories, a few targets at a time.

        Args:
            event_BLE: embedded events, left-aligned; L may be 0.
            target_BCE: embedded targets.
            position_BC: int64, at most each user's number of events.
        """
        entry_BLX = self.entries(event_BLE)

        def attend(target_BCE: Tensor, position_BC: Tensor) -> tuple[Tensor]:
            return (self.attend(target_BCE, *recent_events(entry_BLX, position_BC, self.size)),)

        numbers = event_BLE.shape[0] * self.size * 2 * self.width
        (interest_BCD,) = in_chunks(attend, target_BCE, position_BC, axis=1, numbers=numbers)
        return interest_BCD
