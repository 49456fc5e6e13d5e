"""AttRec against a naive transcription: loops over users, targets and pairs of events, in float64."""

import math

import pytest
import torch
from finding import assert_naive_agrees, inputs_of, last_events
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.attrec import AttRec, AttRecConfig, time_signals

WIDTH = 4


def make(*, window: int = 4, recent: int = 6) -> AttRec:
    torch.manual_seed(0)
    return AttRec(INPUTS, AttRecConfig(embedding=2, width=WIDTH, window=window, recent=recent)).double().eval()


def naive_signal(place: int) -> Tensor:
    """Sine and cosine of the place, per pair of dimensions."""
    values = []
    for pair in range(WIDTH // 2):
        angle = place / 10_000 ** (2 * pair / WIDTH)
        values += [math.sin(angle), math.cos(angle)]
    return torch.tensor(values, dtype=torch.float64)


def naive(model: AttRec, window: Window, query: Query, user: int, target: int) -> Tensor:
    """Sections 3.2 to 3.4 for one target."""
    recent = [window.vector_BLE[user, place] for place in last_events(model, query, user, target)]
    last, vector = [model.short.weight @ event for event in recent[-model.window :]], query.vector_BCE[user, target]
    keys = [
        torch.relu(model.affinity.weight @ (x + naive_signal(model.window - len(last) + place)))
        for place, x in enumerate(last)
    ]
    short = torch.zeros(WIDTH, dtype=torch.float64)
    for i, own in enumerate(keys):
        affinity = {
            j: torch.exp(own @ key / math.sqrt(WIDTH)) for j, key in enumerate(keys) if j != i or len(keys) == 1
        }
        seen = sum(value / sum(affinity.values()) * last[j] for j, value in affinity.items())
        short = short + seen / len(keys)
    mean = sum(recent) / len(recent) if recent else torch.zeros(model.event_width, dtype=torch.float64)
    distance = model.user.weight @ mean + model.user.bias - model.item.weight @ vector - model.item.bias
    no_fields = torch.zeros(model.event_width - model.target_width, dtype=torch.float64)
    as_event = model.short.weight @ torch.cat([vector, no_fields])
    distances = [(distance**2).sum() / WIDTH, ((as_event - short) ** 2).sum() / WIDTH]
    return torch.cat([short, torch.stack(distances)])


@pytest.mark.parametrize(("window", "recent"), [(1, 1), (4, 6), (3, 3), (20, 30)])
def test_interest_is_that_of_the_paper_in_value_and_gradient(window: int, recent: int) -> None:
    model = make(window=window, recent=recent)
    # In double precision, as the naive one: the buffer was made in single.
    model.signal_ND = torch.stack([naive_signal(place) for place in range(window)])
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model))


def test_time_signals_are_sines_and_cosines_of_the_place() -> None:
    naive_ND = torch.stack([naive_signal(place) for place in range(50)])
    torch.testing.assert_close(time_signals(50, WIDTH).double(), naive_ND, rtol=0, atol=1e-6)


def test_an_item_starts_where_an_event_with_it_is() -> None:
    model = make()
    assert torch.equal(model.item.weight, model.user.weight[:, : model.target_width])
