"""UBR4CTR: user behaviour retrieval, a search in the history with selected features of the target.

Qin et al., "User Behavior Retrieval for Click-Through Rate Prediction", SIGIR 2020.

    target --selection network--> weights of its fields in the query --BM25--> M events --attention--> interest

    s_f = sigmoid(MLP(target))_f                                weight of field f in the query     (feature selection)
    r_i = sum_f s_f [target_f = event_if] rarity_f              BM25 of event i                    (behaviour search)
    rarity_f = log(1 + (n - n_f + 1/2) / (n_f + 1/2))
    interest = sum_i softmax_i(a(target, e_i) + r_i) e_i        over the M events of largest r_i   (attentive pooling)

n counts the events that a target sees, n_f those of them that have its value of field f. An event contains each value
once and all events are equally long, so BM25's other factors are constant. The 1 in the logarithm keeps rarity_f
positive for values that most events have. Events that match no field are never retrieved, an unknown value matches
nothing, and of equal scores the later event is taken.

Differs from the paper in how the selection learns. There each field is sampled into the query or not, and policy
gradient trains the probabilities, alternating with the rest, on the gain in a batch's likelihood. Here every field has
a learned weight, and the score of an event is also added to the logit of its attention. The weights thereby get a
gradient from the prediction. (Sampling fields with straight-through gradients was tried: fields lose their probability
before the head can use what they retrieve, and never recover.) The selection network is an MLP instead of
self-attention over fields. The fields are those that targets share with events.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 24,000 bytes for four and the default of
1,000. An inverted index of them would change only the speed.

Shapes: B users, L padded history length, C targets per user, F item fields, M events found, E width of an event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pad

from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.offline.models.base import CommonSettings, Found, HistoryModel, InputSpec, Query, Window, setting
from lifelong.offline.nn.attention import PairScore, TargetQuery
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.hits import best_events, later_of_equal, take_events
from lifelong.offline.nn.masks import masked_softmax

_HIDDEN = 32


@dataclass(frozen=True)
class Ubr4CtrConfig(CommonSettings):
    """Settings of `ubr4ctr`."""

    hits: PositiveInt = setting(64, "events retrieved at most")
    recent: PositiveInt = setting(1000, "last events that are searched")


class Ubr4Ctr(HistoryModel):
    """Retrieval by learned queries, then attention over the events found."""

    Config = Ubr4CtrConfig
    title = "UBR4CTR"
    source = "Qin et al., SIGIR 2020"
    state = "last 1,000 events"
    hidden: nn.Linear
    choice: nn.Linear

    def __init__(self, inputs: InputSpec, config: Ubr4CtrConfig) -> None:
        width = config.embedding * (len(inputs.item) + len(inputs.event))
        super().__init__(inputs, config, interest=width)
        self.config: Ubr4CtrConfig = config
        self.hidden, self.choice = nn.Linear(self.target_width, _HIDDEN), nn.Linear(_HIDDEN, len(self.item_fields))
        self.query: TargetQuery = TargetQuery(self.target_width, self.event_width)
        self.score: PairScore = PairScore(self.event_width)

    def find(self, window: Window, query: Query) -> Found:
        """Weigh the fields, retrieve, attend."""
        users, size = window.time_BL.shape

        def read(
            target_BCE: Tensor, number_BCF: Tensor, share_BCF: Tensor, visible_BCL: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            score_BCL = relevance(window.number_BLF, number_BCF, share_BCF, visible_BCL)
            place_BCM, hit_BCM = best_events(later_of_equal(score_BCL), visible_BCL & (score_BCL > 0), self.config.hits)
            event_BCME = take_events(window.vector_BLE, place_BCM, hit_BCM)
            score_BCM = pad(score_BCL, (0, 1)).gather(-1, place_BCM)
            weight_BCM = masked_softmax(self.score(self.query(target_BCE), event_BCME) + score_BCM, hit_BCM)
            return (weight_BCM.unsqueeze(-2) @ event_BCME).squeeze(-2), weight_BCM, place_BCM

        interest_BCE, attention_BCM, place_BCM = in_chunks(
            read,
            query.vector_BCE,
            query.number_BCF,
            self.shares(query.vector_BCE),
            self.visible(query, size),
            axis=1,
            numbers=users * max(size, self.config.hits * 2 * self.event_width),
        )
        return Found(interest_BCE, attention_BCM, place_BCS=place_BCM)

    def shares(self, target_BCE: Tensor) -> Tensor:
        """Weight of each field in the query, between 0 and 1."""
        return torch.sigmoid(self.choice(torch.relu(self.hidden(target_BCE))))


def relevance(number_BLF: Tensor, target_BCF: Tensor, share_BCF: Tensor, visible_BCL: Tensor) -> Tensor:
    """BM25 of each visible event for the weighed fields of each target, 0 elsewhere: `[B, C, L]`.

    Args:
        number_BLF: of events; those of the item fields come first.
        target_BCF: of targets.
        share_BCF: weight of each item field.
        visible_BCL: events that each target sees.
    """
    fields = zip(number_BLF.unbind(-1), target_BCF.unbind(-1), share_BCF.unbind(-1), strict=False)
    seen_BC = visible_BCL.sum(dim=-1).to(share_BCF.dtype)
    total_BCL = torch.zeros_like(visible_BCL, dtype=share_BCF.dtype)
    for number_BL, target_BC, share_BC in fields:
        known_BC1 = (target_BC > UNKNOWN).unsqueeze(-1)
        match_BCL = (number_BL.unsqueeze(1) == target_BC.unsqueeze(-1)) & known_BC1 & visible_BCL
        matches_BC = match_BCL.sum(dim=-1).to(seen_BC.dtype)
        rarity_BC = torch.log1p((seen_BC - matches_BC + 0.5) / (matches_BC + 0.5))
        total_BCL = total_BCL + (share_BC * rarity_BC).unsqueeze(-1) * match_BCL
    return total_BCL
