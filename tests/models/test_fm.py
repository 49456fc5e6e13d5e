"""FM against a naive transcription of equation 1: a loop over all pairs of features."""

import itertools
from dataclasses import replace

import pytest
import torch
from finding import assert_logits_agree, rows_of
from torch import Tensor

from lifelong.offline.data.batch import Batch
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.fm import Fm, FmConfig

K = 3


def make(seed: int = 0) -> Fm:
    torch.manual_seed(seed)
    model = Fm(INPUTS, FmConfig(factors=K, dropout=0.0)).double().eval()
    torch.nn.init.normal_(model.head.constant)
    return model


def features(model: Fm, batch: Batch, user: int, place: int) -> list[tuple[float, Tensor, Tensor]]:
    """All (x, w, v): a row of a table holds w and v as target or context, then w and v in the bag."""
    target, around, events = rows_of(model, batch, user, place)
    return [
        *((1.0, row[0], row[1 : 1 + K]) for row in target + around),
        *((1.0 / len(events), row[1 + K], row[2 + K :]) for event in events for row in event),
    ]


def naive_logit(model: Fm, batch: Batch, user: int, place: int) -> Tensor:
    """Scores w_0 + sum w_i x_i + sum over the pairs of v_i . v_j x_i x_j."""
    found = features(model, batch, user, place)
    logit = model.head.constant[0] + sum(x * w for x, w, _ in found)
    for (x, _, v), (other_x, _, other_v) in itertools.combinations(found, 2):
        logit = logit + x * other_x * (v * other_v).sum()
    return logit


@pytest.mark.parametrize("seed", [0, 1])
def test_logits_and_gradients_are_those_of_all_pairs(seed: int) -> None:
    model, batch = make(seed), random_batch([7, 0, 1, 4], targets=3, seed=seed)
    assert_logits_agree(model, batch, lambda *cell: (naive_logit(model, batch, *cell), torch.zeros(())))


def test_a_field_has_other_weights_in_the_bag_than_as_a_target() -> None:
    model, batch = make(), random_batch([5], targets=1)
    batch.position_BC[:] = 0
    before = model(batch).logit_BCT
    with torch.no_grad():
        for table in model.embed.tables.values():
            table.weight[:, 1 + K :] += 1.0
    assert torch.equal(model(batch).logit_BCT, before), "weights of the bag reach a target without history"
    batch.position_BC[:] = 5
    assert not torch.equal(model(batch).logit_BCT, before)


def test_two_tasks_are_two_machines() -> None:
    inputs = replace(INPUTS, context={}, tasks=("click", "buy"))
    torch.manual_seed(0)
    model = Fm(inputs, FmConfig(factors=K, dropout=0.0)).double().eval()
    batch = random_batch([4], targets=2, inputs=inputs)
    gradient = torch.autograd.grad(model(batch).logit_BCT[..., 1].sum(), model.embed.tables["item"].weight)[0]
    used = gradient.ne(0).any(dim=0).tolist()
    role = [False, True, *[False] * K, *[True] * K]
    assert used == role * 2
