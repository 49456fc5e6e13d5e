"""RUM, both levels, against naive transcriptions of its equations: loops over users, events, slots, in float64."""

import pytest
import torch
from finding import assert_memory_agrees
from torch import Tensor

from lifelong.testing.worlds import INPUTS
from lifelong.zoo.rum_feature import RumFeature
from lifelong.zoo.rum_item import RumItem

WIDTH, SLOTS, STRENGTH = 5, 3, 0.7


def make(kind: type[RumItem] | type[RumFeature]) -> RumItem | RumFeature:
    torch.manual_seed(0)
    model = (
        kind(INPUTS, kind.Config(embedding=3, width=WIDTH, slots=SLOTS, strength=STRENGTH, dropout=0.0)).double().eval()
    )
    with torch.no_grad():
        model.query.weight.add_(torch.randn_like(model.query.weight))
    return model


def naive_softmax(scores: list[Tensor]) -> list[Tensor]:
    powers = [torch.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def naive_item_interest(model: RumItem, events: list[Tensor], target: Tensor) -> Tensor:
    memory: list[Tensor] = []
    for event in events:
        memory = [*memory, model.entry.weight @ event][-SLOTS:]
    q = model.query.weight @ target
    weights = naive_softmax([STRENGTH * (q @ m) for m in memory])
    return sum((w * m for w, m in zip(weights, memory, strict=True)), torch.zeros_like(q))


def naive_feature_interest(model: RumFeature, events: list[Tensor], target: Tensor) -> Tensor:
    memory = [torch.zeros(WIDTH, dtype=torch.float64) for _ in range(SLOTS)]
    for event in events:
        q = model.entry.weight @ event
        z = naive_softmax([STRENGTH * (q @ f) for f in model.key_SD])
        erase = 1 / (1 + torch.exp(-(model.erase.weight @ q + model.erase.bias)))
        add = torch.tanh(model.add.weight @ q + model.add.bias)
        memory = [m * (1 - z[k] * erase) + z[k] * add for k, m in enumerate(memory)]
    q = model.query.weight @ target
    z = naive_softmax([STRENGTH * (q @ f) for f in model.key_SD])
    return sum((z[k] * m for k, m in enumerate(memory)), torch.zeros_like(q))


@pytest.mark.parametrize(("kind", "naive"), [(RumItem, naive_item_interest), (RumFeature, naive_feature_interest)])
def test_interest_is_the_naive_loop_in_value_and_gradient(kind, naive) -> None:
    model = make(kind)
    assert_memory_agrees(model, lambda *given: {"interest": naive(model, *given)})


def test_feature_memory_erases_only_where_the_event_belongs() -> None:
    model = make(RumFeature)
    with torch.no_grad():
        model.key_SD.copy_(torch.eye(SLOTS, WIDTH) * 1000)
        model.entry.weight.copy_(torch.eye(WIDTH, model.event_width))
        model.erase.bias.fill_(100.0)
    event = torch.zeros(1, model.event_width, dtype=torch.float64)
    event[0, 1] = 1.0
    before = type(model.initial_memory(1))(torch.tensor([4]), torch.ones(1, SLOTS, WIDTH).double())
    after = model.write_vector(before, event).value_BSD
    added = torch.tanh(model.add(event[:, :WIDTH]))[0]
    torch.testing.assert_close(after[0, 0], torch.ones(WIDTH).double())
    torch.testing.assert_close(after[0, 1], added.detach())
