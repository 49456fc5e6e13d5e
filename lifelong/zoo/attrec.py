"""AttRec: self-attention over the recent events, and distances instead of inner products.

Zhang, Tay, Yao and Sun, "Next Item Recommendation with Self-Attention", 2018 (AAAI 2019 as "... with Metric Learning").

    query = key = ReLU((x + sinusoids of the place) W)     s = softmax(query key^T / sqrt(d)), an event not to itself
    short = mean over the events l of sum_k s_lk x_k
    interest = [short ; |U - V|^2 / d ; |x_target - short|^2 / d]

Implemented: the affinities with shared weights and masked diagonal, values that are the inputs themselves, their mean,
the time signals ("Short-Term Intents Modelling with Self-Attention"), the two distances. Differs from the paper:

* Events and targets are projected to x by the same matrix; a target is an event without event fields.
* U is not a free vector per user, because the user's id is not an input. It is a projection of the mean of the recent
  events, or a learned constant for an empty history.
* The short-term vector and both distances are inputs of the shared head, which replaces the fixed weight omega.
* The loss is the shared one, not a margin between pairs.

A single event attends to itself. As in the paper, only queries and keys contain the time signals.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 24,000 bytes for four and the default of
1,000. Self-attention is over the last N of them only, at a cost of O(N^2) per target.

Shapes: B users, L padded history length, C targets per user, N events of a window, D width of the vectors compared, E
width of an embedded event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.masks import masked_softmax
from lifelong.offline.nn.windows import recent_events, recent_mean, recent_places


@dataclass(frozen=True)
class AttRecConfig(CommonSettings):
    """Settings of `attrec`."""

    width: PositiveInt = setting(32, "width of the vectors compared")
    window: PositiveInt = setting(50, "how many events before the target attend to each other")
    recent: PositiveInt = setting(1000, "how many events before the target the long-term vector is made of")


class AttRec(HistoryModel):
    """Transient interest from self-attention, lasting interest from the mean, both as distances to the target."""

    Config = AttRecConfig
    title = "AttRec"
    source = "Zhang et al., 2018"
    state = "last 1,000 events"
    signal_ND: Tensor

    def __init__(self, inputs: InputSpec, config: AttRecConfig) -> None:
        super().__init__(inputs, config, interest=config.width + 2)
        self.config: AttRecConfig = config
        self.window: int = min(config.window, config.recent)
        self.short: nn.Linear = nn.Linear(self.event_width, config.width, bias=False)
        self.affinity: nn.Linear = nn.Linear(config.width, config.width, bias=False)
        self.user: nn.Linear = nn.Linear(self.event_width, config.width)
        self.item: nn.Linear = nn.Linear(self.target_width, config.width)
        self.register_buffer("signal_ND", time_signals(self.window, config.width), persistent=False)
        with torch.no_grad():
            # Distances need one space from the start: an item begins where an event with it is.
            self.item.weight.copy_(self.user.weight[:, : self.target_width])

    def find(self, window: Window, query: Query) -> Found:
        """The short-term vector and both distances."""
        x_BLD = self.short(window.vector_BLE)
        mean_BCE = recent_mean(window.vector_BLE, query.position_BC, self.recent)
        long_BC1 = self._distance(self.user(mean_BCE), self.item(query.vector_BCE))
        pair_BLD = torch.cat([x_BLD, self.affinity(x_BLD)], dim=-1)

        def attend(position_BC: Tensor) -> tuple[Tensor, Tensor]:
            pair_BCND, real_BCN = recent_events(pair_BLD, position_BC, self.window)
            x_BCND, projected_BCND = pair_BCND.chunk(2, dim=-1)
            return self._attend(x_BCND, projected_BCND, real_BCN)

        numbers = x_BLD.shape[0] * self.window * max(self.window, 2 * self.config.width)
        short_BCD, attention_BCN = in_chunks(attend, query.position_BC, axis=1, numbers=numbers)
        target_BCD = query.vector_BCE @ self.short.weight[:, : self.target_width].T
        short_BC1 = self._distance(target_BCD, short_BCD)
        place_BCN = recent_places(query.position_BC, self.window)
        return Found(torch.cat([short_BCD, long_BC1, short_BC1], dim=-1), attention_BCN, place_BCS=place_BCN)

    def _attend(self, x_BCND: Tensor, projected_BCND: Tensor, real_BCN: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of what the events of a window see of each other, and how much of each event is in it.

        The projection is linear: that of x and that of the time signals are summed.

        Source: "Short-Term Intents Modelling with Self-Attention".
        """
        key_BCND = torch.relu(projected_BCND + self.affinity(self.signal_ND))
        score_BCNN = key_BCND @ key_BCND.transpose(-1, -2) / math.sqrt(self.config.width)
        other_NN = ~torch.eye(self.window, dtype=torch.bool, device=real_BCN.device)
        count_BC11 = real_BCN.sum(dim=-1)[..., None, None]
        # An only event has no other to attend to.
        mask_BCNN = real_BCN.unsqueeze(-2) & (other_NN | (count_BC11 == 1))
        seen_BCNN = masked_softmax(score_BCNN, mask_BCNN) * real_BCN.unsqueeze(-1)
        # An empty window has a sum of 0, and 0 / 0 would be NaN.
        attention_BCN = seen_BCNN.sum(dim=-2) / count_BC11.squeeze(-1).clamp(min=1)
        return (attention_BCN.unsqueeze(-2) @ x_BCND).squeeze(-2), attention_BCN

    def _distance(self, left_BCD: Tensor, right_BCD: Tensor) -> Tensor:
        """The squared distance per dimension: `[B, C, 1]`."""
        return (left_BCD - right_BCD).square().mean(dim=-1, keepdim=True)


def time_signals(size: int, width: int) -> Tensor:
    """Sines in the even and cosines in the odd dimensions, slower and slower: `[N, D]`.

    Source: "Input Embedding with Time Signals".
    """
    place_N1 = torch.arange(size, dtype=torch.float32).unsqueeze(-1)
    # A sine and a cosine of one speed are neighbours: dimensions 2i and 2i + 1.
    even_D = torch.arange(width) // 2 * 2
    angle_ND = place_N1 / 10_000 ** (even_D / width)
    return torch.where(torch.arange(width) % 2 == 0, angle_ND.sin(), angle_ND.cos())
