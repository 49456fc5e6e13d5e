"""SIM against naive transcriptions: loops over users, targets, events and heads, in float64."""

import numpy as np
import pytest
import torch
from finding import assert_naive_agrees, inputs_of, last_events
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lifelong.dataset.events import InputSpec
from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS, random_batch
from lifelong.zoo.sim import Buckets, Search, Sim, SimConfig

MANY = (40, 0, 1, 25)


def make(search: Search, *, hits: int = 3, recent: int = 30, inputs: InputSpec = INPUTS) -> Sim:
    torch.manual_seed(0)
    model = Sim(inputs, SimConfig(embedding=3, search=search, hits=hits, recent=recent, buckets=8, near=2, dropout=0.0))
    return model.double().eval()


def bucket_order(model: Sim, vector: Tensor) -> list[int]:
    """Buckets by their distance from a vector."""
    distances = [float((vector - centroid).detach().square().sum()) for centroid in model.buckets.centroid_KE]
    return sorted(range(len(distances)), key=distances.__getitem__)


def search_scores(model: Sim, window: Window, query: Query, user: int, target: int) -> dict[int, float]:
    """Score of each event that may be found."""
    places, v = last_events(model, query, user, target), query.vector_BCE[user, target]
    if model.config.search == "hard":
        own = int(query.number_BCF[user, target, 1])
        return {place: 0.0 for place in places if own > 1 and int(window.number_BLF[user, place, 1]) == own}
    if model.config.search == "soft":
        v = (model.soft.of_target.weight @ v + model.soft.of_target.bias).detach()
        events = {place: (model.soft.of_event.weight @ window.vector_BLE[user, place]).detach() for place in places}
        return {place: round(float(v @ event), 6) for place, event in events.items()}
    near = bucket_order(model, v)[:2]
    buckets = {place: bucket_order(model, window.vector_BLE[user, place, : len(v)])[0] for place in places}
    return {place: -near.index(bucket) for place, bucket in buckets.items() if bucket in near}


def naive(model: Sim, window: Window, query: Query, user: int, target: int) -> Tensor:
    scores, v = search_scores(model, window, query, user, target), query.vector_BCE[user, target]
    best = sorted(scores, key=lambda place: (scores[place], place), reverse=True)[: model.config.hits]
    entries = []
    for place in best:
        seconds = int(query.time_BC[user, target] - window.time_BL[user, place])
        bucket = 2 if seconds <= 0 else min(35, 3 + seconds.bit_length() - 1)
        entries.append(torch.cat([window.vector_BLE[user, place], model.gap.weight[bucket]]))
    heads = []
    for head in model.query:
        q, total = head.weight @ v + head.bias, torch.zeros((), dtype=torch.float64)
        interest = torch.zeros_like(q)
        for entry in entries:
            weight = torch.exp(q @ entry / len(entry) ** 0.5)
            interest, total = interest + weight * entry, total + weight
        heads.append(interest / total if entries else interest)
    return torch.cat(heads)


@pytest.mark.parametrize("search", ["hard", "soft", "cluster"])
@pytest.mark.parametrize("hits", [3, 64])
def test_interest_is_attention_over_the_events_found(search: Search, hits: int) -> None:
    model = make(search, hits=hits)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model, MANY, size=45))


def test_hard_search_falls_back_to_the_item_where_it_is_the_only_field() -> None:
    model = make("hard", inputs=InputSpec(item={"item": 5}, event={}, context={}, users=12))
    window, query = inputs_of(model, (30,), size=30)
    found = model.find(window, query).attention_BCS
    for target in range(3):
        own = int(query.number_BCF[0, target, 0])
        same = sum(int(window.number_BLF[0, place, 0]) == own for place in range(int(query.position_BC[0, target])))
        assert int((found[0, target] > 0).sum()) == (min(same, 3) if own > 1 else 0)


def test_soft_search_learns_from_the_labels_alone_and_never_from_the_attention() -> None:
    model, batch = make("soft"), random_batch(MANY, targets=3)
    batch.mask_BC[1] = False
    output = model(batch)
    searching = list(model.soft.parameters())
    logit_loss = output.logit_BCT.sum()
    assert all(
        part is None for part in torch.autograd.grad(logit_loss, searching, allow_unused=True, retain_graph=True)
    )
    assert all(bool(part.any()) for part in torch.autograd.grad(output.aux_losses["search"], searching))


def test_loss_of_the_soft_search_is_the_cross_entropy_of_its_own_prediction() -> None:
    model, batch = make("soft"), random_batch(MANY, targets=3)
    batch.mask_BC[3, 1:] = False
    losses = []
    for user, target in batch.mask_BC.nonzero().tolist():
        position = int(batch.position_BC[user, target])
        v = model.embed(batch.target_BCF[user, target], model.item_fields)
        mean = torch.zeros(model.event_width, dtype=torch.float64)
        for place in range(max(0, position - 30), position):
            event = model.embed(batch.history_BLF[user, place], model.history_fields)
            r = model.soft.of_target(v) @ model.soft.of_event(event) / len(v) ** 0.5
            mean = mean + r * event / min(position, 30)
        logit = model.soft.head(mean, v, v[:0])
        losses.append(binary_cross_entropy_with_logits(logit, batch.label_BCT[user, target].double()))
    torch.testing.assert_close(model(batch).aux_losses["search"], torch.stack(losses).mean())


def test_buckets_follow_the_means_of_their_vectors() -> None:
    buckets = Buckets(torch.tensor([[0.0, 0.0], [10.0, 0.0]]))
    for _ in range(500):
        buckets.follow(torch.tensor([[1.0, 1.0], [3.0, 1.0], [9.0, 9.0]]))
    torch.testing.assert_close(buckets.centroid_KE, torch.tensor([[2.0, 1.0], [9.0, 9.0]]), rtol=0, atol=0.01)


def test_centroids_begin_among_given_vectors() -> None:
    model = make("cluster")
    given = {field: np.full((size, model.vector_width), 7.0, np.float32) for field, size in model.inputs.item.items()}
    model.begin_with(given)
    assert model.buckets.centroid_KE.shape == (8, len(given) * model.vector_width)
    assert float((model.buckets.centroid_KE - 7).abs().max()) < 0.1


def test_buckets_move_in_training_by_real_events_and_stay_put_in_evaluation() -> None:
    model, batch = make("cluster"), random_batch((5, 0), targets=2, size=30)
    start = model.buckets.centroid_KE.clone()
    model(batch)
    assert torch.equal(model.buckets.centroid_KE, start)
    model.train()(batch)
    moved = (model.buckets.centroid_KE != start).any(dim=-1).sum()
    assert 1 <= int(moved) <= 5
    assert float(model.buckets.count_K.sum()) == pytest.approx(8 * 0.99 + 5)
