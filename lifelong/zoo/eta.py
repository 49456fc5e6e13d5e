"""ETA: attention over the events whose SimHash signatures are nearest to the target's.

Chen et al., "End-to-End User Behavior Retrieval in Click-Through Rate Prediction Model", arXiv 2108.04468, 2021.

    item vectors of events --signs of R random projections--> signatures --+
    item vector of target  --signs of R random projections--> signature  --+--> k nearest by Hamming distance
    target --query--> multi-head attention over the k events --> interest

Implemented: the SimHash signature, the Hamming distance between signatures, the k nearest events, multi-head target
attention over them. The hyperplanes are drawn once, stored with the weights and never trained. Signatures change
with the trained vectors, which makes the retrieval end-to-end. Of events at the same distance the later one is taken.

Differs from the paper: only the item fields are hashed, which events and targets share, so that both are in one space.
The paper's short-term part, attention to the last events, is optional (`short`), so that retrieval can be compared by
itself. The key projection is initialised like that of the queries, on the fields that both have.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 24,000 bytes for four and the default of
1,000. For the paper's speed a service would also store R bits for each, 6 bytes by default.

Shapes: B users, L padded history length, C targets per user, E width of a vector, R hash bits, M retrieved events,
H heads, D width of the interest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.attention import attend_by_head
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.hits import best_events, take_events
from lifelong.zoo.layers.hashing import hyperplanes, shared_bits, signature


@dataclass(frozen=True)
class EtaConfig(CommonSettings):
    """Settings of `eta`."""

    width: PositiveInt = setting(32, "width of the interest, all heads together; a multiple of heads")
    heads: PositiveInt = setting(4, "attention heads")
    bits: Annotated[int, Field(gt=0, le=256)] = setting(48, "bits of a signature")
    hits: PositiveInt = setting(50, "events that are retrieved for a target")
    recent: PositiveInt = setting(1000, "how many events before the target are searched")
    short: NonNegativeInt = setting(0, "last events with an attention of their own, the short term; 0 for none")


class Eta(HistoryModel):
    """Retrieval by hashing, inside the model."""

    Config = EtaConfig
    title = "ETA"
    source = "Chen et al., 2021"
    state = "last 1,000 events"
    plane_RE: Tensor

    def __init__(self, inputs: InputSpec, config: EtaConfig) -> None:
        width, heads = config.width, config.heads
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads; expected, for example, {8 * heads}")
        super().__init__(inputs, config, interest=width, short=config.short)
        self.config: EtaConfig = config
        self.register_buffer("plane_RE", hyperplanes(config.bits, self.target_width))
        self.query: nn.Linear = nn.Linear(self.target_width, width, bias=False)
        self.key: nn.Linear = nn.Linear(self.event_width, width, bias=False)
        with torch.no_grad():
            # What an event shares with a target begins as that target's query: like attends to like from the start.
            self.key.weight[:, : self.target_width] = self.query.weight
        self.value: nn.Linear = nn.Linear(self.event_width, width, bias=False)
        self.mix: nn.Linear = nn.Linear(width, width, bias=False)

    def find(self, window: Window, query: Query) -> Found:
        """Retrieve, then attend, both for a few targets at a time."""
        users, length, _ = window.vector_BLE.shape
        side_BLR = self._side(window.vector_BLE)
        key_BLD, value_BLD = self.key(window.vector_BLE), self.value(window.vector_BLE)

        def nearest(target_BCE: Tensor, position_BC: Tensor) -> tuple[Tensor, Tensor]:
            shared_BCL = shared_bits(self._side(target_BCE), side_BLR)
            # Place decides where bits do not: whole numbers without ties.
            score_BCL = shared_BCL * length + torch.arange(length, device=position_BC.device)
            return best_events(
                score_BCL, self.visible(query._replace(position_BC=position_BC), length), self.config.hits
            )

        def attend(target_BCE: Tensor, place_BCM: Tensor, hit_BCM: Tensor) -> tuple[Tensor, Tensor]:
            key_BCMD, value_BCMD = (take_events(part, place_BCM, hit_BCM) for part in (key_BLD, value_BLD))
            return self._attend(target_BCE, key_BCMD, value_BCMD, hit_BCM)

        nearest_events = in_chunks(nearest, query.vector_BCE, query.position_BC, axis=1, numbers=users * length)
        numbers = users * self.config.hits * self.mix.in_features
        interest_BCD, attention_BCM = in_chunks(attend, query.vector_BCE, *nearest_events, axis=1, numbers=numbers)
        return Found(interest_BCD, attention_BCM, place_BCS=nearest_events[0])

    def _side(self, vector: Tensor) -> Tensor:
        """Signature of a target, or of what an event has in common with one: bool `[..., R]`.

        Source: SimHash.
        """
        return signature(vector[..., : self.target_width], self.plane_RE)

    def _attend(
        self, target_BCE: Tensor, key_BCMD: Tensor, value_BCMD: Tensor, hit_BCM: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention over the hits; the weights are the mean of the heads'."""
        found_BCD, weight_BCHM = attend_by_head(
            self.query(target_BCE), key_BCMD, value_BCMD, hit_BCM, self.config.heads
        )
        return self.mix(found_BCD), weight_BCHM.mean(dim=2)
