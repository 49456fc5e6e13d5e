"""How a loop over the events of a history runs: as a loop of an exported graph, compiled, or step by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def traced_states(step: Callable[..., Tensor], start: Tensor, *values: Tensor) -> Tensor:
    """The state after each step, `[L, ...]`, in a graph with free L: a Python loop would be unrolled.

    Call it only while a graph is traced; it has no gradients.

    Args:
        step: (state, one row of each of `values`) -> new state.
        start: the state before the first step.
        values: `[L, ...]`.

    Raises:
        NotImplementedError: the tracer runs the function once, and sees no loops.
    """
    if torch.jit.is_tracing():  # type: ignore[no-untyped-call, attr-defined]
        raise NotImplementedError("a loop of free length")
    from torch._higher_order_ops.scan import scan

    def carry(state: Tensor, rows: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        state = step(state, *rows)
        # The operator refuses an output that is the carried state itself.
        return state, state.clone()

    states: Tensor = scan(carry, start, values)[1]
    return states


def is_traced() -> bool:
    """Whether a graph is being traced now."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[no-untyped-call, attr-defined]


def runs_compiled(*values: Tensor) -> bool:
    """Whether a compiled loop takes these: all in single precision, on the CPU, and no graph is being traced.

    Import the loop only then: compiling takes seconds where nothing is cached yet, and whoever trains no such model
    need not wait.
    """
    return not is_traced() and all(value.device.type == "cpu" and value.dtype == torch.float32 for value in values)
