"""FM: a factorisation machine over target, context and the bag of the history.

Rendle, "Factorization Machines", ICDM 2010.

    logit = w_0 + sum_i w_i x_i + sum_{i<j} (v_i . v_j) x_i x_j
    sum_{i<j} (v_i . v_j) x_i x_j = 1/2 sum_k [ (sum_i v_ik x_i)^2 - sum_i v_ik^2 x_i^2 ]

Equation 1, pairs in the linear form of lemma 3.1, through a sigmoid. Features: each field of the target and of the
context, x = 1; each field of each of the n events of the history, x = 1/n, so that every field's bag sums to 1. The
vector of a value contains w and v for its use as target or context, and w and v for its use in the bag. Differs from
the paper: equal events are separate features with equal weights, so two of them form a pair. The user's number is not a
feature, since new users have none. With several tasks there are several machines.

State: the running means of w, v and v squared over the events, 1 + 2 x `factors` numbers per task: 33 numbers, 132
bytes, by default.

Shapes: B users, L padded history length, C targets per user, T tasks, D = tasks x factors, E width of an embedded
event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from lifelong.offline.models.base import InputSpec, MemoryModel, Share, setting
from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.windows import mean_step, means_at

STD = 0.1
"""Of the initial weights and factors."""


@dataclass(frozen=True)
class FmConfig:
    """Settings of `fm`."""

    factors: PositiveInt = setting(16, "factors of a feature")
    dropout: Share = setting(0.1, "share of the factors dropped from the pairs in training")


class FmMemory(NamedTuple):
    """Means over the events of their fields' summed w, v and v squared; zeros before the first."""

    count_B: Tensor
    linear_BT: Tensor
    factor_BD: Tensor
    square_BD: Tensor


class FmHead(nn.Module):
    """The machine, from the bag's share of its sums.

    Args:
        tasks: T.
        factors: D, of all tasks together.
        width: of each field's vector, which begins with w and v of its role as target or context.
        dropout: probability of dropping a factor's pairs in training.
    """

    tasks: int
    factors: int
    width: int

    def __init__(self, *, tasks: int, factors: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tasks, self.factors, self.width = tasks, factors, width
        self.constant: nn.Parameter = nn.Parameter(torch.zeros(tasks))
        self.dropout: nn.Dropout = nn.Dropout(dropout)

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]`; interest holds the bag's sums of w x, v x and (v x) squared."""
        near = torch.cat([target, context], dim=-1)
        near = near.reshape(*near.shape[:-1], near.shape[-1] // self.width, self.width)
        weight, factor = near[..., : self.tasks], near[..., self.tasks : self.tasks + self.factors]
        of_bag, total, squares = torch.split(interest, [self.tasks, self.factors, self.factors], dim=-1)
        total = total + factor.sum(dim=-2)
        squares = squares + factor.square().sum(dim=-2)
        pairs = self.dropout(0.5 * (total.square() - squares))
        of_pairs = pairs.reshape(*pairs.shape[:-1], self.tasks, self.factors // self.tasks).sum(dim=-1)
        logit: Tensor = self.constant + of_bag + weight.sum(dim=-2) + of_pairs
        return logit


class Fm(MemoryModel[FmMemory]):
    """Every feature meets every other by the inner product of their factors."""

    Config = FmConfig
    title = "FM"
    source = "Rendle, ICDM 2010"
    state = "running means of weights, factors and their squares"
    vector_spread: ClassVar[float] = 0.0
    common_head = False

    def __init__(self, inputs: InputSpec, config: FmConfig) -> None:
        self.tasks: int = len(inputs.tasks)
        self.factors: int = self.tasks * config.factors
        # A field's vector: w and v as target or context, then w and v in the bag.
        width = 2 * (self.tasks + self.factors)
        super().__init__(inputs, embedding=width, interest=self.tasks + 2 * self.factors, dropout=config.dropout)
        self.config: FmConfig = config
        self.remember(FmMemory, (self.tasks,), (self.factors,), (self.factors,))
        self.embed.restart(STD)
        self.head: FmHead = FmHead(tasks=self.tasks, factors=self.factors, width=width, dropout=config.dropout)

    def write_vector(self, memory: FmMemory, event_BE: Tensor) -> FmMemory:
        """Move each mean towards the event's sums."""
        count_B = memory.count_B + 1
        means = zip(memory[1:], self._sums_of(event_BE), strict=True)
        return FmMemory(count_B, *(mean_step(mean, value, count_B) for mean, value in means))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> FmMemory:
        """Running sums, picked at each position and divided by it."""
        sums = self._sums_of(clear_padding(event_BLE, length_B))
        return FmMemory(position_BC, *(means_at(value, position_BC) for value in sums))

    def _sums_of(self, event: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the fields of events of w, v and v squared in the bag: `[..., T]`, `[..., D]`, `[..., D]`."""
        field_FE = event.reshape(*event.shape[:-1], len(self.history_fields), self.embed.dim)
        weight = field_FE[..., self.tasks + self.factors : -self.factors]
        factor = field_FE[..., -self.factors :]
        return weight.sum(dim=-2), factor.sum(dim=-2), factor.square().sum(dim=-2)

    def read_vector(self, memory: FmMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The bag's sums of w x, v x and (v x) squared with x = 1/n, whatever the target."""
        # The sum of n squares (v / n)^2 is their mean over n.
        square_BD = memory.square_BD / memory.count_B.clamp(min=1).unsqueeze(-1).to(memory.square_BD.dtype)
        bag_BX = torch.cat([memory.linear_BT, memory.factor_BD, square_BD], dim=-1)
        return bag_BX.expand(*target_BCE.shape[:-1], -1), None
