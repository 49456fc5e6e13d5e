"""What memories of slots share: the attentional read in hops, and the term that keeps slots different.

Source: Ren et al., SIGIR 2019 (HPMN), section 4.

Shapes: B users, C targets per user, S slots, D slot width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lifelong.nn.masks import masked_softmax


def read_slots(
    query_BCD: Tensor, slot_BCSD: Tensor, filled_BCS: Tensor, *, scores: Iterable[nn.Module], pass_on: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """Hops of attention over the slots, empty ones masked: interest `[B, C, D]`, attention of the first hop.

    Args:
        query_BCD: the targets' queries.
        slot_BCSD: memories `[B, C, ...]` or `[B, 1, ...]`.
        filled_BCS: False where a slot was never written.
        scores: how well slots fit a query, one for each hop.
        pass_on: map of a query to the next hop; None: what is read alone is the interest.
    """
    attentions, found_BCD = [], query_BCD
    for score in scores:
        weight_BCS = masked_softmax(score(query_BCD, slot_BCSD), filled_BCS)
        attentions.append(weight_BCS)
        found_BCD = (weight_BCS.unsqueeze(-1) * slot_BCSD).sum(dim=-2)
        if pass_on is not None:
            query_BCD = found_BCD = pass_on(query_BCD) + found_BCD
    return found_BCD, attentions[0]


def slot_covariance(slot_BSD: Tensor, filled_BS: Tensor) -> Tensor:
    """Half the squared off-diagonal of the slots' covariance over the feature axis, empty slots left out: `[B...]`.

    Source: the covariance regularisation.
    """
    centred = (slot_BSD - slot_BSD.mean(dim=-1, keepdim=True)) * filled_BS.unsqueeze(-1)
    covariance_BSS = centred @ centred.transpose(-1, -2) / slot_BSD.shape[-1]
    diagonal_BS = covariance_BSS.diagonal(dim1=-2, dim2=-1)
    return 0.5 * (covariance_BSS.square().sum(dim=(-1, -2)) - diagonal_BS.square().sum(dim=-1))


def align_slots(layers: nn.ModuleList, query: nn.Linear, pass_on: nn.Linear | None) -> None:
    """Start with queries and slots in one space, so that a candidate and what the slots hold can be compared.

    The query begins as what layer 1 makes of the same item fields, upper layers and hops begin by passing on. From
    independent random maps a model needs twice as many examples to leave its first plateau.

    Args:
        layers: `nn.GRU` of one layer each, equally wide; the next one reads the one before.
        query: from embedded targets to slots.
        pass_on: map of a query to the next hop.
    """
    width = query.out_features
    first, *upper = (dict(layer.named_parameters())["weight_ih_l0"] for layer in layers)
    with torch.no_grad():
        # Rows of an `nn.GRU` weight: reset, update, new state; columns begin with the item fields.
        query.weight.copy_(first[2 * width :, : query.in_features])
        query.bias.zero_()
        for weight in upper:
            weight[2 * width :] = torch.eye(width)
        if pass_on is not None:
            pass_on.weight.copy_(torch.eye(width))
