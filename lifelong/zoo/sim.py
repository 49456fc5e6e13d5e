"""SIM: search-based interest model, a search in the long history and target attention over the events found.

Pi et al., "Search-based User Interest Modeling with Lifelong Sequential Behavior Data for Click-Through Rate
Prediction", CIKM 2020.

    history --search unit--> M events --with their time gaps--> multi-head target attention --> interest

General search unit (section 3.2), by the setting `search`:

* hard: the events of the target's category (second item field; the item itself if it is the only field);
* soft: the largest inner products r_i = (W_b event_i) . (W_a target), trained by a separate loss: a prediction from
  the mean of r_i event_i over the whole history;
* cluster: the events in those of K buckets of similar items with centroids nearest to the target, the nearest
  bucket first. The centroids are trained on the items of the training batches (mini-batch k-means), stored with the
  weights, and fixed afterwards. (Not in the paper.)

Of equally good events the latest are taken. An unknown category matches nothing.

Exact search unit (section 3.3): z_i = [event_i ; vector of its time gap to the target], per head h
a_h = softmax_i(W_h target . z_i / sqrt(width of z)), head_h = sum_i a_hi z_i, interest = [head_1 ; head_2 ; ...]. The
paper projects both sides; here one matrix replaces the product of the two.

Differs from the paper: the short history is read by attention to the last events (`short`) instead of DIEN, and the
soft search uses the mean of r_i event_i instead of the sum, which does not depend on the length of the history.

State: the last `recent` events, (4 F + 8) bytes each for F fields of an event: 24,000 bytes for four and the default of
1,000. An index of them would change only the speed.

Shapes: B users, L padded history length, C targets per user, M events found, E width of an embedded event, Z with its
time gap, H heads, K buckets, N events of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.dataset.events import GAP_NUMBERS
from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.dtypes import Float32Array
from lifelong.offline.models.base import (
    Batch,
    CommonSettings,
    Found,
    HistoryModel,
    InputSpec,
    Output,
    Query,
    Window,
    setting,
)
from lifelong.offline.nn.attention import TargetQuery
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.head import Head
from lifelong.offline.nn.hits import best_events, gaps_since, later_of_equal, products_at, sums_at, take_events
from lifelong.offline.nn.masks import length_mask, masked_softmax

Search = Literal["hard", "soft", "cluster"]


@dataclass(frozen=True)
class SimConfig(CommonSettings):
    """Settings of `sim`."""

    search: Search = setting(
        "hard", "what is found: `hard` same category, `soft` inner product, `cluster` near buckets of items"
    )
    hits: PositiveInt = setting(64, "events found at most")
    heads: PositiveInt = setting(2, "attention heads over the events found")
    search_loss: NonNegativeFloat = setting(1.0, "weight of the loss of the search itself (soft)")
    buckets: PositiveInt = setting(64, "buckets of similar items (cluster)")
    near: PositiveInt = setting(4, "nearest buckets that are read (cluster)")
    recent: PositiveInt = setting(1000, "last events that are searched")
    short: NonNegativeInt = setting(0, "last events with an attention of their own, the short term; 0 for none")


class SoftSearch(nn.Module):
    """Inner products of target and events, and the prediction that trains them."""

    of_target: TargetQuery
    of_event: nn.Linear

    def __init__(self, target: int, event: int, tasks: int, *, dropout: float) -> None:
        super().__init__()
        self.of_target, self.of_event = TargetQuery(target, target), nn.Linear(event, target, bias=False)
        with torch.no_grad():
            self.of_event.weight.copy_(torch.eye(target, event))
        self.head: Head = Head(event + target, tasks, dropout=dropout)

    def forward(self, target_BCE: Tensor, event_BLE: Tensor) -> Tensor:
        """Relevance `[B, C, L]` of each event."""
        product_BCL: Tensor = self.of_target(target_BCE) @ self.of_event(event_BLE).transpose(1, 2)
        return product_BCL / math.sqrt(target_BCE.shape[-1])

    def predict(self, target_BCE: Tensor, event_BLE: Tensor, visible_BCL: Tensor) -> Tensor:
        """Logits `[B, C, T]` from the mean of r_i e_i."""
        relevance_BCL = self(target_BCE, event_BLE).masked_fill(~visible_BCL, 0.0)
        # A target that sees no event has a sum of 0, and 0 / 0 would be NaN.
        mean_BCE = relevance_BCL @ event_BLE / visible_BCL.sum(dim=-1, keepdim=True).clamp(min=1)
        logit: Tensor = self.head(mean_BCE, target_BCE, target_BCE[..., :0])
        return logit


class Buckets(nn.Module):
    """Buckets of similar vectors: centroids that follow the vectors they are nearest to, without gradients."""

    centroid_KE: Tensor
    count_K: Tensor

    def __init__(self, start_KE: Tensor) -> None:
        super().__init__()
        self.register_buffer("centroid_KE", start_KE)
        # A count of 1 and not of 0: the first batch moves a centroid and does not replace it.
        self.register_buffer("count_K", torch.ones(len(start_KE)))

    def distance(self, vector: Tensor) -> Tensor:
        """Squared distance of `vector[..., E]` to each centroid, without the square of the vector itself: `[..., K]`.

        That is the same for all centroids, and does not change which is nearest.
        """
        square_K = self.centroid_KE.square().sum(dim=-1)
        return square_K - 2 * vector.detach() @ self.centroid_KE.T

    @torch.no_grad()
    def follow(self, vector_NE: Tensor) -> None:
        """Move each centroid towards the mean of its new vectors, by their share of all that it remembers.

        What it remembers fades, as the vectors themselves move in training. Source: Sculley, WWW 2010.
        """
        bucket_N = self.distance(vector_NE).argmin(dim=-1)
        new_K = torch.zeros_like(self.count_K).index_add_(0, bucket_N, torch.ones_like(vector_NE[:, 0]))
        sum_KE = torch.zeros_like(self.centroid_KE).index_add_(0, bucket_N, vector_NE)
        # Counts fade before new vectors are added, so that these have their full weight.
        self.count_K.mul_(_MEMORY).add_(new_K)
        step_KE = (sum_KE - new_K.unsqueeze(-1) * self.centroid_KE) / self.count_K.clamp(min=1).unsqueeze(-1)
        self.centroid_KE.add_(step_KE)


_MEMORY = 0.99
"""What of a bucket's count is left after each batch."""


class Hits(NamedTuple):
    """What a search found."""

    place_BCM: Tensor
    """int64 places in the history; 0 where there is no hit."""
    hit_BCM: Tensor
    gap_BCM: Tensor
    """int64 numbers of the time gaps to the target; anything where there is no hit."""


class Sim(HistoryModel):
    """A search in the history, then exact attention over the hits."""

    Config = SimConfig
    title: str = "SIM"
    source = "Pi et al., CIKM 2020"
    state = "last 1,000 events"

    def __init__(self, inputs: InputSpec, config: SimConfig) -> None:
        width = config.embedding * (len(inputs.item) + len(inputs.event) + 1)
        super().__init__(inputs, config, interest=config.heads * width, short=config.short)
        self.config: SimConfig = config
        self.title = f"SIM ({config.search})"
        self.gap: nn.Embedding = nn.Embedding(GAP_NUMBERS, config.embedding)
        self.query: nn.ModuleList = nn.ModuleList(TargetQuery(self.target_width, width) for _ in range(config.heads))
        self.soft: SoftSearch | None = (
            SoftSearch(self.target_width, self.event_width, len(inputs.tasks), dropout=config.dropout)
            if config.search == "soft"
            else None
        )
        self.buckets = Buckets(self._some_items(config.buckets)) if config.search == "cluster" else None

    @property
    def divisible(self) -> bool:
        """Not where centroids follow the events of a whole batch."""
        return self.buckets is None

    @property
    def undivided(self) -> str:
        """Centroids are no part of the gradients that processes add up."""
        return "" if self.buckets is None else "the centroids of search = 'cluster' follow the events of a whole batch"

    def begin_with(
        self,
        vectors: Mapping[str, Float32Array],
        apart: Sequence[Mapping[str, Float32Array]] = (),
    ) -> None:
        """Centroids begin among the new vectors, too."""
        super().begin_with(vectors, apart)
        if self.buckets is not None:
            self.buckets = Buckets(self._some_items(len(self.buckets.centroid_KE)))

    def _some_items(self, count: int) -> Tensor:
        """Vectors of random items, no two alike."""
        numbers = [torch.randint(1, size, (count,)) for size in self.inputs.item.values()]
        vector_KE: Tensor = self.embed(torch.stack(numbers, dim=-1), self.item_fields).detach()
        # Items that share all numbers would be one centroid twice, and one of the two would never be the nearest.
        return vector_KE + 0.01 * torch.randn_like(vector_KE)

    def find(self, window: Window, query: Query) -> Found:
        """Search, take the hits, attend."""
        users, size = window.time_BL.shape
        if self.buckets is not None and self.training:
            # Padding is a vector of zeros, and would pull a centroid to it.
            real_BL = length_mask(window.length_B, size)
            self.buckets.follow(window.vector_BLE[real_BL][:, : self.target_width].detach())

        def read(
            target_BCE: Tensor, number_BCF: Tensor, time_BC: Tensor, visible_BCL: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            score_BCL, match_BCL = self._search(window, target_BCE, number_BCF)
            place_BCM, hit_BCM = best_events(later_of_equal(score_BCL), match_BCL & visible_BCL, self.config.hits)
            time_BCM = take_events(window.time_BL.unsqueeze(-1), place_BCM, hit_BCM).squeeze(-1)
            gap_BCM = gaps_since(time_BC.unsqueeze(-1), time_BCM)
            return *self._attend(target_BCE, window.vector_BLE, Hits(place_BCM, hit_BCM, gap_BCM)), place_BCM

        interest_BCD, attention_BCM, place_BCM = in_chunks(
            read,
            query.vector_BCE,
            query.number_BCF,
            query.time_BC,
            self.visible(query, size),
            axis=1,
            numbers=users * self.config.heads * max(size, self.config.hits, self.event_width + self.gap.embedding_dim),
        )
        return Found(interest_BCD, attention_BCM, place_BCS=place_BCM)

    def _search(self, window: Window, target_BCE: Tensor, number_BCF: Tensor) -> tuple[Tensor, Tensor]:
        """Score and mask `[B, C, L]` of the events that may be found; padding and later events among them."""
        with torch.no_grad():
            if self.soft is not None:
                score_BCL = self.soft(target_BCE, window.vector_BLE)
                return score_BCL, torch.ones_like(score_BCL, dtype=torch.bool)
            if self.buckets is not None:
                # Sorting twice turns distances into ranks: 0 for the bucket that is nearest to the target.
                rank_BCK = self.buckets.distance(target_BCE).argsort(dim=-1).argsort(dim=-1)
                bucket_BL = self.buckets.distance(window.vector_BLE[..., : self.target_width]).argmin(dim=-1)
                each_BCL = bucket_BL.unsqueeze(1).expand(-1, target_BCE.shape[1], -1)
                rank_BCL = rank_BCK.gather(-1, each_BCL)
                return -rank_BCL.to(target_BCE.dtype), rank_BCL < self.config.near
            # The category is the second item field; without one, the item itself.
            column = min(1, len(self.item_fields) - 1)
            own_BC1 = number_BCF[..., column].unsqueeze(-1)
            match_BCL = (own_BC1 == window.number_BLF[..., column].unsqueeze(1)) & (own_BC1 > UNKNOWN)
            return torch.zeros_like(match_BCL, dtype=target_BCE.dtype), match_BCL

    def _attend(self, target_BCE: Tensor, event_BLE: Tensor, hits: Hits) -> tuple[Tensor, Tensor]:
        """Heads `[B, C, H * Z]` and the mean of their weights `[B, C, M]`.

        z = [event ; gap vector] is never made: products and sums of its two parts are.
        """
        query_BCHZ = torch.stack([head(target_BCE) for head in self.query], dim=2)
        # The query's numbers for the event, then those for its gap.
        of_event, of_gap = torch.split(query_BCHZ, [event_BLE.shape[-1], self.gap.embedding_dim], dim=-1)
        score_BCHM = products_at(of_event, event_BLE, hits.place_BCM) + products_at(
            of_gap, self.gap.weight, hits.gap_BCM
        )
        weight_BCHM = masked_softmax(score_BCHM / math.sqrt(query_BCHZ.shape[-1]), hits.hit_BCM.unsqueeze(2))
        sums = (
            sums_at(weight_BCHM, event_BLE, hits.place_BCM),
            sums_at(weight_BCHM, self.gap.weight, hits.gap_BCM),
        )
        return torch.cat(sums, dim=-1).flatten(2), weight_BCHM.mean(dim=2)

    def forward(self, batch: Batch) -> Output:
        """As every history model; a soft search adds its own loss, where gradients are wanted."""
        output = super().forward(batch)
        if self.soft is None or self.config.search_loss == 0 or not torch.is_grad_enabled():
            return output
        window, query = self.window_of(batch)
        visible_BCL = self.visible(query, window.time_BL.shape[1])
        logit_BCT = self.soft.predict(query.vector_BCE, window.vector_BLE, visible_BCL)
        label_BCT = batch.label_BCT.to(logit_BCT.dtype)
        loss_BC = binary_cross_entropy_with_logits(logit_BCT, label_BCT, reduction="none").mean(dim=-1)
        loss = loss_BC.masked_fill(~batch.mask_BC, 0.0).sum() / batch.mask_BC.sum().clamp(min=1)
        return replace(output, aux_losses={"search": self.config.search_loss * loss})
