import math

import pytest
import torch

from lifelong.zoo.layers.hashing import LARGEST_PLANE, hyperplanes, signature


def planes(bits: int, width: int, *, seed: int = 0) -> torch.Tensor:
    return hyperplanes(bits, width, generator=torch.Generator().manual_seed(seed))


def test_hyperplanes_are_whole_numbers_that_the_generator_decides() -> None:
    first, same, other = planes(9, 5), planes(9, 5), planes(9, 5, seed=1)
    assert first.shape == (9, 5)
    assert first.dtype == torch.int16
    assert first.abs().max() <= LARGEST_PLANE
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_side_is_the_sign_of_the_product_with_the_normal() -> None:
    plane_RE = torch.tensor([[1, 0], [0, 1], [1, -1]], dtype=torch.int16)
    assert signature(torch.tensor([2.0, 3.0]), plane_RE).tolist() == [True, True, False]
    assert signature(torch.tensor([-2.0, -3.0]), plane_RE).tolist() == [False, False, True]


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_product_of_zero_is_on_the_true_side(zero: float) -> None:
    assert signature(torch.full((2, 4), zero), planes(6, 4)).all()
    assert signature(torch.tensor([1.0, 1.0]), torch.tensor([[5, -5]], dtype=torch.int16)).tolist() == [True]


def test_a_signature_does_not_depend_on_the_order_of_the_sum_nor_on_the_precision() -> None:
    # In single precision 1e4 + 1e-4 - 1e4 is 0 or 1e-4, as the sum is taken.
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(2000, 64, generator=generator)
    vector[:, 1::2] = -vector[:, ::2] + 1e-5 * torch.randn(2000, 32, generator=generator)
    plane_RE = planes(24, 32).repeat_interleave(2, dim=1)
    order = torch.randperm(64, generator=generator)
    wanted = signature(vector, plane_RE)
    assert torch.equal(signature(vector[:, order], plane_RE[:, order]), wanted)
    assert torch.equal(signature(vector.double(), plane_RE), wanted)
    assert torch.equal(torch.stack([signature(row, plane_RE) for row in vector]), wanted)


def test_no_gradient_passes_through_a_signature() -> None:
    assert not signature(torch.ones(3, requires_grad=True), planes(4, 3)).requires_grad


def test_vectors_are_on_one_side_with_a_probability_that_falls_with_their_angle() -> None:
    plane_RE = planes(20_000, 2)
    for degrees in (0, 30, 90, 180):
        angle = math.radians(degrees)
        turned = torch.tensor([math.cos(angle), math.sin(angle)])
        same = signature(torch.tensor([1.0, 0.0]), plane_RE) == signature(turned, plane_RE)
        assert same.double().mean().item() == pytest.approx(1 - angle / math.pi, abs=0.015)
