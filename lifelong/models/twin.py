"""TWIN: one target attention that first selects the events and then weighs them.

Chang et al., "TWIN: TWo-stage Interest Network for Lifelong User Behavior Modeling in CTR Prediction at Kuaishou",
KDD 2023.

    event's item fields --K W_h, once per event--> key --+
    target --q W_q--------------------------------------- a = key q / sqrt(d) + biases --> k largest --> softmax --> sum
    event's own fields, age, events since --a number each--+                              of the same a

Equations: behaviour features split into inherent ones (the item's) and cross ones (the event's), the former projected
once whoever asks, the latter to one number each (5-7); the relevance a (8); the k events of the largest a; softmax over
these and the weighted sum of their values, heads side by side through W_o (9-10).

Differs from the paper: cross features are the fields of the event itself, the time since it and the number of events
since it, both in powers of two; each head selects its own k events, so that what selects is in every head what weighs;
events with nearly the same relevance: the later one wins. The recent history has no attention of its own.

State: the last 1,000 events; a service that wants the paper's speed keeps their keys and values.

Shapes: B users, L padded history length, C targets per user, E width of a vector, M retrieved events, H heads, D width
of a head, N = B x H.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from lifelong.data.events import GAP_NUMBERS, InputSpec
from lifelong.models.base import Found, HistoryModel, Query, Window
from lifelong.nn.chunks import in_chunks
from lifelong.nn.hits import best_events, take_events
from lifelong.nn.masks import masked_softmax
from lifelong.nn.retrieval import gaps_since, later_of_equal


@dataclass(frozen=True)
class TwinConfig:
    """Settings of `twin`."""

    embedding: Annotated[int, Field(gt=0)] = field(default=16, metadata={"help": "width of each field's vector"})
    width: Annotated[int, Field(gt=0)] = field(
        default=32, metadata={"help": "width of the interest, all heads together; a multiple of heads"}
    )
    heads: Annotated[int, Field(gt=0)] = field(default=4, metadata={"help": "attention heads"})
    hits: Annotated[int, Field(gt=0)] = field(default=100, metadata={"help": "events that each head selects"})
    recent: Annotated[int, Field(gt=0)] = field(
        default=1000, metadata={"help": "how many events before the target are searched"}
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.1, metadata={"help": "share of the head's hidden units dropped in training"}
    )


class _Events(NamedTuple):
    """What is projected once per event, for each head as if it were a user."""

    key_NLD: Tensor
    value_NLD: Tensor
    bias_NL1: Tensor
    time_NL1: Tensor


class Twin(HistoryModel):
    """Two stages that agree on what matters."""

    Config = TwinConfig
    title = "TWIN"
    source = "Chang et al., KDD 2023"
    state = "last 1,000 events, projected"

    def __init__(
        self,
        inputs: InputSpec,
        *,
        embedding: int = 16,
        width: int = 32,
        heads: int = 4,
        hits: int = 100,
        recent: int = 1000,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(inputs, embedding=embedding, interest=width, dropout=dropout)
        self.heads, self.hits, self.recent = heads, hits, recent
        self.query = nn.Linear(self.target_width, width, bias=False)
        self.key = nn.Linear(self.target_width, width, bias=False)
        self.value = nn.Linear(self.event_width, width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        own = self.event_width - self.target_width
        self.of_event = nn.Linear(own, heads, bias=False) if own else None
        # One number per head and power of two, head after head.
        self.of_age, self.of_place = nn.Embedding(heads * GAP_NUMBERS, 1), nn.Embedding(heads * GAP_NUMBERS, 1)
        for table in (self.of_age, self.of_place):
            nn.init.zeros_(table.weight)

    def find(self, window: Window, query: Query) -> Found:
        """Select by relevance, then weigh by it, both for a few targets at a time.

        Each head is treated as a user of its own.
        """
        (users, length, _), targets = window.vector_BLE.shape, query.position_BC.shape[1]
        events = self._project(window)
        query_NCD = self._by_head(self.query(query.vector_BCE))
        asked = (query_NCD, *(part.repeat_interleave(self.heads, dim=0) for part in (query.time_BC, query.position_BC)))
        rows = users * self.heads
        found = in_chunks(partial(self._select, events), *asked, axis=1, numbers=rows * length)
        numbers = rows * self.hits * query_NCD.shape[-1]
        found_NCD, weight_NCM = in_chunks(partial(self._weigh, events), *asked, *found, axis=1, numbers=numbers)
        found_BCD, attention_BCS = (
            part.view(users, self.heads, targets, part.shape[-1]).transpose(1, 2).flatten(2)
            for part in (found_NCD, weight_NCM / self.heads)
        )
        return Found(self.mix(found_BCD), attention_BCS)

    def _by_head(self, value: Tensor) -> Tensor:
        """`[B, X, H * D]` to `[N, X, D]`."""
        users, size, width = value.shape
        return value.view(users, size, self.heads, width // self.heads).transpose(1, 2).flatten(0, 1)

    def _project(self, window: Window) -> _Events:
        """All that depends on events alone. Source: equations 5-7."""
        item_BLE, own_BLE = window.vector_BLE.tensor_split([self.target_width], dim=-1)
        bias_BLH = (
            item_BLE.new_zeros(*item_BLE.shape[:2], self.heads) if self.of_event is None else self.of_event(own_BLE)
        )
        return _Events(
            self._by_head(self.key(item_BLE)),
            self._by_head(self.value(window.vector_BLE)),
            self._by_head(bias_BLH),
            window.time_BL.repeat_interleave(self.heads, dim=0).unsqueeze(-1),
        )

    def _select(
        self, events: _Events, query_NCD: Tensor, time_NC: Tensor, position_NC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first stage: places of the events of the largest relevance, and which are events `[N, C, M]`."""
        product_NCL = query_NCD @ events.key_NLD.transpose(1, 2)
        place_L = torch.arange(product_NCL.shape[-1], device=time_NC.device)
        age_NCL = self._age(time_NC, position_NC, events.time_NL1.transpose(1, 2), place_L)
        relevance_NCL = product_NCL / query_NCD.shape[-1] ** 0.5 + events.bias_NL1.transpose(1, 2) + age_NCL
        visible_NCL = self.visible(Query(query_NCD, query_NCD, time_NC, position_NC), len(place_L))
        return best_events(later_of_equal(relevance_NCL), visible_NCL, self.hits)

    def _weigh(
        self,
        events: _Events,
        query_NCD: Tensor,
        time_NC: Tensor,
        position_NC: Tensor,
        place_NCM: Tensor,
        hit_NCM: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The second stage: the same relevance, of the selected events alone, and their weighted values.

        Source: equations 8-10.
        """
        key_NCMD, value_NCMD, bias_NCM1, time_NCM1 = (take_events(part, place_NCM, hit_NCM) for part in events)
        product_NCM = (query_NCD.unsqueeze(2) * key_NCMD).sum(dim=-1)
        age_NCM = self._age(time_NC, position_NC, time_NCM1.squeeze(-1), place_NCM)
        relevance_NCM = product_NCM / query_NCD.shape[-1] ** 0.5 + bias_NCM1.squeeze(-1) + age_NCM
        weight_NCM = masked_softmax(relevance_NCM, hit_NCM)
        return (weight_NCM.unsqueeze(-1) * value_NCMD).sum(dim=2), weight_NCM

    def _age(self, time_NC: Tensor, position_NC: Tensor, earlier: Tensor, place: Tensor) -> Tensor:
        """What the seconds and the events since an event add to its relevance, per head: `[N, C, X]`.

        Args:
            time_NC: of the targets.
            position_NC: of the targets.
            earlier: times of events, with X as the last axis.
            place: places of events, with X as the last axis.
        """
        head_N11 = (torch.arange(len(time_NC), device=time_NC.device) % self.heads).view(-1, 1, 1)
        row_NCX = head_N11 * GAP_NUMBERS
        seconds: Tensor = self.of_age(row_NCX + gaps_since(time_NC.unsqueeze(-1), earlier))
        events: Tensor = self.of_place(row_NCX + gaps_since(position_NC.unsqueeze(-1), place))
        return (seconds + events).squeeze(-1)
