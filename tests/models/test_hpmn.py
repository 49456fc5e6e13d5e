"""HPMN against naive transcriptions of its equations: loops over users, events and slots, in float64."""

import math

import numpy as np
import pytest
import torch
from finding import assert_memory_agrees, naive_gru
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.offline.models.hpmn import Hpmn, HpmnConfig
from lifelong.offline.nn.hpmn import Slots
from lifelong.offline.nn.slots import slot_covariance
from lifelong.testing.model_contract import ModelCase, check_encode_equals_folded_writes
from lifelong.testing.worlds import INPUTS


def make(*, periods: tuple[int, ...] = (1, 2, 4), hops: int = 3, width: int = 5, seed: int = 0) -> Hpmn:
    torch.manual_seed(seed)
    return Hpmn(INPUTS, HpmnConfig(embedding=3, width=width, periods=periods, hops=hops, dropout=0.0)).double().eval()


def naive_memory(model: Hpmn, events: list[Tensor]) -> list[Tensor]:
    """The write of the specification, with its `break`."""
    slots = [torch.zeros(model.config.width, dtype=torch.float64) for _ in model.config.periods]
    for count, event in enumerate(events, start=1):
        layer_input = event
        for j, period in enumerate(model.config.periods):
            if count % period != 0:
                break
            slots[j] = naive_gru(model.memory.layers[j], layer_input, slots[j])
            layer_input = slots[j]
    return slots


def naive_read(model: Hpmn, count: int, slots: list[Tensor], target: Tensor) -> tuple[Tensor, list[float]]:
    """The read of the specification for one target."""
    q = model.memory.reader.query.weight @ target + model.memory.reader.query.bias
    first: list[float] = []
    found = torch.zeros_like(q)
    for score in model.memory.reader.scores:
        weights = {}
        for j, (period, slot) in enumerate(zip(model.config.periods, slots, strict=True)):
            if count >= period:
                x = torch.cat([q, slot, q - slot, q * slot])
                x = torch.relu(score.first.weight @ x + score.first.bias)
                x = torch.relu(score.second.weight @ x + score.second.bias)
                weights[j] = torch.exp(score.last.weight[0] @ x + score.last.bias[0]).detach()
        total = sum(weights.values())
        found = sum((w / total * slots[j] for j, w in weights.items()), torch.zeros_like(q))
        first = first or [float(weights[j] / total) if j in weights else 0.0 for j in range(len(slots))]
        q = model.memory.reader.pass_on.weight @ q + found if model.memory.reader.pass_on is not None else found
    return q, first


nested = st.lists(st.integers(2, 4), max_size=3).map(
    lambda ratios: tuple(math.prod(ratios[:size]) for size in range(len(ratios) + 1))
)


@settings(max_examples=15, deadline=None)
@given(periods=nested, lengths=st.lists(st.integers(1, 40), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_batch_form_per_event_form_and_naive_loop_agree_in_value_and_gradient(
    periods: tuple[int, ...], lengths: list[int], seed: int
) -> None:
    model = make(periods=periods, seed=seed)

    def naive(events: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        return {"slot": torch.stack(naive_memory(model, events))}

    assert_memory_agrees(model, naive, lengths=[*lengths, 0], atol=1e-10)
    check_encode_equals_folded_writes(ModelCase("hpmn", {"periods": periods}))


@settings(max_examples=20, deadline=None)
@given(periods=nested, hops=st.integers(1, 3), count=st.integers(0, 20), seed=st.integers(0, 99))
def test_read_is_the_equation_of_the_specification(periods: tuple[int, ...], hops: int, count: int, seed: int) -> None:
    model = make(periods=periods, hops=hops, seed=seed)
    torch.manual_seed(seed)
    events = torch.randn(count, model.event_width, dtype=torch.float64)
    target_BCE = torch.randn(1, 2, model.target_width, dtype=torch.float64)
    slots = naive_memory(model, list(events))
    memory = Slots(torch.tensor([[count]]), torch.stack(slots)[None, None])
    interest_BCD, attention_BCS = model.read_vector(memory, target_BCE)
    for place in range(2):
        interest, attention = naive_read(model, count, slots, target_BCE[0, place])
        torch.testing.assert_close(interest_BCD[0, place].detach(), interest.detach(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(attention_BCS[0, place].detach(), attention, rtol=0, atol=1e-12)


def test_slots_are_written_at_multiples_of_their_periods_for_users_with_different_counts() -> None:
    model = make(periods=(1, 2, 6))
    memory = Slots(torch.tensor([0, 1, 5]), torch.zeros(3, 3, 5, dtype=torch.float64))
    written = model.write_vector(memory, torch.ones(3, model.event_width).double())
    assert written.count_B.tolist() == [1, 2, 6]
    assert written.slot_BSD.ne(0).any(dim=-1).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_covariance_of_two_slots_is_half_the_squared_off_diagonal_twice() -> None:
    slot_BSD = torch.tensor([[[1.0, -1.0], [2.0, 0.0], [7.0, 9.0]]])
    filled_BS = torch.tensor([[True, True, False]])
    # Centred rows (1, -1) and (1, -1): covariance 1; half of 1^2 + 1^2.
    assert slot_covariance(slot_BSD, filled_BS).tolist() == [1.0]


def test_covariance_is_the_mean_over_labelled_positions() -> None:
    torch.manual_seed(0)
    model = Hpmn(INPUTS, HpmnConfig(embedding=3, width=2, periods=(1, 2), covariance=0.5))
    slots = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]], [[1.0, -1.0], [9.0, 9.0]], [[5.0, 1.0], [3.0, 2.0]]]])
    memory = Slots(torch.tensor([[2, 2, 2]]), slots)
    loss = model.auxiliary(memory, torch.tensor([[True, True, False]]))["covariance"]
    assert loss.item() == pytest.approx(0.5 * (1.0 + 0.0) / 2)


@pytest.mark.parametrize("periods", [(2, 4), (1, 2, 3), (1, 4, 2), (1, 1), ()])
def test_periods_that_are_not_nested_are_refused(periods: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="period"):
        Hpmn(INPUTS, HpmnConfig(periods=periods))
