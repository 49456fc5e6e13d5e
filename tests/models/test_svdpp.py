"""SVD++ against a naive transcription of equation 15: loops over users, targets, events and factors."""

import math

import pytest
import torch
from torch import Tensor

from lifelong.data.batch import Batch
from lifelong.models.svdpp import Svdpp, SvdppConfig, SvdppMemory
from lifelong.testing.worlds import INPUTS, random_batch

K = 3


def make(seed: int = 0) -> Svdpp:
    torch.manual_seed(seed)
    model = Svdpp(INPUTS, SvdppConfig(factors=K, dropout=0.0)).double().eval()
    torch.nn.init.normal_(model.head.mean)
    return model


def naive_logit(model: Svdpp, batch: Batch, user: int, place: int) -> Tensor:
    """Scores mu + b_i + q_i . |N|^(-1/2) sum y_j, each a sum over fields; a row holds b, then q, then y."""
    table = {field: part.weight for field, part in model.embed.tables.items()}
    target = [table[f][batch.target_BCF[user, place, k]] for k, f in enumerate(INPUTS.item)]
    around = [table[f][batch.context_BCF[user, place, k]] for k, f in enumerate(INPUTS.context)]
    count = int(batch.position_BC[user, place])
    events = [
        [table[f][batch.history_BLF[user, t, k]] for k, f in enumerate([*INPUTS.item, *INPUTS.event])]
        for t in range(count)
    ]
    logit = model.head.mean[0] + sum(row[0] for row in target) + sum(row[0] for row in around)
    for k in range(K):
        q = sum(row[1 + k] for row in target)
        y = sum(row[1 + K + k] for event in events for row in event)
        logit = logit + q * y / math.sqrt(max(count, 1))
    return logit


@pytest.mark.parametrize("seed", [0, 1])
def test_logits_and_gradients_are_those_of_the_equation(seed: int) -> None:
    model, batch = make(seed), random_batch([7, 0, 1, 4], targets=4, seed=seed)
    naive = torch.stack([torch.stack([naive_logit(model, batch, user, c) for c in range(4)]) for user in range(4)])
    logit_BC = model(batch).logit_BCT[..., 0]
    torch.testing.assert_close(logit_BC, naive, rtol=0, atol=1e-12)
    weight_BC = torch.rand(4, 4, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((weight_BC * value).sum(), list(model.parameters())) for value in (logit_BC, naive)
    ]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_four_times_the_same_event_count_twice() -> None:
    model = make()
    mean = torch.ones(1, 1, K, dtype=torch.float64)
    target_BCE = torch.zeros(1, 1, model.target_width)
    interest = [model.read_vector(SvdppMemory(torch.tensor([[n]]), mean), target_BCE)[0] for n in (1, 4)]
    assert torch.equal(interest[1], 2 * interest[0])


def test_before_the_first_event_biases_alone_score() -> None:
    model = make()
    batch = random_batch([0], targets=1)
    with torch.no_grad():
        for table in model.embed.tables.values():
            table.weight[:, 0] = 0.5
    biases = len(INPUTS.item) + len(INPUTS.context)
    assert model(batch).logit_BCT.item() == pytest.approx(model.head.mean.item() + 0.5 * biases)


def test_the_loss_has_the_squares_of_what_each_pair_uses() -> None:
    torch.manual_seed(0)
    model = Svdpp(INPUTS, SvdppConfig(factors=K, decay=0.5, dropout=0.0)).double()
    batch = random_batch([7, 0, 1, 4], targets=3)
    batch.mask_BC[1, 2] = False
    table = {field: part.weight for field, part in model.embed.tables.items()}
    squares = []
    for user, place in batch.mask_BC.nonzero().tolist():
        own = sum(table[f][batch.target_BCF[user, place, k]] for k, f in enumerate(INPUTS.item))
        square = own[: 1 + K].square().sum()
        count = int(batch.position_BC[user, place])
        for t in range(count):
            row = sum(table[f][batch.history_BLF[user, t, k]] for k, f in enumerate([*INPUTS.item, *INPUTS.event]))
            square = square + row[-K:].square().sum() / count
        squares.append(square)
    torch.testing.assert_close(model(batch).aux_losses["decay"], 0.5 * torch.stack(squares).mean())
    with torch.no_grad():
        assert not model(batch).aux_losses
