"""The recurrence of a GRU over ragged histories as one compiled loop, forward and backward.

    events --compiled loop over four users abreast--> state after each event

`torch.nn.GRU` calls a dozen small operations per step, also for padding, and keeps the gates of all events for the
gradient. Here all of a step is one loop: the products with both weights, the gates, the state. Only states are kept;
backward makes the gates again, a few events at a time, which costs less than writing them to memory and reading them
back. `recurrent.gru_pass` decides when it is used; `recurrent.gru_step` is the specification. docs/decisions/0007 says
what else was tried.

Shapes: B users, L padded history length, E width of an event, D state width. In the loops, both widths are padded with
zeros: a padded entry of a state begins as zero and stays zero. G = 3 D gates; P = 4 D parts of a step: what the event
adds to the new gate, reset gate, update gate, what the state adds to the new gate. An event adds to the first three of
them, a state to the last three, so that either's part is a product with one matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lifelong.nn.compiled import Array, add_products, as_array, inlined, jit, tanh

_ABREAST = 4
"""Users whose steps are done together: a weight is read once for them, and no step waits for the one before."""
_ROWS = 16
"""Rows of events that backward does at a time."""
_WIDTHS = 8
"""State widths are padded to a multiple of it, so that few of them are ever compiled."""
_COLUMNS = 32
"""Numbers of an event whose gradient is computed at a time."""


@inlined
def _copy(to: Array, of: Array, count: int) -> None:
    for j in range(count):
        to[j] = of[j]


@inlined
def _make_gates(part_P: Array, width: int) -> None:
    """The parts of a step become: new gate, reset gate, update gate, and the state's part of the new gate."""
    half = part_P.dtype.type(0.5)
    for j in range(width, 3 * width):
        part_P[j] = half * tanh(half * part_P[j]) + half
    for j in range(width):
        part_P[j] = tanh(part_P[j] + part_P[width + j] * part_P[3 * width + j])


@inlined
def _gates(part: Array, event: Array, state: Array, weights: tuple[Array, Array, Array], rows: int, width: int) -> None:
    """Fill the gates of some rows, a multiple of 4, of events and the states before them; all lie flat."""
    weight_EG, weight_DG, bias_P = weights
    padded = len(weight_EG) // (3 * width)
    for row in range(rows):
        _copy(part[row * 4 * width :], bias_P, 4 * width)
    add_products(part, 4 * width, event, (padded, 1), weight_EG, 3 * width, (rows, padded, 3 * width))
    add_products(part[width:], 4 * width, state, (width, 1), weight_DG, 3 * width, (rows, width, 3 * width))
    for row in range(rows):
        _make_gates(part[row * 4 * width :], width)


@jit
def _forward(
    users: tuple[Array, Array, Array, Array],
    weights: tuple[Array, Array, Array],
    like_D: tuple[int, ...],
    hidden_BLD: Array,
) -> None:
    """Fill the states of real events.

    Args:
        users: event_BLE; order_B, users, the one with the longest history first; length_B; start_BD.
        weights: weight_EG, flat, what an event adds to the first three parts of a step; weight_DG, flat, what a state
            adds to the last three; bias_P.
        like_D: as many entries as the padded state width: lengths of tuples are known when the loop is compiled.
    """
    event_BLE, order_B, length_B, start_BD = users
    weight_EG, bias_P = weights[0], weights[2]
    width, real, inputs, one = len(like_D), hidden_BLD.shape[2], event_BLE.shape[2], bias_P.dtype.type(1)
    padded = len(weight_EG) // (3 * width)
    part, event = np.zeros(_ABREAST * 4 * width, bias_P.dtype), np.zeros(_ABREAST * padded, bias_P.dtype)
    for first in range(0, len(order_B), _ABREAST):
        active = min(_ABREAST, len(order_B) - first)
        state = np.zeros(_ABREAST * width, bias_P.dtype)
        for r in range(active):
            state[r * width : r * width + real] = start_BD[order_B[first + r]]
        for t in range(length_B[order_B[first]]):
            while length_B[order_B[first + active - 1]] <= t:
                active -= 1
            for r in range(active):
                _copy(event[r * padded :], event_BLE[order_B[first + r], t], inputs)
            _gates(part, event, state, weights, _ABREAST, width)
            for r in range(_ABREAST):
                gate, last = part[r * 4 * width :], state[r * width :]
                for j in range(width):
                    last[j] = (one - gate[2 * width + j]) * gate[j] + gate[2 * width + j] * last[j]
            for r in range(active):
                _copy(hidden_BLD[order_B[first + r], t], state[r * width :], real)


@inlined
def _step_back(back_D: Array, last_D: Array, grad_D: Array, gate_P: Array, width: int, grad_part_P: Array) -> None:
    """The gradients of a step's parts, and in `back` what goes straight to the state before it."""
    one = gate_P.dtype.type(1)
    new, reset, update, from_state = gate_P[:width], gate_P[width:], gate_P[2 * width :], gate_P[3 * width :]
    for j in range(len(grad_D)):
        back_D[j] += grad_D[j]
    for j in range(width):
        grad_part_P[j] = back_D[j] * (one - update[j]) * (one - new[j] * new[j])
    for j in range(width):
        grad_part_P[3 * width + j] = grad_part_P[j] * reset[j]
    for j in range(width):
        grad_part_P[width + j] = grad_part_P[3 * width + j] * from_state[j] * (one - reset[j])
    for j in range(width):
        grad_part_P[2 * width + j] = back_D[j] * update[j] * (one - update[j]) * (last_D[j] - new[j])
    for j in range(width):
        back_D[j] *= update[j]


@jit
def _backward(
    grad_BLD: Array,
    users: tuple[Array, Array, Array, Array, Array],
    weights: tuple[Array, Array, Array],
    transposed: tuple[Array, Array],
    like_D: tuple[int, ...],
    grads: tuple[Array, Array],
    grad_weights: tuple[Array, Array, Array],
) -> None:
    """Fill the gradients of real events and of the states before them; add to those of weights and bias.

    Args:
        users: as in `_forward`, and hidden_BLD.
        weights: as in `_forward`.
        transposed: weight_GE, so many columns after so many, and weight_GD; flat.
        grads: grad_event_BLE and grad_start_BD.
        grad_weights: as `weights`.
    """
    event_BLE, order_B, length_B, start_BD, hidden_BLD = users
    (weight_EG, _, bias_P), (weight_GE, weight_GD) = weights, transposed
    (grad_event_BLE, grad_start_BD), (grad_EG, grad_DG, grad_P) = grads, grad_weights
    width, real, inputs = len(like_D), hidden_BLD.shape[2], event_BLE.shape[2]
    padded = len(weight_EG) // (3 * width)
    event, last = np.zeros(_ROWS * padded, bias_P.dtype), np.zeros(_ROWS * width, bias_P.dtype)
    part, some = np.zeros(_ROWS * 4 * width, bias_P.dtype), np.zeros(_ROWS * _COLUMNS, bias_P.dtype)
    no_grad = np.zeros(0, bias_P.dtype)
    for first in range(0, len(order_B), _ABREAST):
        abreast = min(_ABREAST, len(order_B) - first)
        steps = _ROWS // abreast
        # A step takes four rows, also where it has fewer users: those of later steps, which are still zero.
        grad_part, back = np.zeros((_ROWS + 3) * 4 * width, bias_P.dtype), np.zeros(_ABREAST * width, bias_P.dtype)
        for end in range(length_B[order_B[first]], 0, -steps):
            # Row s * abreast + r: user r at event end - 1 - s.
            event[:] = 0
            last[:] = 0
            grad_part[:] = 0
            for s in range(min(steps, end)):
                for r in range(abreast):
                    b, t = order_B[first + r], end - 1 - s
                    if t < length_B[b]:
                        _copy(event[(s * abreast + r) * padded :], event_BLE[b, t], inputs)
                        _copy(last[(s * abreast + r) * width :], hidden_BLD[b, t - 1] if t else start_BD[b], real)
            _gates(part, event, last, weights, _ROWS, width)
            for s in range(min(steps, end)):
                for r in range(abreast):
                    row, b, t = s * abreast + r, order_B[first + r], end - 1 - s
                    grad = grad_BLD[b, t] if t < length_B[b] else no_grad
                    states, parts = (back[r * width :], last[row * width :]), part[row * 4 * width :]
                    _step_back(*states, grad, parts, width, grad_part[row * 4 * width :])
                grad_state = grad_part[s * abreast * 4 * width + width :]
                add_products(back, width, grad_state, (4 * width, 1), weight_GD, width, (_ABREAST, 3 * width, width))
            for c in range(0, inputs, _COLUMNS):
                some[:] = 0
                of_columns = weight_GE[c * 3 * width :]
                shape = _ROWS, 3 * width, _COLUMNS
                add_products(some, _COLUMNS, grad_part, (4 * width, 1), of_columns, _COLUMNS, shape)
                for s in range(min(steps, end)):
                    for r in range(abreast):
                        b, t = order_B[first + r], end - 1 - s
                        if t < length_B[b]:
                            to = grad_event_BLE[b, t, c : c + _COLUMNS]
                            _copy(to, some[(s * abreast + r) * _COLUMNS :], len(to))
            add_products(grad_EG, 3 * width, event, (1, padded), grad_part, 4 * width, (padded, _ROWS, 3 * width))
            of_state = grad_part[width:]
            add_products(grad_DG, 3 * width, last, (1, width), of_state, 4 * width, (width, _ROWS, 3 * width))
            for row in range(_ROWS):
                of_row = grad_part[row * 4 * width :]
                for j in range(4 * width):
                    grad_P[j] += of_row[j]
        for r in range(abreast):
            grad_start_BD[order_B[first + r]] = back[r * width : r * width + real]


class _Scan(torch.autograd.Function):
    """A pass as one differentiable operation."""

    @staticmethod
    def forward(ctx: Any, input_BLE: Tensor, length_B: Tensor, start_BD: Tensor, *weights: Tensor) -> Tensor:
        order_B = length_B.argsort(descending=True, stable=True)
        hidden_BLD = input_BLE.new_zeros(*input_BLE.shape[:2], weights[1].shape[1])
        weight_GE, weight_GD, bias_P, like_D = _padded(*weights)
        event, order, length, start = (as_array(value) for value in (input_BLE, order_B, length_B, start_BD))
        loops = _flat(weight_GE.t()), _flat(weight_GD.t()), bias_P.numpy()
        _forward((event, order, length, start), loops, like_D, hidden_BLD.numpy())
        ctx.save_for_backward(input_BLE, order_B, length_B, start_BD, hidden_BLD, *weights)
        return hidden_BLD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *of_users, weight_x, weight_h, bias_x, bias_h = ctx.saved_tensors
        weight_GE, weight_GD, bias_P, like_D = _padded(weight_x, weight_h, bias_x, bias_h)
        of_columns = (
            pad(weight_GE, (0, -weight_GE.shape[1] % _COLUMNS)).view(len(weight_GE), -1, _COLUMNS).transpose(0, 1)
        )
        loops = _flat(weight_GE.t()), _flat(weight_GD.t()), bias_P.numpy()
        transposed = _flat(of_columns), _flat(weight_GD)
        grad, event, order, length, start, hidden = (as_array(value) for value in (*grad_outputs, *of_users))
        users = event, order, length, start, hidden
        grad_input, grad_start = (torch.zeros(of_users[place].shape, dtype=bias_x.dtype) for place in (0, 3))
        grad_EG, grad_DG = (torch.zeros(value.shape[::-1], dtype=bias_x.dtype) for value in (weight_GE, weight_GD))
        grad_P = torch.zeros_like(bias_P)
        found = _flat(grad_EG), _flat(grad_DG), grad_P.numpy()
        _backward(grad, users, loops, transposed, like_D, (grad_input.numpy(), grad_start.numpy()), found)
        inputs, width, wide = weight_x.shape[1], weight_h.shape[1], len(like_D)
        grad_x = grad_EG.t().view(3, wide, -1)[:, :width, :inputs].roll(-1, 0).flatten(0, 1)
        grad_h = grad_DG.t().view(3, wide, wide)[:, :width, :width].flatten(0, 1)
        grad_bias = grad_P.view(4, wide)[:, :width]
        return grad_input, None, grad_start, grad_x, grad_h, grad_bias[[1, 2, 0]].flatten(), grad_bias[1:].flatten()


def _padded(
    weight_x: Tensor, weight_h: Tensor, bias_x: Tensor, bias_h: Tensor
) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """A layer's weights as the loops take them, and a tuple as long as the padded state.

    Torch has the gates in the order reset, update, new; for an event the new gate is first here.
    """
    inputs, width = weight_x.shape[1], weight_h.shape[1]
    more = -width % _WIDTHS
    event_3DE, state_3DD = weight_x.view(3, width, inputs), weight_h.view(3, width, width)
    bias_x3D, bias_h3D = bias_x.view(3, width), bias_h.view(3, width)
    bias_4D = torch.cat([bias_x3D[2:], (bias_x3D + bias_h3D)[:2], bias_h3D[2:]])
    return (
        pad(event_3DE.roll(1, 0), (0, -inputs % 4, 0, more)).flatten(0, 1),
        pad(state_3DD, (0, more, 0, more)).flatten(0, 1),
        pad(bias_4D, (0, more)).flatten(),
        (0,) * (width + more),
    )


def _flat(value: Tensor) -> Array:
    flat: Array = as_array(value).reshape(-1)
    return flat


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
