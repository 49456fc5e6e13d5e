"""HSTU: a transformer of stacked layers of gated, pointwise attention over the history.

Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations", ICML 2024.

    U, V, Q, K = split(SiLU(W1 norm(x) + b1))
    x + W2 (norm(SiLU(Q K^T + bias of place + bias of gap) V) * U) + b2          per layer

Implemented: pointwise projection, spatial aggregation (attention without softmax), pointwise transformation (the gated
output), with the relative bias by place and by time. From the authors' code: the norm before the projection, the sum
with the input, and one bias for all heads. **This is the paper's retrieval form, not its ranking form**, in which the
target attends to the events. Differs from the paper:

* Gaps are put into buckets that double in length; the authors' grow more slowly. A gap is the time between two events,
  not the time to the event after the later one.
* An event with its fields is one position, not an item followed by an action.
* A target is not part of the sequence. It reads the state after the last event before it, so that one pass serves all
  targets of a user, and the shared head compares the two.
* There is no dropout within the stack.

An event attends to itself and to the events directly before it, a band of (recent - 1) // layers + 1 events in all. A
stack of K layers thus sees K (band - 1) + 1 events, which is `recent` or up to K - 1 fewer: no event before a target's
last `recent` ones has an effect.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 12,288 bytes for four and the default of
512. Attention is computed in blocks of 64 events: per head and layer about 64 + recent / layers scores per event of the
history, 320 with the default settings. If that needs too much memory, a few users are processed at a time.

Shapes: B users, L padded history length, C targets per user, N blocks, R events of a block, X events that a block looks
at, H heads, D width, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad, silu

from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.recurrent import states_at

BLOCK = 64
"""R: events that attend together."""
GAPS = 32
"""Buckets of gaps: none, 1 s, 2 to 3 s, 4 to 7 s, ...; the last starts at 34 years."""


@dataclass(frozen=True)
class HstuConfig(CommonSettings):
    """Settings of `hstu`."""

    head_width: PositiveInt = setting(16, "width of a head; the state has that of all heads together")
    heads: PositiveInt = setting(2, "attention heads of a layer")
    layers: PositiveInt = setting(2, "layers of the stack")
    recent: PositiveInt = setting(512, "how many events before the target the stack sees, its layers together")


class Hstu(HistoryModel):
    """Every event's state is made of those before it; the target reads the last one."""

    Config = HstuConfig
    title = "HSTU (retrieval)"
    source = "Zhai et al., ICML 2024"
    state = "last 512 events"

    def __init__(self, inputs: InputSpec, config: HstuConfig) -> None:
        width = config.head_width * config.heads
        super().__init__(inputs, config, interest=width)
        self.config: HstuConfig = config
        self.band: int = (config.recent - 1) // config.layers + 1
        self.event: nn.Linear = nn.Linear(self.event_width, width)
        self.layers: nn.ModuleList = nn.ModuleList(
            HstuLayer(width, heads=config.heads, band=self.band) for _ in range(config.layers)
        )

    def find(self, window: Window, query: Query) -> Found:
        """Run the stack over the histories, and pick the state at each target's position."""
        state_BLD, size = self.event(window.vector_BLE), window.vector_BLE.shape[1]
        if size:
            numbers = size * (self.band + BLOCK) * self.config.heads
            (state_BLD,) = in_chunks(self._stack, state_BLD, window.time_BL, axis=0, numbers=numbers)
        return Found(states_at(state_BLD, query.position_BC))

    def _stack(self, state_BLD: Tensor, time_BL: Tensor) -> tuple[Tensor]:
        """All layers, over histories that are cut into blocks, the last one filled up."""
        users, size, width = state_BLD.shape
        blocks, back = (size + BLOCK - 1) // BLOCK, -((1 - self.band) // BLOCK)
        if torch.compiler.is_compiling():
            # A graph that is exported reads histories of any length: none of its sizes may depend on there being one
            # block, or few.
            blocks = blocks + 1
        else:
            back = min(back, blocks - 1)
        missing = blocks * BLOCK - size
        state_BNRD = pad(state_BLD, (0, 0, 0, missing)).reshape(users, blocks, BLOCK, width)
        time_BNR = pad(time_BL, (0, missing)).reshape(users, blocks, BLOCK)
        # Gaps depend on times alone, so that all layers share them.
        looked_BNX = looked_at(time_BNR.unsqueeze(-1), back).squeeze(-1)
        gap_BNRX = gap_bucket(time_BNR.unsqueeze(-1) - looked_BNX.unsqueeze(-2))
        for layer in self.layers:
            state_BNRD = state_BNRD + layer(state_BNRD, gap_BNRX, back)
        return (state_BNRD.flatten(1, 2),)


class HstuLayer(nn.Module):
    """One layer without the sum with its input.

    Args:
        width: D, of all heads together.
        heads: H.
        band: how many events an event attends to at most, itself included.
    """

    width: int
    heads: int
    band: int

    def __init__(self, width: int, *, heads: int, band: int) -> None:
        super().__init__()
        self.width, self.heads, self.band = width, heads, band
        self.split: nn.Linear = nn.Linear(width, 4 * width)
        self.join: nn.Linear = nn.Linear(width, width)
        self.place_bias: nn.Parameter = nn.Parameter(torch.empty(band))
        self.gap_bias: nn.Parameter = nn.Parameter(torch.empty(GAPS))
        for bias in (self.place_bias, self.gap_bias):
            nn.init.normal_(bias, std=0.02)

    def forward(self, state_BNRD: Tensor, gap_BNRX: Tensor, back: int) -> Tensor:
        """What the layer adds to the states: `[B, N, R, D]`.

        Args:
            state_BNRD: states of events in blocks of `BLOCK`.
            gap_BNRX: int64 bucket of the gap between two events.
            back: how many blocks before its own a block looks at.

        Source: pointwise projection, spatial aggregation, pointwise transformation.
        """
        gate_BNRD, value_BNRD, query_BNRD, key_BNRD = silu(self.split(self._norm(state_BNRD))).chunk(4, dim=-1)
        key_BNHXD, value_BNHXD = (self._by_head(looked_at(part, back)) for part in (key_BNRD, value_BNRD))
        bias_BNRX = self._place_bias(back) + self.gap_bias.index_select(0, gap_BNRX.flatten()).view(gap_BNRX.shape)
        score_BNHRX = self._by_head(query_BNRD) @ key_BNHXD.transpose(-1, -2) + bias_BNRX.unsqueeze(2)
        seen_BNHRD = (silu(score_BNHRX) * self._in_band(back)) @ value_BNHXD
        seen_BNRD = seen_BNHRD.transpose(2, 3).flatten(3, 4)
        added_BNRD: Tensor = self.join(self._norm(seen_BNRD) * gate_BNRD)
        return added_BNRD

    def _norm(self, state_BNRD: Tensor) -> Tensor:
        return layer_norm(state_BNRD, (self.width,))

    def _by_head(self, value_BNXD: Tensor) -> Tensor:
        return value_BNXD.reshape(*value_BNXD.shape[:3], self.heads, self.width // self.heads).transpose(2, 3)

    def _distance(self, back: int) -> Tensor:
        """By how many events each key lies before each query of a block, negative where it lies after it: `[R, X]`."""
        device = self.place_bias.device
        place_X = torch.arange((back + 1) * BLOCK, device=device)
        # The queries' own block is the last of the keys.
        return place_X[back * BLOCK :].unsqueeze(-1) - place_X

    def _in_band(self, back: int) -> Tensor:
        distance_RX = self._distance(back)
        return (distance_RX >= 0) & (distance_RX < self.band)

    def _place_bias(self, back: int) -> Tensor:
        # Pairs outside of the band read some bias, and are masked afterwards.
        distance_RX = self._distance(back).clamp(0, self.band - 1)
        return self.place_bias.index_select(0, distance_RX.flatten()).view(distance_RX.shape)


def looked_at(value_BNRD: Tensor, back: int) -> Tensor:
    """What each block looks at, oldest first: the `back` blocks before it, zeros where there is none, and itself.

    Returns:
        `[B, N, X, D]` with X = (back + 1) R.
    """
    blocks = value_BNRD.shape[1]
    filled = pad(value_BNRD, (0, 0, 0, 0, back, 0))
    return torch.cat([filled[:, first : first + blocks] for first in range(back + 1)], dim=2)


def gap_bucket(seconds: Tensor) -> Tensor:
    """Bucket of a gap in seconds (int64): 0 up to 0 s, then k from 2^(k-1) s on."""
    # The half keeps powers of two away from the edge of a bucket, where rounding would decide.
    power = (seconds.clamp(min=0).double() + 0.5).log2().floor().long()
    return (power + 1).clamp(0, GAPS - 1)
