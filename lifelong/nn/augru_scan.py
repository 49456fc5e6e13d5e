"""AUGRU over ragged histories as one compiled loop, forward and backward.

    what a user's events add to the gates --+
    each target's weights ------------------+--compiled loop, target after target--> its last state

Each target has states of its own, so that the loop over events runs once per target. It touches only the events before
the target and keeps nothing but the last state: the backward pass runs a target's events again, into arrays that stay
in the cache, before it goes back. `Augru` decides when it is used, and its loop is the specification.

`scan.py` is not used here: what events add to the gates is one product per event, which all targets of a user share,
and there a product per step of each target.

Source: Zhou et al., "Deep Interest Evolution Network", AAAI 2019, the interest evolving layer.

Shapes: B users, L padded history length, C targets per user, U users times targets, N events of a few targets, one
target after the other, D state width; G = 3 D gates: reset, update, new; H = 4 D: the gates, and what the state adds to
the new gate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.compiled import Array
from lifelong.nn.compiled import add_product, as_array, jit, tanh

_EVENTS_AT_ONCE = 4096
"""How many events' gradients are multiplied with the states at once."""
_NOTHING = np.float32(1e-20)
"""Weights and gradients below this count as 0: what they change is lost in rounding, and denormal numbers are slow."""


@jit
def _run(gate_LG: Array, weight_L: Array, weight_DG: Array, before_LD: Array, kept_LH: Array, state_D: Array) -> None:
    """Fill the state of one target after the last event, the states before each event, and the parts of each step.

    The loops are short and use few arrays each: the compiler turns only such loops into vector instructions.
    """
    width = len(state_D)
    part = np.empty_like(gate_LG[0])
    half = np.float32(0.5)
    state_D[:] = 0
    for t in range(len(before_LD)):
        part[:] = 0
        add_product(part, state_D, weight_DG)
        gate, kept, weight = gate_LG[t], kept_LH[t], weight_L[t]
        for j in range(2 * width):
            kept[j] = half * tanh(half * (gate[j] + part[j])) + half
        for j in range(width):
            kept[2 * width + j] = tanh(gate[2 * width + j] + kept[j] * part[2 * width + j])
        kept[3 * width :] = part[2 * width :]
        before_LD[t] = state_D
        for j in range(width):
            state_D[j] += weight * kept[width + j] * (kept[2 * width + j] - state_D[j])


@jit
def _forward(gate_BLG: Array, weight_BCL: Array, end_BC: Array, weight_DG: Array, state_BCD: Array) -> None:
    """Fill the last state of each target."""
    width = state_BCD.shape[2]
    before_LD = np.empty((gate_BLG.shape[1], width), np.float32)
    kept_LH = np.empty((gate_BLG.shape[1], 4 * width), np.float32)
    for b in range(len(gate_BLG)):
        for c in range(weight_BCL.shape[1]):
            before = before_LD[: end_BC[b, c]]
            _run(gate_BLG[b], weight_BCL[b, c], weight_DG, before, kept_LH, state_BCD[b, c])


@jit
def _back(
    grad_D: Array,
    weight_L: Array,
    weight_GD: Array,
    before_LD: Array,
    kept_LH: Array,
    grad_own_LG: Array,
    grad_gate_LG: Array,
    grad_weight_L: Array,
) -> None:
    """Go back through the events of one target, from the gradient of its last state.

    Fills the gradients of its weights and of what the state adds to the gates. Adds those of what the events add, which
    other targets share.
    """
    width = len(grad_D)
    one = np.float32(1)
    back, kept_part = grad_D.copy(), np.empty_like(grad_D)
    for t in range(len(before_LD) - 1, -1, -1):
        kept, last, own, grad_gate, weight = kept_LH[t], before_LD[t], grad_own_LG[t], grad_gate_LG[t], weight_L[t]
        total = np.float32(0)
        for j in range(width):
            kept_part[j] = back[j] * (kept[2 * width + j] - last[j]) * kept[width + j]
        for j in range(width):
            total += kept_part[j]
        grad_weight_L[t] = total
        # The state has not changed: the gradient goes to the one before it as it is.
        if weight < _NOTHING:
            own[:] = 0
            continue
        for j in range(width):
            own[width + j] = weight * kept_part[j] * (one - kept[width + j])
        for j in range(width):
            kept_part[j] = weight * kept[width + j] * back[j]
            back[j] -= kept_part[j]
        for j in range(width):
            kept_part[j] *= one - kept[2 * width + j] * kept[2 * width + j]
        for j in range(width):
            own[j] = kept_part[j] * kept[3 * width + j] * kept[j] * (one - kept[j])
        for j in range(width):
            own[2 * width + j] = kept_part[j] * kept[j]
        for j in range(2 * width):
            grad_gate[j] += own[j]
        for j in range(width):
            grad_gate[2 * width + j] += kept_part[j]
        add_product(back, own, weight_GD)
        for j in range(width):
            back[j] = back[j] if abs(back[j]) > _NOTHING else np.float32(0)


@jit
def _backward(
    few: Array,
    grad_UD: Array,
    gate_BLG: Array,
    weight_UL: Array,
    end_U: Array,
    weights: tuple[Array, Array],
    before_ND: Array,
    grad_own_NG: Array,
    grad_gate_BLG: Array,
    grad_weight_UL: Array,
) -> int:
    """Run forward and go back for the targets `few`; returns how many of the N rows of their events were filled."""
    weight_DG, weight_GD = weights
    width, row = weight_DG.shape[0], 0
    kept_LH = np.empty((gate_BLG.shape[1], 4 * width), np.float32)
    state_D = np.empty(width, np.float32)
    for u in few:
        b, rows = u * len(gate_BLG) // len(end_U), slice(row, row + end_U[u])
        before, own = before_ND[rows], grad_own_NG[rows]
        _run(gate_BLG[b], weight_UL[u], weight_DG, before, kept_LH, state_D)
        _back(grad_UD[u], weight_UL[u], weight_GD, before, kept_LH, own, grad_gate_BLG[b], grad_weight_UL[u])
        row += end_U[u]
    return row


class _Scan(torch.autograd.Function):
    """All targets as one differentiable operation."""

    @staticmethod
    def forward(ctx: Any, gate_BLG: Tensor, weight_BCL: Tensor, end_BC: Tensor, weight_GD: Tensor) -> Tensor:
        state_BCD = gate_BLG.new_empty(*weight_BCL.shape[:2], weight_GD.shape[1])
        histories = as_array(gate_BLG), as_array(weight_BCL), as_array(end_BC)
        _forward(*histories, as_array(weight_GD.T), state_BCD.numpy())
        ctx.save_for_backward(gate_BLG, weight_BCL, end_BC, weight_GD)
        return state_BCD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gate_BLG, weight_BCL, end_BC, weight_GD = ctx.saved_tensors
        size, (gates, width) = gate_BLG.shape[1], weight_GD.shape
        grad_gate_BLG = torch.zeros_like(gate_BLG, memory_format=torch.contiguous_format)
        grad_weight_BCL = torch.zeros_like(weight_BCL, memory_format=torch.contiguous_format)
        grad_GD = torch.zeros_like(weight_GD)
        count = max(1, _EVENTS_AT_ONCE // max(1, size))
        before_ND, grad_NG = (gate_BLG.new_empty(count * size, columns) for columns in (width, gates))
        read = (
            as_array(grad_outputs[0].flatten(0, 1)),
            as_array(gate_BLG),
            as_array(weight_BCL.flatten(0, 1)),
            as_array(end_BC.flatten()),
            (as_array(weight_GD.T), as_array(weight_GD)),
        )
        filled = before_ND.numpy(), grad_NG.numpy(), grad_gate_BLG.numpy(), grad_weight_BCL.flatten(0, 1).numpy()
        # A few targets at a time, so that states and gradients of their events fit one small array.
        for few in np.split(np.arange(end_BC.numel()), range(count, end_BC.numel(), count)):
            rows = _backward(few, *read, *filled)
            grad_GD.addmm_(grad_NG[:rows].T, before_ND[:rows])
        return grad_gate_BLG, grad_weight_BCL, None, grad_GD


def augru_scan(gate_BLG: Tensor, weight_BCL: Tensor, end_BC: Tensor, weight_GD: Tensor) -> Tensor:
    """The state of each target after its events, zeros before the first: `[B, C, D]`.

    Args:
        gate_BLG: what the events add to the gates, in single precision, on the CPU; L may be 0.
        weight_BCL: attention of each target.
        end_BC: int64 events of each target, at most L; the weights of later ones take no part.
        weight_GD: makes what the state adds to the gates.
    """
    apply: Callable[..., Tensor] = _Scan.apply
    return apply(gate_BLG, weight_BCL, end_BC, weight_GD)
