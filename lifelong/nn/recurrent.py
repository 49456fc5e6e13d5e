"""Steps of a GRU that agree with the pass over a whole history, and the states at given positions.

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014, in the form of
`torch.nn.GRU`: the reset gate follows the product with the state.

Shapes: B users, L padded history length, C targets per user, E width of an input, D state width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifelong.nn.traced import is_traced, runs_compiled, traced_states


def gru_step(gru: nn.Module, input_BE: Tensor, hidden_BD: Tensor) -> Tensor:
    """One step of a one-layer `nn.GRU`, written out with its own weights: `[B, D]`.

    >>> gru, input_BLE = nn.GRU(3, 2, batch_first=True), torch.randn(1, 4, 3)
    >>> hidden_BLD = gru_pass(gru, input_BLE, torch.tensor([4]))
    >>> torch.allclose(gru_step(gru, input_BLE[:, 3], hidden_BLD[:, 2]), hidden_BLD[:, 3], atol=1e-5)
    True
    """
    assert isinstance(gru, nn.GRU)
    weight_x, weight_h, bias_x, bias_h = gru.all_weights[0]
    # Sizes that a trace knows, and both gates together: for a single event the number of nodes is what a graph costs.
    width = gru.hidden_size
    gates_x, new_x = torch.split(input_BE @ weight_x.T + bias_x, [2 * width, width], dim=-1)
    gates_h, new_h = torch.split(hidden_BD @ weight_h.T + bias_h, [2 * width, width], dim=-1)
    reset, keep = torch.split(torch.sigmoid(gates_x + gates_h), [width, width], dim=-1)
    new = torch.tanh(new_x + reset * new_h)
    return (1 - keep) * new + keep * hidden_BD


def periodic_gru_step(gru: nn.Module, input_BE: Tensor, hidden_BD: Tensor, count_B: Tensor, period: int) -> Tensor:
    """`gru_step` where `count % period == 0`, elsewhere the state as it was: `[B, D]`.

    A traced graph computes only the rows that are due; with periods 1, 2, 4 ... most are not.
    """
    assert isinstance(gru, nn.GRU)
    if period == 1:
        return gru_step(gru, input_BE, hidden_BD)
    due_B = count_B % period == 0
    if not is_traced():
        return torch.where(due_B.unsqueeze(-1), gru_step(gru, input_BE, hidden_BD), hidden_BD)
    place_N1 = due_B.nonzero()
    place_N, place_ND = place_N1.squeeze(1), place_N1.expand(-1, gru.hidden_size)
    return hidden_BD.scatter(0, place_ND, gru_step(gru, input_BE[place_N], hidden_BD[place_N]))


def gru_pass(gru: nn.Module, input_BLE: Tensor, length_B: Tensor) -> Tensor:
    """The state of a one-layer, batch-first `nn.GRU` after each of the first `length` steps: `[B, L, D]`; L may be 0.

    In single precision on the CPU the compiled scan does it, else torch's own pass; in a traced graph it is a loop.
    Padding of the result may hold anything.

    Args:
        gru: the layer.
        input_BLE: finite in padding, too.
        length_B: int64 real steps of each row.
    """
    assert isinstance(gru, nn.GRU)
    if input_BLE.shape[1] == 0:
        return input_BLE.new_zeros(len(input_BLE), 0, gru.hidden_size)
    if is_traced():
        start_BD = input_BLE.new_zeros(input_BLE.shape[0], gru.hidden_size)
        return traced_states(
            lambda state, value: gru_step(gru, value, state), start_BD, input_BLE.transpose(0, 1)
        ).transpose(0, 1)
    if runs_compiled(input_BLE, *gru.all_weights[0]):
        from lifelong.nn.scan import gru_scan

        return gru_scan(gru, input_BLE, length_B)
    hidden_BLD: Tensor = gru(input_BLE)[0]
    return hidden_BLD


def states_at(hidden_BLD: Tensor, count_BC: Tensor) -> Tensor:
    """The state after `count` steps, zeros after none: `[B, C, D]`.

    Args:
        hidden_BLD: state after each step; L may be 0.
        count_BC: int64, at most L.

    >>> states_at(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[0, 1, 3]])).flatten().tolist()
    [0.0, 1.0, 3.0]
    """
    width = hidden_BLD.shape[2]
    if hidden_BLD.shape[1] == 0:
        return hidden_BLD.new_zeros(*count_BC.shape, width)
    place_BCD = (count_BC - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, width)
    return hidden_BLD.gather(1, place_BCD).masked_fill((count_BC == 0).unsqueeze(-1), 0.0)
