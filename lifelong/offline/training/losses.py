"""What training minimises: cross entropy over the real targets, and the model's own terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.offline.data.batch import Batch
from lifelong.offline.models.base import Output


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one batch.

    Args:
        total: what is minimised, a scalar.
        cross_entropy: its first term: the mean over real targets and tasks, in nats.
    """

    total: Tensor
    cross_entropy: Tensor


def loss_of(output: Output, batch: Batch, share: float = 1.0, *, aux_shares: Mapping[str, float] | None = None) -> Loss:
    """Cross entropy of the real targets plus the auxiliary losses, in float32 whatever the model computed in.

    Where several heads learn, the total has the cross entropy of each; `cross_entropy` is that of the logit.

    Args:
        output: of the model.
        batch: a batch, or a part of one.
        share: share of the whole batch's labelled targets in this part, so that the losses of the parts add up.
        aux_shares: shares for auxiliary losses that are not means over labelled targets.
    """

    def of(logit_BCT: Tensor) -> Tensor:
        return share * masked_cross_entropy(logit_BCT.float(), batch.label_BCT, batch.mask_BC, batch.weight_BC)

    cross_entropy = of(output.logit_BCT)
    total = torch.stack([of(member) for member in output.members]).sum() if output.members else cross_entropy
    for name, term in output.aux_losses.items():
        total = total + (aux_shares or {}).get(name, share) * term.float()
    return Loss(total, cross_entropy)


def masked_cross_entropy(
    logit_BCT: Tensor, label_BCT: Tensor, mask_BC: Tensor, weight_BC: Tensor | None = None
) -> Tensor:
    """Mean cross entropy over real targets and all tasks; 0 where no target is real.

    Padded targets may hold anything, even NaN: they change neither value nor gradient. Weights, which are 1 on average
    over a whole batch, multiply the losses but not their count, so that the parts of a batch add up.

    >>> masked_cross_entropy(torch.zeros(1, 2, 1), torch.ones(1, 2, 1), torch.tensor([[True, False]]))
    tensor(0.6931)
    """
    mask_BC1 = mask_BC.unsqueeze(-1)
    loss_BCT = binary_cross_entropy_with_logits(logit_BCT.masked_fill(~mask_BC1, 0.0), label_BCT, reduction="none")
    if weight_BC is not None:
        loss_BCT = loss_BCT * weight_BC.unsqueeze(-1)
    tasks = logit_BCT.shape[-1]
    return torch.where(mask_BC1, loss_BCT, 0.0).sum() / (mask_BC.sum() * tasks).clamp(min=1)
