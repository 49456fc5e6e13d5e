"""DIEN: deep interest evolution network, a recurrent layer whose update gate is scaled by attention to the target.

Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019.

    events --GRU--> h_1 ... h_L --attention with the target--> a_1 ... a_L
                     |  |     |                                     |
                     |  each h_t predicts event t + 1               |
                     +------------------AUGRU-----------------------+--> interest

Interest extractor layer: h_t = GRU(e_t, h_{t-1}), with the auxiliary loss: mean over t of - log s(h_t, e_{t+1})
- log(1 - s(h_t, e')), where s is the sigmoid of an inner product, and e' a sampled event.
Interest evolving layer: a_t = softmax_t(h_t W target) over the events that the target sees; AUGRU, a GRU over h_t with
its update gate scaled by a_t; the interest is its last state.

The extractor runs once for all targets of a user, AUGRU once for each of them. An event that a target does not see has
weight 0 and changes nothing. If a history is longer than `recent`, each target reads its own last events, starting from
a state of zeros.

The sampled event e' is another event of the batch. In training it is drawn from `torch`'s generator; in evaluation it
is the event half a batch away. It is left out if it has the same item as e_{t+1}. If several processes share a batch,
it is taken from the process's own share.

With `pooled` the head has two more inputs, as in the authors' public code: the mean of the events (a sum there), and
its product with the target.

Differs from the paper: h_t is mapped linearly to the width of an item before the inner product. e holds only the item
fields of the event, because the type and gap of the next event are not part of a target.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 24,000 bytes for four and the default of
1,000.

Shapes: B users, L padded history length, C targets per user, W events of a target's own window, U users times targets,
E width of an embedded event, D state width, P pairs of an event and the next (N all places for one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.masks import length_mask, masked_softmax
from lifelong.offline.nn.recurrent import attended_states, gru_pass
from lifelong.offline.nn.traced import is_traced
from lifelong.offline.nn.windows import recent_events


@dataclass(frozen=True)
class DienConfig(CommonSettings):
    """Settings of `dien`."""

    width: PositiveInt = setting(32, "width of both layers' states")
    next_event: NonNegativeFloat = setting(1.0, "weight of the auxiliary loss: telling the next event from another one")
    recent: PositiveInt = setting(1000, "last events that are read")
    pooled: bool = setting(False, "give the head the mean of the events, too, and its product with the target")


class Dien(HistoryModel):
    """Interests extracted by a GRU, and followed towards the target by AUGRU."""

    Config = DienConfig
    title = "DIEN"
    source = "Zhou et al., AAAI 2019"
    state = "last 1,000 events"
    aux_means: ClassVar[tuple[str, ...]] = ("next_event", "other_event")

    def __init__(self, inputs: InputSpec, config: DienConfig) -> None:
        super().__init__(inputs, config, interest=config.width, pooled=config.pooled)
        self.config: DienConfig = config
        self.extractor: nn.GRU = nn.GRU(self.event_width, config.width, batch_first=True)
        self.attention: nn.Linear = nn.Linear(self.target_width, config.width, bias=False)
        self.augru: nn.GRU = nn.GRU(config.width, config.width, batch_first=True)
        self.expect: nn.Linear | None = nn.Linear(config.width, self.target_width) if config.next_event > 0 else None

    @property
    def divisible(self) -> bool:
        """Not with the auxiliary loss: its sampled events are those of other users."""
        return self.expect is None

    def find(self, window: Window, query: Query) -> Found:
        """Extract once; follow the interests per target; tell next events from others."""
        hidden_BLD, place_BCW = gru_pass(self.extractor, window.vector_BLE, window.length_B), None
        # A trace is of histories that a service keeps, which are never longer.
        if is_traced() or window.time_BL.shape[1] <= self.recent:
            interest_BCD, weight_BCL = self._evolve(hidden_BLD, query.vector_BCE, query.position_BC)
        else:
            interest_BCD, weight_BCL = self._evolve_own_windows(window, query)
            first_BC1 = (query.position_BC - self.recent).clamp(min=0).unsqueeze(-1)
            place_BCW = first_BC1 + torch.arange(self.recent, device=first_BC1.device)
        losses, sizes = self._auxiliary(window, hidden_BLD)
        return Found(interest_BCD, weight_BCL, losses, place_BCW, sizes)

    def _evolve(self, hidden_BLD: Tensor, target_BCE: Tensor, end_BC: Tensor) -> tuple[Tensor, Tensor]:
        """Interest and attention of targets that see the first `end` events."""
        size = hidden_BLD.shape[1]
        end_BC = end_BC.clamp(max=size)
        visible_BCL = torch.arange(size, device=end_BC.device) < end_BC.unsqueeze(-1)
        weight_BCL = masked_softmax(self.attention(target_BCE) @ hidden_BLD.transpose(1, 2), visible_BCL)
        return attended_states(self.augru, hidden_BLD, weight_BCL, end_BC), weight_BCL

    def _evolve_own_windows(self, window: Window, query: Query) -> tuple[Tensor, Tensor]:
        """As `_evolve`, with the last events before each target as a history of its own; attention is over these."""
        width, size = self.attention.out_features, self.recent

        def evolve(target_BCE: Tensor, position_BC: Tensor) -> tuple[Tensor, Tensor]:
            event_BCWE, _ = recent_events(window.vector_BLE, position_BC, size)
            length_BC = position_BC.clamp(max=size)
            # From right-aligned to left-aligned, as the extractor starts at the first event.
            place_BCW = torch.arange(size, device=length_BC.device) + (size - length_BC).unsqueeze(-1)
            # Places beyond the end wrap around to the zeros in front, which become the padding at the end.
            event_BCWE = event_BCWE.gather(2, (place_BCW % size).unsqueeze(-1).expand_as(event_BCWE))
            event_UWE, length_U = event_BCWE.flatten(0, 1), length_BC.flatten()
            hidden_UWD = gru_pass(self.extractor, event_UWE, length_U)
            target_UCE, length_UC = target_BCE.flatten(0, 1).unsqueeze(1), length_U.unsqueeze(1)
            interest_UCD, weight_UCW = self._evolve(hidden_UWD, target_UCE, length_UC)
            each = target_BCE.shape[:2]
            return interest_UCD.view(*each, width), weight_UCW.view(*each, size)

        interest_BCD, weight_BCW = in_chunks(
            evolve,
            query.vector_BCE,
            query.position_BC,
            axis=1,
            numbers=len(window.length_B) * size * max(width, self.event_width),
        )
        return interest_BCD, weight_BCW

    def _auxiliary(self, window: Window, hidden_BLD: Tensor) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The two halves of the auxiliary loss, where gradients are wanted, and over how many pairs each is a mean.

        A pair is an event and the next.
        """
        if self.expect is None or not torch.is_grad_enabled():
            return {}, {}
        # All places are computed, rows of real pairs are picked from the results: they are narrow, the vectors are not.
        row_P = length_mask(window.length_B, hidden_BLD.shape[1])[:, 1:].flatten().nonzero().squeeze(-1)
        other_P = row_P[self._others(len(row_P), row_P.device)]
        item_NE = window.vector_BLE[:, 1:, : self.target_width].flatten(0, 1)
        expected_NE = self.expect(hidden_BLD[:, :-1]).flatten(0, 1)
        other_N = torch.zeros(len(item_NE), dtype=torch.int64, device=row_P.device).index_copy(0, row_P, other_P)
        fits_P = (expected_NE * item_NE).sum(dim=-1)[row_P]
        fits_other_P = (expected_NE * item_NE.index_select(0, other_N)).sum(dim=-1)[row_P]
        number_N = window.number_BLF[:, 1:, 0].flatten()
        differs_P = (number_N[other_P] != number_N[row_P]).to(fits_P.dtype)
        loss = softplus(-fits_P).sum() / max(1, len(fits_P))
        other_loss = (softplus(fits_other_P) * differs_P).sum() / differs_P.sum().clamp(min=1)
        losses = {"next_event": self.config.next_event * loss, "other_event": self.config.next_event * other_loss}
        return losses, {"next_event": differs_P.new_tensor(len(fits_P)), "other_event": differs_P.sum()}

    def _others(self, pairs: int, device: torch.device) -> Tensor:
        """For each pair the place of another pair; the event there is its sampled event."""
        own_P = torch.arange(pairs, device=device)
        if pairs < 2:
            return own_P
        away_P = (
            torch.randint(1, pairs, (pairs,), device=device) if self.training else torch.full_like(own_P, pairs // 2)
        )
        return (own_P + away_P) % pairs
