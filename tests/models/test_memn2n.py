"""MemN2N against a naive transcription: loops over users, targets, hops and memories, in float64."""

import math

import pytest
import torch
from torch import Tensor

from lifelong.models.base import Found, Query, Window
from lifelong.models.memn2n import MemN2N, MemN2NConfig
from lifelong.nn import chunks
from lifelong.testing.worlds import INPUTS


def make(*, recent: int = 4, hops: int = 3) -> MemN2N:
    torch.manual_seed(0)
    model = MemN2N(INPUTS, MemN2NConfig(embedding=2, width=3, recent=recent, hops=hops)).double().eval()
    # Off the identity, so that a transposed map shows.
    torch.nn.init.normal_(model.pass_on.weight)
    return model


def naive_interest(model: MemN2N, events: list[Tensor], target: Tensor) -> tuple[Tensor, list[float]]:
    """Sections 2.1, 2.2 and 4.1 for one target; `events` are all before it."""
    a, c = model.entry.weight[:3], model.entry.weight[3:]
    t_a, t_c = model.time[:, :3], model.time[:, 3:]
    u = model.query.weight @ target
    first: list[float] = []
    for _ in range(model.config.hops):
        weights, values = [], []
        for back, event in enumerate(reversed(events[max(0, len(events) - model.recent) :]), start=1):
            memory = a @ event + t_a[model.recent - back]
            weights.append(torch.exp(u @ memory))
            values.append(c @ event + t_c[model.recent - back])
        total = sum(weights)
        o = sum((p / total * value for p, value in zip(weights, values, strict=True)), torch.zeros_like(u))
        first = first or [float(p.detach() / total.detach()) for p in reversed(weights)]
        u = model.pass_on.weight @ u + o
    return u, first


def run(model: MemN2N, event_BLE: Tensor, position_BC: Tensor, target_BCE: Tensor) -> Found:
    users, size, _ = event_BLE.shape
    window = Window(event_BLE, torch.ones(users, size, 4).long(), torch.zeros(users, size).long(), position_BC.amax(1))
    number_BCF = torch.zeros(*position_BC.shape, 2, dtype=torch.int64)
    return model.find(window, Query(target_BCE, number_BCF, torch.zeros_like(position_BC), position_BC))


def drawn(model: MemN2N) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    position_BC = torch.tensor([[0, 3, 9], [1, 7, 4], [0, 0, 0]])
    event_BLE = torch.randn(3, 9, model.event_width, dtype=torch.float64).requires_grad_()
    return event_BLE, position_BC, torch.randn(3, 3, model.target_width, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(("recent", "hops"), [(1, 1), (4, 3), (20, 2)])
@pytest.mark.parametrize("numbers_at_once", [1, 2**22])
def test_interest_is_that_of_the_paper_in_value_and_gradient(
    recent: int, hops: int, numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", numbers_at_once)
    model = make(recent=recent, hops=hops)
    event_BLE, position_BC, target_BCE = drawn(model)
    weight_BCD = torch.randn(3, 3, 3, dtype=torch.float64)
    naive = [
        [naive_interest(model, list(event_BLE[user, :position]), target_BCE[user, place])[0] for place, position in row]
        for user, row in enumerate(map(enumerate, position_BC.tolist()))
    ]
    naive_BCD = torch.stack([torch.stack(row) for row in naive])
    found_BCD = run(model, event_BLE, position_BC, target_BCE).interest_BCD
    torch.testing.assert_close(found_BCD, naive_BCD, rtol=0, atol=1e-12)
    leaves = [event_BLE, target_BCE, model.entry.weight, model.time, model.query.weight, model.pass_on.weight]
    gradients = [torch.autograd.grad((weight_BCD * value).sum(), leaves) for value in (found_BCD, naive_BCD)]
    for found_grad, naive_grad in zip(*gradients, strict=True):
        torch.testing.assert_close(found_grad, naive_grad, rtol=0, atol=1e-10)


def test_attention_is_that_of_the_first_hop_with_the_latest_event_last() -> None:
    model = make()
    event_BLE, position_BC, target_BCE = drawn(model)
    attention = run(model, event_BLE, position_BC, target_BCE).attention_BCS[0, 1].tolist()
    _, naive = naive_interest(model, list(event_BLE[0, :3]), target_BCE[0, 1])
    assert attention == pytest.approx([0.0, *naive])
    assert math.fsum(naive) == pytest.approx(1.0)


def test_without_events_the_interest_is_the_mapped_query() -> None:
    model = make(hops=1)
    event_BLE, position_BC, target_BCE = drawn(model)
    interest = run(model, event_BLE, position_BC, target_BCE).interest_BCD[2, 0]
    torch.testing.assert_close(interest, model.pass_on.weight @ model.query.weight @ target_BCE[2, 0])


def test_events_before_the_last_ones_change_nothing() -> None:
    model = make()
    event_BLE, position_BC, target_BCE = drawn(model)
    changed_BLE = event_BLE.detach().clone()
    changed_BLE[0, :5] = 7.0
    interests = [run(model, events, position_BC, target_BCE).interest_BCD[0, 2] for events in (event_BLE, changed_BLE)]
    assert torch.equal(*interests)
