"""FPMC: factorised transitions from the last event to the target, plus what is known of the target alone.

Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket Recommendation",
WWW 2010.

    logit = mu + b_i + v_i . v'_l        l the last event, v of an item as next, v' of an event as last

The paper's score through a sigmoid, where the paper ranks. Differs from the paper: the basket is the last event alone;
the user's factors are left out, since tomorrow's users have none and a memory is read without the user's number
(`user_factors = true` trains the form that has them, `fpmc_users.py`): with one factor that all users share, the term
of user and item is the bias b_i of the item, which stands for it (the term of user and last event does not rank items;
the paper drops it, too). Factors of an item and of an event are sums over
their fields, each field's shared vector holding both roles; context fields add biases; several tasks have factors of
their own.

State: v' of the last event, `factors` numbers per task: 16 numbers, 64 bytes, by default.

Shapes: B users, L padded history length, C targets per user, D = tasks x factors, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from lifelong.data.events import InputSpec
from lifelong.models.base import MemoryModel
from lifelong.nn.factors import FactorHead, sum_of_fields
from lifelong.nn.masks import clear_padding
from lifelong.nn.recurrent import states_at

STD = 0.1
"""Of the initial factors."""


@dataclass(frozen=True)
class FpmcConfig:
    """Settings of `fpmc`."""

    factors: Annotated[int, Field(gt=0)] = field(default=16, metadata={"help": "factors of an item"})
    dropout: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.1, metadata={"help": "share of the last event's factors dropped in training"}
    )


class FpmcMemory(NamedTuple):
    """Factors of the last event, zeros before the first."""

    count_B: Tensor
    last_BD: Tensor


class Fpmc(MemoryModel[FpmcMemory]):
    """A Markov chain over items whose transition matrix has a low rank."""

    Config = FpmcConfig
    title = "FPMC"
    source = "Rendle et al., WWW 2010"
    state = "factors of the last event"
    vector_spread = 0.0
    takes_counts = False

    def __init__(self, inputs: InputSpec, *, factors: int = 16, dropout: float = 0.1) -> None:
        tasks = len(inputs.tasks)
        self.factors = tasks * factors
        # A field's vector: bias and factors v of a target, then factors v' of a last event.
        width = tasks + 2 * self.factors
        super().__init__(inputs, embedding=width, interest=self.factors, dropout=dropout)
        self.embed.restart(STD)
        self.head = FactorHead(width=width, tasks=tasks, dropout=dropout)

    def initial_memory(self, num_users: int) -> FpmcMemory:
        """Zeros."""
        weight = next(self.head.parameters())
        count_B = torch.zeros(num_users, dtype=torch.int64, device=weight.device)
        return FpmcMemory(count_B, weight.new_zeros(num_users, self.factors))

    def write_vector(self, memory: FpmcMemory, event_BE: Tensor) -> FpmcMemory:
        """The event takes the last one's place."""
        return FpmcMemory(memory.count_B + 1, self._factors_of(event_BE))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> FpmcMemory:
        """The event before each position."""
        factor_BLD = self._factors_of(clear_padding(event_BLE, length_B))
        return FpmcMemory(position_BC, states_at(factor_BLD, position_BC))

    def _factors_of(self, event: Tensor) -> Tensor:
        """Factors v' of events: `[..., D]`."""
        return sum_of_fields(event, self.embed.dim)[..., -self.factors :]

    def read_vector(self, memory: FpmcMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The last event's factors, whatever the target."""
        return memory.last_BD.expand(*target_BCE.shape[:-1], -1), None
