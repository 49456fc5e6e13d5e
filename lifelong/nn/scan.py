"""The recurrence of a GRU over ragged histories as one compiled loop, forward and backward.

    events --one matrix product--> gates' part from the input --compiled loop--> state after each event

`torch.nn.GRU` calls a dozen small operations per step, also for padding; for the small batches that learn best, their
overhead is most of the time. Here a user's events are one loop, and no event of padding is touched.
`recurrent.gru_pass` decides when it is used; `recurrent.gru_step` is the specification. docs/decisions/0007 says what
else was tried.

Shapes: B users, L padded history length, N = B L rows of events, E width of an event, D state width; gates G = 3 D in
torch's order: reset, update, new.
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
_PADDING_AT_MOST = 128
"""Rows of padding that a matrix product takes along."""


@jit
def _forward(
    gate_BLG: Array,
    length_B: Array,
    start_BD: Array,
    weight_DG: Array,
    bias_G: Array,
    bias_D: Array,
    hidden_BLD: Array,
) -> None:
    """Fill the states, and turn the gates' part from the input into the gates, in place.

    Short loops over few arrays each: the compiler turns only those into vector instructions.

    Args:
        bias_G: of the reset and the update gate, and of the new gate's part from the state.
        bias_D: of the new gate's part from the input.
    """
    width = weight_DG.shape[0]
    part, last = np.empty_like(bias_G), np.empty_like(bias_G[:width])
    half, one = bias_G.dtype.type(0.5), bias_G.dtype.type(1)
    for b in range(len(length_B)):
        last[:] = start_BD[b]
        for t in range(length_B[b]):
            part[:] = bias_G
            add_product(part, last, weight_DG)
            gate, hidden = gate_BLG[b, t], hidden_BLD[b, t]
            for j in range(2 * width):
                part[j] = half * tanh(half * (gate[j] + part[j])) + half
            for j in range(width):
                part[2 * width + j] = tanh(gate[2 * width + j] + bias_D[j] + part[j] * part[2 * width + j])
            for j in range(width):
                last[j] = (one - part[width + j]) * part[2 * width + j] + part[width + j] * last[j]
            gate[:] = part
            hidden[:] = last


@jit
def _backward(
    grad_BLD: Array,
    length_B: Array,
    starts: tuple[Array, Array, Array],
    weight_GD: Array,
    bias_D: Array,
    hidden_BLD: Array,
    gate_BLG: Array,
    share_ND: Array,
    grad_gate_NG: Array,
) -> None:
    """Fill the gates' gradients; `share` becomes that of the new gate's part from the last state.

    Args:
        starts: the state before each user's first event, what it adds to the new gate, and its gradient, to be filled.
        share_ND: N events of the users, one user after another, the last one's padding left out; in the place of event
            t stands what the state after it adds to the new gate of event t + 1.
        bias_D: what is added at every event.
    """
    width, steps = weight_GD.shape[1], hidden_BLD.shape[1]
    one = bias_D.dtype.type(1)
    start_BD, start_share_BD, grad_start_BD = starts
    back = np.empty_like(bias_D)
    new_part, other_part = np.empty_like(bias_D), np.empty(2 * width, bias_D.dtype)
    for b in range(len(length_B)):
        back[:] = 0
        first = b * steps
        share_ND[first + length_B[b] : first + steps] = 0
        grad_gate_NG[first + length_B[b] : first + steps] = 0
        for t in range(length_B[b] - 1, -1, -1):
            gate, grad, grad_gate = gate_BLG[b, t], grad_BLD[b, t], grad_gate_NG[first + t]
            last = hidden_BLD[b, t - 1] if t else start_BD[b]
            share = share_ND[first + t - 1] if t else start_share_BD[b]
            for j in range(width):
                back[j] += grad[j]
            for j in range(width):
                new_part[j] = back[j] * (one - gate[width + j]) * (one - gate[2 * width + j] * gate[2 * width + j])
            for j in range(width):
                other_part[j] = new_part[j] * (share[j] + bias_D[j]) * gate[j] * (one - gate[j])
            for j in range(width):
                of_update = back[j] * gate[width + j] * (one - gate[width + j])
                other_part[width + j] = of_update * (last[j] - gate[2 * width + j])
            grad_gate[: 2 * width] = other_part
            grad_gate[2 * width :] = new_part
            for j in range(width):
                back[j] *= gate[width + j]
            for j in range(width):
                new_part[j] *= gate[j]
            share_ND[first + t] = new_part
            add_product(back, other_part, weight_GD[: 2 * width])
            add_product(back, new_part, weight_GD[2 * width :])
        grad_start_BD[b] = back


class _Scan(torch.autograd.Function):
    """A pass as one differentiable operation: loops, and matrix products over all events of a few users around them.

    A few users at a time, so that what one step leaves is in the cache when the next one takes it up.
    """

    @staticmethod
    def forward(ctx: Any, input_BLE: Tensor, length_B: Tensor, start_BD: Tensor, *weights: Tensor) -> Tensor:
        weight_x, weight_h, bias_x, bias_h = weights
        (users, steps, _), width, length = input_BLE.shape, weight_h.shape[1], length_B.numpy()
        input_BLE = input_BLE.contiguous()
        gate_BLG = input_BLE.new_empty(users, steps, 3 * width)
        hidden_BLD = input_BLE.new_zeros(users, steps, width)
        # The new gate's two parts have a bias each, since the reset gate stands between them.
        bias_G, bias_D = bias_h + bias_x, bias_x[2 * width :]
        bias_G[2 * width :] = bias_h[2 * width :]
        recurrent = as_array(weight_h.t()), as_array(bias_G), as_array(bias_D)
        event_NE, gate_NG = input_BLE.flatten(0, 1), gate_BLG.flatten(0, 1)
        gate, hidden, start = gate_BLG.numpy(), hidden_BLD.numpy(), as_array(start_BD)
        for some, rows in _few_users(length, steps):
            torch.mm(event_NE[rows], weight_x.t(), out=gate_NG[rows])
            _forward(gate[some], length[some], start[some], *recurrent, hidden[some])
        ctx.save_for_backward(input_BLE, length_B, start_BD, weight_x, weight_h, bias_h, gate_BLG, hidden_BLD)
        return hidden_BLD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        input_BLE, length_B, start_BD, weight_x, weight_h, bias_h, gate_BLG, hidden_BLD = ctx.saved_tensors
        (_, steps, width), length = hidden_BLD.shape, length_B.numpy()
        recurrent, weight_new = (as_array(weight_h), as_array(bias_h[2 * width :])), weight_h[2 * width :].t()
        grad, hidden, gate = as_array(grad_outputs[0]), hidden_BLD.numpy(), gate_BLG.numpy()
        event_NE, hidden_ND = input_BLE.flatten(0, 1), hidden_BLD.flatten(0, 1)
        grad_input = torch.zeros_like(input_BLE) if ctx.needs_input_grad[0] else None
        grad_x, grad_h, grad_bias_x = torch.zeros_like(weight_x), torch.zeros_like(weight_h), torch.zeros_like(bias_h)
        grad_bias_new, grad_start = grad_bias_x[:width].clone(), torch.zeros_like(start_BD)
        starts = as_array(start_BD), as_array(start_BD @ weight_new), grad_start.numpy()
        for some, rows in _few_users(length, steps):
            count = rows.stop - rows.start
            share_ND, grad_NG = hidden_ND.new_empty(count, width), hidden_ND.new_empty(count, 3 * width)
            torch.mm(hidden_ND[rows], weight_new, out=share_ND)
            of_users = grad[some], length[some], (starts[0][some], starts[1][some], starts[2][some])
            _backward(*of_users, *recurrent, hidden[some], gate[some], share_ND.numpy(), grad_NG.numpy())
            if grad_input is not None:
                torch.mm(grad_NG, weight_x, out=grad_input.flatten(0, 1)[rows])
            grad_x.addmm_(grad_NG.t(), event_NE[rows])
            grad_h[: 2 * width] += _from_last(grad_NG[:, : 2 * width], hidden_ND[rows], steps)
            grad_h[2 * width :] += _from_last(share_ND, hidden_ND[rows], steps)
            first_UG, first_UD = grad_NG[::steps, : 2 * width], share_ND[::steps]
            # Without an event, the last user has no first one.
            start = start_BD[some][: len(first_UD)]
            grad_h[: 2 * width].addmm_(first_UG.t(), start)
            grad_h[2 * width :].addmm_(first_UD.t(), start)
            grad_bias_x += grad_NG.sum(dim=0)
            grad_bias_new += share_ND.sum(dim=0)
        grad_bias_h = torch.cat([grad_bias_x[: 2 * width], grad_bias_new])
        return grad_input, None, grad_start, grad_x, grad_h, grad_bias_x, grad_bias_h


def _few_users(length_B: Array, steps: int) -> Iterator[tuple[slice, slice]]:
    """Neighbouring users and the rows of their events among all B times L, without the padding of the last one.

    Behind a user with much padding the next ones begin anew: a matrix product over it would cost more than a second
    product does.
    """
    most, padding_B, start = max(1, _EVENTS_AT_ONCE // steps), steps - length_B, 0
    for last, padding in enumerate(padding_B.tolist()):
        if padding > _PADDING_AT_MOST or last - start + 1 == most or last == len(length_B) - 1:
            if length_B[start : last + 1].any():
                yield slice(start, last + 1), slice(start * steps, (last + 1) * steps - padding)
            start = last + 1


def _from_last(grad_NG: Tensor, hidden_ND: Tensor, steps: int) -> Tensor:
    """Sum over events of gradient (column) times the state before it (row); the state before the first is zero.

    Over all rows at once, each beside the one before, less the pairs of one user's first event and another's last.
    """
    product = grad_NG[1:].t() @ hidden_ND[:-1]
    return product - grad_NG[steps::steps].t() @ hidden_ND[steps - 1 : -1 : steps] if len(grad_NG) > steps else product


def gru_scan(gru: nn.GRU, input_BLE: Tensor, length_B: Tensor, start_BD: Tensor | None = None) -> Tensor:
    """The state of a one-layer `nn.GRU` after each event, zeros in padding: `[B, L, D]`.

    Args:
        gru: on the CPU, in single or double precision.
        input_BLE: finite in padding, too; L is at least 1.
        length_B: int64 real events of each user.
        start_BD: the state before the first event; None for zeros.
    """
    if start_BD is None:
        start_BD = input_BLE.new_zeros(len(input_BLE), gru.hidden_size)
    apply: Callable[..., Tensor] = _Scan.apply
    return apply(input_BLE, length_B, start_BD, *gru.all_weights[0])
