"""A GRU that is stepped where a gate says so, over ragged histories: h_t = h_{t-1} + g_t (GRU(x_t, h_{t-1}) - h_{t-1}).

With a hard gate (0 or 1) a step is a copy or an update. The gradient of a gate is that of the equation, what an update
would have changed, also where there was none: so a straight-through gate learns from both choices.

One compiled loop forward and one backward. `boundaries.gated_gru_pass` decides when it is used; `scan.py` is the same
without a gate.

Shapes: B users, L padded history length, D state width; gates stand in torch's order: reset, update, new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.nn.compiled import Array, add_product, as_array, jit, tanh


@jit
def _forward(
    gate_BLG: Array, write_BL: Array, length_B: Array, weight_DG: Array, bias_G: Array, hidden_BLD: Array
) -> None:
    """Fill the states, and turn the gates' part from the input into the gates, in place."""
    width = weight_DG.shape[0]
    part, last = np.empty_like(bias_G), np.empty_like(bias_G[:width])
    half, one = np.float32(0.5), np.float32(1)
    for b in range(len(length_B)):
        last[:] = 0
        for t in range(length_B[b]):
            part[:] = bias_G
            add_product(part, last, weight_DG)
            gate, write = gate_BLG[b, t], write_BL[b, t]
            for j in range(2 * width):
                part[j] = half * tanh(half * (gate[j] + part[j])) + half
            for j in range(width):
                part[2 * width + j] = tanh(gate[2 * width + j] + part[j] * part[2 * width + j])
            for j in range(width):
                last[j] += write * (one - part[width + j]) * (part[2 * width + j] - last[j])
            gate[:] = part
            hidden_BLD[b, t] = last
        hidden_BLD[b, length_B[b] :] = 0


@jit
def _backward(
    grad_BLD: Array,
    write_BL: Array,
    length_B: Array,
    weight_GD: Array,
    bias_D: Array,
    hidden_BLD: Array,
    gate_BLG: Array,
    share_BLD: Array,
    grad_gate_BLG: Array,
    grad_write_BL: Array,
) -> None:
    """Fill the gradients of GRU gates and writes; `share` becomes that of the new gate's part from the last state.

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
        grad_write_BL[b, length_B[b] :] = 0
        for t in range(length_B[b] - 1, -1, -1):
            gate, grad, write, of_write = gate_BLG[b, t], grad_BLD[b, t], write_BL[b, t], np.float32(0)
            last = hidden_BLD[b, t - 1] if t else start
            share = share_BLD[b, t - 1] if t else bias_D
            for j in range(width):
                back[j] += grad[j]
            for j in range(width):
                of_write += back[j] * (one - gate[width + j]) * (gate[2 * width + j] - last[j])
            grad_write_BL[b, t] = of_write
            for j in range(width):
                new = gate[2 * width + j]
                new_part[j] = write * back[j] * (one - gate[width + j]) * (one - new * new)
            for j in range(width):
                other_part[j] = new_part[j] * share[j] * gate[j] * (one - gate[j])
            for j in range(width):
                of_update = write * back[j] * gate[width + j] * (one - gate[width + j])
                other_part[width + j] = of_update * (last[j] - gate[2 * width + j])
            grad_gate_BLG[b, t, : 2 * width] = other_part
            grad_gate_BLG[b, t, 2 * width :] = new_part
            for j in range(width):
                back[j] *= one - write * (one - gate[width + j])
            for j in range(width):
                new_part[j] *= gate[j]
            share_BLD[b, t] = new_part
            if write != 0:
                add_product(back, other_part, weight_GD[: 2 * width])
                add_product(back, new_part, weight_GD[2 * width :])


class _Scan(torch.autograd.Function):
    """A pass as one differentiable operation."""

    @staticmethod
    def forward(ctx: Any, input_BLE: Tensor, write_BL: Tensor, length_B: Tensor, *weights: Tensor) -> Tensor:
        weight_x, weight_h, bias_x, bias_h = weights
        gate_BLG = torch.addmm(bias_x, input_BLE.flatten(0, 1), weight_x.t()).view(*input_BLE.shape[:2], -1)
        hidden_BLD = input_BLE.new_empty(*input_BLE.shape[:2], weight_h.shape[1])
        recurrent = as_array(weight_h.t()), as_array(bias_h)
        _forward(gate_BLG.numpy(), as_array(write_BL), length_B.numpy(), *recurrent, hidden_BLD.numpy())
        ctx.save_for_backward(input_BLE, write_BL, length_B, weight_x, weight_h, bias_h, gate_BLG, hidden_BLD)
        return hidden_BLD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        input_BLE, write_BL, length_B, weight_x, weight_h, bias_h, gate_BLG, hidden_BLD = ctx.saved_tensors
        width = hidden_BLD.shape[2]
        bias_D, weight_new = bias_h[2 * width :], weight_h[2 * width :].t()
        share_BLD = torch.addmm(bias_D, hidden_BLD.flatten(0, 1), weight_new).view_as(hidden_BLD)
        grad_BLG, grad_write_BL = torch.empty_like(gate_BLG), torch.empty_like(write_BL)
        states = (hidden_BLD.numpy(), gate_BLG.numpy(), share_BLD.numpy(), grad_BLG.numpy(), grad_write_BL.numpy())
        recurrent = as_array(weight_h), as_array(bias_D)
        _backward(as_array(grad_outputs[0]), as_array(write_BL), length_B.numpy(), *recurrent, *states)
        # Gradients of the part from the last state: of reset and update as of the input's part, of new its share.
        recurrent_BLG = torch.cat([grad_BLG[..., : 2 * width], share_BLD], dim=-1)
        grad_NG = grad_BLG.flatten(0, 1)
        grad_h = recurrent_BLG[:, 1:].flatten(0, 1).t() @ hidden_BLD[:, :-1].flatten(0, 1)
        grad_input = (grad_NG @ weight_x).view_as(input_BLE) if ctx.needs_input_grad[0] else None
        grad_x = grad_NG.t() @ input_BLE.flatten(0, 1)
        return grad_input, grad_write_BL, None, grad_x, grad_h, grad_NG.sum(0), recurrent_BLG.sum((0, 1))


def gated_gru_scan(gru: nn.GRU, input_BLE: Tensor, write_BL: Tensor, length_B: Tensor) -> Tensor:
    """The state of a one-layer `nn.GRU` after each event, zeros in padding: `[B, L, D]`; single precision, on the CPU.

    Args:
        gru: the layer.
        input_BLE: finite in padding, too; L is at least 1.
        write_BL: the gate, 0 to 1.
        length_B: int64 real events of each user.
    """
    apply: Callable[..., Tensor] = _Scan.apply
    # The compiled loops are of single precision, also where the rest is mixed.
    with torch.autocast("cpu", enabled=False):
        return apply(input_BLE.contiguous(), write_BL.contiguous(), length_B, *gru.all_weights[0])


@jit
def _wait(logit_BL: Array, slope: float, length_B: Array, longest: int, waited_BL: Array, hard_BL: Array) -> None:
    for b in range(len(length_B)):
        waited = 0
        for t in range(length_B[b]):
            waited = min(waited + 1, longest)
            waited_BL[b, t] = waited
            if logit_BL[b, t] + slope * waited > 0:
                hard_BL[b, t] = True
                waited = 0


def decide(logit_BL: Tensor, slope: float, length_B: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Which steps write, where each step of waiting adds `slope` to a logit: a step writes if the sum is above 0.

    Args:
        logit_BL: without the waiting; no gradient comes from here.
        slope: of the waiting.
        length_B: int64 real steps; the others wait for nothing and do not write.
        longest: steps of waiting that count at most.

    Returns:
        The steps that each waited, itself included, int64; and whether it writes.
    """
    waited_BL, hard_BL = np.zeros(logit_BL.shape, np.int64), np.zeros(logit_BL.shape, np.bool_)
    # NumPy knows no bfloat16, which mixed precision computes in.
    plain_BL = logit_BL if logit_BL.dtype == torch.float64 else logit_BL.float()
    _wait(as_array(plain_BL.cpu()), slope, as_array(length_B.cpu()), longest, waited_BL, hard_BL)
    return torch.from_numpy(waited_BL).to(logit_BL.device), torch.from_numpy(hard_BL).to(logit_BL.device)
