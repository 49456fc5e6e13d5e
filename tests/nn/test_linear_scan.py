"""The scan against the recurrence, step by step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.offline.nn.linear_scan import linear_scan


def recurrence(factor_BLD: Tensor, input_BLD: Tensor) -> Tensor:
    state, states = torch.zeros_like(input_BLD[:, 0]), []
    for factor, new in zip(factor_BLD.unbind(1), input_BLD.unbind(1), strict=True):
        state = factor * state + new
        states.append(state)
    return torch.stack(states, dim=1)


@settings(max_examples=30, deadline=None)
@given(users=st.integers(1, 3), steps=st.integers(1, 40), seed=st.integers(0, 99))
def test_scan_is_the_recurrence_in_value_and_gradient(users: int, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factor, new, weight = torch.rand(3, users, steps, 4, generator=generator, dtype=torch.float64)
    results = []
    for form in (linear_scan, recurrence):
        leaves = [factor.clone().requires_grad_(), new.clone().requires_grad_()]
        state = form(*leaves)
        results.append([state.detach(), *torch.autograd.grad((state * weight).sum(), leaves)])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1.0])
def test_forgetting_at_once_and_never_are_finite_over_a_long_history(factor: float) -> None:
    factor_BLD = torch.full((1, 3000, 1), factor, requires_grad=True)
    input_BLD = torch.ones(1, 3000, 1, requires_grad=True)
    state = linear_scan(factor_BLD, input_BLD)
    state.sum().backward()
    assert state[0, -1, 0].item() == pytest.approx(3000.0 if factor == 1.0 else 1.0)
    assert bool(factor_BLD.grad.isfinite().all()) and bool(input_BLD.grad.isfinite().all())
