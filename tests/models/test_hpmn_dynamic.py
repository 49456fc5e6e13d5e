"""HPMN with dynamic periods against a naive transcription: loops over users, events and layers, in float64."""

import pytest
import torch
from finding import assert_memory_agrees, naive_gru
from torch import Tensor, nn

from lifelong.offline.models.hpmn import Hpmn, HpmnConfig
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.hpmn_dynamic import HpmnDynamic, HpmnDynamicConfig, HpmnDynamicMemory

LENGTHS = (40, 0, 1, 17)
WIDTH, PERIODS = 5, (1, 2, 6)


def make(*, learned: bool = True, **settings: object) -> HpmnDynamic:
    torch.manual_seed(0)
    model = HpmnDynamic(
        INPUTS, HpmnDynamicConfig(**{"embedding": 3, "width": WIDTH, "periods": PERIODS, "dropout": 0.0, **settings})
    )
    if learned:
        for boundary in model.boundaries:
            nn.init.normal_(boundary.linear.weight, std=4.0)
    return model.double().eval()


def naive_memory(model: HpmnDynamic, events: list[Tensor]) -> dict[str, Tensor]:
    """Layer after layer, an event at a time, and a break where there is no boundary."""
    layers, size = range(len(model.periods)), max(1, len(events))
    slots = [torch.zeros(WIDTH, dtype=torch.float64) for _ in layers]
    writes = [torch.zeros((), dtype=torch.float64) for _ in layers]
    last, waited = [0 for _ in layers], [0 for _ in layers]
    for n, event in enumerate(events, start=1):
        x = event
        for j in layers:
            waited[j] += 1
            if j == 0:
                step = torch.ones((), dtype=torch.float64)
            else:
                boundary = model.boundaries[j - 1]
                logit = boundary.linear.weight[0] @ x + boundary.linear.bias[0] + boundary.slope * waited[j]
                soft = torch.sigmoid(logit)
                step = float(logit > 0) + soft - soft.detach()
            new = naive_gru(model.layers[j], x, slots[j])
            slots[j], writes[j] = slots[j] + step * (new - slots[j]), writes[j] + step
            if float(step.detach()) == 0:
                break
            last[j], waited[j], x = n, 0, slots[j]
    return {
        "slot": torch.stack(slots),
        "rate": torch.stack(writes) / size,
        "age": torch.tensor([(len(events) - at) / 1024 for at in last], dtype=torch.float64),
        "waited": torch.tensor([steps / 1024 for steps in waited], dtype=torch.float64),
    }


def test_memory_is_the_naive_loop_in_value_and_gradient() -> None:
    model, rates = make(), []

    def naive(events: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        found = naive_memory(model, events)
        rates.append(found["rate"].tolist())
        return found

    assert_memory_agrees(model, naive, lengths=LENGTHS, atol=1e-10)
    assert 0 < rates[0][1] < 1 and rates[0][1] != 0.5, f"nothing dynamic is tested: {rates[0]}"


@pytest.mark.parametrize("hops", [1, 3])
def test_before_training_it_is_hpmn_with_its_periods(hops: int) -> None:
    model = make(learned=False, hops=hops, covariance=0.0)
    torch.manual_seed(0)
    fixed = Hpmn(
        INPUTS, HpmnConfig(embedding=3, width=WIDTH, periods=PERIODS, hops=hops, covariance=0.0, dropout=0.0)
    ).double()
    others = {name: value for name, value in fixed.state_dict().items() if not name.startswith("memory.")}
    missing = model.load_state_dict(others | fixed.memory.state_dict(), strict=False)
    assert all(name.startswith("boundaries.") for name in missing.missing_keys) and not missing.unexpected_keys
    batch = random_batch([70, 3, 0, 33], targets=5)
    output, wanted = model(batch), fixed.eval()(batch)
    torch.testing.assert_close(output.logit_BCT, wanted.logit_BCT, rtol=0, atol=1e-12)
    torch.testing.assert_close(output.attention_BCS, wanted.attention_BCS, rtol=0, atol=1e-12)
    assert output.aux_losses["budget"].item() == 0


def test_single_precision_makes_the_decisions_of_double_precision() -> None:
    model, batch = make(), random_batch([300, 100], targets=4)
    double = model(batch).logit_BCT
    torch.testing.assert_close(model.float()(batch).logit_BCT.double(), double, rtol=0, atol=1e-4)


def over_budget(rates: list[float], count: int, slack: float) -> float:
    model = make(slack=slack)
    memory = HpmnDynamicMemory(*(value.unsqueeze(1) for value in model.initial_memory(1)))
    rate = torch.tensor([[rates]], dtype=torch.float64)
    return model.over_budget(memory._replace(count_B=torch.tensor([[count]]), rate_BS=rate)).item()


def test_rates_within_the_slack_cost_nothing_and_others_their_squared_excess() -> None:
    assert over_budget([1.0, 0.7, 1 / 6], 100, slack=0.5) == 0
    # 0.9 is 0.4 above 1/2, of which 0.25 are free; 0 is 1/6 below 1/6, of which 1/12 are free.
    wanted = (2 * 0.15**2 + 6 * (1 / 12) ** 2) / 3
    assert over_budget([1.0, 0.9, 0.0], 100, slack=0.5) == pytest.approx(wanted)


def test_a_slot_that_is_not_due_yet_costs_nothing() -> None:
    assert over_budget([1.0, 0.5, 0.0], 5, slack=0.0) == 0


def test_the_budget_pulls_a_layer_that_always_writes_back() -> None:
    model = make(learned=False, budget=1.0, slack=0.0, covariance=0.0)
    with torch.no_grad():
        for boundary in model.boundaries:
            boundary.linear.bias.fill_(1.0)
    batch = random_batch([60], targets=3)
    model(batch).aux_losses["budget"].backward()
    assert all(float(boundary.linear.bias.grad) > 0 for boundary in model.boundaries)
