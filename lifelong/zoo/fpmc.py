"""FPMC: factorised transitions from the last basket to the target, plus a bias of the target.

Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket Recommendation",
WWW 2010.

    logit = mu + b_i + v_i . mean of v'_l over the last basket        v of an item as next, v' of an event as last

The paper's score, passed through a sigmoid. A basket is all events with the same time. Without times in seconds it is
the last event alone. Differs from the paper: there are no factors of users, since new
users have none and a memory is read without the user's number; the preset `fpmc_users` has them (`fpmc_users.py`). Here
the term of user and item becomes the bias b_i of the item. The term of user and last basket does not affect the ranking
and is dropped, as in the paper. Factors of an item and of an event are sums over their fields; the embedding of a field
contains both. Context fields add biases. With several tasks each has its own factors.

State: the mean of v' over the last basket, `factors` numbers per task, and its size: 17 numbers, 68 bytes, by default.

Shapes: B users, L padded history length, C targets per user, D = tasks x factors, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor

from lifelong.offline.models.base import InputSpec, MemoryModel, Share, setting
from lifelong.offline.nn.factors import FactorHead, sum_of_fields
from lifelong.offline.nn.masks import clear_padding
from lifelong.zoo.layers.baskets import GAP, SAME_MOMENT, last_baskets

STD = 0.1
"""Of the initial factors."""


@dataclass(frozen=True)
class FpmcConfig:
    """Settings of `fpmc`."""

    factors: PositiveInt = setting(16, "factors of an item")
    dropout: Share = setting(0.1, "share of the last basket's factors dropped in training")


class FpmcMemory(NamedTuple):
    """Mean factors of the last basket, zeros before the first."""

    count_B: Tensor
    last_BD: Tensor
    size_B1: Tensor
    """Events of the basket."""


class Fpmc(MemoryModel[FpmcMemory]):
    """A Markov chain over items with a transition matrix of low rank."""

    Config = FpmcConfig
    title = "FPMC"
    source = "Rendle et al., WWW 2010"
    state = "factors of the last basket"
    vector_spread: ClassVar[float] = 0.0
    common_head = False

    def __init__(self, inputs: InputSpec, config: FpmcConfig) -> None:
        tasks = len(inputs.tasks)
        self.factors: int = tasks * config.factors
        # A field's vector: bias and factors v of a target, then factors v' of a last event.
        width = tasks + 2 * self.factors
        super().__init__(inputs, embedding=width, interest=self.factors, dropout=config.dropout)
        self.config: FpmcConfig = config
        self.embed.restart(STD)
        self.head: FactorHead = FactorHead(width=width, tasks=tasks, dropout=config.dropout)
        self.remember(FpmcMemory, (self.factors,), (1,))

    def write_vector(self, memory: FpmcMemory, event_BE: Tensor) -> FpmcMemory:
        """The event joins the last basket, or takes its place."""
        factor_BD = self._factors_of(event_BE)
        joins_B1 = (self._same_moment(event_BE) & (memory.count_B > 0)).unsqueeze(-1)
        size_B1 = torch.where(joins_B1, memory.size_B1, 0.0) + 1
        mean_BD = memory.last_BD + (factor_BD - memory.last_BD) / size_B1
        return FpmcMemory(memory.count_B + 1, torch.where(joins_B1, mean_BD, factor_BD), size_B1)

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> FpmcMemory:
        """The event, or all events of the basket, before each position."""
        event_BLE = clear_padding(event_BLE, length_B)
        factor_BLD = self._factors_of(event_BLE)
        return FpmcMemory(position_BC, *last_baskets(factor_BLD, self._same_moment(event_BLE), position_BC))

    def _same_moment(self, event: Tensor) -> Tensor:
        """Whether events have the time of the event before, by the vector of their gap: bool `[...]`."""
        if GAP not in self.history_fields:
            return torch.zeros(event.shape[:-1], dtype=torch.bool, device=event.device)
        begin = self.history_fields.index(GAP) * self.embed.dim
        gap, moment = event[..., begin : begin + self.embed.dim], self.embed.tables[GAP].weight[SAME_MOMENT]
        same: Tensor = (gap - moment).detach().abs().sum(dim=-1) == 0
        return same

    def _factors_of(self, event: Tensor) -> Tensor:
        """Factors v' of events: `[..., D]`."""
        return sum_of_fields(event, self.embed.dim)[..., -self.factors :]

    def read_vector(self, memory: FpmcMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The last basket's factors, whatever the target."""
        return memory.last_BD.expand(*target_BCE.shape[:-1], -1), None
