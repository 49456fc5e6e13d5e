"""SHAN against a naive transcription: loops over users, targets and events, in float64."""

import pytest
import torch
from finding import assert_naive_agrees, inputs_of, last_events
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.shan import Shan, ShanConfig


def make(*, short: int = 3, recent: int = 6) -> Shan:
    torch.manual_seed(0)
    return Shan(INPUTS, ShanConfig(embedding=2, width=4, short=short, recent=recent)).double().eval()


def attend(user: Tensor, layer: torch.nn.Linear, entries: list[Tensor]) -> Tensor:
    """Softmax of u . ReLU(W x + b) over the entries, and their weighted sum; zeros without entries."""
    weights = [torch.exp(user @ torch.relu(layer.weight @ entry + layer.bias)) for entry in entries]
    return sum((w / sum(weights) * entry for w, entry in zip(weights, entries, strict=True)), torch.zeros(8).double())


def naive(model: Shan, window: Window, query: Query, user: int, target: int) -> Tensor:
    """Both levels of attention for one target."""
    recent = [window.vector_BLE[user, place] for place in last_events(model, query, user, target)]
    long, short = recent[: max(0, len(recent) - model.config.short)], recent[max(0, len(recent) - model.config.short) :]
    mean = sum(recent) / len(recent) if recent else torch.zeros(8, dtype=torch.float64)
    own = model.user.weight @ mean + model.user.bias
    summary = [attend(own, model.first, long)] if long else []
    return attend(own, model.second, summary + short)


@pytest.mark.parametrize(("short", "recent"), [(1, 1), (3, 6), (1, 20), (20, 20)])
def test_interest_is_that_of_the_paper_in_value_and_gradient(short: int, recent: int) -> None:
    model = make(short=short, recent=recent)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model))


def test_attention_spreads_the_weight_of_the_summary_over_the_long_part() -> None:
    model = make()
    window, query = inputs_of(model, (9, 3))
    attention_BCL = model.find(window, query).attention_BCS
    assert attention_BCL[0, 2].gt(0).tolist() == [False] * 3 + [True] * 6
    # Without a long part the missing summary takes no weight.
    torch.testing.assert_close(attention_BCL.sum(-1), query.position_BC.gt(0).double())
