"""The fold that keeps states at positions alone, against a stack of all states."""

import pytest
import torch
from torch import Tensor

from lifelong.zoo.layers import fold
from lifelong.zoo.layers.fold import State, fold_at

WEIGHT = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def step(state: State, input_BX: Tensor) -> State:
    count_B, value_BX = state
    return count_B + 1, torch.tanh(value_BX @ WEIGHT + input_BX)


def start(users: int) -> State:
    return torch.zeros(users, dtype=torch.int64), torch.zeros(users, 4, dtype=torch.float64)


def values_and_gradient(input_BLX: Tensor, position_BC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    leaf = input_BLX.clone().requires_grad_()
    count_BC, value_BCX = fold_at(step, start(len(input_BLX)), leaf, position_BC)
    value_BCX.square().sum().backward()
    assert leaf.grad is not None
    return count_BC, value_BCX.detach(), leaf.grad


def test_computing_steps_again_changes_neither_values_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    input_BLX = torch.randn(2, 11, 4, dtype=torch.float64)
    position_BC = torch.tensor([[11, 4], [7, 0]])
    whole = values_and_gradient(input_BLX, position_BC)
    monkeypatch.setattr(fold, "NUMBERS_AT_ONCE", 3 * 2 * 5)
    for left, right in zip(values_and_gradient(input_BLX, position_BC), whole, strict=True):
        assert torch.equal(left, right)


def test_events_behind_the_last_target_are_not_folded() -> None:
    seen = []

    def counting(state: State, input_BX: Tensor) -> State:
        seen.append(len(input_BX))
        return step(state, input_BX)

    fold_at(counting, start(2), torch.zeros(2, 9, 4, dtype=torch.float64), torch.tensor([[4], [2]]))
    assert seen == [2] * 4
