"""Targets of one moment: all that is read of a user before them is the same, so that it is computed once for all.

    targets n0 n1 n2 n3 | n4 n5     a basket with its drawn negatives has one user, one position and one context
    moments x0          | x1        a row of the arrays with the axis X; `moment_N` says which row each target has

Shapes: B users, C padded targets per user, N real targets, X moments of all users, M moments per user, F fields.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding


class Moments(NamedTuple):
    """Runs of targets that have user, position and context in common."""

    real_N: Tensor
    """int64: places of the real targets among `B * C`."""
    moment_N: Tensor
    """int64: the moment of each."""
    first_X: Tensor
    """int64: places of the first target of each moment among `B * C`."""
    position_BM: Tensor
    """int64: positions of each user's moments, 0 where she has fewer; M is at least 1."""
    place_X: Tensor
    """int64: places of the moments among `B * M`."""


def moments_of(position_BC: Tensor, context_BCF: Tensor, mask_BC: Tensor) -> Moments:
    """The moments of a batch's real targets; equal neighbours share one.

    Args:
        position_BC: events before each target.
        context_BCF: what else is read of the moment.
        mask_BC: where there is a target.

    >>> position_BC, mask_BC = torch.tensor([[2, 2, 5], [7, 7, 0]]), torch.tensor([[True] * 3, [True, True, False]])
    >>> moments = moments_of(position_BC, torch.zeros(2, 3, 0, dtype=torch.int64), mask_BC)
    >>> moments.moment_N.tolist(), moments.position_BM.tolist(), moments.place_X.tolist()
    ([0, 0, 1, 2, 2], [[2, 5], [7, 0]], [0, 1, 2])
    """
    real_N = mask_BC.flatten().nonzero().squeeze(-1)
    # A batch without any column has no targets, and must not divide by 0.
    user_N, position_N = real_N // max(1, mask_BC.shape[1]), position_BC.flatten()[real_N]
    said_NF = torch.cat([user_N.unsqueeze(-1), position_N.unsqueeze(-1), context_BCF.flatten(0, 1)[real_N]], dim=-1)
    # The first target has none before it, and always begins a moment.
    new_N = torch.ones_like(real_N, dtype=torch.bool)
    new_N[1:] = (said_NF[1:] != said_NF[:-1]).any(dim=-1)
    user_X, count_B = user_N[new_N], torch.bincount(user_N[new_N], minlength=len(mask_BC))
    # Users come one after another, so that a moment's rank is how many moments there are from its user's first one on.
    rank_X = torch.arange(len(user_X), device=user_X.device) - (count_B.cumsum(0) - count_B)[user_X]
    most = max(1, int(count_B.max()))
    # Users have different numbers of moments: rows are padded to the largest, so moment X is at user * most + rank.
    position_BM = position_BC.new_zeros(len(mask_BC), most)
    position_BM[user_X, rank_X] = position_N[new_N]
    return Moments(real_N, new_N.cumsum(0) - 1, real_N[new_N], position_BM, user_X * most + rank_X)


def repeated(value_X: Tensor, moment_N: Tensor) -> Tensor:
    """Each target's row of values of moments: `[N, ...]`. Its gradient adds up faster than that of indexing.

    >>> repeated(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0, 1])).flatten().tolist()
    [1.0, 1.0, 2.0]
    """
    return embedding(moment_N, value_X.flatten(1)).view(len(moment_N), *value_X.shape[1:])
