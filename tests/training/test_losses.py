"""What training minimises."""

import math

import pytest
import torch

from lifelong.offline.models.base import Output
from lifelong.offline.training.gradients import loss_of, masked_cross_entropy
from lifelong.testing.worlds import random_batch


def test_mean_over_real_targets_and_tasks() -> None:
    logit = torch.tensor([[[0.0, 2.0], [9.0, 9.0]]])
    label = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    loss = masked_cross_entropy(logit, label, torch.tensor([[True, False]]))
    assert float(loss) == pytest.approx((math.log(2) + math.log1p(math.exp(2))) / 2)


def test_padding_changes_neither_value_nor_gradient() -> None:
    logit = torch.tensor([[[0.3], [math.nan]]], requires_grad=True)
    label = torch.tensor([[[1.0], [math.nan]]])
    loss = masked_cross_entropy(logit, label, torch.tensor([[True, False]]))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(-0.3)))
    assert logit.grad is not None
    assert logit.grad[0, 1, 0] == 0
    assert logit.grad[0, 0, 0] == pytest.approx(1 / (1 + math.exp(-0.3)) - 1)


def test_batch_without_real_targets_has_loss_zero() -> None:
    logit = torch.ones(1, 2, 1, requires_grad=True)
    loss = masked_cross_entropy(logit, torch.ones(1, 2, 1), torch.zeros(1, 2, dtype=torch.bool))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0.0


def test_weights_multiply_losses_and_not_their_number() -> None:
    logit, label = torch.zeros(1, 2, 1), torch.tensor([[[1.0], [0.0]]])
    mask, weight = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[3.0, 0.5]])
    assert float(masked_cross_entropy(logit, label, mask, weight)) == pytest.approx(1.75 * math.log(2))


def test_auxiliary_terms_are_added_and_kept_apart() -> None:
    batch = random_batch([3, 4], targets=2)
    output = Output(torch.zeros(2, 2, 1), {"one": torch.tensor(0.5), "two": torch.tensor(0.25)})
    loss = loss_of(output, batch)
    assert float(loss.cross_entropy) == pytest.approx(math.log(2))
    assert float(loss.total) == pytest.approx(math.log(2) + 0.75)


def test_half_precision_logits_give_a_float32_loss() -> None:
    loss = loss_of(Output(torch.zeros(2, 2, 1, dtype=torch.bfloat16)), random_batch([3, 4], targets=2))
    assert loss.total.dtype == torch.float32


def test_each_of_several_heads_learns_by_itself_and_the_loss_that_is_told_is_their_sums() -> None:
    batch = random_batch([3, 4], targets=2)
    heads = tuple(
        torch.randn(2, 2, 1, generator=torch.Generator().manual_seed(n), requires_grad=True) for n in range(2)
    )
    output = Output(0.7 * heads[0] + 0.3 * heads[1], members=heads)
    found = loss_of(output, batch, 0.5)
    alone = [0.5 * masked_cross_entropy(head, batch.label_BCT, batch.mask_BC) for head in heads]
    assert float(found.total.detach()) == pytest.approx(sum(float(loss.detach()) for loss in alone))
    mixed = masked_cross_entropy(output.logit_BCT, batch.label_BCT, batch.mask_BC)
    assert float(found.cross_entropy.detach()) == pytest.approx(0.5 * float(mixed.detach()))
    for head, loss in zip(heads, alone, strict=True):
        (wanted,) = torch.autograd.grad(loss, head)
        torch.testing.assert_close(torch.autograd.grad(found.total, head, retain_graph=True)[0], wanted)
