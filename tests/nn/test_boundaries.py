"""Gated steps and boundaries: the compiled forms against loops, values and gradients."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lifelong.offline.nn.recurrent import gated_gru_pass, gated_gru_step
from lifelong.zoo.layers.boundaries import LONGEST_WAIT, Boundary, straight_through


def loop(gru: nn.GRU, value_BLE: Tensor, write_BL: Tensor) -> Tensor:
    state, states = value_BLE.new_zeros(len(value_BLE), gru.hidden_size), []
    for t in range(value_BLE.shape[1]):
        state = gated_gru_step(gru, value_BLE[:, t], write_BL[:, t], state)
        states.append(state)
    return torch.stack(states, dim=1)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    padding=st.integers(1, 3),
    hard=st.booleans(),
    seed=st.integers(0, 99),
)
def test_compiled_pass_is_the_loop_in_value_and_gradient(
    lengths: list[int], padding: int, hard: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    gru, size, length_B = nn.GRU(3, 5, batch_first=True), max(lengths) + padding, torch.tensor(lengths)
    value, write = torch.randn(len(lengths), size, 3), torch.rand(len(lengths), size)
    write = write.round() if hard else write
    real_BL1 = (torch.arange(size) < length_B[:, None])[..., None]
    weight = torch.randn(len(lengths), size, 5) * real_BL1
    results = []
    for form in (lambda *leaves: gated_gru_pass(gru, *leaves, length_B), lambda *leaves: loop(gru, *leaves)):
        leaves = [value.clone().requires_grad_(), write.clone().requires_grad_()]
        state = form(*leaves)
        gradients = torch.autograd.grad((state * weight).sum(), [*leaves, *gru.parameters()])
        results.append([state.detach() * real_BL1, *gradients])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=2e-5)


def test_a_closed_gate_copies_to_the_last_bit() -> None:
    torch.manual_seed(0)
    gru, write = nn.GRU(3, 5, batch_first=True), torch.zeros(1, 2000)
    write[0, 0] = 1.0
    state = gated_gru_pass(gru, torch.randn(1, 2000, 3), write, torch.tensor([2000]))
    assert torch.equal(state[0, -1], state[0, 0])


def test_a_new_boundary_is_a_clock() -> None:
    write_BL, waited_BL = Boundary(4, 3).over(torch.randn(2, 8, 4), torch.tensor([8, 5]))
    assert write_BL.tolist() == [[0, 0, 1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]]
    assert waited_BL.tolist() == [[1, 2, 3, 1, 2, 3, 1, 2], [1, 2, 3, 1, 2, 0, 0, 0]]


def test_waiting_counts_no_further_than_its_limit() -> None:
    boundary = Boundary(1, 10**6)
    waited_BL = boundary.over(torch.zeros(1, LONGEST_WAIT + 5, 1), torch.tensor([LONGEST_WAIT + 5]))[1]
    assert waited_BL.max().item() == LONGEST_WAIT


def test_straight_through_is_hard_forward_and_the_sigmoid_backward() -> None:
    logit = torch.tensor([-1.0, 0.5], requires_grad=True)
    hard = straight_through(logit, logit.detach() > 0)
    hard.sum().backward()
    soft = torch.sigmoid(logit.detach())
    assert hard.tolist() == [0.0, 1.0]
    torch.testing.assert_close(logit.grad, soft * (1 - soft))
