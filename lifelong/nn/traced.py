"""A loop over the events of a history that stays a loop in an exported graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def traced_states(step: Callable[..., Tensor], start: Tensor, *values: Tensor) -> Tensor:
    """The state after each step, `[L, ...]`, for a graph whose L is free: a Python loop would be unrolled.

    Only while a graph is traced; without gradients.

    Args:
        step: (state, one row of each of `values`) -> new state.
        start: the state before the first step.
        values: `[L, ...]`.
    """
    from torch._higher_order_ops.scan import scan

    def carry(state: Tensor, rows: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        state = step(state, *rows)
        return state, state.clone()

    states: Tensor = scan(carry, start, values)[1]
    return states


def is_traced() -> bool:
    """Whether a graph is being traced now."""
    return torch.compiler.is_compiling()
