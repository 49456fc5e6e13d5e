"""SVD++ without user vectors: the inner product of the target's factors with the sum of the history's.

Koren, "Factorization Meets the Neighborhood: a Multifaceted Collaborative Filtering Model", KDD 2008.

    logit = mu + b_i + q_i . ( |N|^(-1/2) sum of y_j over the history N )
    loss  = cross entropy + decay (b_i^2 + |q_i|^2 + mean of |y_j|^2 over N), mean over the labelled pairs

The model that the paper calls SVD++, through a sigmoid. Differs from the paper: the user's b_u and p_u are left
out, since new users have none (as in the paper's asymmetric model). N counts repeated events. q, b and y of an item are
sums over its fields, and of an event over the event's fields; the vector of a value contains all three. Context fields
add biases, and each task has its own factors. The target is never in N: events at its time are not seen. The squares of
y are averaged, so that long histories are not penalised more.

State: the running mean of y, `factors` numbers per task: 16 numbers, 64 bytes, by default. Multiplied by the
square root of the count it is the normalised sum.

Shapes: B users, L padded history length, C targets per user, D = tasks x factors, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from lifelong.offline.models.base import Batch, InputSpec, MemoryModel, Output, Share, setting
from lifelong.offline.nn.factors import FactorHead, sum_of_fields
from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.windows import mean_step, means_at

STD = 0.03
"""Of the initial factors: normalised sums of long histories grow with the root of their length."""


@dataclass(frozen=True)
class SvdppConfig:
    """Settings of `svdpp`."""

    factors: PositiveInt = setting(16, "factors of an item")
    decay: NonNegativeFloat = setting(0.01, "weight of the squares of factors and biases in the loss")
    dropout: Share = setting(0.1, "share of the history's factors dropped in training")


class SvdppMemory(NamedTuple):
    """Mean of the events' factors y, zeros before the first."""

    count_B: Tensor
    mean_BD: Tensor


class Svdpp(MemoryModel[SvdppMemory]):
    """A user is the mean of the factors of all events; order and time play no part."""

    Config = SvdppConfig
    title = "SVD++"
    source = "Koren, KDD 2008"
    state = "running mean of the events' factors"
    vector_spread: ClassVar[float] = 0.0
    common_head = False

    def __init__(self, inputs: InputSpec, config: SvdppConfig) -> None:
        tasks = len(inputs.tasks)
        self.factors: int = tasks * config.factors
        # A field's vector: bias and factors q of a target, then factors y of an event.
        width = tasks + 2 * self.factors
        super().__init__(inputs, embedding=width, interest=self.factors, dropout=config.dropout)
        self.config: SvdppConfig = config
        self.remember(SvdppMemory, (self.factors,))
        self.embed.restart(STD)
        self.head: FactorHead = FactorHead(width=width, tasks=tasks, dropout=config.dropout)

    def write_vector(self, memory: SvdppMemory, event_BE: Tensor) -> SvdppMemory:
        """Move the mean towards the event's factors."""
        count_B = memory.count_B + 1
        return SvdppMemory(count_B, mean_step(memory.mean_BD, self._factors_of(event_BE), count_B))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> SvdppMemory:
        """Running sums, picked at each position and divided by it."""
        factor_BLD = self._factors_of(clear_padding(event_BLE, length_B))
        return SvdppMemory(position_BC, means_at(factor_BLD, position_BC))

    def _factors_of(self, event: Tensor) -> Tensor:
        """Factors y of events: `[..., D]`."""
        return sum_of_fields(event, self.embed.dim)[..., -self.factors :]

    def read_vector(self, memory: SvdppMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The normalised sum |N|^(-1/2) sum y = |N|^(1/2) mean y, whatever the target.

        Source: the model that the paper calls SVD++.
        """
        root_BC1 = memory.count_B.unsqueeze(-1).to(memory.mean_BD.dtype).sqrt()
        return (root_BC1 * memory.mean_BD).expand(*target_BCE.shape[:-1], -1), None

    def forward(self, batch: Batch) -> Output:
        """As every memory model; where gradients are wanted, with the term that keeps factors small."""
        output = super().forward(batch)
        if self.config.decay == 0 or not torch.is_grad_enabled():
            return output
        event_BLE = clear_padding(self.embed(batch.history_BLF, self.history_fields), batch.length_B)
        square_BL1 = self._factors_of(event_BLE).square().sum(dim=-1, keepdim=True)
        own_BCE = sum_of_fields(self.embed(batch.target_BCF, self.item_fields), self.embed.dim)
        used_BC = own_BCE[..., : -self.factors].square().sum(dim=-1) + means_at(square_BL1, batch.position_BC)[..., 0]
        total = used_BC.masked_fill(~batch.mask_BC, 0.0).sum() / batch.mask_BC.sum().clamp(min=1)
        return replace(output, aux_losses={**output.aux_losses, "decay": self.config.decay * total})
