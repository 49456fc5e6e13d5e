"""What memories of slots share: the attentional read in hops, and the term that keeps slots different.

Source: Ren et al., SIGIR 2019 (HPMN): the attentional read and the memory covariance regularisation.

Shapes: B users, C targets per user, S slots, D slot width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifelong.offline.nn.attention import PairScore
from lifelong.offline.nn.masks import masked_softmax
from lifelong.offline.nn.moments import repeated


class SlotReader(nn.Module):
    """Attention over slots, in hops: a query W_q v of the target, and for each hop a score of its own.

    Source: the attentional read; the hops are those of the authors' code. The single read of the paper returns the
    weighted slots alone: no query passes on.

    Args:
        query_size: width of an embedded target; None for queries that are as wide as slots, without W_q.
        width: D.
        hops: passes of a read.
    """

    def __init__(self, query_size: int | None, width: int, *, hops: int) -> None:
        super().__init__()
        self.query: nn.Identity | nn.Linear = nn.Identity() if query_size is None else nn.Linear(query_size, width)
        self.scores: nn.ModuleList = nn.ModuleList(PairScore(width) for _ in range(hops))
        self.pass_on: nn.Linear | None = nn.Linear(width, width, bias=False) if hops > 1 else None

    def forward(self, target_BCQ: Tensor, slot_BCSD: Tensor, filled_BCS: Tensor) -> tuple[Tensor, Tensor]:
        """Interest `[B, C, D]` in embedded targets, and the attention of the first hop; see `attend`."""
        return self.attend(self.query(target_BCQ), slot_BCSD, filled_BCS)

    def attend(self, query_BCD: Tensor, slot_BCSD: Tensor, filled_BCS: Tensor) -> tuple[Tensor, Tensor]:
        """Interest `[B, C, D]`, and the attention of the first hop.

        Args:
            query_BCD: queries.
            slot_BCSD: slots `[B, C, ...]` or `[B, 1, ...]`.
            filled_BCS: False where a slot was never written; such a slot takes no part.
        """
        attentions, read_BCD = [], query_BCD
        for score in self.scores:
            weight_BCS = masked_softmax(score(query_BCD, slot_BCSD), filled_BCS)
            attentions.append(weight_BCS)
            read_BCD = _weighted(weight_BCS, slot_BCSD)
            if self.pass_on is not None:
                query_BCD = read_BCD = self.pass_on(query_BCD) + read_BCD
        return read_BCD, attentions[0]

    def attend_at_moments(
        self, query_ND: Tensor, slot_XSD: Tensor, filled_XS: Tensor, moment_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`attend` of a single hop where neighbours read the same slots: `[N, D]` and `[N, S]`.

        Args:
            query_ND: queries.
            slot_XSD: slots at each moment.
            filled_XS: see `attend`.
            moment_N: int64, the moment of each query.
        """
        (score,) = self.scores
        assert isinstance(score, PairScore)
        slot_NSD = repeated(slot_XSD, moment_N)
        weight_NS = masked_softmax(score.of_moments(query_ND, slot_XSD, slot_NSD, moment_N), filled_XS[moment_N])
        return (weight_NS.unsqueeze(-1) * slot_NSD).sum(dim=-2), weight_NS

    def align(self, layers: nn.ModuleList, size: int | None = None) -> None:
        """Start with queries and slots in one space, so that a target and what the slots hold can be compared.

        A query begins as what layer 1 makes of the same numbers of an event; upper layers and hops begin by passing on.
        From independent random maps a model needs twice as many examples to leave its first plateau.

        Args:
            layers: `nn.GRU` of one layer each, equally wide; the next one reads the one before.
            size: how many of the first numbers of an event and of a target mean the same thing; None: as many as both
                have.
        """
        first, *upper = (dict(layer.named_parameters())["weight_ih_l0"] for layer in layers)
        with torch.no_grad():
            # Rows of an `nn.GRU` weight: reset, update, new state.
            width = first.shape[0] // 3
            if isinstance(self.query, nn.Linear):
                size = min(first.shape[1], self.query.in_features) if size is None else size
                self.query.weight[:, :size] = first[2 * width :, :size]
                self.query.bias.zero_()
            for weight in upper:
                weight[2 * width :] = torch.eye(width)
            if self.pass_on is not None:
                self.pass_on.weight.copy_(torch.eye(width))


def _weighted(weight_BCS: Tensor, slot_BCSD: Tensor) -> Tensor:
    """Sums of weighted slots, `[B, C, D]`; of slots that all targets share, as one matrix product."""
    if slot_BCSD.shape[1] == 1:
        return weight_BCS @ slot_BCSD.squeeze(1)
    return (weight_BCS.unsqueeze(-1) * slot_BCSD).sum(dim=-2)


def slot_covariance(slot_BSD: Tensor, filled_BS: Tensor) -> Tensor:
    """Half the squared off-diagonal of the slots' covariance over the feature axis, empty slots left out: `[B...]`.

    Source: the covariance regularisation.
    """
    centred = (slot_BSD - slot_BSD.mean(dim=-1, keepdim=True)) * filled_BS.unsqueeze(-1)
    covariance_BSS = centred @ centred.transpose(-1, -2) / slot_BSD.shape[-1]
    diagonal_BS = covariance_BSS.diagonal(dim1=-2, dim2=-1)
    return 0.5 * (covariance_BSS.square().sum(dim=(-1, -2)) - diagonal_BS.square().sum(dim=-1))
