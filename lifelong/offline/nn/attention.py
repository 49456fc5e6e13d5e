"""Attention: how well entries fit a query by an MLP, targets in the space of events, and attention of several heads.

Shapes: B users, C targets per user, M entries, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifelong.offline.nn.masks import masked_softmax
from lifelong.offline.nn.moments import repeated


class PairScore(nn.Module):
    """How well entries m fit a query q: MLP([q ; m ; q - m ; q * m]), 4d -> 80 relu -> 40 relu -> 1.

    The first layer is computed in split form, W [q ; m ; q - m ; q * m] = (W1 + W3) q + (W2 - W3) m + W4 (q * m): the
    query's part is computed once for all entries, and nothing of width 4d is ever made.

    Source: Ren et al., SIGIR 2019 (HPMN), the attentional read: the scorer of DIN (Zhou et al., KDD 2018), with the
    product as one more part.

    >>> PairScore(8)(query=torch.randn(2, 3, 8), entry=torch.randn(2, 1, 5, 8)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(self, width: int, hidden: tuple[int, int] = (80, 40)) -> None:
        super().__init__()
        self.width = width
        self.first: nn.Linear = nn.Linear(4 * width, hidden[0])
        self.second: nn.Linear = nn.Linear(hidden[0], hidden[1])
        self.last: nn.Linear = nn.Linear(hidden[1], 1)

    def forward(self, query: Tensor, entry: Tensor) -> Tensor:
        """Scores `[..., S]` of `entry[..., S, D]` for `query[..., D]`.

        Entries that queries `[..., C, D]` share are `[..., 1, S, D]`.
        """
        # W1 to W4: the columns for q, m, q - m and q * m.
        of_query, of_entry, of_difference, of_product = self.first.weight.chunk(4, dim=1)
        if entry.shape[:-2] != query.shape[:-1] and entry.shape[-3] == 1:
            return self._of_shared(query, entry)
        query_part = query @ (of_query + of_difference).T + self.first.bias
        weight = torch.cat([of_entry - of_difference, of_product], dim=1)
        entry_part = torch.cat([entry, query.unsqueeze(-2) * entry], dim=-1) @ weight.T
        return self.above(torch.relu(query_part.unsqueeze(-2) + entry_part))

    def _of_shared(self, query: Tensor, entry: Tensor) -> Tensor:
        """`forward` for many queries `[..., C, D]` of the same entries `[..., 1, S, D]`.

        For a given m, the first layer is linear in q: (W1 + W3 + W4 diag(m)) q + (W2 - W3) m + b. Its weights are made
        once for each entry; of all pairs there are only the hidden units.
        """
        of_query, of_entry, of_difference, of_product = self.first.weight.chunk(4, dim=1)
        entry = entry.squeeze(-3)
        weight = (of_query + of_difference).T + entry.unsqueeze(-1) * of_product.T
        constant = entry @ (of_entry - of_difference).T + self.first.bias
        # The constant is one more row of the weights, for an input that is 1.
        weight = torch.cat([weight, constant.unsqueeze(-2)], dim=-2)
        query = torch.cat([query, torch.ones_like(query[..., :1])], dim=-1)
        hidden = torch.relu(query.unsqueeze(-3) @ weight)
        return self.above(hidden).transpose(-1, -2)

    def of_moments(self, query_ND: Tensor, entry_XSD: Tensor, entry_NSD: Tensor, moment_N: Tensor) -> Tensor:
        """`forward` where neighbours have the same entries: their part is computed once a moment, `[N, S]`.

        Args:
            query_ND: queries.
            entry_XSD: entries of each moment.
            entry_NSD: the same, repeated for each query.
            moment_N: int64, the moment of each query.
        """
        of_query, of_entry, of_difference, of_product = self.first.weight.chunk(4, dim=1)
        entry_part = repeated(entry_XSD @ (of_entry - of_difference).T, moment_N)
        query_part = query_ND @ (of_query + of_difference).T + self.first.bias
        product = (query_ND.unsqueeze(1) * entry_NSD).flatten(0, 1)
        of_both = torch.addmm(entry_part.flatten(0, 1), product, of_product.T).view(entry_part.shape)
        return self.above(torch.relu(of_both + query_part.unsqueeze(1)))

    def above(self, hidden: Tensor) -> Tensor:
        """Scores `[...]` from what the first layer makes of pairs, `[..., K]`."""
        # As a matrix: graphs then add the bias within the product.
        second = torch.relu(self.second(hidden.flatten(0, -2)))
        score: Tensor = self.last(second).view(hidden.shape[:-1])
        return score


class TargetQuery(nn.Linear):
    """A linear map from embedded targets to embedded events; an event's first fields are those of the target.

    It starts as the identity on those fields, so that a target and the events of its item are near each other from the
    first step on.

    Args:
        target: width of an embedded target.
        event: width of an embedded event.

    >>> TargetQuery(2, 3)(torch.tensor([5.0, 7.0])).tolist()
    [5.0, 7.0, 0.0]
    """

    def __init__(self, target: int, event: int) -> None:
        super().__init__(target, event)
        with torch.no_grad():
            self.weight.copy_(torch.eye(event, target))
            self.bias.zero_()


def attend_by_head(
    query_BCD: Tensor, key_BCMD: Tensor, value_BCMD: Tensor, seen_BCM: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention: what the heads find, one after another `[B, C, D]`, and weights `[B, C, H, M]`.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2, with targets as queries.

    Args:
        query_BCD: queries.
        key_BCMD: keys of the entries; `[B, 1, M, D]` where all targets of a user have the same entries.
        value_BCMD: values of the entries, in the shape of the keys.
        seen_BCM: True where there is an entry; a target without any finds zeros.
        heads: H; D is a multiple of it.

    >>> entry_BCMD, seen_BCM = torch.randn(1, 2, 4, 6), torch.tensor([[[True] * 4, [False] * 4]])
    >>> found_BCD, weight_BCHM = attend_by_head(torch.randn(1, 2, 6), entry_BCMD, entry_BCMD, seen_BCM, heads=3)
    >>> weight_BCHM.sum(dim=-1).round(decimals=4).tolist()
    [[[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]
    """
    query_BCHX = _split(query_BCD, heads)
    key_BCMHX, value_BCMHX = _split(key_BCMD, heads), _split(value_BCMD, heads)
    score_BCMH = (query_BCHX.unsqueeze(2) * key_BCMHX).sum(dim=-1) / query_BCHX.shape[-1] ** 0.5
    weight_BCHM = masked_softmax(score_BCMH.transpose(-1, -2), seen_BCM.unsqueeze(2))
    read_BCHX = (weight_BCHM.transpose(-1, -2).unsqueeze(-1) * value_BCMHX).sum(dim=2)
    return read_BCHX.flatten(-2), weight_BCHM


def _split(value: Tensor, heads: int) -> Tensor:
    """Each head's part of the width: `[..., H, D / H]`."""
    return value.view(*value.shape[:-1], heads, value.shape[-1] // heads)
