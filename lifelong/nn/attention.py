"""Attention blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PairScore(nn.Module):
    """How well entries m fit a query q: MLP([q ; m ; q - m ; q * m]), 4d -> 80 relu -> 40 relu -> 1.

    Source: HPMN, section 4.3 (the scorer of DIN with one more part).

    The first layer is computed in split form, W [q ; m ; q - m ; q * m] = (W1 + W3) q + (W2 - W3) m + W4 (q * m), so
    that the query's part is computed once for all entries and nothing of width 4d is ever made.
    """

    def __init__(self, width: int, hidden: tuple[int, int] = (80, 40)) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Linear(4 * width, hidden[0])
        self.second = nn.Linear(hidden[0], hidden[1])
        self.last = nn.Linear(hidden[1], 1)

    def forward(self, query: Tensor, entry: Tensor) -> Tensor:
        """Scores `[..., S]` of `entry[..., S, D]` for `query[..., D]`; the leading axes broadcast."""
        of_query, of_entry, of_difference, of_product = self.first.weight.chunk(4, dim=1)
        query_part = query @ (of_query + of_difference).T + self.first.bias
        product = query.unsqueeze(-2) * entry
        if entry.shape[:-2] == query.shape[:-1]:
            weight = torch.cat([of_entry - of_difference, of_product], dim=1)
            entry_part = torch.cat([entry, product], dim=-1) @ weight.T
        else:
            # Fewer memories than queries (many candidates of one user): the memory's part is computed once for all.
            entry_part = entry @ (of_entry - of_difference).T + product @ of_product.T
        hidden = torch.relu(query_part.unsqueeze(-2) + entry_part)
        score: Tensor = self.last(torch.relu(self.second(hidden))).squeeze(-1)
        return score
