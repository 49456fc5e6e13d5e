"""SHAN against a naive transcription: loops over users, targets and events, in float64."""

import pytest
import torch
from torch import Tensor

from lifelong.models.base import Found, Query, Window
from lifelong.models.shan import Shan, ShanConfig
from lifelong.nn import chunks
from lifelong.testing.worlds import INPUTS


def make(*, short: int = 3, recent: int = 6) -> Shan:
    torch.manual_seed(0)
    return Shan(INPUTS, ShanConfig(embedding=2, width=4, short=short, recent=recent)).double().eval()


def attend(user: Tensor, layer: torch.nn.Linear, entries: list[Tensor]) -> Tensor:
    """Softmax of u . ReLU(W x + b) over the entries, and their weighted sum; zeros without entries."""
    weights = [torch.exp(user @ torch.relu(layer.weight @ entry + layer.bias)) for entry in entries]
    return sum((w / sum(weights) * entry for w, entry in zip(weights, entries, strict=True)), torch.zeros(8).double())


def naive_interest(model: Shan, events: list[Tensor]) -> Tensor:
    """Both levels of attention for one target; `events` are all before it."""
    recent = events[max(0, len(events) - model.recent) :]
    long, short = recent[: max(0, len(recent) - model.config.short)], recent[max(0, len(recent) - model.config.short) :]
    mean = sum(recent) / len(recent) if recent else torch.zeros(8, dtype=torch.float64)
    user = model.user.weight @ mean + model.user.bias
    summary = [attend(user, model.first, long)] if long else []
    return attend(user, model.second, summary + short)


def run(model: Shan, event_BLE: Tensor, position_BC: Tensor) -> Found:
    users, size, _ = event_BLE.shape
    window = Window(event_BLE, torch.ones(users, size, 4).long(), torch.zeros(users, size).long(), position_BC.amax(1))
    target_BCE = torch.zeros(*position_BC.shape, model.target_width, dtype=torch.float64)
    number_BCF = torch.zeros(*position_BC.shape, 2, dtype=torch.int64)
    return model.find(window, Query(target_BCE, number_BCF, torch.zeros_like(position_BC), position_BC))


def drawn() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    position_BC = torch.tensor([[0, 3, 9], [1, 7, 4], [0, 0, 0]])
    return torch.randn(3, 9, 8, dtype=torch.float64).requires_grad_(), position_BC


@pytest.mark.parametrize(("short", "recent"), [(1, 1), (3, 6), (1, 20), (20, 20)])
@pytest.mark.parametrize("numbers_at_once", [1, 2**22])
def test_interest_is_that_of_the_paper_in_value_and_gradient(
    short: int, recent: int, numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", numbers_at_once)
    model = make(short=short, recent=recent)
    event_BLE, position_BC = drawn()
    weight_BCE = torch.randn(3, 3, 8, dtype=torch.float64)
    naive_BCE = torch.stack(
        [
            torch.stack([naive_interest(model, list(event_BLE[user, :position])) for position in row])
            for user, row in enumerate(position_BC.tolist())
        ]
    )
    found_BCE = run(model, event_BLE, position_BC).interest_BCD
    torch.testing.assert_close(found_BCE, naive_BCE, rtol=0, atol=1e-12)
    leaves = [event_BLE, *(part for layer in (model.user, model.first, model.second) for part in layer.parameters())]
    gradients = [
        torch.autograd.grad((weight_BCE * value).sum(), leaves, materialize_grads=True, allow_unused=True)
        for value in (found_BCE, naive_BCE)
    ]
    for found_grad, naive_grad in zip(*gradients, strict=True):
        torch.testing.assert_close(found_grad, naive_grad, rtol=0, atol=1e-10)


def test_attention_spreads_the_weight_of_the_summary_over_the_long_part() -> None:
    event_BLE, position_BC = drawn()
    attention_BCL = run(make(), event_BLE, position_BC).attention_BCS
    assert attention_BCL[0, 2].gt(0).tolist() == [False] * 3 + [True] * 6
    torch.testing.assert_close(attention_BCL.sum(-1), position_BC.gt(0).double())


def test_without_a_long_part_the_missing_summary_takes_no_weight() -> None:
    event_BLE, position_BC = drawn()
    attention_BCL = run(make(), event_BLE, position_BC).attention_BCS
    assert attention_BCL[0, 1, :3].sum().item() == pytest.approx(1.0)


def test_events_before_the_recent_ones_change_nothing() -> None:
    event_BLE, position_BC = drawn()
    changed_BLE = event_BLE.detach().clone()
    changed_BLE[0, :3] = 7.0
    interests = [run(make(), events, position_BC).interest_BCD[0, 2] for events in (event_BLE, changed_BLE)]
    torch.testing.assert_close(*interests, rtol=0, atol=1e-12)


def test_the_oldest_of_the_recent_events_is_read() -> None:
    event_BLE, position_BC = drawn()
    changed_BLE = event_BLE.detach().clone()
    changed_BLE[0, 3] = 7.0
    interests = [run(make(), events, position_BC).interest_BCD[0, 2] for events in (event_BLE, changed_BLE)]
    assert not torch.allclose(*interests)
