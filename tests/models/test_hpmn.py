"""HPMN against naive transcriptions of its equations: loops over users, events and slots, in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lifelong.models.hpmn import Hpmn, HpmnConfig
from lifelong.nn.hpmn import Slots
from lifelong.nn.slots import slot_covariance
from lifelong.testing.worlds import INPUTS


def make(*, periods: tuple[int, ...] = (1, 2, 4), hops: int = 3, width: int = 5, seed: int = 0) -> Hpmn:
    torch.manual_seed(seed)
    return Hpmn(INPUTS, HpmnConfig(embedding=3, width=width, periods=periods, hops=hops, dropout=0.0)).double().eval()


def naive_gru(layer: nn.GRU, x: Tensor, h: Tensor) -> Tensor:
    """z, r, h~, h' of the specification, for one user."""
    w_r, w_z, w_m = layer.weight_ih_l0.chunk(3)
    u_r, u_z, u_m = layer.weight_hh_l0.chunk(3)
    b_r, b_z, b_m = layer.bias_ih_l0.chunk(3)
    c_r, c_z, c_m = layer.bias_hh_l0.chunk(3)
    z = torch.sigmoid(-(w_z @ x + b_z + u_z @ h + c_z))
    r = torch.sigmoid(w_r @ x + b_r + u_r @ h + c_r)
    candidate = torch.tanh(w_m @ x + b_m + r * (u_m @ h + c_m))
    return (1 - z) * h + z * candidate


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


def gradient_of(leaf: Tensor) -> Tensor:
    """The gradient, zeros where the leaf took no part."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone()


nested = st.lists(st.integers(2, 4), max_size=3).map(
    lambda ratios: tuple(math.prod(ratios[:size]) for size in range(len(ratios) + 1))
)


@settings(max_examples=25, deadline=None)
@given(
    periods=nested,
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    padding=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_batch_form_per_event_form_and_naive_loop_agree_in_value_and_gradient(
    periods: tuple[int, ...], lengths: list[int], padding: int, seed: int
) -> None:
    model = make(periods=periods, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    size = max(lengths) + padding
    event_BLE = torch.randn(len(lengths), size, model.event_width, generator=generator, dtype=torch.float64)
    length_B = torch.tensor(lengths)
    real_BL1 = (torch.arange(size) < length_B[:, None])[..., None]
    dirty_BLE = event_BLE.masked_fill(~real_BL1, float("nan"))
    weight_BSD = torch.randn(len(lengths), len(periods), model.config.width, generator=generator, dtype=torch.float64)

    def batch_form(event: Tensor) -> Tensor:
        return model.encode_vector(event, length_B, length_B[:, None]).slot_BSD[:, 0]

    def per_event_form(event: Tensor) -> Tensor:
        rows = []
        for user, length in enumerate(lengths):
            memory = model.initial_memory(1)
            for place in range(length):
                memory = model.write_vector(memory, event[user : user + 1, place])
            rows.append(memory.slot_BSD[0])
        return torch.stack(rows)

    def naive_loop(event: Tensor) -> Tensor:
        users = (naive_memory(model, list(event[user, :length])) for user, length in enumerate(lengths))
        return torch.stack([torch.stack(slots) for slots in users])

    values, gradients = [], []
    for form, event in ((batch_form, dirty_BLE), (per_event_form, event_BLE), (naive_loop, event_BLE)):
        leaf = event.clone().requires_grad_()
        slot_BSD = form(leaf)
        if slot_BSD.requires_grad:
            (slot_BSD * weight_BSD).sum().backward()
        values.append(slot_BSD.detach())
        gradients.append([gradient_of(part) for part in (leaf, *model.memory.layers.parameters())])
        model.zero_grad()
    for other in (1, 2):
        torch.testing.assert_close(values[other], values[0], rtol=0, atol=1e-12)
        for left, right in zip(gradients[other], gradients[0], strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


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


def test_read_before_the_first_event_has_no_weight_and_no_nan_in_the_gradient() -> None:
    model = make()
    memory = Slots(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, 3, 5, dtype=torch.float64))
    interest_BCD, attention_BCS = model.read_vector(memory, torch.ones(1, 2, model.target_width).double())
    interest_BCD.sum().backward()
    assert attention_BCS.tolist() == [[[0.0] * 3] * 2]
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_single_read_before_the_first_event_is_zero() -> None:
    model = make(hops=1)
    memory = Slots(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, 3, 5, dtype=torch.float64))
    interest_BCD, _ = model.read_vector(memory, torch.ones(1, 1, model.target_width).double())
    assert interest_BCD.tolist() == [[[0.0] * 5]]


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


def test_covariance_of_weight_zero_is_left_out() -> None:
    model = Hpmn(INPUTS, HpmnConfig(covariance=0.0))
    assert model.auxiliary(model.initial_memory(1), torch.ones(1, 1, dtype=torch.bool)) == {}


@pytest.mark.parametrize("periods", [(2, 4), (1, 2, 3), (1, 4, 2), (1, 1), ()])
def test_periods_that_are_not_nested_are_refused(periods: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="period"):
        Hpmn(INPUTS, HpmnConfig(periods=periods))
