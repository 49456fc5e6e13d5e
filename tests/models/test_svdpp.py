"""SVD++ against a naive transcription of equation 15: loops over users, targets, events and factors."""

import math

import pytest
import torch
from finding import assert_logits_agree, rows_of
from torch import Tensor

from lifelong.offline.data.batch import Batch
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.svdpp import Svdpp, SvdppConfig

K = 3


def make(seed: int = 0) -> Svdpp:
    torch.manual_seed(seed)
    model = Svdpp(INPUTS, SvdppConfig(factors=K, decay=0.5, dropout=0.0)).double().eval()
    torch.nn.init.normal_(model.head.mean)
    return model


def naive(model: Svdpp, batch: Batch, user: int, place: int) -> tuple[Tensor, Tensor]:
    """A target's mu + b_i + q_i . |N|^(-1/2) sum y_j, and squares; a row of a field holds b, then q, then y."""
    target, around, events = rows_of(model, batch, user, place)
    logit = model.head.mean[0] + sum(row[0] for row in target) + sum(row[0] for row in around)
    for k in range(K):
        q = sum(row[1 + k] for row in target)
        y = sum(row[1 + K + k] for event in events for row in event)
        logit = logit + q * y / math.sqrt(max(len(events), 1))
    squares = sum(target)[: 1 + K].square().sum()
    for event in events:
        squares = squares + sum(event)[-K:].square().sum() / len(events)
    return logit, squares


@pytest.mark.parametrize("seed", [0, 1])
def test_logits_and_gradients_are_those_of_the_equation(seed: int) -> None:
    model, batch = make(seed), random_batch([7, 0, 1, 4], targets=4, seed=seed)
    batch.mask_BC[1, 2] = False
    assert_logits_agree(model, batch, lambda *cell: naive(model, batch, *cell), decay=0.5)
