"""FPMC with the user's factors: factorised transitions from the last basket, plus matrix factorisation.

Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket Recommendation",
WWW 2010. This is `fpmc` with `user_factors = true`:

    logit = mu + b_u + b_i + p_u . q_i + v_i . mean of v'_l over the last basket
    loss  = cross entropy + decay (squares of the biases and factors used), mean over the labelled pairs

The user's number is an input. Users who are not in the training data have zeros, so only transitions and biases of
items count for them. Differs from the paper as `fpmc.py` does (probabilities instead of ranks, sums over fields), and
by biases of users and items.

State: the last basket, and a trained row of 1 + `factors` numbers per task, which no event updates: no service keeps
it.

Shapes: B users, L padded history length, C targets per user, T tasks, K factors, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from lifelong.offline.models.base import Batch, InputSpec, Output, Share, UserModel, setting
from lifelong.offline.nn.factors import FactorHead, UserFactors, sum_of_fields
from lifelong.offline.nn.masks import clear_padding
from lifelong.zoo.layers.baskets import GAP, SAME_MOMENT, last_baskets

STD = 0.1
"""Of the initial factors of items and events."""


@dataclass(frozen=True)
class FpmcUsersConfig:
    """Settings of `fpmc` with `user_factors = true`."""

    user_factors: bool = setting(True, "each user of the training period has factors")
    factors: PositiveInt = setting(16, "factors of a user and of an item")
    decay: NonNegativeFloat = setting(0.01, "weight of the squares of factors and biases in the loss")
    dropout: Share = setting(0.1, "share of the user's and the last basket's factors dropped in training")


class FpmcUsers(UserModel):
    """Each user's factors as training left them, and what usually follows the user's last basket."""

    Config = FpmcUsersConfig
    title = "FPMC (user factors)"
    source = "Rendle et al., WWW 2010"
    state = "trained user vector, last basket"
    vector_spread: ClassVar[float] = 0.0
    common_head = False
    factors: int
    tasks: int

    def __init__(self, inputs: InputSpec, config: FpmcUsersConfig) -> None:
        if not config.user_factors:
            raise ValueError("user_factors is False; expected True: `fpmc` without them is another class")
        tasks = len(inputs.tasks)
        self.factors, self.tasks = tasks * config.factors, tasks
        # A field's vector: bias, factors q | v of a target per task, then factors v' of a last event.
        width = tasks + 3 * self.factors
        super().__init__(inputs, embedding=width, interest=2 * self.factors, dropout=config.dropout)
        self.config: FpmcUsersConfig = config
        self.embed.restart(STD)
        self.head: FactorHead = FactorHead(width=width, tasks=tasks, dropout=config.dropout)
        self.users: UserFactors = UserFactors(inputs.users, tasks + self.factors, decay=config.decay)

    def forward(self, batch: Batch) -> Output:
        """The user's, the targets' and the last events' parts; padded targets give any number."""
        target_BCE = self.embed(batch.target_BCF, self.item_fields)
        user_B1E = self.users(batch.user_B).unsqueeze(1)
        by_task = (*batch.position_BC.shape, self.tasks, self.factors // self.tasks)
        factor_BCTK = user_B1E[..., self.tasks :].expand(*batch.position_BC.shape, -1).reshape(by_task)
        interest_BCX = torch.cat([factor_BCTK, self._last(batch).view(by_task)], dim=-1).flatten(2)
        fit_BCT = self.head(interest_BCX, target_BCE, self.embed_context(batch.context_BCF))
        used_BCE = sum_of_fields(target_BCE, self.embed.dim)[..., : self.tasks + 2 * self.factors]
        return Output(user_B1E[..., : self.tasks] + fit_BCT, self.users.decayed(user_B1E, used_BCE, batch.mask_BC))

    def _last(self, batch: Batch) -> Tensor:
        """Mean factors v' of the last basket before each target, zeros where there is none: `[B, C, T * K]`."""
        event_BLE = clear_padding(self.embed(batch.history_BLF, self.history_fields), batch.length_B)
        factor_BLD = sum_of_fields(event_BLE, self.embed.dim)[..., -self.factors :]
        joins_BL = torch.zeros_like(batch.time_BL, dtype=torch.bool)
        if GAP in self.history_fields:
            joins_BL = batch.history_BLF[..., self.history_fields.index(GAP)] == SAME_MOMENT
        return last_baskets(factor_BLD, joins_BL, batch.position_BC)[0]
