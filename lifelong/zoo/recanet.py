"""ReCANet: when a user buys an item again, from the gaps between the baskets that hold it.

Ariannezhad, Jullien, Li, Fang, Schelter and de Rijke, "ReCANet: A Repeat Consumption-Aware Neural Network for Next
Basket Recommendation in Grocery Shopping", SIGIR 2022.

    user ----+                    gap 1, gap 2, ..., gap W     baskets between the last purchases, oldest first
             +--dense--> pair --->  |      |           |       (each gap joins the pair)
    item ----+                    dense  dense       dense
                                    |      |           |
                                  LSTM ->LSTM -> ... LSTM      twice, one over the other
                                                       |
                                                     dense --> logit

The last gap is the one to the basket that the target would be in, so 1 is the basket after the last purchase. Fewer
than W purchases have zeros in front. A basket is all events of one time, and holds an item once.

The paper ranks what the user had before and nothing else. Here every target has a logit: one that she never had gets

    other items:  logit = b + b_i + w popularity of the item + b_c     popularity as in `tally`: logarithm, standardised

with the biases of the item and of the context, learned with the rest, and nothing of the user. So AUC over all
candidates is defined; among items that a user never had the model is no more than popularity.

Differs from the paper: gaps are given as log2(1 + gap); an item is all its fields; the head of the other models takes
the place of the last dense layer, and so reads the item and the context, too; dropout is in the head alone. Weights
begin larger than usual (He's for dense layers, orthogonal ones for the LSTMs): with smaller ones, little of a gap comes
through two LSTMs, and the model does not learn that each item has its own gaps. Items that share a hash bucket are one
item. Written from the paper; the authors' code was not compared.

State: for every item that the user had, her last W baskets with it, and a trained vector of the user, which no event
updates. It grows with the history, and no service keeps it.

Shapes: B users, L padded history length, C targets per user, F item fields, E width of an embedded target, D width of
the states, W gaps, N targets that their users had before, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from lifelong.dtypes import FloatArray
from lifelong.offline.models.base import Batch, CommonSettings, InputSpec, Output, UserModel, setting
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.counted import TargetPopularity
from lifelong.offline.nn.factors import UserFactors
from lifelong.zoo.layers.baskets import baskets_of, purchase_gaps

_GAIN = 1.5
"""Of the LSTMs' initial weights."""


@dataclass(frozen=True)
class RecanetConfig(CommonSettings):
    """Settings of `recanet`."""

    width: PositiveInt = setting(32, "width of the user's vector, of the pair and of the states")
    window: PositiveInt = setting(25, "last gaps between purchases of an item that are read")


class Recanet(UserModel):
    """Two LSTMs over the gaps between a user's purchases of the target."""

    Config = RecanetConfig
    title = "ReCANet"
    source = "Ariannezhad et al., SIGIR 2022"
    state = "baskets of every item, trained user vector"
    common_head = False
    reads_popularity = True

    def __init__(self, inputs: InputSpec, config: RecanetConfig) -> None:
        width, tasks = config.width, len(inputs.tasks)
        # Of events the item and the time are read: the other fields have no vectors.
        own = replace(inputs, event={})
        super().__init__(own, embedding=config.embedding, interest=width, dropout=config.dropout)
        self.config: RecanetConfig = config
        self.inputs: InputSpec = inputs
        self.users: UserFactors = UserFactors(inputs.users, width, decay=0.0)
        self.pair: nn.Linear = nn.Linear(width + self.target_width, width)
        self.step: nn.Linear = nn.Linear(width + 1, width)
        self.lstm: nn.LSTM = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.popular: TargetPopularity = TargetPopularity({self.item_fields[0]: inputs.item[self.item_fields[0]]})
        self.never: nn.Linear = nn.Linear(self.target_width + 1 + self.context_width, tasks)
        self._start_large()

    def _start_large(self) -> None:
        """Initial weights by which the last state differs as much as pairs and gaps do."""
        for layer in (self.pair, self.step):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        with torch.no_grad():
            # The last column is the gap's. As one input among many it would otherwise hardly change a state.
            self.step.weight[:, -1].normal_()
        for weight_x, weight_h, bias_x, bias_h in self.lstm.all_weights:
            for gate in (*weight_x.chunk(4), *weight_h.chunk(4)):
                nn.init.orthogonal_(gate, _GAIN)
            nn.init.zeros_(bias_x)
            nn.init.zeros_(bias_h)

    @property
    def divisible(self) -> bool:
        """Users have nothing to do with each other."""
        return True

    @property
    def number_tables(self) -> dict[str, str]:
        """The popularity of each item, too."""
        return {**super().number_tables, "popular.popular_0": self.item_fields[0]}

    def learn_popularity(self, counts: Mapping[str, FloatArray]) -> None:
        """How often each item is the target."""
        self.popular.learn(counts)

    def forward(self, batch: Batch) -> Output:
        """By the gaps where the user had the target, else by what is known of the target alone."""
        target_BCE = self.embed(batch.target_BCF, self.item_fields, user=batch.user_B)
        context_BCE = self.embed_context(batch.context_BCF)
        gap_BCW = purchase_gaps(
            batch.history_BLF[..., 0],
            baskets_of(batch.time_BL),
            batch.target_BCF[..., 0],
            batch.position_BC,
            size=self.config.window,
        )
        had_BC = gap_BCW[..., -1] > 0
        state_BCD = self._states(self.users(batch.user_B), target_BCE, gap_BCW, had_BC)
        again_BCT = self.head(state_BCD, target_BCE, context_BCE)
        alone_BCX = torch.cat([target_BCE, self.popular(batch.target_BCF[..., :1]), context_BCE], dim=-1)
        return Output(torch.where(had_BC.unsqueeze(-1), again_BCT, self.never(alone_BCX)))

    def _states(self, user_BD: Tensor, target_BCE: Tensor, gap_BCW: Tensor, had_BC: Tensor) -> Tensor:
        """The LSTMs' last state, computed where the user had the target, zeros elsewhere: `[B, C, D]`."""
        users, targets = had_BC.shape
        # One row more, so that there is one where nobody had anything.
        row_N = torch.cat([had_BC.flatten().nonzero().squeeze(1), had_BC.new_zeros(1, dtype=torch.int64)])
        gap_NW = torch.log2(1 + gap_BCW.flatten(0, 1)[row_N].to(target_BCE.dtype))
        # Rows are places among all users' targets, of which each user has `targets`.
        both_NX = torch.cat([user_BD[row_N // targets], target_BCE.flatten(0, 1)[row_N]], dim=-1)
        numbers = self.config.window * self.config.width
        (state_ND,) = in_chunks(self._read, torch.relu(self.pair(both_NX)), gap_NW, axis=0, numbers=numbers)
        # The extra row is dropped: it was a copy of the first place.
        state_XD = state_ND.new_zeros(users * targets, self.config.width)
        return state_XD.index_copy(0, row_N[:-1], state_ND[:-1]).view(users, targets, -1)

    def _read(self, pair_ND: Tensor, gap_NW: Tensor) -> tuple[Tensor]:
        each_NWD = pair_ND.unsqueeze(1).expand(-1, gap_NW.shape[1], -1)
        step_NWD = torch.relu(self.step(torch.cat([each_NWD, gap_NW.unsqueeze(-1)], dim=-1)))
        return (self.lstm(step_NWD)[0][:, -1],)
