"""The recurrence of a GRU over ragged histories as one compiled loop, forward and backward.

    events --compiled loop over four users abreast--> state after each event

With gates g, a step writes a share of its update: h_t = h_{t-1} + g_t (GRU(x_t, h_{t-1}) - h_{t-1}). Where gates are 0
or 1 that is a copy or an update. The gradient of a gate is what an update changes, also where there was none, so that a
straight-through gate learns from both choices.

`torch.nn.GRU` calls a dozen small operations per step, also for padding, and keeps the gates of all events for the
gradient. Here all of a step is one loop: the products with both weights, the gates, the state. Only states are kept;
backward makes the gates again, a few events at a time, which costs less than writing them to memory and reading them
back. `recurrent.gru_pass` and `recurrent.gated_gru_pass` decide when it is used; `recurrent.gru_step` is the
specification. docs/decisions/0007-compiled-recurrence.md says why.

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014, in the form of
`torch.nn.GRU`: the reset gate follows the product with the state.

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

from lifelong.compiled import Array
from lifelong.offline.nn.compiled import add_products, as_array, inlined, jit, tanh

_ABREAST = 4
"""How many users' steps are done together: a weight is read once for them, and no step waits for the one before."""
_ROWS = 16
"""How many events backward does at a time."""
_WIDTHS = 8
"""State widths are padded to a multiple of it, so that few of them are ever compiled."""
_COLUMNS = 32
"""How many numbers of an event backward computes the gradient of at a time."""

Users = tuple[Array, ...]
Weights = tuple[Array, Array, Array]
Some = tuple[Array, int, int]
"""A block of `_backward`: user_R, end, and the number of steps."""


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
def _gates(part: Array, event: Array, state: Array, weights: Weights, rows: int, width: int) -> None:
    """Fill the gates of some rows, a multiple of 4, of events and the states before them; all arrays are flat."""
    weight_EG, weight_DG, bias_P = weights
    padded = len(weight_EG) // (3 * width)
    for row in range(rows):
        _copy(part[row * 4 * width :], bias_P, 4 * width)
    # An event adds to the first three parts of a row, a state to the last three, which begin at `width`.
    add_products(part, 4 * width, event, (padded, 1), weight_EG, 3 * width, (rows, padded, 3 * width))
    add_products(part[width:], 4 * width, state, (width, 1), weight_DG, 3 * width, (rows, width, 3 * width))
    for row in range(rows):
        _make_gates(part[row * 4 * width :], width)


@inlined
def _step(state_D: Array, gate_P: Array, width: int, write: Any) -> None:
    """The state after an update if a share of it is written; a closed gate leaves it as it is, to the last bit."""
    one = gate_P.dtype.type(1)
    for j in range(width):
        state_D[j] += write * (one - gate_P[2 * width + j]) * (gate_P[j] - state_D[j])


@jit
def _forward(users: Users, write_BL: Array, weights: Weights, like_D: tuple[int, ...]) -> None:
    """Fill the states of real events.

    Args:
        users: event_BLE; order_B, users, the one with the longest history first; length_B; hidden_BLD, which is
            filled.
        write_BL: the gates of the events.
        weights: weight_EG, flat, what an event adds to the first three parts of a step; weight_DG, flat, what a state
            adds to the last three; bias_P.
        like_D: as many entries as the padded state width: lengths of tuples are known when the loop is compiled.
    """
    event_BLE, order_B, length_B, hidden_BLD = users
    weight_EG, _, bias_P = weights
    width, real, inputs = len(like_D), hidden_BLD.shape[2], event_BLE.shape[2]
    padded = len(weight_EG) // (3 * width)
    part, event = np.zeros(_ABREAST * 4 * width, bias_P.dtype), np.zeros(_ABREAST * padded, bias_P.dtype)
    for first in range(0, len(order_B), _ABREAST):
        active = min(_ABREAST, len(order_B) - first)
        state = np.zeros(_ABREAST * width, bias_P.dtype)
        for t in range(length_B[order_B[first]]):
            # Lengths fall from row to row, so that the users who still have an event are the first ones.
            while length_B[order_B[first + active - 1]] <= t:
                active -= 1
            for r in range(active):
                _copy(event[r * padded :], event_BLE[order_B[first + r], t], inputs)
            # Always four rows, a number that the compiler knows. Rows of users who have ended hold what they last held,
            # and are not written anywhere.
            _gates(part, event, state, weights, _ABREAST, width)
            for r in range(active):
                _step(state[r * width :], part[r * 4 * width :], width, write_BL[order_B[first + r], t])
            for r in range(active):
                _copy(hidden_BLD[order_B[first + r], t], state[r * width :], real)


@inlined
def _step_back(
    back_D: Array, last_D: Array, grad_D: Array, gate_P: Array, width: int, grad_part_P: Array, write: Any
) -> Any:
    """The gradients of a step's parts, and in `back` that of the state before it; returns the gradient of its gate."""
    one, change = gate_P.dtype.type(1), gate_P.dtype.type(0)
    new, reset, update, from_state = gate_P[:width], gate_P[width:], gate_P[2 * width :], gate_P[3 * width :]
    for j in range(len(grad_D)):
        back_D[j] += grad_D[j]
    # A share of the gradient passes the update; the gate's is what an update changes, also where there was none.
    for j in range(width):
        change += back_D[j] * (one - update[j]) * (new[j] - last_D[j])
    for j in range(width):
        grad_part_P[j] = write * back_D[j] * (one - update[j]) * (one - new[j] * new[j])
    for j in range(width):
        grad_part_P[3 * width + j] = grad_part_P[j] * reset[j]
    for j in range(width):
        grad_part_P[width + j] = grad_part_P[3 * width + j] * from_state[j] * (one - reset[j])
    for j in range(width):
        grad_part_P[2 * width + j] = write * back_D[j] * update[j] * (one - update[j]) * (last_D[j] - new[j])
    for j in range(width):
        back_D[j] *= one - write * (one - update[j])
    return change


@inlined
def _take_rows(rows: tuple[Array, Array], users: Users, some: Some, padded: int, width: int) -> None:
    """Copy the events of a block and the states before them; zeros in padding and before the first event."""
    (event, last), (event_BLE, _, length_B, hidden_BLD), (user_R, end, steps) = rows, users, some
    event[:] = 0
    last[:] = 0
    for s in range(steps):
        for r in range(len(user_R)):
            b, t, row = user_R[r], end - 1 - s, s * len(user_R) + r
            if t < length_B[b]:
                _copy(event[row * padded :], event_BLE[b, t], event_BLE.shape[2])
                if t:
                    _copy(last[row * width :], hidden_BLD[b, t - 1], hidden_BLD.shape[2])


@inlined
def _go_back(
    back: Array,
    grad_BLD: Array,
    length_B: Array,
    write_BL: Array,
    grad_write_BL: Array,
    some: Some,
    rows: tuple[Array, Array, Array],
    weight_GD: Array,
    width: int,
) -> None:
    """From step to step: the gradients of the parts of each row, and in `back` that of the state before the block."""
    (user_R, end, steps), (part, last, grad_part) = some, rows
    for s in range(steps):
        for r in range(len(user_R)):
            b, t, row = user_R[r], end - 1 - s, s * len(user_R) + r
            states, at = (back[r * width :], last[row * width :], grad_BLD[b, t]), row * 4 * width
            if t < length_B[b]:
                grad_write_BL[b, t] = _step_back(*states, part[at:], width, grad_part[at:], write_BL[b, t])
        # A state adds to the last three parts of a row, which begin at `width`. A product takes four rows; where a step
        # has fewer users, the others are rows of later steps, which are still zero.
        grad_state = grad_part[s * len(user_R) * 4 * width + width :]
        add_products(back, width, grad_state, (4 * width, 1), weight_GD, width, (_ABREAST, 3 * width, width))


@inlined
def _give_events(
    grad_event_BLE: Array, length_B: Array, some: Some, grad_part: Array, weight_GE: Array, product: Array, width: int
) -> None:
    """Fill the gradients of the events of a block, a few columns at a time."""
    user_R, end, steps = some
    for c in range(0, grad_event_BLE.shape[2], _COLUMNS):
        product[:] = 0
        of_columns, shape = weight_GE[c * 3 * width :], (_ROWS, 3 * width, _COLUMNS)
        add_products(product, _COLUMNS, grad_part, (4 * width, 1), of_columns, _COLUMNS, shape)
        for s in range(steps):
            for r in range(len(user_R)):
                b, t, row = user_R[r], end - 1 - s, s * len(user_R) + r
                if t < length_B[b]:
                    to = grad_event_BLE[b, t, c : c + _COLUMNS]
                    _copy(to, product[row * _COLUMNS :], len(to))


@jit
def _backward(
    grad_BLD: Array,
    users: Users,
    write_BL: Array,
    weights: Weights,
    transposed: tuple[Array, Array],
    like_D: tuple[int, ...],
    grads: tuple[Array, Array],
    grad_weights: Weights,
) -> None:
    """Fill the gradients of real events and of gates; add to those of weights and bias.

    A block is the last few steps, not yet done, of four users: `_ROWS` rows. Row s * R + r is event `end` - 1 - s of
    the block's r-th of R users: the latest events come first, as backward goes.

    Args:
        grad_BLD: of the states.
        users: as in `_forward`.
        write_BL: as in `_forward`.
        weights: as in `_forward`.
        transposed: weight_GE, so many columns after so many, and weight_GD; flat.
        like_D: as in `_forward`.
        grads: grad_event_BLE and grad_write_BL.
        grad_weights: as `weights`.
    """
    (_, order_B, length_B, _), (weight_GE, weight_GD) = users, transposed
    (grad_event_BLE, grad_write_BL), (grad_EG, grad_DG, grad_P) = grads, grad_weights
    width, kind = len(like_D), weights[2].dtype
    padded = len(weights[0]) // (3 * width)
    event, last, part = np.zeros(_ROWS * padded, kind), np.zeros(_ROWS * width, kind), np.zeros(_ROWS * 4 * width, kind)
    product = np.zeros(_ROWS * _COLUMNS, kind)
    for first in range(0, len(order_B), _ABREAST):
        user_R = order_B[first : first + _ABREAST]
        most = _ROWS // len(user_R)
        # Three rows more than a block has, as a step takes four of them however many users there are.
        grad_part, back = np.zeros((_ROWS + 3) * 4 * width, kind), np.zeros(_ABREAST * width, kind)
        for end in range(length_B[user_R[0]], 0, -most):
            some, rows = (user_R, end, min(most, end)), (part, last, grad_part)
            _take_rows((event, last), users, some, padded, width)
            _gates(part, event, last, weights, _ROWS, width)
            grad_part[:] = 0
            _go_back(back, grad_BLD, length_B, write_BL, grad_write_BL, some, rows, weight_GD, width)
            _give_events(grad_event_BLE, length_B, some, grad_part, weight_GE, product, width)
            # In a function of its own, this takes a tenth more of the whole time.
            add_products(grad_EG, 3 * width, event, (1, padded), grad_part, 4 * width, (padded, _ROWS, 3 * width))
            of_state = grad_part[width:]
            add_products(grad_DG, 3 * width, last, (1, width), of_state, 4 * width, (width, _ROWS, 3 * width))
            for row in range(_ROWS):
                of_row = grad_part[row * 4 * width :]
                for j in range(4 * width):
                    grad_P[j] += of_row[j]


class _Scan(torch.autograd.Function):
    """A pass as one differentiable operation."""

    @staticmethod
    def forward(ctx: Any, input_BLE: Tensor, length_B: Tensor, write_BL: Tensor, *weights: Tensor) -> Tensor:
        # Longest first: the four users of a group then have about the same length, and few of their steps are idle.
        order_B = length_B.argsort(descending=True, stable=True)
        hidden_BLD = input_BLE.new_zeros(*input_BLE.shape[:2], weights[1].shape[1])
        weight_GE, weight_GD, bias_P, like_D = _padded(*weights)
        users = tuple(as_array(value) for value in (input_BLE, order_B, length_B, hidden_BLD))
        loops = as_array(weight_GE.t().flatten()), as_array(weight_GD.t().flatten()), bias_P.numpy()
        _forward(users, as_array(write_BL), loops, like_D)
        ctx.save_for_backward(write_BL, input_BLE, order_B, length_B, hidden_BLD, *weights)
        return hidden_BLD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        write_BL, *of_users, weight_x, weight_h, bias_x, bias_h = ctx.saved_tensors
        weight_GE, weight_GD, bias_P, like_D = _padded(weight_x, weight_h, bias_x, bias_h)
        padded = pad(weight_GE, (0, -weight_GE.shape[1] % _COLUMNS))
        of_columns = padded.view(len(weight_GE), -1, _COLUMNS).transpose(0, 1)
        loops = as_array(weight_GE.t().flatten()), as_array(weight_GD.t().flatten()), bias_P.numpy()
        users = tuple(as_array(value) for value in of_users)
        grad_input = torch.zeros(of_users[0].shape, dtype=bias_x.dtype)
        grad_write = torch.zeros_like(write_BL)
        grad_EG, grad_DG = (torch.zeros(value.shape[::-1], dtype=bias_x.dtype) for value in (weight_GE, weight_GD))
        grad_P = torch.zeros_like(bias_P)
        _backward(
            as_array(grad_outputs[0]),
            users,
            as_array(write_BL),
            loops,
            (as_array(of_columns.flatten()), as_array(weight_GD.flatten())),
            like_D,
            (grad_input.numpy(), grad_write.numpy()),
            (grad_EG.view(-1).numpy(), grad_DG.view(-1).numpy(), grad_P.numpy()),
        )
        inputs, width, wide = weight_x.shape[1], weight_h.shape[1], len(like_D)
        # Back from padded widths, and from the order of `_padded` to torch's.
        grad_x = grad_EG.t().view(3, wide, -1)[:, :width, :inputs].roll(-1, 0).flatten(0, 1)
        grad_h = grad_DG.t().view(3, wide, wide)[:, :width, :width].flatten(0, 1)
        grad_bias = grad_P.view(4, wide)[:, :width]
        of_inputs = grad_input, None, grad_write
        return *of_inputs, grad_x, grad_h, grad_bias[[1, 2, 0]].flatten(), grad_bias[1:].flatten()


def _padded(
    weight_x: Tensor, weight_h: Tensor, bias_x: Tensor, bias_h: Tensor
) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """A layer's weights as the loops take them, and a tuple as long as the padded state.

    Torch has the gates in the order reset, update, new. Here an event's order is new, reset, update, so that its parts
    and those of a state, reset, update, new, overlap in the middle of a row.
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


def gru_scan(gru: nn.GRU, input_BLE: Tensor, length_B: Tensor, write_BL: Tensor | None = None) -> Tensor:
    """The state of a one-layer `nn.GRU` after each event, zeros in padding: `[B, L, D]`.

    Args:
        gru: on the CPU, in single or double precision.
        input_BLE: finite in padding, too; L is at least 1.
        length_B: int64 real events of each user.
        write_BL: the gates, 0 to 1; None if all are open.
    """
    if write_BL is None:
        write_BL = input_BLE.new_ones(input_BLE.shape[:2])
    apply: Callable[..., Tensor] = _Scan.apply
    return apply(input_BLE, length_B, write_BL, *gru.all_weights[0])
