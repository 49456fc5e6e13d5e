"""The recurrence of a GRU over ragged histories as one compiled loop, forward and backward.

    events --one matrix product--> gates' part from the input --compiled loop--> state after each event

`torch.nn.GRU` calls a dozen small operations per step; for the small batches that learn best, their overhead is most of
the time. Here a user's events are one loop, and no event of padding is touched. `recurrent.gru_pass` decides when it is
used; `recurrent.gru_step` is the specification.

Shapes: B users, L padded history length, D state width; gates stand in torch's order: reset, update, new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.nn.compiled import Array, add_product, as_array, jit, tanh

_EVENTS_AT_ONCE = 4096
"""Whose gates fit into a processor's second cache."""


@jit
def _forward(gate_BLG: Array, length_B: Array, weight_DG: Array, bias_G: Array, hidden_BLD: Array) -> None:
    """Fill the states, and turn the gates' part from the input into the gates, in place.

    Short loops over few arrays each: the compiler turns only those into vector instructions.
    """
    width = weight_DG.shape[0]
    part, last = np.empty_like(bias_G), np.empty_like(bias_G[:width])
    half, one = np.float32(0.5), np.float32(1)
    for b in range(len(length_B)):
        last[:] = 0
        for t in range(length_B[b]):
            part[:] = bias_G
            add_product(part, last, weight_DG)
            gate, hidden = gate_BLG[b, t], hidden_BLD[b, t]
            for j in range(2 * width):
                part[j] = half * tanh(half * (gate[j] + part[j])) + half
            for j in range(width):
                part[2 * width + j] = tanh(gate[2 * width + j] + part[j] * part[2 * width + j])
            for j in range(width):
                last[j] = (one - part[width + j]) * part[2 * width + j] + part[width + j] * last[j]
            gate[:] = part
            hidden[:] = last
        hidden_BLD[b, length_B[b] :] = 0


@jit
def _backward(
    grad_BLD: Array,
    length_B: Array,
    weight_GD: Array,
    bias_D: Array,
    hidden_BLD: Array,
    gate_BLG: Array,
    share_BLD: Array,
    grad_gate_BLG: Array,
) -> None:
    """Fill the gates' gradients; `share` becomes that of the new gate's part from the last state.

    Args:
        share_BLD: at t, the part that the state after event t has in the new gate of event t + 1.
        bias_D: that part of an empty state.
    """
    width = weight_GD.shape[1]
    one = np.float32(1)
    back, start = np.empty_like(bias_D), np.zeros_like(bias_D)
    new_part, other_part = np.empty_like(bias_D), np.empty(2 * width, np.float32)
    for b in range(len(length_B)):
        back[:] = 0
        share_BLD[b, length_B[b] :] = 0
        grad_gate_BLG[b, length_B[b] :] = 0
        for t in range(length_B[b] - 1, -1, -1):
            gate, grad, grad_gate = gate_BLG[b, t], grad_BLD[b, t], grad_gate_BLG[b, t]
            last = hidden_BLD[b, t - 1] if t else start
            share = share_BLD[b, t - 1] if t else bias_D
            for j in range(width):
                back[j] += grad[j]
            for j in range(width):
                new_part[j] = back[j] * (one - gate[width + j]) * (one - gate[2 * width + j] * gate[2 * width + j])
            for j in range(width):
                other_part[j] = new_part[j] * share[j] * gate[j] * (one - gate[j])
            for j in range(width):
                of_update = back[j] * gate[width + j] * (one - gate[width + j])
                other_part[width + j] = of_update * (last[j] - gate[2 * width + j])
            grad_gate[: 2 * width] = other_part
            grad_gate[2 * width :] = new_part
            for j in range(width):
                back[j] *= gate[width + j]
            for j in range(width):
                new_part[j] *= gate[j]
            share_BLD[b, t] = new_part
            add_product(back, other_part, weight_GD[: 2 * width])
            add_product(back, new_part, weight_GD[2 * width :])


class _Scan(torch.autograd.Function):
    """A pass as one differentiable operation: loops, and matrix products over all events of a few users around them.

    A few users at a time, so that what one step leaves is in the cache when the next one takes it up.
    """

    @staticmethod
    def forward(ctx: Any, input_BLE: Tensor, length_B: Tensor, *weights: Tensor) -> Tensor:
        weight_x, weight_h, bias_x, bias_h = weights
        users, steps, _ = input_BLE.shape
        gate_BLG = input_BLE.new_empty(users, steps, len(bias_h))
        hidden_BLD = input_BLE.new_empty(users, steps, weight_h.shape[1])
        recurrent = as_array(weight_h.t()), as_array(bias_h)
        for some in _few_users(users, steps):
            events = input_BLE[some].flatten(0, 1)
            torch.addmm(bias_x, events, weight_x.t(), out=gate_BLG[some].flatten(0, 1))
            _forward(gate_BLG[some].numpy(), length_B[some].numpy(), *recurrent, hidden_BLD[some].numpy())
        ctx.save_for_backward(input_BLE, length_B, weight_x, weight_h, bias_h, gate_BLG, hidden_BLD)
        return hidden_BLD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        input_BLE, length_B, weight_x, weight_h, bias_h, gate_BLG, hidden_BLD = ctx.saved_tensors
        users, steps, width = hidden_BLD.shape
        bias_D, weight_new = bias_h[2 * width :], weight_h[2 * width :].t()
        recurrent, grad_BLD = (as_array(weight_h), as_array(bias_D)), as_array(grad_outputs[0])
        grad_input = torch.empty_like(input_BLE) if ctx.needs_input_grad[0] else None
        grad_x, grad_h = torch.zeros_like(weight_x), torch.zeros_like(weight_h)
        grad_bias_x, grad_bias_h = torch.zeros_like(bias_h), torch.zeros_like(bias_h)
        for some in _few_users(users, steps):
            hidden, events = hidden_BLD[some], input_BLE[some].flatten(0, 1)
            share = torch.addmm(bias_D, hidden.flatten(0, 1), weight_new).view_as(hidden)
            grad = torch.empty_like(gate_BLG[some])
            arrays = (hidden.numpy(), gate_BLG[some].numpy(), share.numpy(), grad.numpy())
            _backward(grad_BLD[some], length_B[some].numpy(), *recurrent, *arrays)
            grad_NG = grad.flatten(0, 1)
            if grad_input is not None:
                torch.mm(grad_NG, weight_x, out=grad_input[some].flatten(0, 1))
            grad_x.addmm_(grad_NG.t(), events)
            grad_h[: 2 * width] += _from_last(grad[..., : 2 * width], hidden)
            grad_h[2 * width :] += _from_last(share, hidden)
            grad_bias_x += grad_NG.sum(dim=0)
            grad_bias_h[2 * width :] += share.sum(dim=(0, 1))
        grad_bias_h[: 2 * width] = grad_bias_x[: 2 * width]
        return grad_input, None, grad_x, grad_h, grad_bias_x, grad_bias_h


def _few_users(users: int, steps: int) -> Iterator[slice]:
    count = max(1, _EVENTS_AT_ONCE // steps)
    for start in range(0, users, count):
        yield slice(start, start + count)


def _from_last(grad_BLG: Tensor, hidden_BLD: Tensor) -> Tensor:
    """Sum over events of gradient (column) times the state before it (row); the state before the first is zero.

    Over all rows at once, each beside the one before, less the pairs of one user's first event and another's last.
    """
    product = grad_BLG.flatten(0, 1)[1:].t() @ hidden_BLD.flatten(0, 1)[:-1]
    return product - grad_BLG[1:, 0].t() @ hidden_BLD[:-1, -1]


def gru_scan(gru: nn.GRU, input_BLE: Tensor, length_B: Tensor) -> Tensor:
    """The state of a one-layer `nn.GRU` after each event, zeros in padding: `[B, L, D]`.

    Args:
        gru: single precision, on the CPU.
        input_BLE: finite in padding, too; L is at least 1.
        length_B: int64 real events of each user.
    """
    apply: Callable[..., Tensor] = _Scan.apply
    return apply(input_BLE, length_B, *gru.all_weights[0])
