"""FPMC against a naive transcription of its score: loops over users, targets and factors."""

from dataclasses import replace

import pytest
import torch
from finding import assert_logits_agree, rows_of
from torch import Tensor

from lifelong.offline.data.batch import Batch
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.fpmc import Fpmc, FpmcConfig

K = 3


def make(seed: int = 0) -> Fpmc:
    torch.manual_seed(seed)
    model = Fpmc(INPUTS, FpmcConfig(factors=K, dropout=0.0)).double().eval()
    torch.nn.init.normal_(model.head.mean)
    return model


def naive_logit(model: Fpmc, batch: Batch, user: int, place: int) -> Tensor:
    """Scores mu + b_i + v_i . mean of v'_l, each a sum over fields; a row holds b, then v, then v'."""
    target, around, events = rows_of(model, batch, user, place)
    logit = model.head.mean[0] + sum(row[0] for row in target) + sum(row[0] for row in around)
    if not events:
        return logit
    basket = [len(events) - 1]
    while basket[0] > 0 and int(batch.history_BLF[user, basket[0], -1]) == 2:
        basket.insert(0, basket[0] - 1)
    last = [row for at in basket for row in events[at]]
    for k in range(K):
        logit = logit + sum(row[1 + k] for row in target) * sum(row[1 + K + k] for row in last) / len(basket)
    return logit


def with_baskets(batch: Batch) -> Batch:
    """The batch, in which most events have the time of the event before."""
    batch.history_BLF[..., -1].masked_fill_(torch.rand(batch.time_BL.shape) < 0.7, 2)
    real_BL = torch.arange(batch.time_BL.shape[1]) < batch.length_B.unsqueeze(-1)
    batch.history_BLF.mul_(real_BL.unsqueeze(-1))
    return batch


@pytest.mark.parametrize("seed", [0, 1])
def test_logits_and_gradients_are_those_of_the_equation(seed: int) -> None:
    model, batch = make(seed), with_baskets(random_batch([7, 0, 1, 4], targets=4, seed=seed))
    assert_logits_agree(model, batch, lambda *cell: (naive_logit(model, batch, *cell), torch.zeros(())))


def test_each_task_has_factors_of_its_own() -> None:
    inputs = replace(INPUTS, context={}, tasks=("click", "buy"))
    torch.manual_seed(0)
    model = Fpmc(inputs, FpmcConfig(factors=K, dropout=0.0)).double().eval()
    batch = random_batch([3], targets=1, inputs=inputs)
    batch.position_BC[:] = 3
    before = model(batch).logit_BCT[0, 0].tolist()
    with torch.no_grad():
        for table in model.embed.tables.values():
            # Two biases, three factors of the first task as a target, then those of the second.
            table.weight[:, 5:8] = 0.0
    after = model(batch).logit_BCT[0, 0].tolist()
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_baskets_are_folded_in_as_they_are_encoded() -> None:
    model, batch = make(), with_baskets(random_batch([9, 5], targets=1))
    event_BLE = model.embed(batch.history_BLF, model.history_fields)
    memory = model.initial_memory(2)
    for place in range(5):
        memory = model.write_vector(memory, event_BLE[:, place])
        whole = model.encode_vector(event_BLE, batch.length_B, torch.full((2, 1), place + 1))
        for folded, encoded in zip(memory, whole, strict=True):
            torch.testing.assert_close(folded, encoded.squeeze(1))
    assert memory.size_B1.max() > 1


def test_without_times_one_event_is_the_basket() -> None:
    model = Fpmc(replace(INPUTS, event={"event_type": 4}), FpmcConfig(factors=K)).eval()
    batch = random_batch([6], targets=1, inputs=model.inputs)
    event_BLE = model.embed(batch.history_BLF, model.history_fields)
    found = model.encode_vector(event_BLE, batch.length_B, batch.length_B.unsqueeze(1))
    torch.testing.assert_close(found.last_BD[0, 0], model._factors_of(event_BLE[0, 5]))
