"""The gated delta memory against a naive transcription of its equations, in float64."""

import pytest
import torch
from finding import assert_memory_agrees
from torch import Tensor, nn

from lifelong.testing.worlds import INPUTS
from lifelong.zoo.delta import GatedDelta, GatedDeltaConfig

LENGTHS = (9, 0, 1, 4)
WIDTH, HEADS = 4, 3


def make(chunk: int = 4) -> GatedDelta:
    torch.manual_seed(0)
    model = GatedDelta(INPUTS, GatedDeltaConfig(embedding=3, width=WIDTH, heads=HEADS, chunk=chunk, dropout=0.0))
    return model.double().eval()


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return layer.weight @ x if layer.bias is None else layer.weight @ x + layer.bias


def unit(x: Tensor) -> Tensor:
    return x / torch.sqrt(x @ x + 1e-6)


def naive_state(model: GatedDelta, events: list[Tensor]) -> list[Tensor]:
    """S of each head: decay by the event, take out what is under its key, put its value there."""
    states = [torch.zeros(WIDTH, WIDTH, dtype=torch.float64) for _ in range(HEADS)]
    for x in events:
        gates, keys, values = linear(model.gates, x), linear(model.key, x), linear(model.value, x)
        for h in range(HEADS):
            part = slice(h * WIDTH, (h + 1) * WIDTH)
            k, v = unit(keys[part]), values[part]
            a = torch.exp(-torch.exp(model.rate_H[h]) * torch.log(1 + torch.exp(gates[h])))
            b = 1 / (1 + torch.exp(-gates[HEADS + h]))
            states[h] = a * states[h] @ (torch.eye(WIDTH) - b * torch.outer(k, k)) + b * torch.outer(v, k)
    return states


def naive_interest(model: GatedDelta, states: list[Tensor], count: int, target: Tensor) -> Tensor:
    queries = linear(model.query, target)
    found = [states[h] @ unit(queries[h * WIDTH : (h + 1) * WIDTH]) for h in range(HEADS)]
    scores = torch.exp(linear(model.share, torch.cat([target, *found])))
    shares = scores / scores.sum() if count else torch.zeros(HEADS, dtype=torch.float64)
    return torch.cat([HEADS * shares[h] * found[h] for h in range(HEADS)])


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 64])
def test_state_and_interest_are_the_naive_loop_in_value_and_gradient(chunk: int) -> None:
    model = make(chunk)

    def naive(events: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        states = naive_state(model, events)
        return {"state": torch.stack(states), "interest": naive_interest(model, states, len(events), target)}

    assert_memory_agrees(model, naive, atol=1e-10)


def test_an_item_seen_again_is_held_once_and_its_new_value_takes_the_place_of_the_old() -> None:
    model = make()
    with torch.no_grad():
        # Full strength and no decay.
        model.gates.weight.zero_()
        model.gates.bias[:HEADS], model.gates.bias[HEADS:] = -200.0, 200.0
        model.key.weight[:, model.target_width :] = 0.0
    first, second = torch.randn(2, 1, model.event_width, dtype=torch.float64)
    second[:, : model.target_width] = first[:, : model.target_width]
    memory = model.initial_memory(1)
    for event in (first, first, first, second):
        memory = model.write_vector(memory, event)
    model.query.weight.data.copy_(model.key.weight[:, : model.target_width])
    query = model._query(first[:, : model.target_width])
    found = (memory.state_BHDK @ query.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found.flatten(), model.value(second)[0], rtol=0, atol=1e-4)


def test_an_event_can_clear_a_head() -> None:
    model = make()
    with torch.no_grad():
        model.gates.weight.zero_()
        model.gates.bias[:HEADS] = 1e5
        model.gates.bias[HEADS:] = 0.0
    one, other = torch.randn(2, 1, model.event_width, dtype=torch.float64)
    both = model.write_vector(model.write_vector(model.initial_memory(1), one), other)
    alone = model.write_vector(model.initial_memory(1), other)
    torch.testing.assert_close(both.state_BHDK, alone.state_BHDK)
