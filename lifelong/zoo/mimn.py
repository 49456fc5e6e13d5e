"""MIMN: multi-channel user interest memory network.

Pi et al., "Practice on Long Sequential User Behavior Modeling for Click-Through Rate Prediction", KDD 2019.

    event --controller (GRU)--> keys, erase e, add a --> read weights w_r, write weights w_w over m slots M
                                                           |                  |
    S_i = GRU([M_i ; event], S_i)  <--the k best of w_r ---+                  +--> M = (1 - w~ e) M + w~ a
    target --key--> softmax over M, attention over S --> [read ; induced] = interest

Equations: addressing and read (1-3), write (4), utilisation (5-8): w~ = w_w P, P = softmax(W_g g), g = how much each
slot has been written so far, loss = variance of g over the slots; induction unit (9).

Where the paper does not specify a detail, it is as in the authors' code. Weights are softmax(beta cos), where cos is
the mean of the similarities to the slot and to a learned key of the slot; in a new memory all slots are zero and only
the keys distinguish them. beta = 2 (1 + softplus) comes from the controller. Read and write weights and the induction
unit use M before the write; k = 1. Differs from both: P starts near the identity. g is the mean and not the sum of w~,
so its loss does not grow with the history. The controller does not read the target, which has its own projection to a
key. With `pooled`, as in the authors' code, the head also reads the mean of all events' items (a sum there), its
product with the target, and the product of the mean slot of M with the target's key. The auxiliary loss over next
events, an option of the authors' code, is left out.

State: M, S, g, the controller's state and the last read, m (2 D + 1) + 2 D numbers: 584 numbers, 2,336 bytes, by
default; with `pooled`, the mean of the items, too. A pass over a history is a loop of some fifty small operations per
event; only states at the targets' positions are kept.

Shapes: B users, L padded history length, C targets per user, S slots, D width of a slot, E width of an embedded event,
X projected event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from lifelong.offline.models.base import CommonSettings, InputSpec, MemoryModel, setting
from lifelong.offline.nn.attention import PairScore
from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.windows import mean_step, means_at
from lifelong.zoo.layers.fold import State, fold_at

_SHARPNESS = 2.0
_SMALL = 1e-3
"""Added to squared lengths: the direction of a nearly empty slot is no information, and has no steep gradient."""
_IDENTITY = 4.0
"""Bias of P's diagonal at the start: nine tenths of a write go where the controller sends them."""


@dataclass(frozen=True)
class MimnConfig(CommonSettings):
    """Settings of `mimn`."""

    width: PositiveInt = setting(32, "width of a memory slot")
    slots: PositiveInt = setting(8, "m, number of slots of each memory")
    channels: PositiveInt = setting(1, "k, slots of the induction unit that an event updates; at most `slots`")
    utilisation: NonNegativeFloat = setting(0.1, "weight of the term that spreads writes over the slots")
    pooled: bool = setting(False, "give the head the mean of the events, too, and products of means with the target")


class MimnMemory(NamedTuple):
    """All zeros before the first event."""

    count_B: Tensor
    slot_BSD: Tensor
    """M, what was written."""
    channel_BSD: Tensor
    """S, the induction unit's states."""
    used_BS: Tensor
    """g, the mean of the write weights of all events."""
    hidden_BD: Tensor
    """State of the controller."""
    last_BD: Tensor
    """What the last event read."""


class PooledMemory(NamedTuple):
    """The same with `pooled`."""

    count_B: Tensor
    slot_BSD: Tensor
    channel_BSD: Tensor
    used_BS: Tensor
    hidden_BD: Tensor
    last_BD: Tensor
    mean_BE: Tensor
    """Mean of the items of all events."""


def _own(memory: MimnMemory | PooledMemory) -> MimnMemory:
    """Without the mean."""
    return MimnMemory(*memory[: len(MimnMemory._fields)])


class Mimn(MemoryModel[MimnMemory | PooledMemory]):
    """A neural Turing machine over events, with a recurrent channel of interest per slot."""

    Config = MimnConfig
    title = "MIMN"
    source = "Pi et al., KDD 2019"
    state = "memory slots, induction slots, controller"
    controller: _Gru
    induction: _Gru
    query: nn.Linear
    score: PairScore

    def __init__(self, inputs: InputSpec, config: MimnConfig) -> None:
        pool = config.width + 2 * config.embedding * len(inputs.item) if config.pooled else 0
        super().__init__(inputs, embedding=config.embedding, interest=2 * config.width + pool, dropout=config.dropout)
        self.config: MimnConfig = config
        slots, width = config.slots, config.width
        shapes = ((slots, width), (slots, width), (slots,), (width,), (width,))
        if config.pooled:
            self.remember(PooledMemory, *shapes, (self.target_width,))
        else:
            self.remember(MimnMemory, *shapes)
        self.channels: int = min(config.channels, config.slots)
        # The event's part of the controller's and of the induction unit's gates: known for all events at once.
        self.event_part: nn.Linear = nn.Linear(self.event_width, 6 * config.width)
        self.controller, self.induction = _Gru(config.width), _Gru(config.width)
        # Random, since in a new memory nothing but these keys tells slots apart.
        self.key_SD: nn.Parameter = nn.Parameter(0.5 * torch.randn(config.slots, config.width))
        # Read key, write key, erase, add; then the two strengths.
        self.parts: nn.Linear = nn.Linear(config.width, 4 * config.width + 2)
        self.rebalance: nn.Linear = nn.Linear(config.slots, config.slots * config.slots)
        with torch.no_grad():
            self.rebalance.bias.add_(_IDENTITY * torch.eye(config.slots).flatten())
        self.read_key: nn.Linear = nn.Linear(self.target_width, config.width + 1)
        self.query, self.score = nn.Linear(self.target_width, config.width), PairScore(config.width)
        self._align()

    def _align(self) -> None:
        """Start with targets and what is written of events in one space, so that they can be compared.

        A target's query begins as what the induction unit makes of the same item fields, its read key as what the
        controller makes of them, and a write begins by passing on the controller's state.
        """
        width, items = self.config.width, slice(None, self.target_width)
        # Rows: reset, keep, new of the controller, then of the induction unit; columns begin with the item fields.
        controller_new, induction_new = (self.event_part.weight[row : row + width] for row in (2 * width, 5 * width))
        with torch.no_grad():
            self.query.weight.copy_(induction_new[:, items])
            self.query.bias.zero_()
            self.read_key.weight[:width] = controller_new[:, items]
            for key in range(2):
                self.parts.weight[key * width : (key + 1) * width] = torch.eye(width)
            self.parts.weight[3 * width : 4 * width] = torch.eye(width)

    def write_vector(self, memory: MimnMemory | PooledMemory, event_BE: Tensor) -> MimnMemory | PooledMemory:
        """One step of controller, memory and induction unit, and of the mean."""
        after = self._step(_direction(self.key_SD), _own(memory), self.event_part(event_BE))
        if not isinstance(memory, PooledMemory):
            return after
        return PooledMemory(*after, mean_step(memory.mean_BE, event_BE[..., : self.target_width], after.count_B))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> MimnMemory | PooledMemory:
        """The event's part of all gates at once, then one fold."""
        event_BLE = clear_padding(event_BLE, length_B)
        step = partial(self._step, _direction(self.key_SD))
        part_BLX = self.event_part(event_BLE)
        memory = MimnMemory(*fold_at(step, _own(self.initial_memory(len(length_B))), part_BLX, position_BC))
        if not self.config.pooled:
            return memory
        return PooledMemory(*memory, means_at(event_BLE[..., : self.target_width], position_BC))

    def read_vector(self, memory: MimnMemory | PooledMemory, target_BCE: Tensor) -> tuple[Tensor, Tensor]:
        """A read of the slots by the target's key, and attention over the induction unit's states."""
        key_BCD, strength_BC1 = torch.split(self.read_key(target_BCE), [self.config.width, 1], dim=-1)
        slot_key_SD = _direction(self.key_SD)
        weight_BCS = _address(key_BCD.unsqueeze(-2), strength_BC1, slot_key_SD, memory.slot_BSD).squeeze(-2)
        read_BCD = (weight_BCS.unsqueeze(-2) @ memory.slot_BSD).squeeze(-2)
        channel_BCS = torch.softmax(self.score(self.query(target_BCE), memory.channel_BSD), dim=-1)
        induced_BCD = (channel_BCS.unsqueeze(-2) @ memory.channel_BSD).squeeze(-2)
        parts = [read_BCD, induced_BCD]
        if isinstance(memory, PooledMemory):
            mean_BCE = memory.mean_BE.expand_as(target_BCE)
            parts += [mean_BCE, mean_BCE * target_BCE, memory.slot_BSD.mean(dim=-2) * key_BCD]
        return torch.cat(parts, dim=-1), weight_BCS

    def auxiliary(self, memory: MimnMemory | PooledMemory, mask_BC: Tensor) -> Mapping[str, Tensor]:
        """The utilisation term, mean over the labelled positions, times its weight.

        Source: equations 7-8, with mean weights in place of their sums.
        """
        if self.config.utilisation == 0:
            return {}
        used_BCS = memory.used_BS
        term_BC = (used_BCS - used_BCS.mean(dim=-1, keepdim=True)).square().sum(dim=-1).masked_fill(~mask_BC, 0.0)
        return {"utilisation": self.config.utilisation * term_BC.sum() / mask_BC.sum().clamp(min=1)}

    def _step(self, slot_key_SD: Tensor, state: State, part_BX: Tensor) -> MimnMemory:
        """Fold in one event; its parts of the gates are given."""
        count_B, slot_BSD, channel_BSD, used_BS, hidden_BD, last_BD = state
        # Counted before it divides: the mean over the first event is over one.
        count_B = count_B + 1
        to_controller, to_induction = part_BX.chunk(2, dim=-1)
        hidden_BD = self.controller(to_controller, last_BD, hidden_BD)
        keys, change, strength_B2 = torch.split(
            self.parts(hidden_BD), [2 * self.config.width, 2 * self.config.width, 2], dim=-1
        )
        # Both addresses are of the memory before this event's write.
        weight_B2S = _address(keys.view(-1, 2, self.config.width), strength_B2, slot_key_SD, slot_BSD)
        read_BS, write_BS = weight_B2S.unbind(1)
        write_BS = self._spread(write_BS, used_BS)
        used_BS = used_BS + (write_BS - used_BS) / count_B.unsqueeze(-1).to(used_BS.dtype)
        return MimnMemory(
            count_B,
            self._write(slot_BSD, write_BS, change),
            self._induce(channel_BSD, slot_BSD, read_BS, to_induction),
            used_BS,
            hidden_BD,
            (read_BS.unsqueeze(1) @ slot_BSD).squeeze(1),
        )

    def _spread(self, write_BS: Tensor, used_BS: Tensor) -> Tensor:
        """Write weights rebalanced by a matrix that depends on how much each slot was used.

        Source: equations 5-6.
        """
        matrix_BSS = torch.softmax(self.rebalance(used_BS).view(-1, self.config.slots, self.config.slots), dim=-1)
        return (write_BS.unsqueeze(1) @ matrix_BSS).squeeze(1)

    def _write(self, slot_BSD: Tensor, write_BS: Tensor, change_BX: Tensor) -> Tensor:
        """Erase, then add, each slot by its weight.

        Source: equation 4.
        """
        erase, add = change_BX.unsqueeze(1).chunk(2, dim=-1)
        write_BS1 = write_BS.unsqueeze(-1)
        erased_BSD = slot_BSD - slot_BSD * (write_BS1 * torch.sigmoid(erase))
        return torch.addcmul(erased_BSD, write_BS1, torch.tanh(add))

    def _induce(self, channel_BSD: Tensor, slot_BSD: Tensor, read_BS: Tensor, part_BX: Tensor) -> Tensor:
        """Step the channels of the best read slots, leave the others.

        Source: equation 9.
        """
        row = read_BS.topk(self.channels).indices.unsqueeze(-1).expand(-1, -1, self.config.width)
        chosen = self.induction(part_BX.unsqueeze(1), slot_BSD.gather(1, row), channel_BSD.gather(1, row))
        return channel_BSD.scatter(1, row, chosen)


class _Gru(nn.Module):
    """A GRU with an input in two parts: the gates of one are given, the other depends on the step before."""

    of_input: nn.Linear
    of_state: nn.Linear

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, 3 * width)

    def forward(self, given: Tensor, other: Tensor, state: Tensor) -> Tensor:
        reset_x, keep_x, new_x = (given + self.of_input(other)).chunk(3, dim=-1)
        reset_h, keep_h, new_h = self.of_state(state).chunk(3, dim=-1)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        return new + torch.sigmoid(keep_x + keep_h) * (state - new)


def _address(key: Tensor, strength: Tensor, slot_key_SD: Tensor, slot: Tensor) -> Tensor:
    """Weights `[..., K, S]` of keys `[..., K, D]` with strengths `[..., K]` over slots `[..., S, D]`.

    Source: equations 1-2, sharpened and with the slots' own keys as in the authors' code.
    """
    cosine = _direction(key) @ (_direction(slot) + slot_key_SD).transpose(-1, -2) / 2
    beta = _SHARPNESS * (1 + softplus(strength))
    return torch.softmax(beta.unsqueeze(-1) * cosine, dim=-1)


def _direction(vector: Tensor) -> Tensor:
    """Unit vectors, shorter where a vector is nearly zero."""
    return vector * torch.rsqrt(vector.square().sum(dim=-1, keepdim=True) + _SMALL)
