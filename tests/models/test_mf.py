"""MF against naive transcriptions of equations 4 and 5: loops over users, targets and factors."""

import pytest
import torch
from finding import assert_logits_agree, rows_of
from torch import Tensor

from lifelong.offline.data.batch import Batch
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.mf import Mf, MfConfig

K, DECAY = 3, 0.7


def make(seed: int = 0) -> Mf:
    """A model with random users: new ones are zeros."""
    torch.manual_seed(seed)
    model = Mf(INPUTS, MfConfig(factors=K, decay=DECAY, dropout=0.0)).double().eval()
    torch.nn.init.normal_(model.head.mean)
    torch.nn.init.normal_(model.users.weight)
    return model


def naive(model: Mf, batch: Batch, user: int, place: int) -> tuple[Tensor, Tensor]:
    """A target's mu + b_u + b_i + q_i . p_u, and the squares of what it uses; a row holds b, then the factors."""
    target, around, _ = rows_of(model, batch, user, place)
    own = model.users.weight[batch.user_B[user]]
    bias = sum(row[0] for row in target)
    logit = model.head.mean[0] + own[0] + bias + sum(row[0] for row in around)
    squares = own[0] ** 2 + bias**2
    for k in range(1, K + 1):
        q = sum(row[k] for row in target)
        logit = logit + q * own[k]
        squares = squares + q**2 + own[k] ** 2
    return logit, squares


@pytest.mark.parametrize("seed", [0, 1])
def test_logits_loss_and_gradients_are_those_of_the_equations(seed: int) -> None:
    model, batch = make(seed), random_batch([7, 0, 1], targets=4, seed=seed)
    batch.mask_BC[1, 2] = False
    assert_logits_agree(model, batch, lambda *cell: naive(model, batch, *cell), decay=DECAY)


def test_a_user_who_was_not_in_training_is_as_an_unknown_one() -> None:
    torch.manual_seed(0)
    model, batch = Mf(INPUTS, MfConfig()).eval(), random_batch([3, 3], targets=2)
    batch.target_BCF[:], batch.context_BCF[:] = batch.target_BCF[:1], batch.context_BCF[:1]
    batch.user_B[:] = torch.tensor([1, 5])
    logit_BCT = model(batch).logit_BCT
    assert torch.equal(logit_BCT[0], logit_BCT[1])


def test_users_with_tastes_of_their_own_are_learnt() -> None:
    torch.manual_seed(0)
    model, batch = Mf(INPUTS, MfConfig()), random_batch([1] * 10, targets=200)
    batch.label_BCT[..., 0] = (batch.target_BCF[..., 1] == 2 + batch.user_B.unsqueeze(-1) % 4).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(100):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch).logit_BCT, batch.label_BCT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh = random_batch([1] * 10, targets=200, seed=1)
    label_BC = fresh.target_BCF[..., 1] == 2 + fresh.user_B.unsqueeze(-1) % 4
    logit_BC = model(fresh).logit_BCT[..., 0]
    assert logit_BC[label_BC].median() > logit_BC[~label_BC].quantile(0.9)
