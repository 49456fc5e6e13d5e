"""ETA against a naive transcription: loops over users, targets, events, bits and heads, in float64."""

from dataclasses import replace

import torch
from finding import assert_naive_agrees, inputs_of, last_events
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.eta import Eta, EtaConfig


def make(*, hits: int = 4, recent: int = 1000, bits: int = 12, seed: int = 0, items: int = 30) -> Eta:
    torch.manual_seed(seed)
    inputs = replace(INPUTS, item={"item": items, "category": 4})
    model = Eta(inputs, EtaConfig(embedding=3, width=6, heads=2, bits=bits, hits=hits, recent=recent, dropout=0.0))
    return model.double().eval()


def bits_of(model: Eta, vector: Tensor) -> list[bool]:
    return [float(plane.double() @ vector.detach()) >= 0 for plane in model.plane_RE]


def naive(model: Eta, window: Window, query: Query, user: int, target: int) -> Tensor:
    """Hash, sort by (Hamming distance, age), attend to the first."""
    vector, width = query.vector_BCE[user, target], model.target_width
    events = [window.vector_BLE[user, place] for place in last_events(model, query, user, target)]
    own = bits_of(model, vector)

    def distance(place: int) -> tuple[int, int]:
        other = bits_of(model, events[place][:width])
        return sum(left != right for left, right in zip(own, other, strict=True)), -place

    chosen = sorted(range(len(events)), key=distance)[: model.config.hits]
    heads = []
    for rows in torch.arange(model.query.out_features).chunk(model.config.heads):
        q = model.query.weight[rows] @ vector
        scores = [q @ (model.key.weight[rows] @ events[place]) / len(rows) ** 0.5 for place in chosen]
        total = sum((torch.exp(score) for score in scores), torch.zeros((), dtype=torch.float64))
        found = torch.zeros(len(rows), dtype=torch.float64)
        for place, score in zip(chosen, scores, strict=True):
            found = found + torch.exp(score) / total * (model.value.weight[rows] @ events[place])
        heads.append(found)
    return model.mix.weight @ torch.cat(heads)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    hits=st.integers(1, 8),
    recent=st.integers(1, 14),
    items=st.sampled_from([30, 4]),
    seed=st.integers(0, 99),
)
def test_interest_is_that_of_the_naive_loop_in_value_and_gradient(
    lengths: list[int], hits: int, recent: int, items: int, seed: int
) -> None:
    # With few items some events are equal.
    model = make(hits=hits, recent=recent, seed=seed, items=items)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model, lengths, seed=seed, size=14))


def test_of_equally_near_events_the_latest_are_found() -> None:
    model = make(hits=2)
    window, query = inputs_of(model, (6,), size=8)
    same = window._replace(vector_BLE=window.vector_BLE[:, :1].detach().expand(-1, 8, -1).clone().requires_grad_())
    model.find(same, query).interest_BCD[0, 2].sum().backward()
    assert same.vector_BLE.grad is not None
    assert same.vector_BLE.grad[0].any(dim=-1).tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_a_query_and_the_key_of_its_own_item_are_alike_at_the_start() -> None:
    model = make()
    target = torch.randn(5, model.target_width, dtype=torch.float64)
    event = torch.cat([target, torch.zeros(5, model.event_width - model.target_width, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(model.key(event), model.query(target), rtol=0, atol=1e-12)
