"""Windows of recent events, their means, and computing in chunks."""

import pytest
import torch
from torch import Tensor

from lifelong.offline.nn import chunks
from lifelong.offline.nn.chunks import in_chunks
from lifelong.offline.nn.windows import recent_events, recent_mean, recent_places


def test_windows_end_right_before_each_position_and_start_with_zeros() -> None:
    vector_BLE = torch.tensor([[[1.0], [2.0], [3.0], [4.0]], [[5.0], [6.0], [7.0], [8.0]]])
    found_BCNE, mask_BCN = recent_events(vector_BLE, torch.tensor([[0, 2], [4, 3]]), 3)
    assert found_BCNE.squeeze(-1).tolist() == [[[0, 0, 0], [0, 1, 2]], [[6, 7, 8], [5, 6, 7]]]
    assert mask_BCN.tolist() == [[[False] * 3, [False, True, True]], [[True] * 3, [True] * 3]]


def test_places_of_a_window_are_those_of_its_events_and_0_where_there_is_none() -> None:
    assert recent_places(torch.tensor([[0, 2, 5]]), 3).tolist() == [[[0, 0, 0], [0, 0, 1], [2, 3, 4]]]


def test_events_from_the_position_on_may_be_nan_and_get_no_gradient() -> None:
    vector_BLE = torch.ones(2, 4, 1)
    vector_BLE[0, 2:] = float("nan")
    vector_BLE[1] = float("nan")
    vector_BLE.requires_grad_()
    found_BCNE, _ = recent_events(vector_BLE, torch.tensor([[1, 2], [0, 0]]), 3)
    found_BCNE.square().sum().backward()
    assert vector_BLE.grad is not None
    assert vector_BLE.grad.squeeze(-1).tolist() == [[4.0, 2.0, 0.0, 0.0], [0.0] * 4]


def test_windows_of_histories_without_any_event_are_empty() -> None:
    found_BCNE, mask_BCN = recent_events(torch.zeros(2, 0, 5), torch.zeros(2, 3, dtype=torch.int64), 4)
    assert found_BCNE.shape == (2, 3, 4, 5) and not found_BCNE.any() and not mask_BCN.any()


def test_recent_mean_is_the_mean_of_the_window() -> None:
    vector_BLE = torch.tensor([[[1.0], [2.0], [6.0], [4.0]]])
    mean_BCE = recent_mean(vector_BLE, torch.tensor([[0, 1, 2, 4]]), 3)
    assert mean_BCE.flatten().tolist() == [0.0, 1.0, 1.5, 4.0]
    assert recent_mean(torch.zeros(1, 0, 2), torch.tensor([[0]]), 3).tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("numbers_at_once", [1, 4, 100])
def test_chunks_give_the_values_and_gradients_of_the_whole(
    numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", numbers_at_once)
    torch.manual_seed(0)
    weight = torch.randn(3, 3, dtype=torch.float64).requires_grad_()
    left, right = (torch.randn(2, 7, 3, dtype=torch.float64).requires_grad_() for _ in range(2))

    def function(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(left @ weight) * right, left.sum(dim=-1)

    whole, parts = function(left, right), in_chunks(function, left, right, axis=1, numbers=2)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
    gradients = [torch.autograd.grad(value[0].square().sum(), (weight, left, right)) for value in (whole, parts)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


def test_chunks_also_work_where_no_gradient_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", 2)
    with torch.no_grad():
        (result,) = in_chunks(lambda value: (value * 2,), torch.arange(5), axis=0, numbers=1)
    assert result.tolist() == [0, 2, 4, 6, 8]
