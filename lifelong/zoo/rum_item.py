"""RUM, item level: the last K events as a first-in-first-out memory, read by attention with the target.

Chen et al., "Sequential Recommendation with User Memory Networks", WSDM 2018, the item-level model.

    write    m_1 .. m_K  <-  m_2 .. m_K, W_m event
    read     w = softmax_k(beta q . m_k),  q = W_q target         interest = sum_k w_k m_k

Differs from the paper: an event has more fields than an item, so events (W_m) and targets (W_q) are mapped to one
space; both projections start equal on the item's fields, so that a target first finds events of its own item. The paper
adds alpha times this interest to a vector of the user. The user's number is not an input here, and the head would
absorb a constant vector and a factor, so the interest is the memory's part alone. Empty slots are ignored.

State: K vectors, `slots` x `width` numbers: 640 numbers, 2,560 bytes, by default.

Shapes: B users, L padded history length, C targets per user, S places of the memory (the latest event last), D width of
a place, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import CommonSettings, InputSpec, MemoryModel, setting
from lifelong.offline.nn.masks import clear_padding, masked_softmax
from lifelong.offline.nn.windows import recent_events


@dataclass(frozen=True)
class RumItemConfig(CommonSettings):
    """Settings of `rum_item`."""

    width: PositiveInt = setting(32, "width of a remembered event")
    slots: PositiveInt = setting(20, "K, how many events are remembered")
    strength: PositiveFloat = setting(1.0, "beta, factor of the scores before the softmax")


class RumItemMemory(NamedTuple):
    """The last events, the latest last; zeros in places that none has filled."""

    count_B: Tensor
    slot_BSD: Tensor


class RumItem(MemoryModel[RumItemMemory]):
    """Remembers K events, forgets the oldest, and attends to those that are like the target."""

    Config = RumItemConfig
    title = "RUM (item level)"
    source = "Chen et al., WSDM 2018"
    state = "the last K event vectors"

    def __init__(self, inputs: InputSpec, config: RumItemConfig) -> None:
        super().__init__(inputs, embedding=config.embedding, interest=config.width, dropout=config.dropout)
        self.config: RumItemConfig = config
        self.remember(RumItemMemory, (config.slots, config.width))
        self.entry: nn.Linear = nn.Linear(self.event_width, config.width, bias=False)
        self.query: nn.Linear = nn.Linear(self.target_width, config.width, bias=False)
        with torch.no_grad():
            self.query.weight.copy_(self.entry.weight[:, : self.target_width])

    def write_vector(self, memory: RumItemMemory, event_BE: Tensor) -> RumItemMemory:
        """The event comes in at the end, the oldest goes."""
        slot_BSD = torch.cat([memory.slot_BSD[:, 1:], self.entry(event_BE).unsqueeze(1)], dim=1)
        return RumItemMemory(memory.count_B + 1, slot_BSD)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> RumItemMemory:
        """A window of the mapped events before each position: no recurrence."""
        event_BLD = self.entry(clear_padding(event_BLE, length_B))
        return RumItemMemory(position_BC, recent_events(event_BLD, position_BC, self.config.slots)[0])

    def read_vector(self, memory: RumItemMemory, target_BCE: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over the filled places.

        Source: the paper's item-level read.
        """
        query_BC1D = self.query(target_BCE).unsqueeze(-2)
        score_BCS = self.config.strength * (query_BC1D @ memory.slot_BSD.transpose(-1, -2)).squeeze(-2)
        # The latest event is the last one: place S - 1 is filled by the first event, place 0 by event S.
        age_S = torch.arange(self.config.slots, 0, -1, device=score_BCS.device)
        weight_BCS = masked_softmax(score_BCS, memory.count_B.unsqueeze(-1) >= age_S)
        return (weight_BCS.unsqueeze(-2) @ memory.slot_BSD).squeeze(-2), weight_BCS
