"""The chunked delta rule over long histories."""

import math

import pytest
import torch
from torch import Tensor

from lifelong.zoo.layers.delta_rule import Change, delta_chunks, reads_after, states_after

HEADS, KEY, VALUE = 2, 3, 4


def random_change(users: int, events: int, seed: int) -> Change:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(users, events, *shape, generator=generator, dtype=torch.float64)

    key = draw(HEADS, KEY)
    key = key / key.norm(dim=-1, keepdim=True)
    # Decays from none at all to nearly everything.
    return Change(key, draw(HEADS, VALUE), -torch.exp(3 * draw(HEADS) - 3), torch.sigmoid(2 * draw(HEADS)))


@pytest.mark.parametrize("log_keep", [0.0, -1e-9, -50.0, -1e4])
def test_values_and_gradients_of_a_long_history_are_finite_whatever_is_kept(log_keep: float) -> None:
    # The same key again and again is the worst case of the triangular system.
    events = 3000
    leaves = [
        torch.ones(1, events, 1, KEY).div(math.sqrt(KEY)).requires_grad_(),
        torch.ones(1, events, 1, VALUE, requires_grad=True),
        torch.full((1, events, 1), log_keep, requires_grad=True),
        torch.full((1, events, 1), 0.999, requires_grad=True),
    ]
    chunks = delta_chunks(Change(*leaves), 64)
    state = states_after(chunks, torch.tensor([0, 0]), torch.tensor([1500, events]))
    state.sum().backward()
    # A key that stands for its value alone: the value is there once, not three thousand times.
    torch.testing.assert_close(state.detach() @ leaves[0].detach()[0, 0, 0], torch.ones(2, 1, VALUE), rtol=0, atol=2e-3)
    assert all(bool(leaf.grad.isfinite().all()) for leaf in leaves)


def test_an_event_that_is_kept_reaches_the_loss_over_two_thousand_others() -> None:
    """Events with other keys and no decay leave its gradient as it is: 1 for each number that is read."""
    events = 2001
    key = torch.zeros(1, events, 1, 2, dtype=torch.float64)
    key[:, 0, :, 0], key[:, 1:, :, 1] = 1.0, 1.0
    value = torch.randn(1, events, 1, VALUE, dtype=torch.float64).requires_grad_()
    still = torch.zeros(1, events, 1, dtype=torch.float64)
    chunks = delta_chunks(Change(key, value, still, still + 1.0), 64)
    query = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    reads_after(chunks, torch.tensor([0]), torch.tensor([events]), query).sum().backward()
    torch.testing.assert_close(value.grad[0, 0, 0], torch.ones(VALUE, dtype=torch.float64))
    assert not bool(value.grad[0, 1:].any())


def test_under_mixed_precision_the_pass_is_in_single_precision() -> None:
    change = Change(*(part.float() for part in random_change(2, 20, 0)))
    place = torch.arange(2), torch.full((2,), 20)
    wanted = states_after(delta_chunks(change, 8), *place)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chunks = delta_chunks(Change(*(part.bfloat16() for part in change)), 8)
    assert chunks.state_RHDK.dtype == torch.float32
    torch.testing.assert_close(states_after(chunks, *place), wanted, rtol=0, atol=0.05)
