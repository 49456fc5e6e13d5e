"""RUM, feature level: global feature keys, and per user a value for each, erased and added to by every event.

Chen et al., "Sequential Recommendation with User Memory Networks", WSDM 2018, the feature-level model.

    weights   z = softmax_k(beta q . f_k)            keys f_1 .. f_K are shared by all users
    write     m_k <- m_k * (1 - z_k erase) + z_k add,       erase = sigmoid(E q + b_e),  add = tanh(A q + b_a)
    read      interest = sum_k z_k m_k               with the target's q

Differs from the paper: an event has more fields than an item, so q is a map of the embedded event when writing (W_m)
and of the target when reading (W_q); both projections start equal on the item's fields. The paper adds alpha times the
interest to a vector of the user. The user's number is not an input here, and the head would absorb a constant vector
and a factor. The values of a new user are zeros.

A write does not depend on the memory, so weights, erase and add of all events are computed at once. The update itself
takes a few small operations per event, and only the values at the targets' positions are kept.

State: K vectors, `slots` x `width` numbers: 640 numbers, 2,560 bytes, by default.

Shapes: B users, L padded history length, C targets per user, S features, D width of a key and of a value, E width of an
embedded event, X numbers of a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import CommonSettings, InputSpec, MemoryModel, setting
from lifelong.offline.nn.masks import clear_padding
from lifelong.zoo.layers.fold import State, fold_at


@dataclass(frozen=True)
class RumFeatureConfig(CommonSettings):
    """Settings of `rum_feature`."""

    width: PositiveInt = setting(32, "width of a feature's key and value")
    slots: PositiveInt = setting(20, "K, number of features")
    strength: PositiveFloat = setting(1.0, "beta, factor of the scores before the softmax")


class RumFeatureMemory(NamedTuple):
    """The user's value of each feature, zeros before the first event."""

    count_B: Tensor
    value_BSD: Tensor


class RumFeature(MemoryModel[RumFeatureMemory]):
    """A key-value memory with the same keys for all users."""

    Config = RumFeatureConfig
    title = "RUM (feature level)"
    source = "Chen et al., WSDM 2018"
    state = "one value vector per feature"
    erase: nn.Linear
    add: nn.Linear

    def __init__(self, inputs: InputSpec, config: RumFeatureConfig) -> None:
        super().__init__(inputs, embedding=config.embedding, interest=config.width, dropout=config.dropout)
        self.config: RumFeatureConfig = config
        self.remember(RumFeatureMemory, (config.slots, config.width))
        self.key_SD: nn.Parameter = nn.Parameter(torch.randn(config.slots, config.width))
        self.entry: nn.Linear = nn.Linear(self.event_width, config.width, bias=False)
        self.query: nn.Linear = nn.Linear(self.target_width, config.width, bias=False)
        self.erase, self.add = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        with torch.no_grad():
            self.query.weight.copy_(self.entry.weight[:, : self.target_width])

    def write_vector(self, memory: RumFeatureMemory, event_BE: Tensor) -> RumFeatureMemory:
        """Erase and add, each feature by its weight."""
        return RumFeatureMemory(*self._step(memory, self._changes(event_BE)))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> RumFeatureMemory:
        """All changes at once, then one fold."""
        change_BLX = self._changes(clear_padding(event_BLE, length_B))
        return RumFeatureMemory(*fold_at(self._step, self.initial_memory(len(length_B)), change_BLX, position_BC))

    def read_vector(self, memory: RumFeatureMemory, target_BCE: Tensor) -> tuple[Tensor, Tensor]:
        """The values, weighted by how well their keys fit the target."""
        weight_BCS = self._weights(self.query(target_BCE))
        return (weight_BCS.unsqueeze(-2) @ memory.value_BSD).squeeze(-2), weight_BCS

    def _weights(self, query: Tensor) -> Tensor:
        """Softmax over the keys: `[..., S]`."""
        return torch.softmax(self.config.strength * (query @ self.key_SD.T), dim=-1)

    def _changes(self, event: Tensor) -> Tensor:
        """What an event does to a memory: weights, erase and add, concatenated, `[..., S + D + D]`."""
        query = self.entry(event)
        return torch.cat([self._weights(query), torch.sigmoid(self.erase(query)), torch.tanh(self.add(query))], dim=-1)

    def _step(self, state: State, change_BX: Tensor) -> State:
        count_B, value_BSD = state
        weight_BS, erase_BD, add_BD = torch.split(
            change_BX, [len(self.key_SD), self.config.width, self.config.width], dim=-1
        )
        weight_BS1 = weight_BS.unsqueeze(-1)
        kept_BSD = value_BSD - value_BSD * (weight_BS1 * erase_BD.unsqueeze(1))
        return count_B + 1, torch.addcmul(kept_BSD, weight_BS1, add_BD.unsqueeze(1))
