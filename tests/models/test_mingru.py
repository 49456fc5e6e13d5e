"""minGRU against a naive transcription of its equations: loops over users, events and layers, in float64."""

import math

import pytest
import torch
from torch import Tensor

from lifelong.models.mingru import MinGru, MinGruConfig
from lifelong.testing.worlds import INPUTS

LENGTHS = (7, 0, 1, 4)


def make(layers: int) -> MinGru:
    torch.manual_seed(0)
    return MinGru(INPUTS, MinGruConfig(embedding=3, width=5, layers=layers, dropout=0.0)).double().eval()


def naive_states(model: MinGru, events: list[Tensor]) -> list[Tensor]:
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
    return states


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_encode_is_the_naive_loop_in_value_and_gradient(layers: int) -> None:
    model, generator = make(layers), torch.Generator().manual_seed(0)
    length_B = torch.tensor(LENGTHS)
    clean_BLE = torch.randn(4, 9, model.event_width, generator=generator, dtype=torch.float64)
    padding_BL1 = (torch.arange(9) >= length_B[:, None])[..., None]
    weight_BSD = torch.randn(4, layers, 5, generator=generator, dtype=torch.float64)
    results = []
    for batched in (True, False):
        event_BLE = clean_BLE.clone().requires_grad_()
        if batched:
            dirty_BLE = event_BLE.masked_fill(padding_BL1, math.nan)
            state_BSD = model.encode_vector(dirty_BLE, length_B, length_B[:, None]).state_BSD[:, 0]
        else:
            users = (naive_states(model, list(event_BLE[b, :length])) for b, length in enumerate(LENGTHS))
            state_BSD = torch.stack([torch.stack(states) for states in users])
        leaves = [event_BLE, *model.layers.parameters()]
        results.append([state_BSD.detach(), *torch.autograd.grad((state_BSD * weight_BSD).sum(), leaves)])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


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


def test_interest_is_the_states_of_all_layers() -> None:
    model = make(2)
    memory = model.write_vector(model.initial_memory(1), torch.ones(1, model.event_width).double())
    copies = type(memory)(*(value.unsqueeze(1) for value in memory))
    interest_BCD, attention = model.read_vector(copies, torch.ones(1, 3, model.target_width).double())
    assert attention is None
    assert torch.equal(interest_BCD[0, 2], memory.state_BSD[0].flatten())
