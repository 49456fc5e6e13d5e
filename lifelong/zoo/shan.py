"""SHAN: attention over the long part of a history, then over its summary and the short part.

Ying et al., "Sequential Recommender System based on Hierarchical Attention Network", IJCAI 2018.

    long part  --softmax of u . ReLU(W1 x + b1)--> summary --+
    short part ----------------------------------------------+--softmax of u . ReLU(W2 x + b2)--> interest

Implemented: the long-term attention-based pooling layer and the one over its summary and the short part. Differs from
the paper: its query u is a free vector per user. The user's id is not an input here, so u is a projection of the mean
of the user's recent events, or a learned constant for an empty history. The short part is the last events, not the
items of the current session; without a long part there is no summary. The sums are over embedded events, and the common
head replaces the inner product with the target.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 24,000 bytes for four and the default of
1,000. The vectors of the events are computed once for all targets; each target then costs two inner products per event.

Shapes: B users, L padded history length, C targets per user, D width of the queries, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.masks import masked_softmax
from lifelong.offline.nn.windows import recent_mean


@dataclass(frozen=True)
class ShanConfig(CommonSettings):
    """Settings of `shan`."""

    width: PositiveInt = setting(32, "width of the user's query")
    short: PositiveInt = setting(20, "how many events before the target are the short part")
    recent: PositiveInt = setting(1000, "how many events before the target are read: the long part and the short one")


class Shan(HistoryModel):
    """Two levels of attention, both with the user's vector as the query."""

    Config = ShanConfig
    title = "SHAN"
    source = "Ying et al., IJCAI 2018"
    state = "last 1,000 events"

    def __init__(self, inputs: InputSpec, config: ShanConfig) -> None:
        event_width = config.embedding * (len(inputs.item) + len(inputs.event))
        super().__init__(inputs, config, interest=event_width)
        self.config: ShanConfig = config
        self.user: nn.Linear = nn.Linear(self.event_width, config.width)
        self.first: nn.Linear = nn.Linear(self.event_width, config.width)
        self.second: nn.Linear = nn.Linear(self.event_width, config.width)

    def find(self, window: Window, query: Query) -> Found:
        """Both levels, for a few targets at a time where histories are long."""
        event_BLE = window.vector_BLE
        users, size, _ = event_BLE.shape
        keys = [torch.relu(layer(event_BLE)).transpose(1, 2) for layer in (self.first, self.second)]
        user_BCD = self.user(recent_mean(event_BLE, query.position_BC, self.recent))
        visible_BCL = self.visible(query, size)
        place_L = torch.arange(size, device=event_BLE.device)
        # Long and short part must not overlap: an event in both would count twice.
        short_BCL = visible_BCL & (place_L >= query.position_BC.unsqueeze(-1) - self.config.short)

        def attend(user_BCD: Tensor, long_BCL: Tensor, short_BCL: Tensor) -> tuple[Tensor, Tensor]:
            long_weight_BCL = masked_softmax(user_BCD @ keys[0], long_BCL)
            summary_weight_BC1, short_weight_BCL = self._second_level(
                user_BCD, long_weight_BCL @ event_BLE, user_BCD @ keys[1], long_BCL, short_BCL
            )
            weight_BCL = summary_weight_BC1 * long_weight_BCL + short_weight_BCL
            return weight_BCL @ event_BLE, weight_BCL

        parts = user_BCD, visible_BCL & ~short_BCL, short_BCL
        interest_BCE, attention_BCL = in_chunks(attend, *parts, axis=1, numbers=users * size)
        return Found(interest_BCE, attention_BCL)

    def _second_level(
        self, user_BCD: Tensor, summary_BCE: Tensor, score_BCL: Tensor, long_BCL: Tensor, short_BCL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weights of the summary, if there is a long part, and of each event of the short part.

        Source: long- and short-term attention-based pooling layer.
        """
        summary_score_BC1 = (user_BCD * torch.relu(self.second(summary_BCE))).sum(dim=-1, keepdim=True)
        weight_BCX = masked_softmax(
            torch.cat([summary_score_BC1, score_BCL], dim=-1),
            torch.cat([long_BCL.any(dim=-1, keepdim=True), short_BCL], dim=-1),
        )
        return weight_BCX[..., :1], weight_BCX[..., 1:]
