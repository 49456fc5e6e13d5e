"""TWIN against a naive transcription: loops over users, targets, events and heads, in float64."""

import math
from dataclasses import replace

import torch
from finding import assert_naive_agrees, inputs_of, last_events
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.twin import Twin, TwinConfig


def make(*, hits: int = 4, recent: int = 1000, seed: int = 0) -> Twin:
    torch.manual_seed(seed)
    model = Twin(INPUTS, TwinConfig(embedding=3, width=6, heads=2, hits=hits, recent=recent, dropout=0.0))
    for table in (model.of_seconds, model.of_events):
        torch.nn.init.normal_(table)
    return model.double().eval()


def power(distance: int) -> int:
    """The row of a table for so many seconds or events."""
    return 2 if distance == 0 else 3 + math.floor(math.log2(distance))


def naive(model: Twin, window: Window, query: Query, user: int, target: int) -> Tensor:
    """Relevance of all events per head, the largest, softmax over these, heads side by side."""
    events, times, width = window.vector_BLE[user], window.time_BL[user].tolist(), model.target_width
    position, moment = int(query.position_BC[user, target]), int(query.time_BC[user, target])
    heads = []
    for head, rows in enumerate(torch.arange(model.query.out_features).chunk(model.config.heads)):
        q = model.query.weight[rows] @ query.vector_BCE[user, target]
        relevance = {}
        for place in last_events(model, query, user, target):
            k = model.key.weight[rows] @ events[place][:width]
            bias = model.of_event.weight[head] @ events[place][width:]
            age = model.of_seconds[head, power(moment - times[place])] + model.of_events[head, power(position - place)]
            relevance[place] = k @ q / len(rows) ** 0.5 + bias + age
        best = sorted(relevance, key=lambda place: -float(relevance[place].detach()))[: model.config.hits]
        total = sum((torch.exp(relevance[place]) for place in best), torch.zeros((), dtype=torch.float64))
        found = torch.zeros(len(rows), dtype=torch.float64)
        for place in best:
            found = found + torch.exp(relevance[place]) / total * (model.value.weight[rows] @ events[place])
        heads.append(found)
    return model.mix.weight @ torch.cat(heads)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    hits=st.integers(1, 14),
    recent=st.integers(1, 14),
    seed=st.integers(0, 99),
)
def test_interest_is_that_of_the_naive_loop_in_value_and_gradient(
    lengths: list[int], hits: int, recent: int, seed: int
) -> None:
    model = make(hits=hits, recent=recent, seed=seed)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model, lengths, seed=seed, size=14))


def test_age_alone_can_decide_what_is_selected() -> None:
    model = make(hits=1)
    with torch.no_grad():
        for part in (model.key.weight, model.of_seconds, model.of_events, model.of_event.weight):
            part.zero_()
        # Between 4 and 7 events ago.
        model.of_events[:, 5] = 10.0
    window, query = inputs_of(model, (12,), size=12)
    events = window.vector_BLE
    model.find(window, query).interest_BCD[0, 2].sum().backward()
    assert events.grad is not None
    assert events.grad[0].any(dim=-1).nonzero().flatten().tolist() == [12 - 4]


def test_a_log_without_event_fields_and_times_works() -> None:
    ordinal = replace(INPUTS, event={}, context={})
    model = Twin(ordinal, TwinConfig(embedding=3, width=6, heads=2))
    assert model.of_event is None
    assert model(random_batch([5, 0], targets=2, inputs=ordinal)).logit_BCT.isfinite().all()
