"""Caser against a naive transcription: loops over users, targets, filters and windows, in float64."""

import pytest
import torch
from torch import Tensor

from lifelong.models.base import Query, Window
from lifelong.models.caser import Caser, CaserConfig, check_heights
from lifelong.testing.worlds import INPUTS


def make(*, recent: int = 5, heights: tuple[int, ...] = (1, 2, 4)) -> Caser:
    torch.manual_seed(0)
    return (
        Caser(INPUTS, CaserConfig(embedding=2, width=4, recent=recent, heights=heights, horizontal=3, vertical=2))
        .double()
        .eval()
    )


def naive_interest(model: Caser, events: list[Tensor]) -> Tensor:
    """Section 3.2 and 3.3 for one target; `events` are all before it."""
    size = model.recent
    rows = [torch.zeros(model.event_width, dtype=torch.float64)] * size + events
    image = torch.stack(rows[len(rows) - size :])
    features = []
    for height, filters in zip(model.heights, model.horizontal, strict=True):
        for filter_EH, bias in zip(filters.weight, filters.bias, strict=True):
            parts = [torch.relu((image[i : i + height] * filter_EH.T).sum() + bias) for i in range(size - height + 1)]
            features.append(torch.stack(parts).max())
    for weight_N in model.vertical.weight[:, 0]:
        features += [sum(weight_N[i] * image[i, e] for i in range(size)) for e in range(model.event_width)]
    return torch.relu(model.both.weight @ torch.stack(features) + model.both.bias)


def run(model: Caser, event_BLE: Tensor, position_BC: Tensor) -> Tensor:
    users, size, _ = event_BLE.shape
    window = Window(event_BLE, torch.ones(users, size, 4).long(), torch.zeros(users, size).long(), position_BC.amax(1))
    target_BCE = torch.zeros(*position_BC.shape, model.target_width, dtype=torch.float64)
    number_BCF = torch.zeros(*position_BC.shape, 2, dtype=torch.int64)
    return model.find(window, Query(target_BCE, number_BCF, torch.zeros_like(position_BC), position_BC)).interest_BCD


@pytest.mark.parametrize("recent", [1, 3, 5, 20])
def test_interest_is_that_of_the_paper_in_value_and_gradient(recent: int) -> None:
    model, position_BC = make(recent=recent), torch.tensor([[0, 3, 12], [1, 7, 5], [0, 0, 0]])
    torch.manual_seed(1)
    event_BLE = torch.randn(3, 12, model.event_width, dtype=torch.float64).requires_grad_()
    weight_BCD = torch.randn(3, 3, 4, dtype=torch.float64)
    naive_BCD = torch.stack(
        [
            torch.stack([naive_interest(model, list(event_BLE[user, :position])) for position in positions])
            for user, positions in enumerate(position_BC.tolist())
        ]
    )
    found_BCD = run(model, event_BLE, position_BC)
    torch.testing.assert_close(found_BCD, naive_BCD, rtol=0, atol=1e-12)
    leaves = [event_BLE, *model.horizontal.parameters(), *model.vertical.parameters(), *model.both.parameters()]
    gradients = [torch.autograd.grad((weight_BCD * value).sum(), leaves) for value in (found_BCD, naive_BCD)]
    for found, naive in zip(*gradients, strict=True):
        torch.testing.assert_close(found, naive, rtol=0, atol=1e-10)


def test_events_before_the_window_change_nothing() -> None:
    model, position_BC = make(), torch.tensor([[9, 12]])
    event_BLE = torch.randn(1, 12, model.event_width, dtype=torch.float64)
    changed_BLE = event_BLE.clone()
    changed_BLE[:, :4] = 7.0
    assert torch.equal(run(model, event_BLE, position_BC), run(model, changed_BLE, position_BC))


def test_the_oldest_event_of_the_window_is_read() -> None:
    model, position_BC = make(), torch.tensor([[9]])
    event_BLE = torch.randn(1, 12, model.event_width, dtype=torch.float64)
    changed_BLE = event_BLE.clone()
    changed_BLE[:, 4] = 7.0
    assert not torch.equal(run(model, event_BLE, position_BC), run(model, changed_BLE, position_BC))


def test_heights_above_the_window_are_left_out() -> None:
    assert make(recent=3).heights == (1, 2)


@pytest.mark.parametrize("heights", [(), (0, 1), (2, 2)])
def test_heights_that_are_not_different_positive_numbers_are_refused(heights: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="heights"):
        check_heights(heights)
