"""Biases and inner products: what models of user and item factors have in place of the shared head."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sum_of_fields(vector: Tensor, width: int) -> Tensor:
    """The sum of the fields' vectors, `[..., F * width]` -> `[..., width]`; F may be 0."""
    return vector.reshape(*vector.shape[:-1], vector.shape[-1] // width, width).sum(dim=-2)


class FactorHead(nn.Module):
    """mu + b_target + b_context + q_target . interest, for each of T tasks its own.

    A thing of several fields has the sum of its fields' vectors, each of which holds, one after another:

        T biases | T * K factors q | anything else, which other roles of the field use

    Args:
        width: of each field's vector.
        tasks: T.
        dropout: probability of dropping a number of the interest in training.
    """

    def __init__(self, *, width: int, tasks: int, dropout: float) -> None:
        super().__init__()
        self.width, self.tasks = width, tasks
        self.mean = nn.Parameter(torch.zeros(tasks))
        self.dropout = nn.Dropout(dropout)

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]` from interest `[..., T * K]` and the embedded target and context."""
        own, around = sum_of_fields(target, self.width), sum_of_fields(context, self.width)
        factor = own[..., self.tasks : self.tasks + interest.shape[-1]]
        product = self.dropout(interest) * factor
        fit = product.reshape(*product.shape[:-1], self.tasks, product.shape[-1] // self.tasks).sum(dim=-1)
        logit: Tensor = self.mean + own[..., : self.tasks] + around[..., : self.tasks] + fit
        return logit
