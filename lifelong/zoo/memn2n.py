"""MemN2N: an end-to-end memory network with the last events as memories.

Sukhbaatar, Szlam, Weston and Fergus, "End-To-End Memory Networks", NeurIPS 2015.

    u_1 = B target;   m_i = A event_i + T_A(i),   c_i = C event_i + T_C(i)
    per hop:   p = softmax_i(u_k . m_i),   o_k = sum_i p_i c_i,   u_{k+1} = H u_k + o_k
    interest = u_{K+1}

Implemented: one hop ("Single Layer"), several with layer-wise tying ("Multiple Layers": A and C are the same in all
hops, H maps the query between them), temporal encoding (section 4.1): T_A(i) and T_C(i) are learned vectors per place,
counted back from the target. Differs from the paper: the question is the target; an event is embedded by its fields, so
there is no encoding of words within a sentence; the last matrix, which scores all answers, is the shared head on one
target; no linear start and no random empty memories in training. For an empty history o_k is zero. H starts as
the identity.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 1,200 bytes for four and the default of
50. A target costs O(K N) after the projections, which all targets share.

Shapes: B users, L padded history length, C targets per user, N events of a window, D width of the memory, E width of an
embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.masks import masked_softmax
from lifelong.offline.nn.windows import recent_events, recent_places


@dataclass(frozen=True)
class MemN2NConfig(CommonSettings):
    """Settings of `memn2n`."""

    width: PositiveInt = setting(32, "width of a memory")
    recent: PositiveInt = setting(50, "how many events before the target are read")
    hops: PositiveInt = setting(3, "passes of a read")


class MemN2N(HistoryModel):
    """Each event is an entry with a key and a value; each hop reads them with what the last one found."""

    Config = MemN2NConfig
    title = "MemN2N"
    source = "Sukhbaatar et al., NeurIPS 2015"
    state = "last 50 events"

    def __init__(self, inputs: InputSpec, config: MemN2NConfig) -> None:
        super().__init__(inputs, config, interest=config.width)
        self.config: MemN2NConfig = config
        self.query: nn.Linear = nn.Linear(self.target_width, config.width, bias=False)
        self.entry: nn.Linear = nn.Linear(self.event_width, 2 * config.width, bias=False)
        self.time: nn.Parameter = nn.Parameter(torch.empty(config.recent, 2 * config.width))
        nn.init.normal_(self.time, std=0.1)
        self.pass_on: nn.Linear = nn.Linear(config.width, config.width, bias=False)
        nn.init.eye_(self.pass_on.weight)
        with torch.no_grad():
            # B starts as A, so that a target and the memory of the same item are near each other from the first step.
            self.query.weight.copy_(self.entry.weight[: config.width, : self.target_width])

    def find(self, window: Window, query: Query) -> Found:
        """Project all events once, then read each target's last ones."""
        entry_BLD = self.entry(window.vector_BLE)

        def read(target_BCE: Tensor, position_BC: Tensor) -> tuple[Tensor, Tensor]:
            entry_BCND, real_BCN = recent_events(entry_BLD, position_BC, self.recent)
            return self._read(self.query(target_BCE), entry_BCND + self.time, real_BCN)

        numbers = entry_BLD.shape[0] * self.recent * 2 * self.config.width
        interest_BCD, attention_BCN = in_chunks(read, query.vector_BCE, query.position_BC, axis=1, numbers=numbers)
        return Found(interest_BCD, attention_BCN, place_BCS=recent_places(query.position_BC, self.recent))

    def _read(self, query_BCD: Tensor, entry_BCND: Tensor, real_BCN: Tensor) -> tuple[Tensor, Tensor]:
        """K hops over entries (the first half is the key, the second the value); the first hop's attention.

        Source: "Single Layer" and "Multiple Layers", layer-wise.
        """
        key_BCND, value_BCND = entry_BCND.chunk(2, dim=-1)
        attentions = []
        for _ in range(self.config.hops):
            score_BCN = (key_BCND @ query_BCD.unsqueeze(-1)).squeeze(-1)
            attentions.append(masked_softmax(score_BCN, real_BCN))
            found_BCD = (attentions[-1].unsqueeze(-2) @ value_BCND).squeeze(-2)
            query_BCD = self.pass_on(query_BCD) + found_BCD
        return query_BCD, attentions[0]
