"""LR: logistic regression on target, context, the bag of the history, and crosses of target and history.

McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013.

    logit = b + sum of w of the target's and context's values
              + sum over the history's fields of the mean of w' of its values          the normalised bag
              + for each field f: a_f [target's value was seen] + c_f share of it      the crosses

The paper's model; the vector of a value contains both weights, w and w'. Differs from the paper: it uses Adam instead
of FTRL-Proximal, so weights are not sparse. The user's number is not a feature, since new users have none. The crosses
"target's value was seen in the history" and "share of the history with it" have one weight per field, not one per
value. Crosses are made of the item's fields with at most 10,000 values, except the item itself. Up to 512 values are
distinguished, more share 512 hash buckets, and unknown values never match. With several tasks there are several
regressions.

State: the mean of w', one number per task, and the share of each value or bucket, at most 512 numbers for each of F
crossed fields: at most 2,048 F + 4 bytes with one task.

Shapes: B users, L padded history length, C targets per user, S values of the crossed fields, T tasks, E width of an
embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lifelong.offline.models.base import InputSpec, MemoryModel, Share, setting
from lifelong.offline.nn.embeddings import FEW
from lifelong.offline.nn.masks import clear_padding
from lifelong.offline.nn.windows import mean_step, means_at

STD = 0.01
"""Of the initial weights."""


@dataclass(frozen=True)
class LrConfig:
    """Settings of `lr`."""

    dropout: Share = setting(0.0, "share of the history's features dropped in training; the paper found no use")


class LrMemory(NamedTuple):
    """Means over the events, zeros before the first: of the summed w', and of the codes of the crossed fields."""

    count_B: Tensor
    bag_BT: Tensor
    share_BS: Tensor


class LrHead(nn.Module):
    """The regression, from the bag's part and the crosses.

    Args:
        tasks: T.
        crosses: how many numbers of the interest are crosses; the others are the bag's part.
        target: width of each field's vector; it begins with T weights as target or context.
        context: likewise.
        dropout: probability of dropping a number of the interest in training.
    """

    tasks: int
    widths: list[int]

    def __init__(self, *, tasks: int, crosses: int, target: list[int], context: list[int], dropout: float) -> None:
        super().__init__()
        self.tasks, self.widths = tasks, [*target, *context]
        self.constant: nn.Parameter = nn.Parameter(torch.zeros(tasks))
        self.cross: nn.Linear | None = nn.Linear(crosses, tasks, bias=False) if crosses else None
        self.dropout: nn.Dropout = nn.Dropout(dropout)

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]`; interest holds the bag's part, then the crosses."""
        near = torch.split(torch.cat([target, context], dim=-1), self.widths, dim=-1)
        weight = torch.stack([part[..., : self.tasks] for part in near], dim=-1).sum(dim=-1)
        kept = self.dropout(interest)
        logit: Tensor = self.constant + weight + kept[..., : self.tasks]
        return logit if self.cross is None else logit + self.cross(kept[..., self.tasks :])


class Lr(MemoryModel[LrMemory]):
    """A weight per value, and one per way in which target and history can be alike."""

    Config = LrConfig
    title = "LR"
    source = "McMahan et al., KDD 2013"
    state = "running means of weights and of which values were there"
    vector_spread: ClassVar[float] = 0.0
    common_head = False

    def __init__(self, inputs: InputSpec, config: LrConfig) -> None:
        self.tasks: int = len(inputs.tasks)
        self.crossed: list[str] = [name for name, size in list(inputs.item.items())[1:] if size <= FEW]
        crosses = 2 * len(self.crossed)
        # A field's vector: w of each task as target or context, w' of each in the bag, and the code of a crossed field.
        super().__init__(
            inputs, embedding=2 * self.tasks, interest=self.tasks + crosses, dropout=config.dropout, codes=self.crossed
        )
        self.config: LrConfig = config
        self.embed.restart(STD)
        self.code_widths: list[int] = [self.embed.codes[name].shape[1] for name in self.crossed]
        self.remember(LrMemory, (self.tasks,), (sum(self.code_widths),))
        self.head: LrHead = LrHead(
            tasks=self.tasks,
            crosses=crosses,
            target=self.embed.widths(self.item_fields),
            context=self.embed.widths(self.context_fields),
            dropout=config.dropout,
        )

    def write_vector(self, memory: LrMemory, event_BE: Tensor) -> LrMemory:
        """Move both means towards the event."""
        count_B = memory.count_B + 1
        weight_BT, code_BS = self._parts_of(event_BE)
        return LrMemory(
            count_B, mean_step(memory.bag_BT, weight_BT, count_B), mean_step(memory.share_BS, code_BS, count_B)
        )

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> LrMemory:
        """Running sums, picked at each position and divided by it."""
        means = (means_at(clear_padding(part, length_B), position_BC) for part in self._parts_of(event_BLE))
        return LrMemory(position_BC, *means)

    def _parts_of(self, event: Tensor) -> tuple[Tensor, Tensor]:
        """Summed w' and codes of events: `[..., T]`, `[..., S]`."""
        trained = self.embed.trained_part(event, self.history_fields)
        return trained[..., self.tasks :].sum(dim=-2), self.embed.code_part(event, self.history_fields)

    def read_vector(self, memory: LrMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The bag's part and the crosses: whether each crossed value of the target was seen, and its share."""
        bag_BCT = memory.bag_BT.expand(*target_BCE.shape[:-1], -1)
        if not self.crossed:
            return bag_BCT, None
        code_BCS = self.embed.code_part(target_BCE, self.item_fields)
        alike = torch.split(memory.share_BS * code_BCS, self.code_widths, dim=-1)
        share_BCF = torch.stack([part.sum(dim=-1) for part in alike], dim=-1)
        return torch.cat([bag_BCT, (share_BCF > 0).to(share_BCF.dtype), share_BCF], dim=-1), None
