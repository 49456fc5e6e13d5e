"""Biases and inner products: what models of user and item factors have in place of the shared head.

Source: Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def sum_of_fields(vector: Tensor, width: int) -> Tensor:
    """The sum of the fields' embeddings, `[..., F * width]` -> `[..., width]`; F may be 0.

    >>> sum_of_fields(torch.tensor([1.0, 2.0, 10.0, 20.0]), width=2).tolist()
    [11.0, 22.0]
    """
    return vector.reshape(*vector.shape[:-1], vector.shape[-1] // width, width).sum(dim=-2)


class FactorHead(nn.Module):
    """mu + b_target + b_context + q_target . interest, with parts of its own for each of T tasks.

    A target or context of several fields has the sum of its fields' embeddings, each of which holds, one after another:

        T biases | T * K factors q | anything else that the model puts there

    Args:
        width: width of each field's embedding.
        tasks: T.
        dropout: probability of dropping a number of the interest in training.
    """

    width: int
    tasks: int

    def __init__(self, *, width: int, tasks: int, dropout: float) -> None:
        super().__init__()
        self.width, self.tasks = width, tasks
        self.mean: nn.Parameter = nn.Parameter(torch.zeros(tasks))
        self.dropout: nn.Dropout = nn.Dropout(dropout)

    def forward(self, interest: Tensor, target: Tensor, context: Tensor) -> Tensor:
        """Logits `[..., T]` from interest `[..., T * K]` and the embedded target and context."""
        own, around = sum_of_fields(target, self.width), sum_of_fields(context, self.width)
        factor = own[..., self.tasks : self.tasks + interest.shape[-1]]
        product = self.dropout(interest) * factor
        fit = product.reshape(*product.shape[:-1], self.tasks, product.shape[-1] // self.tasks).sum(dim=-1)
        logit: Tensor = self.mean + own[..., : self.tasks] + around[..., : self.tasks] + fit
        return logit


class UserFactors(nn.Embedding):
    """A trained embedding per user, zeros for users who are not in training, and the term that keeps factors small.

    Args:
        users: how many users there are, the padding included.
        width: width of an embedding.
        decay: weight of the squares; 0 for no term.
    """

    def __init__(self, users: int, width: int, *, decay: float) -> None:
        super().__init__(users, width, padding_idx=0)
        self.decay = decay
        # A user without training examples keeps this row. With a random one she would be given tastes that nobody
        # observed.
        nn.init.zeros_(self.weight)

    def decayed(self, user_B1E: Tensor, item_BCE: Tensor, mask_BC: Tensor) -> Mapping[str, Tensor]:
        """The squares of all that a labelled pair uses, mean over pairs, times their weight.

        Source: the regularisation of the model with biases.
        """
        if self.decay == 0:
            return {}
        square_BC = item_BCE.square().sum(dim=-1) + user_B1E.square().sum(dim=-1)
        total = square_BC.masked_fill(~mask_BC, 0.0).sum()
        # A batch, or a process's part of it, may hold no target.
        return {"decay": self.decay * total / mask_BC.sum().clamp(min=1)}
