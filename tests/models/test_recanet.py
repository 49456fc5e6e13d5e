"""ReCANet against a naive transcription: loops over users, targets, baskets and gates, in float64."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import log2

import numpy as np
import pytest
import torch
from finding import assert_logits_agree
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.dataset.vocabulary import UNKNOWN
from lifelong.offline.data.batch import Batch
from lifelong.offline.evaluation.metrics import auc
from lifelong.offline.nn import chunks
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.recanet import Recanet, RecanetConfig


def make(window: int = 3) -> Recanet:
    """A model with random users, and items of random popularity."""
    torch.manual_seed(0)
    model = Recanet(INPUTS, RecanetConfig(embedding=2, width=3, window=window, dropout=0.0)).double().eval()
    torch.nn.init.normal_(model.users.weight)
    model.learn_popularity({"item": np.arange(30.0)})
    return model


def of_baskets(lengths: list[int], *, targets: int = 8, items: int = 6) -> Batch:
    """A batch of few items, with about two events of one time after another."""
    batch = random_batch(lengths, targets=targets, inputs=replace(INPUTS, item={"item": items, "category": 6}))
    generator = torch.Generator().manual_seed(3)
    time_BL = torch.randint(0, 2, batch.time_BL.shape, generator=generator).cumsum(dim=1)
    return replace(batch, time_BL=time_BL)


def naive_gaps(batch: Batch, user: int, target: int, window: int) -> list[int]:
    """Gaps between the baskets that hold the target's item; the last one to the basket after all."""
    item, baskets = int(batch.target_BCF[user, target, 0]), dict[int, set[int]]()
    for place in range(int(batch.position_BC[user, target])):
        baskets.setdefault(int(batch.time_BL[user, place]), set()).add(int(batch.history_BLF[user, place, 0]))
    held = [at for at, basket in enumerate(baskets.values()) if item in basket and item > UNKNOWN]
    gaps = [after - before for before, after in pairwise([*held, len(baskets)])]
    return [0] * (window - len(gaps)) + gaps[-window:]


def lstm(model: Recanet, steps: list[Tensor]) -> Tensor:
    """The last state of two LSTMs, gate by gate."""
    for layer in range(2):
        weight_x, weight_h, bias_x, bias_h = model.lstm.all_weights[layer]
        hidden = cell = torch.zeros(3, dtype=torch.float64)
        states = []
        for step in steps:
            enter, keep, new, leave = (weight_x @ step + bias_x + weight_h @ hidden + bias_h).chunk(4)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
            states.append(hidden)
        steps = states
    return steps[-1]


def naive(model: Recanet, batch: Batch, user: int, target: int) -> Tensor:
    table = {field: part.weight for field, part in model.embed.tables.items()}
    item = torch.cat([table[f][batch.target_BCF[user, target, k]] for k, f in enumerate(INPUTS.item)])
    around = torch.cat([table[f][batch.context_BCF[user, target, k]] for k, f in enumerate(INPUTS.context)])
    gaps = naive_gaps(batch, user, target, model.config.window)
    if not any(gaps):
        popular = model.popular.get_buffer("popular_0")[batch.target_BCF[user, target, 0]]
        return model.never.weight @ torch.cat([item, popular, around]) + model.never.bias
    pair = torch.relu(model.pair.weight @ torch.cat([model.users.weight[batch.user_B[user]], item]) + model.pair.bias)
    given = [torch.cat([pair, torch.tensor([log2(1 + gap)], dtype=torch.float64)]) for gap in gaps]
    state = lstm(model, [torch.relu(model.step.weight @ step + model.step.bias) for step in given])
    return model.head(state, item, around)


@pytest.mark.parametrize("numbers_at_once", [40, 2**22])
def test_logits_and_gradients_are_those_of_the_equations(numbers_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", numbers_at_once)
    model, batch = make(), of_baskets([17, 0, 9])
    cells = [(user, target) for user in range(3) for target in range(8)]
    had = [any(naive_gaps(batch, *cell, 3)) for cell in cells]
    assert 3 < sum(had) < 14, "both kinds of targets"
    assert_logits_agree(model, batch, lambda *cell: (naive(model, batch, *cell)[0], torch.zeros(())))


def test_it_learns_which_items_are_due() -> None:
    """One item comes back after 2 baskets, another one after 6: neither the item nor the gap alone says anything."""
    torch.manual_seed(0)
    model = Recanet(INPUTS, RecanetConfig(embedding=4, width=16, window=2, dropout=0.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(STEPS):
        batch = due_batch(seed=step)
        loss = binary_cross_entropy_with_logits(model(batch).logit_BCT, batch.label_BCT)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    fresh = due_batch(seed=10_000)
    with torch.no_grad():
        found = auc(fresh.label_BCT.flatten().numpy(), model.eval()(fresh).logit_BCT.flatten().numpy())
    assert found > 0.95, f"AUC {found:.3f}"


STEPS = 200


def due_batch(*, seed: int, users: int = 128) -> Batch:
    """Users with one event per basket, who had the target's item once; half of the targets are due."""
    batch, generator = random_batch([8] * users, targets=1, seed=seed), torch.Generator().manual_seed(seed)
    slow_B, due_B = (torch.rand(users, generator=generator) < 0.5 for _ in range(2))
    number_B, gap_B = torch.where(slow_B, 3, 2), torch.where(slow_B == due_B, 6, 2)
    batch.history_BLF[..., 0] = 29
    batch.history_BLF[torch.arange(users), 8 - gap_B, 0] = number_B
    batch.position_BC[:] = 8
    batch.target_BCF[:, 0, 0] = number_B
    return replace(batch, label_BCT=due_B.float().view(users, 1, 1))
