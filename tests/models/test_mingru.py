"""minGRU against a naive transcription of its equations: loops over users, events and layers, in float64."""

import pytest
import torch
from finding import assert_memory_agrees
from torch import Tensor

from lifelong.testing.worlds import INPUTS
from lifelong.zoo.mingru import MinGru, MinGruConfig


def make(layers: int) -> MinGru:
    torch.manual_seed(0)
    return MinGru(INPUTS, MinGruConfig(embedding=3, width=5, layers=layers, dropout=0.0)).double().eval()


def naive(model: MinGru, events: list[Tensor]) -> dict[str, Tensor]:
    """z_t, h~_t and h_t of section 3.1, layer after layer."""
    states = [torch.zeros(model.config.width, dtype=torch.float64) for _ in model.layers]
    for event in events:
        x = event
        for place, layer in enumerate(model.layers):
            w_z, w_h = layer.weight.chunk(2)
            b_z, b_h = layer.bias.chunk(2)
            z = 1 / (1 + torch.exp(-(w_z @ x + b_z)))
            states[place] = (1 - z) * states[place] + z * (w_h @ x + b_h)
            x = states[place]
    return {"state": torch.stack(states), "interest": torch.cat(states)}


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_encode_is_the_naive_loop_in_value_and_gradient(layers: int) -> None:
    model = make(layers)
    assert_memory_agrees(model, lambda events, target: naive(model, events))


def test_a_closed_gate_keeps_the_first_event_over_a_thousand_others() -> None:
    model = make(1)
    with torch.no_grad():
        # The first number of an event decides: 1 opens the gate, 0 closes it.
        model.layers[0].weight[:5] = 0.0
        model.layers[0].weight[:5, 0] = 100.0
        model.layers[0].bias[:5] = -50.0
    event_BLE = torch.randn(1, 1000, model.event_width, dtype=torch.float64)
    event_BLE[..., 0] = 0.0
    event_BLE[:, 0, 0] = 1.0
    state = model.encode_vector(event_BLE, torch.tensor([1000]), torch.tensor([[1, 1000]])).state_BSD
    torch.testing.assert_close(state[0, 1], state[0, 0], rtol=0, atol=1e-12)
