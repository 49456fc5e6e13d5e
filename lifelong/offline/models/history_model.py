"""Models that read a user's last events at every request.

Shapes: B users, L padded history length, C targets per user, F fields, E width of an embedded event, D width of an
interest, S what is attended to, T tasks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lifelong.dataset.events import InputSpec
from lifelong.offline.data.batch import Batch
from lifelong.offline.models.model import Model, Output
from lifelong.offline.nn.hits import over_events
from lifelong.offline.nn.masks import length_mask
from lifelong.offline.nn.short_term import SHORT_WIDTH, ShortTerm
from lifelong.offline.nn.windows import recent_mean


class Window(NamedTuple):
    """What a history model reads: B histories, left-aligned."""

    vector_BLE: Tensor
    """Embedded events; 0 in padding."""
    number_BLF: Tensor
    """int64, `schema.history_fields`; 0 in padding."""
    time_BL: Tensor
    """int64 UTC seconds; anything in padding."""
    length_B: Tensor


class Query(NamedTuple):
    """C targets of each of B users, as a history model sees them; anything where a target is padding."""

    vector_BCE: Tensor
    number_BCF: Tensor
    """int64, `schema.item_fields`."""
    time_BC: Tensor
    position_BC: Tensor
    """int64: events of the window before the target."""


class Found(NamedTuple):
    """What a history model finds for C targets."""

    interest_BCD: Tensor
    attention_BCS: Tensor | None = None
    """Over whatever the model attends to; at least 0, sum 1 (or all 0 without events) unless its weights are free."""
    aux_losses: Mapping[str, Tensor] = {}
    """Already weighted."""
    place_BCS: Tensor | None = None
    """int64: the event of the window that each weight belongs to; None where there is one for every event, in order."""
    aux_sizes: Mapping[str, Tensor] = {}
    """See `Output`."""

    def attention_over(self, length: int) -> Tensor | None:
        """The weight of each of the window's L events: `[B, C, L]`, 0 where the model did not look."""
        if self.attention_BCS is None or self.place_BCS is None:
            return self.attention_BCS
        return over_events(self.attention_BCS, self.place_BCS, length)


class HistoryModel(Model):
    """A model that reads the history itself at every request: its last `recent` events before the target.

    A service keeps those events of a user, so that state and cost grow with `recent`.
    """

    recent: int
    not_served = ""
    free_weights: bool = False
    """Whether its attention weights may have any size and sign, as in a plain sum, instead of summing to 1."""
    pooled: bool

    def __init__(self, inputs: InputSpec, config: Any, *, interest: int, pooled: bool = False, short: int = 0) -> None:
        """Build the parts that all models share.

        Args:
            inputs: sizes of all input fields.
            config: the model's settings, `embedding`, `dropout` and `recent` among them.
            interest: width D of what `find` returns.
            pooled: whether the head also has the mean of the events, and its product with the target.
            short: last events, at most `recent`, that have an attention of their own next to `find`; 0 for none.
        """
        more = (2 * config.embedding * len(inputs.item) if pooled else 0) + (SHORT_WIDTH if short else 0)
        super().__init__(inputs, embedding=config.embedding, interest=interest + more, dropout=config.dropout)
        self.recent, self.pooled = config.recent, pooled
        # A service keeps the last `recent` events and no more, so that the short term cannot see others.
        size = min(short, self.recent)
        self.short_term: ShortTerm | None = ShortTerm(self.target_width, self.event_width, size=size) if short else None

    @property
    def divisible(self) -> bool:
        """Users are independent of each other."""
        return True

    @abstractmethod
    def find(self, window: Window, query: Query) -> Found:
        """Interest in each target, from the last `recent` events before its position alone.

        `self.visible(query, L)` is the mask of those events. A target that is padding may give any finite numbers.
        """

    def visible(self, query: Query, size: int) -> Tensor:
        """Which of the events each target may see, its last `recent` ones: mask `[B, C, size]`."""
        place_L = torch.arange(size, device=query.position_BC.device)
        # Events at the position or later may have the target's own time, or be the target itself.
        position_BC1 = query.position_BC.unsqueeze(-1)
        return (place_L < position_BC1) & (place_L >= position_BC1 - self.recent)

    def look(self, window: Window, query: Query) -> Found:
        """`find`, and after its interest the short term and the mean."""
        found = self.find(window, query)
        parts = [found.interest_BCD]
        if self.short_term is not None:
            parts.append(self.short_term(window.vector_BLE, query.vector_BCE, query.position_BC))
        parts += self._pool(window, query)
        return found._replace(interest_BCD=torch.cat(parts, dim=-1)) if len(parts) > 1 else found

    def _pool(self, window: Window, query: Query) -> list[Tensor]:
        """The mean of the items of the events that each target sees, and its product with the target, if wanted."""
        if not self.pooled:
            return []
        mean_BCE = recent_mean(window.vector_BLE[..., : self.target_width], query.position_BC, self.recent)
        return [mean_BCE, mean_BCE * query.vector_BCE]

    def forward(self, batch: Batch) -> Output:
        """Embed, find, and respond."""
        window, query = self.window_of(batch)
        found = self.look(window, query)
        context_BCE = self.context_of(batch)
        logit_BCT = self.head(found.interest_BCD, query.vector_BCE, context_BCE)
        return Output(logit_BCT, found.aux_losses, found.attention_BCS, found.aux_sizes)

    def window_of(self, batch: Batch) -> tuple[Window, Query]:
        """A batch as `find` takes it."""
        real_BL1 = length_mask(batch.length_B, batch.history_BLF.shape[1]).unsqueeze(-1)
        event_BLE = self.embed(batch.history_BLF, self.history_fields, user=batch.user_B).masked_fill(~real_BL1, 0.0)
        # Padding may hold any number, and a search by number must not find it.
        number_BLF = batch.history_BLF.masked_fill(~real_BL1, 0)
        target_BCE = self.embed(batch.target_BCF, self.item_fields, user=batch.user_B)
        return (
            Window(event_BLE, number_BLF, batch.time_BL, batch.length_B),
            Query(target_BCE, batch.target_BCF, batch.target_time_BC, batch.position_BC),
        )
