"""What holds for every model that reads the last events, in addition to the contract."""

from dataclasses import replace

import pytest
import torch
from finding import inputs_of

from lifelong.offline.models import all_names, build, model_class
from lifelong.offline.models.base import HistoryModel
from lifelong.offline.nn import chunks
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.layers import pairs

NAMES = [name for name in all_names() if issubclass(model_class(name, {}), HistoryModel)]


def make(name: str, recent: int) -> HistoryModel:
    torch.manual_seed(0)
    model = build(name, INPUTS, {"recent": recent})
    assert isinstance(model, HistoryModel)
    return model.double().eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("recent", [4, 50])
def test_a_few_targets_at_a_time_give_the_same(name: str, recent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, results = make(name, recent), []
    window, query = inputs_of(model, (9, 0, 4), targets=5)
    for at_once in (2**22, 1):
        monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", at_once)
        monkeypatch.setitem(pairs.NUMBERS_AT_ONCE, "cpu", at_once)
        interest = model.find(window, query).interest_BCD
        leaves = [window.vector_BLE, query.vector_BCE, *model.parameters()]
        weight = torch.rand(interest.shape, generator=torch.Generator().manual_seed(0), dtype=interest.dtype)
        gradients = torch.autograd.grad((weight * interest).sum(), leaves, materialize_grads=True, allow_unused=True)
        results.append([interest, *gradients])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_events_before_the_recent_ones_change_nothing(name: str) -> None:
    model, batch, other = make(name, 4), random_batch([9], targets=2), random_batch([9], targets=2, seed=9)
    history_BLF = torch.cat([other.history_BLF[:, :5], batch.history_BLF[:, 5:]], dim=1)
    logits = [model(one).logit_BCT[:, -1] for one in (batch, replace(batch, history_BLF=history_BLF))]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-11)
