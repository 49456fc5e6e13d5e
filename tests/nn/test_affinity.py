"""Sums of factors: bit for bit what single additions give, and read as loops read them."""

import math

import pytest

pytest.importorskip("torch")
import torch

from lifelong.nn.affinity import Affinity

pytestmark = pytest.mark.torch


def test_a_pass_over_a_history_gives_what_single_steps_give_bit_for_bit() -> None:
    torch.manual_seed(0)
    affinity, factor_BLD = Affinity((5, 2)), torch.nn.functional.normalize(torch.randn(2, 3_000, 7), dim=-1)
    position_BC = torch.tensor([[3_000, 0, 17], [17, 2_999, 2_999]])
    found, sums = affinity(factor_BLD, position_BC), affinity.initial(2)
    after = [sums]
    for place in range(3_000):
        after.append(affinity.step(after[-1], factor_BLD[:, place]))
    for user in range(2):
        for target in range(3):
            assert torch.equal(found[user, target], after[int(position_BC[user, target])][user])


def test_of_sums_of_one_direction_cosines_are_one_and_amounts_are_the_events() -> None:
    affinity = Affinity((2,), half_life=10.0)
    factor_BLD = torch.tensor([0.6, 0.8]).expand(1, 50, 2)
    sums_BCKD = affinity(factor_BLD, torch.tensor([[50, 0]]))
    read_BCX = affinity.read(sums_BCKD, torch.tensor([[[0.6, 0.8]] * 2]))
    decayed = sum(2 ** (-age / 10) for age in range(50))
    amounts = [math.log(1 + 50) / 2, math.log(1 + decayed) / 2]
    assert read_BCX[0, 0].tolist() == pytest.approx([1.0, 1.0, *amounts], rel=1e-5)
    assert read_BCX[0, 1].tolist() == [0.0] * 4, "a user without events fits nothing"
    opposite = affinity.read(sums_BCKD, torch.tensor([[[-0.6, -0.8]] * 2]))
    assert opposite[0, 0].tolist() == pytest.approx([-1.0, -1.0, *(-amount for amount in amounts)], rel=1e-5)


def test_what_is_read_has_no_direction_of_its_own() -> None:
    """Factors of another training have other axes: only products of factors may reach a head."""
    torch.manual_seed(1)
    affinity, turn = Affinity((4,)), torch.linalg.qr(torch.randn(4, 4))[0]
    events, target, position = torch.randn(1, 9, 4), torch.randn(1, 1, 4), torch.tensor([[9]])
    plain = affinity.read(affinity(events, position), target)
    turned = affinity.read(affinity(events @ turn, position), target @ turn)
    torch.testing.assert_close(plain, turned, rtol=1e-5, atol=1e-6)
