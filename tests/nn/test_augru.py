"""The compiled AUGRU against the loop that specifies it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.nn import augru_scan as scan_module
from lifelong.nn.augru import Augru
from lifelong.nn.augru_scan import augru_scan


def _inputs(ends: list[list[int]], size: int, width: int, seed: int) -> tuple[Augru, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    end_BC = torch.tensor(ends)
    gate_BLG = torch.randn(len(ends), size, 3 * width).requires_grad_()
    visible_BCL = torch.arange(size) < end_BC.unsqueeze(-1)
    return Augru(3, width), gate_BLG, (torch.rand(*end_BC.shape, size) * visible_BCL).requires_grad_(), end_BC


def _assert_scan_is_loop(augru: Augru, gate_BLG: Tensor, weight_BCL: Tensor, end_BC: Tensor) -> None:
    """Value and gradients, those of weights behind a target's events aside; the loop in double precision."""
    leaves = [gate_BLG, weight_BCL, augru.recurrent.weight]
    scanned = augru_scan(gate_BLG, weight_BCL, end_BC, augru.recurrent.weight)
    factor_BCD = torch.randn_like(scanned)
    found = torch.autograd.grad((scanned * factor_BCD).sum(), leaves)
    augru.double()
    gate_BLG, weight_BCL = (value.detach().double().requires_grad_() for value in (gate_BLG, weight_BCL))
    looped = augru.loop(gate_BLG, weight_BCL)
    expected = torch.autograd.grad((looped * factor_BCD.double()).sum(), [gate_BLG, weight_BCL, augru.recurrent.weight])
    torch.testing.assert_close(scanned.double(), looped, rtol=0, atol=5e-6)
    visible_BCL = torch.arange(weight_BCL.shape[2]) < end_BC.unsqueeze(-1)
    for mine, other in zip(found, (expected[0], expected[1] * visible_BCL, expected[2]), strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    ends=st.integers(1, 4).flatmap(
        lambda targets: st.lists(
            st.lists(st.integers(0, 20), min_size=targets, max_size=targets), min_size=1, max_size=4
        )
    ),
    width=st.integers(1, 13),
    seed=st.integers(0, 100),
)
def test_scan_equals_the_loop_in_value_and_gradient(ends: list[list[int]], width: int, seed: int) -> None:
    _assert_scan_is_loop(*_inputs(ends, max(1, *map(max, ends)), width, seed))


def test_many_targets_are_taken_back_a_few_at_a_time_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_EVENTS_AT_ONCE", 25)
    _assert_scan_is_loop(*_inputs([[3, 0, 9, 7, 1], [9, 9, 2, 0, 0]], 9, 4, 0))


def test_weights_behind_a_targets_events_take_no_part() -> None:
    augru, gate_BLG, weight_BCL, end_BC = _inputs([[2, 5]], 5, 4, 0)
    changed = weight_BCL.detach().clone()
    changed[0, 0, 2:] = float("nan")
    states = [augru_scan(gate_BLG, weight, end_BC, augru.recurrent.weight) for weight in (weight_BCL, changed)]
    assert torch.equal(*states)


def test_single_precision_is_scanned_and_double_is_not() -> None:
    augru, gate_BLG, weight_BCL, end_BC = _inputs([[2, 5]], 5, 4, 0)
    assert "Scan" in type(augru(gate_BLG, weight_BCL, end_BC).grad_fn).__name__
    looped = augru.double()(gate_BLG.double(), weight_BCL.double(), end_BC)
    assert torch.equal(looped, augru.loop(gate_BLG.double(), weight_BCL.double()))
