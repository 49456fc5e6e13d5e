from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lifelong.offline.nn import scan
from lifelong.offline.nn.masks import clear_padding, length_mask
from lifelong.offline.nn.recurrent import gru_pass, gru_step
from lifelong.offline.nn.scan import gru_scan


def _layer(inputs: int, width: int) -> nn.GRU:
    torch.manual_seed(0)
    return nn.GRU(inputs, width, batch_first=True)


def _folded(gru: nn.GRU, input_BLE: Tensor, length_B: Tensor) -> Tensor:
    """The specification: one step after another, zeros in padding."""
    hidden_BD = input_BLE.new_zeros(len(input_BLE), gru.hidden_size)
    states = []
    for event_BE in input_BLE.unbind(1):
        hidden_BD = gru_step(gru, event_BE, hidden_BD)
        states.append(hidden_BD)
    return clear_padding(torch.stack(states, dim=1), length_B)


def _gradients(gru: nn.GRU, input_BLE: Tensor, hidden_BLD: Tensor, weight_BLD: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad((hidden_BLD * weight_BLD).sum(), [input_BLE, *gru.parameters()]))


TOLERANCE = {torch.float32: (5e-6, 1e-4), torch.float64: (1e-12, 1e-11)}
"""Of values and of gradients, absolute; single precision has a rational tanh, and sums in another order."""


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=11),
    inputs=st.one_of(st.integers(1, 9), st.integers(30, 70)),
    width=st.one_of(st.integers(1, 16), st.sampled_from([24])),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 100),
)
def test_scan_equals_folded_steps_in_value_and_gradient(
    lengths: list[int], inputs: int, width: int, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    gru, length_B, steps = _layer(inputs, width).to(dtype), torch.tensor(lengths), max(1, *lengths)
    input_BLE, weight_BLD = (
        clear_padding(torch.randn(len(lengths), steps, size, generator=generator, dtype=dtype), length_B)
        for size in (inputs, width)
    )
    input_BLE.requires_grad_()
    scanned, folded = gru_scan(gru, input_BLE, length_B), _folded(gru, input_BLE, length_B)
    of_value, of_gradient = TOLERANCE[dtype]
    torch.testing.assert_close(scanned, folded, rtol=0, atol=of_value)
    found = _gradients(gru, input_BLE, scanned, weight_BLD)
    for mine, expected in zip(found, _gradients(gru, input_BLE, folded, weight_BLD), strict=True):
        torch.testing.assert_close(mine, expected, rtol=of_gradient, atol=of_gradient)


def test_gradient_is_that_of_finite_differences() -> None:
    gru, length_B = _layer(3, 4).double(), torch.tensor([2, 5, 0])
    input_BLE = torch.randn(3, 5, 3, dtype=torch.float64, requires_grad=True)
    weights = [weight.detach().requires_grad_() for weight in gru.all_weights[0]]
    write_BL = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda value, *others: scan._Scan.apply(value, length_B, *others), (input_BLE, write_BL, *weights)
    )


def test_strided_input_and_input_without_gradient() -> None:
    gru, length_B = _layer(3, 4), torch.tensor([4, 3])
    thinned = torch.randn(2, 9, 3)[:, 1::2]
    torch.testing.assert_close(gru_scan(gru, thinned, length_B), _folded(gru, thinned, length_B), rtol=0, atol=5e-6)
    gru_scan(gru, thinned, length_B).sum().backward()
    assert gru.weight_hh_l0.grad is not None


def test_many_users_of_many_lengths_are_done_four_abreast_with_the_same_result() -> None:
    gru, length_B = _layer(3, 4), torch.tensor([700, 800, 1, 640, 0, 800, 799, 500])
    input_BLE = clear_padding(torch.randn(len(length_B), 800, 3), length_B).requires_grad_()
    weight_BLD = clear_padding(torch.randn(len(length_B), 800, 4), length_B)
    scanned = gru_scan(gru, input_BLE, length_B)
    whole = clear_padding(gru(input_BLE)[0], length_B)
    torch.testing.assert_close(scanned, whole, rtol=0, atol=5e-6)
    found = _gradients(gru, input_BLE, scanned, weight_BLD)
    for mine, expected in zip(found, _gradients(gru, input_BLE, whole, weight_BLD), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=2e-3)


def test_gradients_in_padding_teach_nothing() -> None:
    gru, length_B = _layer(3, 4), torch.tensor([2, 5])
    input_BLE = clear_padding(torch.randn(2, 5, 3), length_B).requires_grad_()
    hidden_BLD = gru_scan(gru, input_BLE, length_B)
    everywhere = _gradients(gru, input_BLE, hidden_BLD, torch.ones(2, 5, 4))
    hidden_BLD = gru_scan(gru, input_BLE, length_B)
    real = length_mask(length_B, 5).unsqueeze(-1).float().expand(-1, -1, 4)
    for mine, expected in zip(everywhere, _gradients(gru, input_BLE, hidden_BLD, real), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=0)


def test_extreme_inputs_saturate_and_nan_stays_nan() -> None:
    gru = _layer(1, 2)
    input_BLE = torch.tensor([[[1e30]], [[-1e30]], [[float("nan")]]])
    hidden_BLD = gru_scan(gru, input_BLE, torch.tensor([1, 1, 1]))
    torch.testing.assert_close(hidden_BLD[:2], gru(input_BLE)[0][:2], rtol=0, atol=1e-6)
    assert bool(hidden_BLD[2].isnan().all())


def test_a_user_whose_states_are_nan_leaves_the_gradients_of_other_users_alone() -> None:
    gru, length_B = _layer(3, 4), torch.tensor([9, 2, 30, 5, 1, 12])
    input_BLE = clear_padding(torch.randn(6, 30, 3), length_B)
    broken_BLE = input_BLE.clone()
    broken_BLE[2, 20:] = float("nan")
    expected, found = (
        torch.autograd.grad(gru_scan(gru, value.requires_grad_(), length_B).sum(), [value])[0]
        for value in (input_BLE, broken_BLE)
    )
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(found[others], expected[others], rtol=0, atol=0)
    assert bool(found[2].isnan().any())


def test_a_second_pass_backward_gives_the_same() -> None:
    gru, length_B = _layer(3, 4), torch.tensor([5])
    input_BLE = torch.randn(1, 5, 3, requires_grad=True)
    loss = gru_scan(gru, input_BLE, length_B).square().sum()
    first, second = (torch.autograd.grad(loss, [input_BLE, *gru.parameters()], retain_graph=True) for _ in range(2))
    for mine, again in zip(first, second, strict=True):
        assert torch.equal(mine, again)


def test_passes_in_single_precision_are_scanned_and_others_are_torchs() -> None:
    gru, input_BLE, length_B = _layer(3, 4), torch.randn(2, 5, 3), torch.tensor([2, 5])
    assert "Scan" in type(gru_pass(gru, input_BLE, length_B).grad_fn).__name__
    gru_double, input_double = gru.double(), input_BLE.double()
    torch.testing.assert_close(
        gru_pass(gru_double, input_double, length_B), gru_double(input_double)[0], rtol=0, atol=1e-12
    )
