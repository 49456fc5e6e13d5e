"""Steps of a GRU that agree with the pass over a whole history, and the states at given positions.

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014, in the form of
`torch.nn.GRU`: the reset gate follows the product with the state.

Shapes: B users, L padded history length, C targets per user, E width of an input, D state width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.traced import is_traced, runs_compiled, traced_states


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
        from lifelong.offline.nn.scan import gru_scan

        return gru_scan(gru, input_BLE, length_B)
    hidden_BLD: Tensor = gru(input_BLE)[0]
    return hidden_BLD


def gated_gru_step(gru: nn.Module, input_BE: Tensor, write_B: Tensor, state_BD: Tensor) -> Tensor:
    """One step of a one-layer `nn.GRU` where the gate is 1, a copy where it is 0: h + g (GRU(x, h) - h)."""
    return state_BD + write_B.unsqueeze(-1) * (gru_step(gru, input_BE, state_BD) - state_BD)


def gated_gru_pass(gru: nn.Module, input_BLE: Tensor, write_BL: Tensor, length_B: Tensor) -> Tensor:
    """The state after each of the first `length` steps: `[B, L, D]`; anything in padding.

    In single precision on the CPU the compiled scan does it, else a loop.

    Args:
        gru: one layer, batch first.
        input_BLE: finite in padding, too; L may be 0.
        write_BL: the gates, 0 to 1.
        length_B: int64 real steps of each row.
    """
    assert isinstance(gru, nn.GRU)
    if input_BLE.shape[1] == 0:
        return input_BLE.new_zeros(len(input_BLE), 0, gru.hidden_size)
    if runs_compiled(input_BLE, write_BL, *gru.all_weights[0]):
        from lifelong.offline.nn.scan import gru_scan

        return gru_scan(gru, input_BLE, length_B, write_BL=write_BL)
    state_BD, states = input_BLE.new_zeros(len(input_BLE), gru.hidden_size), []
    for input_BE, write_B in zip(input_BLE.unbind(1), write_BL.unbind(1), strict=True):
        state_BD = gated_gru_step(gru, input_BE, write_B, state_BD)
        states.append(state_BD)
    return torch.stack(states, dim=1)


def attended_states(gru: nn.Module, input_BLE: Tensor, weight_BCL: Tensor, end_BC: Tensor) -> Tensor:
    """AUGRU: the state of each target after its last step, zeros before the first, `[B, C, D]`.

    With a the weight, and u, n as in a GRU: h' = (1 - a u) h + a u n. That is a gated pass for each target.

    Source: Zhou et al., "Deep Interest Evolution Network", AAAI 2019, the interest evolving layer.

    Args:
        gru: one layer, batch first.
        input_BLE: of a user's events, for all her targets; finite in padding, too; L may be 0.
        weight_BCL: attention of each target, 0 from step `end` on.
        end_BC: int64.

    >>> gru, input_BLE = nn.GRU(3, 4, batch_first=True), torch.randn(1, 3, 3)
    >>> weight_BCL = torch.tensor([[[0.0, 0.0, 0.0], [0.2, 0.8, 0.0]]])
    >>> attended_states(gru, input_BLE, weight_BCL, end_BC=torch.tensor([[3, 2]])).any(dim=-1).tolist()
    [[False, True]]
    """
    assert isinstance(gru, nn.GRU)
    if is_traced():
        rows = input_BLE.transpose(0, 1).unsqueeze(2), weight_BCL.permute(2, 0, 1)
        start_BCD = input_BLE.new_zeros(*weight_BCL.shape[:2], gru.hidden_size)
        return traced_states(lambda state, value, write: gated_gru_step(gru, value, write, state), start_BCD, *rows)[-1]

    def last(weight_BCL: Tensor, end_BC: Tensor) -> tuple[Tensor]:
        end_U1 = end_BC.flatten().unsqueeze(1)
        input_ULE = input_BLE.unsqueeze(1).expand(-1, end_BC.shape[1], -1, -1).flatten(0, 1)
        state_ULD = gated_gru_pass(gru, input_ULE, weight_BCL.flatten(0, 1), end_U1.squeeze(1))
        return (states_at(state_ULD, end_U1).view(*end_BC.shape, -1),)

    numbers = input_BLE.shape[0] * input_BLE.shape[1] * max(gru.input_size, gru.hidden_size)
    return in_chunks(last, weight_BCL, end_BC, axis=1, numbers=numbers)[0]


def states_at(hidden_BLD: Tensor, count_BC: Tensor) -> Tensor:
    """The state after `count` steps, zeros after none: `[B, C, D]`.

    Args:
        hidden_BLD: state after each step; L may be 0.
        count_BC: int64, at most L.

    >>> states_at(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[0, 1, 3]])).flatten().tolist()
    [0.0, 1.0, 3.0]
    """
    width = hidden_BLD.shape[2]
    # There is no place to read from where no user has an event.
    if hidden_BLD.shape[1] == 0:
        return hidden_BLD.new_zeros(*count_BC.shape, width)
    # The state after `count` steps is at `count` - 1. After none, any state may be read, as it is then replaced;
    # replaced and not multiplied by 0, since in an empty history it is padding and may be NaN.
    place_BCD = (count_BC - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, width)
    return hidden_BLD.gather(1, place_BCD).masked_fill((count_BC == 0).unsqueeze(-1), 0.0)
