"""FPMC with the user's factors against a naive transcription: loops over users, targets and factors."""

import pytest
import torch
from finding import assert_logits_agree, rows_of
from torch import Tensor

from lifelong.offline.data.batch import Batch
from lifelong.offline.models import build
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.fpmc_users import FpmcUsers, FpmcUsersConfig

K, DECAY = 3, 0.7


def make(seed: int = 0) -> FpmcUsers:
    """A model with random users: new ones are zeros."""
    torch.manual_seed(seed)
    model = FpmcUsers(INPUTS, FpmcUsersConfig(factors=K, decay=DECAY, dropout=0.0)).double().eval()
    torch.nn.init.normal_(model.head.mean)
    torch.nn.init.normal_(model.users.weight)
    return model


def naive(model: FpmcUsers, batch: Batch, user: int, place: int) -> tuple[Tensor, Tensor]:
    """A target's logit, and the squares of what it uses; a row holds b, then q, v and v'."""
    target, around, events = rows_of(model, batch, user, place)
    own, basket = model.users.weight[batch.user_B[user]], [len(events) - 1]
    while basket[0] > 0 and int(batch.history_BLF[user, basket[0], -1]) == 2:
        basket.insert(0, basket[0] - 1)
    last = [row / len(basket) for at in basket if events for row in events[at]]
    bias = sum(row[0] for row in target)
    logit = model.head.mean[0] + own[0] + bias + sum(row[0] for row in around)
    squares = own[0] ** 2 + bias**2
    for k in range(1, K + 1):
        q, v = sum(row[k] for row in target), sum(row[K + k] for row in target)
        logit = logit + own[k] * q
        logit = logit + v * sum(row[2 * K + k] for row in last)
        squares = squares + own[k] ** 2 + q**2 + v**2
    return logit, squares


@pytest.mark.parametrize("seed", [0, 1])
def test_logits_loss_and_gradients_are_those_of_the_equations(seed: int) -> None:
    model, batch = make(seed), random_batch([7, 0, 1], targets=4, seed=seed)
    batch.history_BLF[0, 2:6, -1] = 2
    batch.mask_BC[1, 2] = False
    assert_logits_agree(model, batch, lambda *cell: naive(model, batch, *cell), decay=DECAY)


def test_the_form_is_what_fpmc_with_its_flag_builds() -> None:
    assert isinstance(build("fpmc", INPUTS, {"user_factors": True}), FpmcUsers)
    assert not isinstance(build("fpmc", INPUTS, {"user_factors": False}), FpmcUsers)


def test_a_user_without_factors_has_transitions_and_biases_alone() -> None:
    model, batch = make(), random_batch([5], targets=2)
    with torch.no_grad():
        model.users.weight.zero_()
    batch.position_BC[:] = 5
    before = model(batch).logit_BCT
    last = batch.history_BLF[0, 4].clone()
    batch.history_BLF[0, 4] = batch.history_BLF[0, 3]
    assert not torch.equal(last, batch.history_BLF[0, 4])
    assert not torch.equal(model(batch).logit_BCT, before)
