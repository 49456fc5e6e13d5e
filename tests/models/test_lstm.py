"""LSTM against a naive transcription of its equations: loops over users and events, in float64."""

import torch
from finding import assert_memory_agrees
from torch import Tensor

from lifelong.testing.worlds import INPUTS
from lifelong.zoo.lstm import Lstm, LstmConfig


def make() -> Lstm:
    torch.manual_seed(0)
    return Lstm(INPUTS, LstmConfig(embedding=3, width=5, dropout=0.0)).double().eval()


def naive(model: Lstm, events: list[Tensor]) -> dict[str, Tensor]:
    """h and c after the events, gate by gate."""
    weights = (model.lstm.weight_ih_l0, model.lstm.weight_hh_l0, model.lstm.bias_ih_l0, model.lstm.bias_hh_l0)
    w_i, w_f, w_g, w_o = weights[0].chunk(4)
    u_i, u_f, u_g, u_o = weights[1].chunk(4)
    b_i, b_f, b_g, b_o = (weights[2] + weights[3]).chunk(4)
    h = c = torch.zeros(5, dtype=torch.float64)
    for x in events:
        i = 1 / (1 + torch.exp(-(w_i @ x + u_i @ h + b_i)))
        f = 1 / (1 + torch.exp(-(w_f @ x + u_f @ h + b_f)))
        o = 1 / (1 + torch.exp(-(w_o @ x + u_o @ h + b_o)))
        c = f * c + i * torch.tanh(w_g @ x + u_g @ h + b_g)
        h = o * torch.tanh(c)
    return {"hidden": h, "cell": c, "interest": h}


def test_encode_is_the_naive_loop_in_value_and_gradient_of_both_states() -> None:
    model = make()
    assert_memory_agrees(model, lambda events, target: naive(model, events))


def test_in_single_precision_cells_stay_near_those_of_single_steps_over_a_long_history() -> None:
    model = make().float()
    event_BLE = torch.randn(1, 2000, model.event_width)
    memory = model.initial_memory(1)
    for event_BE in event_BLE.unbind(1):
        memory = model.write_vector(memory, event_BE)
    encoded = model.encode_vector(event_BLE, torch.tensor([2000]), torch.tensor([[2000]]))
    torch.testing.assert_close(encoded.cell_BD[:, 0], memory.cell_BD, rtol=0, atol=1e-5)
