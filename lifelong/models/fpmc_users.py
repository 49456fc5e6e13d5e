"""FPMC with the user's factors: factorised transitions from the last event, plus matrix factorisation.

Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains for Next-Basket Recommendation",
WWW 2010. What `fpmc.py` leaves out is here (`fpmc` with `user_factors = true`):

    logit = mu + b_u + b_i + p_u . q_i + v_i . v'_l         l the last event
    loss  = cross entropy + decay (squares of the biases and factors used), mean over the labelled pairs

The user's number is an input: a user who is not in training stays at zeros, and has the transitions and the items'
biases alone. Differs from the paper as `fpmc.py` does (a probability in place of a ranking, the last event in place of
the basket, sums over fields), and by biases of users and items.

State: the last event, and a trained row of 1 + `factors` numbers per task, which no event updates: no service keeps it.

Shapes: B users, L padded history length, C targets per user, T tasks, K factors, E width of an embedded event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor

from lifelong.data.events import InputSpec
from lifelong.models.base import Output, UserModel
from lifelong.nn.factors import FactorHead, UserFactors, sum_of_fields
from lifelong.nn.masks import clear_padding
from lifelong.nn.recurrent import states_at

if TYPE_CHECKING:
    from lifelong.data.batches import Batch

STD = 0.1
"""Of the initial factors of items and events."""


@dataclass(frozen=True)
class FpmcUsersConfig:
    """Settings of `fpmc` with `user_factors = true`."""

    user_factors: bool = field(default=True, metadata={"help": "each user of the training period has factors"})
    factors: Annotated[int, Field(gt=0)] = field(default=16, metadata={"help": "factors of a user and of an item"})
    decay: Annotated[float, Field(ge=0)] = field(
        default=0.01, metadata={"help": "weight of the squares of factors and biases in the loss"}
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = field(
        default=0.1, metadata={"help": "share of the user's and the last event's factors dropped in training"}
    )


class FpmcUsers(UserModel):
    """Who the user is, as far as training knew, and what usually follows what she did last."""

    Config = FpmcUsersConfig
    title = "FPMC (user factors)"
    source = "Rendle et al., WWW 2010"
    state = "trained user vector, last event"
    vector_spread = 0.0
    takes_counts = False

    def __init__(
        self,
        inputs: InputSpec,
        *,
        user_factors: bool = True,
        factors: int = 16,
        decay: float = 0.01,
        dropout: float = 0.1,
    ) -> None:
        if not user_factors:
            raise ValueError("user_factors is False; expected True: `fpmc` without them is another class")
        tasks = len(inputs.tasks)
        self.factors, self.tasks = tasks * factors, tasks
        # A field's vector: bias, factors q | v of a target per task, then factors v' of a last event.
        width = tasks + 3 * self.factors
        super().__init__(inputs, embedding=width, interest=2 * self.factors, dropout=dropout)
        self.embed.restart(STD)
        self.head = FactorHead(width=width, tasks=tasks, dropout=dropout)
        self.users = UserFactors(inputs.users, tasks + self.factors, decay=decay)

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
        """Factors v' of the event before each target, zeros where there is none: `[B, C, T * K]`."""
        event_BLE = clear_padding(self.embed(batch.history_BLF, self.history_fields), batch.length_B)
        return states_at(sum_of_fields(event_BLE, self.embed.dim)[..., -self.factors :], batch.position_BC)
