"""MF: factors and biases of users and items; events after training have no effect.

Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009.

    logit = mu + b_u + b_i + q_i . p_u             the model with biases, through a sigmoid
    loss  = cross entropy + decay (|p_u|^2 + |q_i|^2 + b_u^2 + b_i^2), mean over the labelled pairs

Differs from the paper: labels are 0 and 1 and the loss is the cross entropy; factors and bias of an item are sums over
its fields; context fields add biases; each task has its own factors. The user's number is an input: users
who are not in the training data have zeros and get the biases of the items. MF is therefore a baseline for protocols
whose test users are in the training data; otherwise it is no better than popularity. It does not read histories.

State: a trained row of 1 + `factors` numbers per task, 17 numbers, 68 bytes, by default. Events do not update it, so
no service keeps it.

Shapes: B users, C targets per user, D = tasks x factors, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt

from lifelong.offline.models.base import Batch, InputSpec, Output, Share, UserModel, setting
from lifelong.offline.nn.factors import FactorHead, UserFactors, sum_of_fields

STD = 0.1
"""Of the items' initial factors."""


@dataclass(frozen=True)
class MfConfig:
    """Settings of `mf`."""

    factors: PositiveInt = setting(16, "factors of a user and of an item")
    decay: NonNegativeFloat = setting(0.01, "weight of the squares of factors and biases in the loss")
    dropout: Share = setting(0.0, "share of a user's factors dropped in training")


class Mf(UserModel):
    """Each user's factors as training left them; events do not change them."""

    Config = MfConfig
    title = "MF"
    source = "Koren et al., IEEE Computer 2009"
    state = "trained user vector"
    vector_spread: ClassVar[float] = 0.0
    common_head = False

    def __init__(self, inputs: InputSpec, config: MfConfig) -> None:
        tasks = len(inputs.tasks)
        self.factors: int = tasks * config.factors
        width = tasks + self.factors
        # Events are not read: their fields have no vectors.
        super().__init__(replace(inputs, event={}), embedding=width, interest=self.factors, dropout=config.dropout)
        self.config: MfConfig = config
        self.inputs = inputs
        self.embed.restart(STD)
        self.head: FactorHead = FactorHead(width=width, tasks=tasks, dropout=config.dropout)
        self.users: UserFactors = UserFactors(inputs.users, width, decay=config.decay)

    def forward(self, batch: Batch) -> Output:
        """The user's and the targets' factors and biases; padded targets give any number."""
        tasks = len(self.inputs.tasks)
        target_BCE = self.embed(batch.target_BCF, self.item_fields)
        user_B1E = self.users(batch.user_B).unsqueeze(1)
        factor_BCD = user_B1E[..., tasks:].expand(-1, target_BCE.shape[1], -1)
        fit_BCT = self.head(factor_BCD, target_BCE, self.embed_context(batch.context_BCF))
        item_BCE = sum_of_fields(target_BCE, self.embed.dim)
        return Output(user_B1E[..., :tasks] + fit_BCT, self.users.decayed(user_B1E, item_BCE, batch.mask_BC))
