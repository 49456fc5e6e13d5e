"""TWIN: one target attention that first selects the events and then weighs them.

Chang et al., "TWIN: TWo-stage Interest Network for Lifelong User Behavior Modeling in CTR Prediction at Kuaishou",
KDD 2023.

    event's item fields --K W_h, once per event--> key --+
    target --q W_q--------------------------------------- a = key q / sqrt(d) + biases --> k largest --> softmax --> sum
    event's own fields, age, events since --a number each--+                              of the same a

Implemented: behaviour features split into inherent ones (the item's) and cross ones (the event's), the former projected
once for all targets, the latter to one number each (section 3.3.1); the relevance a (equation 6); the k events of the
largest a; softmax over these and the weighted sum of their values, the heads concatenated through W_o (section 3.3.3).

Differs from the paper: cross features are the fields of the event, the time since it and the number of events since it,
both in powers of two. Each head selects its own k events, so that the same relevance selects and weighs. Of events with
nearly the same relevance the later one is taken. The paper's short-term part, attention to the last events, is optional
(`short`).

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 24,000 bytes for four and the default of
1,000. For the paper's speed a service would also store their keys and values.

Shapes: B users, L padded history length, C targets per user, E width of a vector, M retrieved events, H heads, D width
of a head, N = B x H.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from lifelong.dataset.events import GAP_NUMBERS
from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.hits import best_events, gaps_since, later_of_equal, products_at, sums_at, take_events
from lifelong.offline.nn.masks import masked_softmax

_SHARPNESS = 4.0
"""Of the initial keys. Validation AUC after 300,000 examples of Complete Journey, 1, 2, 4, 8: .58, .62, .64, .59."""


@dataclass(frozen=True)
class TwinConfig(CommonSettings):
    """Settings of `twin`."""

    width: PositiveInt = setting(32, "width of the interest, all heads together; a multiple of heads")
    heads: PositiveInt = setting(4, "attention heads")
    hits: PositiveInt = setting(100, "events that each head selects")
    recent: PositiveInt = setting(1000, "how many events before the target are searched")
    short: NonNegativeInt = setting(0, "last events with an attention of their own, the short term; 0 for none")


class _Events(NamedTuple):
    """What is projected once per event, for each head as if it were a user: the first head's users come first."""

    key_NLD: Tensor
    value_NLD: Tensor
    bias_NL1: Tensor
    time_NL1: Tensor


class Twin(HistoryModel):
    """Two stages that agree on what matters."""

    Config = TwinConfig
    title = "TWIN"
    source = "Chang et al., KDD 2023"
    state = "last 1,000 events"

    def __init__(self, inputs: InputSpec, config: TwinConfig) -> None:
        width, heads = config.width, config.heads
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads; expected, for example, {8 * heads}")
        super().__init__(inputs, config, interest=width, short=config.short)
        self.config: TwinConfig = config
        self.query: nn.Linear = nn.Linear(self.target_width, width, bias=False)
        self.key: nn.Linear = nn.Linear(self.target_width, width, bias=False)
        self.value: nn.Linear = nn.Linear(self.event_width, width, bias=False)
        self.mix: nn.Linear = nn.Linear(width, width, bias=False)
        own = self.event_width - self.target_width
        self.of_event: nn.Linear | None = nn.Linear(own, heads, bias=False) if own else None
        # One number per head and power of two.
        self.of_seconds: nn.Parameter = nn.Parameter(torch.zeros(heads, GAP_NUMBERS))
        self.of_events: nn.Parameter = nn.Parameter(torch.zeros(heads, GAP_NUMBERS))
        with torch.no_grad():
            # Queries and keys start in one space, and sharp enough that a target's own item outweighs the other hits.
            self.key.weight.mul_(_SHARPNESS)
            self.query.weight.copy_(self.key.weight)
            self.mix.weight.copy_(torch.eye(width))

    def find(self, window: Window, query: Query) -> Found:
        """Select by relevance, then weigh by it, both for a few targets at a time."""
        events = self._project(window)
        query_NCD = self._by_head(self.query(query.vector_BCE))
        targets = query_NCD, query.time_BC, query.position_BC
        # Heads are rows of the batch: all of a head's users follow one another.
        rows, length, _ = events.key_NLD.shape
        select = partial(self._select, events, window.time_BL, query)
        selected = in_chunks(select, *targets, axis=1, numbers=rows * length)
        numbers = rows * max(length, self.config.hits)
        weighed_NCD, weight_NCM = in_chunks(partial(self._weigh, events), *targets, *selected, axis=1, numbers=numbers)
        # Each head's weights have the sum 1, so that together they have the sum H.
        weight_BCS, place_BCS = self._joined(weight_NCM) / self.config.heads, self._joined(selected[0])
        return Found(self.mix(self._joined(weighed_NCD)), weight_BCS, place_BCS=place_BCS)

    def _by_head(self, value: Tensor) -> Tensor:
        """`[B, X, H * D]` to `[N, X, D]`."""
        return (
            value.view(*value.shape[:-1], self.config.heads, value.shape[-1] // self.config.heads)
            .movedim(2, 0)
            .flatten(0, 1)
        )

    def _joined(self, value: Tensor) -> Tensor:
        """`[N, X, D]` to `[B, X, H * D]`."""
        return (
            value.view(self.config.heads, value.shape[0] // self.config.heads, *value.shape[1:])
            .movedim(0, 2)
            .flatten(2)
        )

    def _project(self, window: Window) -> _Events:
        """All that depends on events alone. Source: section 3.3.1."""
        item_BLE, own_BLE = window.vector_BLE.tensor_split([self.target_width], dim=-1)
        none_BLH = item_BLE.new_zeros(*item_BLE.shape[:2], self.config.heads)
        return _Events(
            self._by_head(self.key(item_BLE)),
            self._by_head(self.value(window.vector_BLE)),
            self._by_head(none_BLH if self.of_event is None else self.of_event(own_BLE)),
            window.time_BL.repeat(self.config.heads, 1).unsqueeze(-1),
        )

    def _select(
        self, events: _Events, time_BL: Tensor, query: Query, query_NCD: Tensor, time_BC: Tensor, position_BC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first stage: places of the events of the largest relevance, and which are events: `[N, C, M]`."""
        place_L = torch.arange(time_BL.shape[1], device=time_BL.device)
        product_NCL = query_NCD @ events.key_NLD.transpose(1, 2) / query_NCD.shape[-1] ** 0.5
        age_HBCL = self._age(time_BC, position_BC, time_BL.unsqueeze(1), place_L)
        relevance_HBCL = (product_NCL + events.bias_NL1.transpose(1, 2)).view_as(age_HBCL) + age_HBCL
        visible_BCL = self.visible(query._replace(position_BC=position_BC), len(place_L))
        place_HBCM, hit_HBCM = best_events(later_of_equal(relevance_HBCL), visible_BCL, self.config.hits)
        return place_HBCM.flatten(0, 1), hit_HBCM.flatten(0, 1)

    def _weigh(
        self,
        events: _Events,
        query_NCD: Tensor,
        time_BC: Tensor,
        position_BC: Tensor,
        place_NCM: Tensor,
        hit_NCM: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The second stage: the same relevance, of the selected events alone, and their weighted values.

        Source: equation 6 and section 3.3.3.
        """
        bias_NCM1, time_NCM1 = (take_events(part, place_NCM, hit_NCM) for part in (events.bias_NL1, events.time_NL1))
        product_NC1M = products_at(query_NCD.unsqueeze(2), events.key_NLD, place_NCM) / query_NCD.shape[-1] ** 0.5
        by_head = (self.config.heads, *time_BC.shape, self.config.hits)
        age_HBCM = self._age(time_BC, position_BC, time_NCM1.view(by_head), place_NCM.view(by_head))
        relevance_NCM = product_NC1M.squeeze(2) + bias_NCM1.squeeze(-1) + age_HBCM.flatten(0, 1)
        weight_NCM = masked_softmax(relevance_NCM, hit_NCM)
        return sums_at(weight_NCM.unsqueeze(2), events.value_NLD, place_NCM).squeeze(2), weight_NCM

    def _age(self, time_BC: Tensor, position_BC: Tensor, earlier: Tensor, place: Tensor) -> Tensor:
        """What the seconds and the events since an event add to its relevance, per head: `[H, B, C, X]`.

        Args:
            time_BC: of the targets.
            position_BC: of the targets.
            earlier: times of events, as `[H, B, C, X]` or without leading axes.
            place: places of events, likewise.
        """
        seconds, events = gaps_since(time_BC.unsqueeze(-1), earlier), gaps_since(position_BC.unsqueeze(-1), place)
        # Both in one look-up: a table of every pair of powers.
        table_HXX = self.of_seconds.unsqueeze(-1) + self.of_events.unsqueeze(-2)
        # Row of the flattened tables: the head's table, in it the row of the seconds, in it the column of the events.
        first_H111 = GAP_NUMBERS**2 * torch.arange(self.config.heads, device=time_BC.device).view(-1, 1, 1, 1)
        row = first_H111 + seconds * GAP_NUMBERS + events
        return table_HXX.flatten().index_select(0, row.flatten()).view(row.shape)
