"""The chunked delta rule against its recurrence, written as in the paper: a loop over users, events and heads."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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


def naive_states(change: Change, user: int) -> list[Tensor]:
    """The state after 0, 1, 2, ... events: equation 10 with all its matrices."""
    state = torch.zeros(HEADS, VALUE, KEY, dtype=torch.float64)
    states = [state]
    for t in range(change.keep_BLH.shape[1]):
        heads = []
        for h in range(HEADS):
            k, v = change.key_BLHK[user, t, h], change.value_BLHD[user, t, h]
            a, b = torch.exp(change.keep_BLH[user, t, h]), change.strength_BLH[user, t, h]
            erase = torch.eye(KEY, dtype=torch.float64) - b * torch.outer(k, k)
            heads.append(a * state[h] @ erase + b * torch.outer(v, k))
        state = torch.stack(heads)
        states.append(state)
    return states


@settings(max_examples=30, deadline=None)
@given(events=st.integers(0, 20), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_chunks_of_any_size_give_the_recurrence_at_every_position_in_value_and_gradient(
    events: int, size: int, seed: int
) -> None:
    change, users = random_change(2, events, seed), 2
    generator = torch.Generator().manual_seed(seed)
    user_N = torch.arange(users).repeat_interleave(events + 1)
    position_N = torch.arange(events + 1).repeat(users)
    query = torch.randn(len(user_N), HEADS, KEY, generator=generator, dtype=torch.float64)
    weights = [
        torch.randn(len(user_N), HEADS, *shape, generator=generator).double() for shape in ((VALUE, KEY), (VALUE,))
    ]
    results = []
    for chunked in (True, False):
        leaves = [part.clone().requires_grad_() for part in (*change, query)]
        given_change = Change(*leaves[:4])
        if chunked:
            chunks = delta_chunks(given_change, size)
            state = states_after(chunks, user_N, position_N)
            read = reads_after(chunks, user_N, position_N, leaves[4])
        else:
            state = torch.cat([torch.stack(naive_states(given_change, user)) for user in range(users)])
            read = torch.stack(
                [torch.stack([s[h] @ q[h] for h in range(HEADS)]) for s, q in zip(state, leaves[4], strict=True)]
            )
        loss = (state * weights[0]).sum() + (read * weights[1]).sum()
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        results.append([state.detach(), read.detach(), *(g if g is not None else torch.zeros(1) for g in gradients)])
    for left, right in zip(*results, strict=True):
        if left.numel() and right.numel():
            torch.testing.assert_close(left, right.expand_as(left), rtol=0, atol=1e-10)


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
