"""MemN2N against a naive transcription: loops over users, targets, hops and memories, in float64."""

import math

import pytest
import torch
from finding import assert_naive_agrees, inputs_of, last_events
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.memn2n import MemN2N, MemN2NConfig


def make(*, recent: int = 4, hops: int = 3) -> MemN2N:
    torch.manual_seed(0)
    model = MemN2N(INPUTS, MemN2NConfig(embedding=2, width=3, recent=recent, hops=hops)).double().eval()
    # Off the identity, so that a transposed map shows.
    torch.nn.init.normal_(model.pass_on.weight)
    return model


def naive(model: MemN2N, window: Window, query: Query, user: int, target: int) -> tuple[Tensor, list[float]]:
    """Sections 2.1, 2.2 and 4.1 for one target, and the weights of the first hop."""
    events = [window.vector_BLE[user, place] for place in last_events(model, query, user, target)]
    a, c = model.entry.weight[:3], model.entry.weight[3:]
    t_a, t_c = model.time[:, :3], model.time[:, 3:]
    u = model.query.weight @ query.vector_BCE[user, target]
    first: list[float] = []
    for _ in range(model.config.hops):
        weights, values = [], []
        for back, event in enumerate(reversed(events), start=1):
            memory = a @ event + t_a[model.recent - back]
            weights.append(torch.exp(u @ memory))
            values.append(c @ event + t_c[model.recent - back])
        total = sum(weights)
        o = sum((p / total * value for p, value in zip(weights, values, strict=True)), torch.zeros_like(u))
        first = first or [float(p.detach() / total.detach()) for p in reversed(weights)]
        u = model.pass_on.weight @ u + o
    return u, first


@pytest.mark.parametrize(("recent", "hops"), [(1, 1), (4, 3), (20, 2)])
def test_interest_is_that_of_the_paper_in_value_and_gradient(recent: int, hops: int) -> None:
    model = make(recent=recent, hops=hops)
    assert_naive_agrees(model, lambda *place: naive(model, *place)[0], *inputs_of(model))


def test_attention_is_that_of_the_first_hop_with_the_latest_event_last() -> None:
    model = make()
    window, query = inputs_of(model, (3,))
    _, weights = naive(model, window, query, 0, 2)
    assert model.find(window, query).attention_BCS[0, 2].tolist() == pytest.approx([0.0, *weights])
    assert math.fsum(weights) == pytest.approx(1.0)
