"""Biases and inner products: what models of user and item factors have in place of the shared head."""

from __future__ import annotations

from collections.abc import Mapping

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


class UserFactors(nn.Embedding):
    """A trained vector per user, zeros for whoever is not in training, and the term that keeps factors small.

    Args:
        users: how many, the padding included.
        width: of a vector.
        decay: weight of the squares; 0: no term.
    """

    def __init__(self, users: int, width: int, *, decay: float) -> None:
        super().__init__(users, width, padding_idx=0)
        self.decay = decay
        nn.init.zeros_(self.weight)

    def decayed(self, user_B1E: Tensor, item_BCE: Tensor, mask_BC: Tensor) -> Mapping[str, Tensor]:
        """The squares of what each labelled pair uses, mean over pairs, times their weight.

        Source: Koren et al., IEEE Computer 2009, the regularisation of the model with biases.
        """
        if self.decay == 0:
            return {}
        square_BC = item_BCE.square().sum(dim=-1) + user_B1E.square().sum(dim=-1)
        total = square_BC.masked_fill(~mask_BC, 0.0).sum()
        return {"decay": self.decay * total / mask_BC.sum().clamp(min=1)}
