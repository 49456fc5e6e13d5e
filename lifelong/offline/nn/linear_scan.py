"""The linear recurrence h_t = a_t h_{t-1} + b_t over all steps at once.

    (a, b) at distance 1, 2, 4, ... --combine--> h after every step          log2(L) passes, each over the whole tensor

Two neighbouring steps are one step: (a2, b2) after (a1, b1) is (a2 a1, a2 b1 + b2). With factors of at most 1 nothing
can overflow, and a product that underflows is a past that is forgotten: no logarithms are needed. The gradient is a
recurrence of the same form, backwards, so that only a and h are kept for it.

Source: Blelloch, "Prefix Sums and Their Applications", 1990, section 1.4; the passes are those of Hillis and Steele,
"Data Parallel Algorithms", CACM 1986.

Shapes: B users, L steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _LinearScan(torch.autograd.Function):
    """The scan as one differentiable operation."""

    @staticmethod
    def forward(ctx: Any, factor_BLD: Tensor, input_BLD: Tensor) -> Tensor:
        state_BLD = _doubling(factor_BLD, input_BLD)
        ctx.save_for_backward(factor_BLD, state_BLD)
        return state_BLD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        factor_BLD, state_BLD = ctx.saved_tensors
        # The gradient of step t + 1 reaches step t through the factor of step t + 1; after the last step there is none.
        next_BLD = torch.cat([factor_BLD[:, 1:], torch.zeros_like(factor_BLD[:, :1])], dim=1)
        grad_BLD = _doubling(next_BLD.flip(1), grad_outputs[0].flip(1)).flip(1)
        # The gradient of a factor is that of its step times the state before it, which is 0 before the first.
        last_BLD = torch.cat([torch.zeros_like(state_BLD[:, :1]), state_BLD[:, :-1]], dim=1)
        return grad_BLD * last_BLD, grad_BLD


def _doubling(factor_BLD: Tensor, state_BLD: Tensor) -> Tensor:
    """The scan, pass after pass; after each, `state` and `factor` cover the last 2, 4, 8, ... steps together."""
    distance, steps = 1, state_BLD.shape[1]
    while distance < steps:
        near, far = slice(distance, None), slice(None, -distance)
        joined_BLD = torch.addcmul(state_BLD[:, near], factor_BLD[:, near], state_BLD[:, far])
        # Steps nearer to the start than the distance are complete. New tensors, as `far` and `near` overlap and an
        # update in place would read what it has written.
        state_BLD = torch.cat([state_BLD[:, :distance], joined_BLD], dim=1)
        factor_BLD = torch.cat([factor_BLD[:, :distance], factor_BLD[:, near] * factor_BLD[:, far]], dim=1)
        distance *= 2
    return state_BLD


def linear_scan(factor_BLD: Tensor, input_BLD: Tensor) -> Tensor:
    """The state after each step, from a state of zeros: `[B, L, D]`; L may be 0.

    Args:
        factor_BLD: a, the share of the state before it that a step keeps; at most 1 in absolute value.
        input_BLD: b, what a step adds.

    >>> linear_scan(torch.full((1, 4, 1), 0.5), torch.ones(1, 4, 1)).flatten().tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    apply: Callable[..., Tensor] = _LinearScan.apply
    return apply(factor_BLD, input_BLD)
