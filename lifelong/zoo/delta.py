"""Gated delta memory: a matrix per head that maps keys to values, with a correction and a decay at every event.

Yang et al., "Gated Delta Networks: Improving Mamba2 with Delta Rule", ICLR 2025; the delta rule of Schlag et al., ICML
2021, and of Yang et al., NeurIPS 2024.

    event  --> key k, value v, decay a, strength b     S <- a S (I - b k k^T) + b v k^T            write, per head
    target --> query q  --> S q of each head --shares of the heads--> interest                    read

A write replaces the value stored under the event's key by the event's value, with strength b. What is added is
b (v - a S k), the error of the memory: a repeated event changes nothing, and a new value replaces an old one. The decay
a = exp(-A softplus(w x + c)) depends on the event too, so an event can clear a head. Equations:
the gated delta rule (10), a and b as in the paper's block, keys and queries of length 1.

Adapted to users: the query is a projection of the target, initialised like that of the keys on the item fields, so that
a target finds events of its own item from the first step. Heads start with different time scales, from tens to
thousands of events (`A`). A softmax over the heads replaces the paper's output gate; its weights are the attention.
Left out: the short convolutions over events, the SiLU of keys and values, output norms, further layers.

Training processes chunks of events (`lifelong.zoo.layers.delta_rule`) and reads at any position without storing the
state there. A service updates the matrix once per event.

State: the matrices, `heads` x `width` x `width` numbers: 2,048 numbers, 8,192 bytes, by default.

Shapes: B users, L padded history length, C targets per user, H heads, D width of a value, K of a key, E width of an
embedded event, N targets of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from lifelong.offline.models.base import Batch, CommonSettings, InputSpec, MemoryModel, Output, setting, spread_targets
from lifelong.offline.nn.masks import clear_padding
from lifelong.zoo.layers.delta_rule import Change, delta_chunks, delta_step, reads_after, states_after

_SCALES = (32.0, 2048.0)
"""After this many events the first and the last head of a new model have lost all but 1 / e."""
_SMALL = 1e-6
"""Added to a squared length: a key of nothing has no direction, and no steep gradient."""


@dataclass(frozen=True)
class GatedDeltaConfig(CommonSettings):
    """Settings of `gated_delta`."""

    width: PositiveInt = setting(32, "width of a head's keys and values")
    heads: PositiveInt = setting(2, "number of matrices")
    chunk: PositiveInt = setting(32, "events that training takes at once; changes its speed and nothing else")


class GatedDeltaMemory(NamedTuple):
    """One matrix per head, zeros before the first event."""

    count_B: Tensor
    state_BHDK: Tensor


class GatedDelta(MemoryModel[GatedDeltaMemory]):
    """An associative memory that is corrected rather than added to, and that forgets by what it sees."""

    Config = GatedDeltaConfig
    title = "Gated delta memory"
    source = "Yang et al., ICLR 2025"
    state = "one matrix per head"

    def __init__(self, inputs: InputSpec, config: GatedDeltaConfig) -> None:
        super().__init__(
            inputs, embedding=config.embedding, interest=config.heads * config.width, dropout=config.dropout
        )
        self.config: GatedDeltaConfig = config
        self.remember(GatedDeltaMemory, (config.heads, config.width, config.width))
        self.key: nn.Linear = nn.Linear(self.event_width, config.heads * config.width, bias=False)
        # With a bias, a value says that something is there, whatever it is.
        self.value: nn.Linear = nn.Linear(self.event_width, config.heads * config.width)
        self.gates: nn.Linear = nn.Linear(self.event_width, 2 * config.heads)
        self.rate_H: nn.Parameter = nn.Parameter(-torch.linspace(log(_SCALES[0]), log(_SCALES[1]), config.heads))
        self.query: nn.Linear = nn.Linear(self.target_width, config.heads * config.width, bias=False)
        self.share: nn.Linear = nn.Linear(self.target_width + config.heads * config.width, config.heads)
        with torch.no_grad():
            self.query.weight.copy_(self.key.weight[:, : self.target_width])
            # softplus of it is 1: the rate alone is the decay.
            self.gates.bias[: config.heads] = 0.5413

    def write_vector(self, memory: GatedDeltaMemory, event_BE: Tensor) -> GatedDeltaMemory:
        """One step of the rule."""
        return GatedDeltaMemory(memory.count_B + 1, delta_step(memory.state_BHDK, *self._change(event_BE)))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> GatedDeltaMemory:
        """Chunks, then the states at the positions."""
        chunks = delta_chunks(self._change(clear_padding(event_BLE, length_B)), self.config.chunk)
        user_BC = torch.arange(len(position_BC), device=position_BC.device).unsqueeze(-1).expand_as(position_BC)
        state_NHDK = states_after(chunks, user_BC.flatten(), position_BC.flatten())
        return GatedDeltaMemory(position_BC, state_NHDK.view(*position_BC.shape, *state_NHDK.shape[1:]))

    def read_vector(self, memory: GatedDeltaMemory, target_BCE: Tensor) -> tuple[Tensor, Tensor]:
        """What each head holds under the target's query, times the head's share."""
        found_BCHD = (memory.state_BHDK @ self._query(target_BCE).unsqueeze(-1)).squeeze(-1)
        return self._joined(found_BCHD, target_BCE, memory.count_B)

    def forward(self, batch: Batch) -> Output:
        """What `encode` and `respond` give, without making the states."""
        event_BLE = self.embed(batch.history_BLF, self.history_fields, user=batch.user_B)
        event_BLE = clear_padding(event_BLE, batch.length_B)
        chunks = delta_chunks(self._change(event_BLE), self.config.chunk)
        user_N, target_N = batch.mask_BC.nonzero(as_tuple=True)
        target_NE = self.embed(batch.target_BCF[user_N, target_N], self.item_fields, user=batch.user_B[user_N])
        position_N = batch.position_BC[user_N, target_N]
        found_NHD = reads_after(chunks, user_N, position_N, self._query(target_NE))
        interest_ND, share_NH = self._joined(found_NHD, target_NE, position_N)
        context_BCE = self.context_of(batch)
        logit_NT = self.head(interest_ND, target_NE, context_BCE[user_N, target_N])
        return Output(spread_targets(logit_NT, batch.mask_BC), attention_BCS=spread_targets(share_NH, batch.mask_BC))

    def _change(self, event: Tensor) -> Change:
        """What events `[..., E]` do."""
        decay, strength = self.gates(event).chunk(2, dim=-1)
        return Change(
            _direction(self._by_head(self.key(event))),
            self._by_head(self.value(event)),
            # A logarithm that is never positive: no event can make an old one stronger.
            -self.rate_H.exp() * softplus(decay),
            torch.sigmoid(strength),
        )

    def _query(self, target: Tensor) -> Tensor:
        return _direction(self._by_head(self.query(target)))

    def _by_head(self, value: Tensor) -> Tensor:
        """`[..., H * D]` as `[..., H, D]`."""
        return value.view(*value.shape[:-1], self.config.heads, self.config.width)

    def _joined(self, found: Tensor, target: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """The heads' answers `[..., H, D]`, each times its share, concatenated; and the shares, 0 without events."""
        share = torch.softmax(self.share(torch.cat([target, found.flatten(-2)], dim=-1)), dim=-1)
        share = share * (count > 0).unsqueeze(-1)
        # Times the number of heads: equal shares change nothing.
        return (self.config.heads * share.unsqueeze(-1) * found).flatten(-2), share


def _direction(vector: Tensor) -> Tensor:
    """Unit vectors, shorter where a vector is nearly zero."""
    return vector * torch.rsqrt(vector.square().sum(dim=-1, keepdim=True) + _SMALL)
