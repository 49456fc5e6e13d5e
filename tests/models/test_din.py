"""DIN against a naive transcription of the paper's sum, in float64."""

import pytest
import torch
from finding import assert_naive_agrees, inputs_of, last_events
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.din import Din, DinConfig


def make(*, normalise: bool = False, recent: int = 4) -> Din:
    torch.manual_seed(0)
    return Din(INPUTS, DinConfig(embedding=3, normalise=normalise, recent=recent, dropout=0.0)).double().eval()


def activation(model: Din, event: Tensor, target: Tensor) -> Tensor:
    """a(e, v) for one event and one target."""
    v = model.query.weight @ target + model.query.bias
    x = torch.cat([v, event, v - event, v * event])
    for layer in (model.score.first, model.score.second):
        x = torch.relu(layer.weight @ x + layer.bias)
    return model.score.last.weight[0] @ x + model.score.last.bias[0]


def naive(model: Din, window: Window, query: Query, user: int, target: int) -> Tensor:
    interest, total = torch.zeros(model.event_width, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for place in last_events(model, query, user, target):
        event = window.vector_BLE[user, place]
        weight = activation(model, event, query.vector_BCE[user, target])
        weight = torch.exp(weight) if model.config.normalise else weight / 32
        interest, total = interest + weight * event, total + weight
    return interest / total if model.config.normalise and total > 0 else interest


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("recent", [4, 1000])
def test_interest_is_the_papers_sum_over_the_visible_events(normalise: bool, recent: int) -> None:
    model = make(normalise=normalise, recent=recent)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model))


def test_the_papers_form_counts_and_the_normalised_one_does_not() -> None:
    torch.manual_seed(0)
    event_BLE = torch.randn(1, 1, 12, dtype=torch.float64).expand(1, 8, 12)
    target_BCE = torch.randn(1, 2, 6, dtype=torch.float64)[:, :1].expand(1, 2, 6)
    number = torch.zeros(1, 8, 4, dtype=torch.int64)
    window = Window(event_BLE, number, torch.zeros(1, 8).long(), torch.tensor([8]))
    query = Query(target_BCE, number[:, :2, :2], torch.zeros(1, 2).long(), torch.tensor([[2, 6]]))
    free, normalised = (make(normalise=flag, recent=8).find(window, query).interest_BCD[0] for flag in (False, True))
    torch.testing.assert_close(free[1], 3 * free[0])
    torch.testing.assert_close(normalised[1], normalised[0])
