"""UBR4CTR against a naive transcription: loops over users, targets, events and fields, in float64."""

import math

import pytest
import torch
from finding import assert_naive_agrees, inputs_of, last_events
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.ubr4ctr import Ubr4Ctr, Ubr4CtrConfig, relevance

MANY = (40, 0, 1, 25)


def make(*, hits: int = 3, recent: int = 30) -> Ubr4Ctr:
    torch.manual_seed(0)
    return Ubr4Ctr(INPUTS, Ubr4CtrConfig(embedding=3, hits=hits, recent=recent, dropout=0.0)).double().eval()


def naive(model: Ubr4Ctr, window: Window, query: Query, user: int, target: int) -> Tensor:
    v, own = query.vector_BCE[user, target], query.number_BCF[user, target].tolist()
    hidden = torch.relu(model.hidden.weight @ v + model.hidden.bias)
    share = torch.sigmoid(model.choice.weight @ hidden + model.choice.bias)
    places = last_events(model, query, user, target)
    events = {place: window.number_BLF[user, place].tolist() for place in places}
    scores: dict[int, Tensor] = {}
    for field, number in enumerate(own):
        matching = [place for place in places if number > 1 and events[place][field] == number]
        rarity = math.log(1 + (len(places) - len(matching) + 0.5) / (len(matching) + 0.5))
        for place in matching:
            scores[place] = scores.get(place, 0) + share[field] * rarity
    best = sorted(scores, key=lambda place: (float(scores[place].detach()), place), reverse=True)[: model.config.hits]
    interest, total = torch.zeros(model.event_width, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    q = model.query.weight @ v + model.query.bias
    for place in best:
        event = window.vector_BLE[user, place]
        x = torch.cat([q, event, q - event, q * event])
        for layer in (model.score.first, model.score.second):
            x = torch.relu(layer.weight @ x + layer.bias)
        weight = torch.exp(model.score.last.weight[0] @ x + model.score.last.bias[0] + scores[place])
        interest, total = interest + weight * event, total + weight
    return interest / total if best else interest


@pytest.mark.parametrize("hits", [3, 64])
def test_interest_is_attention_over_the_events_of_the_best_scores(hits: int) -> None:
    model = make(hits=hits)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model, MANY, size=45))


def test_a_value_counts_the_more_the_rarer_it_is_in_what_the_target_sees() -> None:
    number_BLF = torch.tensor([[[5, 7], [5, 8], [6, 8], [5, 8]]])
    visible = torch.tensor([[[True, True, True, False]]])
    score = relevance(number_BLF, torch.tensor([[[5, 7]]]), torch.tensor([[[1.0, 2.0]]]), visible)
    common, rare = math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5)
    torch.testing.assert_close(score, torch.tensor([[[common + 2 * rare, common, 0.0, 0.0]]]))


def test_an_unknown_value_matches_nothing() -> None:
    number_BLF = torch.tensor([[[1, 1], [0, 0]]])
    visible = torch.ones(1, 1, 2, dtype=torch.bool)
    for unknown in (0, 1):
        target_BCF = torch.full((1, 1, 2), unknown)
        assert relevance(number_BLF, target_BCF, torch.ones(1, 1, 2), visible).tolist() == [[[0.0, 0.0]]]


def test_without_a_match_the_interest_is_zero_and_gradients_are_finite() -> None:
    model = make()
    window, query = inputs_of(model)
    found = model.find(window, query._replace(number_BCF=torch.ones_like(query.number_BCF)))
    assert not found.interest_BCD.any() and not found.attention_BCS.any()
    found.interest_BCD.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
