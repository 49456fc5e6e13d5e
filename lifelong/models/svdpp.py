"""SVD++ without user vectors: the factors of everything in the history, summed, meet the target's.

Koren, "Factorization Meets the Neighborhood: a Multifaceted Collaborative Filtering Model", KDD 2008.

    logit = mu + b_i + q_i . ( |N|^(-1/2) sum of y_j over the history N )

The model that the paper calls SVD++, through a sigmoid. Differs from the paper: the user's own b_u and p_u are left
out, since tomorrow's users have none (the paper's asymmetric model does without them, too); N counts an event as often
as it happened; q, b and y of an item are sums over its fields, each field's shared vector holding all three, and of an
event over the event's fields; context fields add biases; several tasks have factors of their own. The target is never
in N: events of its own moment are not seen.

State: the running mean of y, `factors` numbers per task: 16 numbers, 64 bytes, by default. The root of the count makes
the normalised sum of it.

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
from lifelong.nn.means import mean_step, means_at

STD = 0.03
"""Of the initial factors: normalised sums of long histories grow with the root of their length."""


@dataclass(frozen=True)
class SvdppConfig:
    """Settings of `svdpp`."""

    factors: Annotated[int, Field(gt=0)] = field(default=16, metadata={"help": "factors of an item"})
    dropout: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.1, metadata={"help": "share of the history's factors dropped in training"}
    )


class SvdppMemory(NamedTuple):
    """Mean of the events' factors y, zeros before the first."""

    count_B: Tensor
    mean_BD: Tensor


class Svdpp(MemoryModel[SvdppMemory]):
    """What a user did stands for what she is; order and time play no part."""

    Config = SvdppConfig
    title = "SVD++"
    source = "Koren, KDD 2008"
    state = "running mean of the events' factors"
    vector_spread = 0.0
    takes_counts = False

    def __init__(self, inputs: InputSpec, *, factors: int = 16, dropout: float = 0.1) -> None:
        tasks = len(inputs.tasks)
        self.factors = tasks * factors
        # A field's vector: bias and factors q of a target, then factors y of an event.
        width = tasks + 2 * self.factors
        super().__init__(inputs, embedding=width, interest=self.factors, dropout=dropout)
        self.embed.restart(STD)
        self.head = FactorHead(width=width, tasks=tasks, dropout=dropout)

    def initial_memory(self, num_users: int) -> SvdppMemory:
        """Zeros."""
        weight = next(self.head.parameters())
        count_B = torch.zeros(num_users, dtype=torch.int64, device=weight.device)
        return SvdppMemory(count_B, weight.new_zeros(num_users, self.factors))

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
