"""ETA against a naive transcription: loops over users, targets, events, bits and heads, in float64."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.models.base import Query, Window
from lifelong.models.eta import Eta, EtaConfig
from lifelong.nn import chunks
from lifelong.testing.worlds import INPUTS, random_batch

PARTS = ("query.weight", "key.weight", "value.weight", "mix.weight")


def make(*, hits: int = 4, recent: int = 1000, bits: int = 12, seed: int = 0) -> Eta:
    torch.manual_seed(seed)
    model = Eta(INPUTS, EtaConfig(embedding=3, width=6, heads=2, bits=bits, hits=hits, recent=recent, dropout=0.0))
    return model.double().eval()


def bits_of(model: Eta, vector: Tensor) -> list[bool]:
    return [float(plane.double() @ vector.detach()) >= 0 for plane in model.plane_RE]


def naive_interest(model: Eta, events: list[Tensor], target: Tensor) -> Tensor:
    """Hash, sort by (Hamming distance, age), attend to the first."""
    events = events[-model.recent :]
    width = model.target_width
    own = bits_of(model, target)

    def distance(place: int) -> tuple[int, int]:
        other = bits_of(model, events[place][:width])
        return sum(left != right for left, right in zip(own, other, strict=True)), -place

    chosen = sorted(range(len(events)), key=distance)[: model.config.hits]
    heads = []
    for rows in torch.arange(model.query.out_features).chunk(model.config.heads):
        q = model.query.weight[rows] @ target
        scores = [q @ (model.key.weight[rows] @ events[place]) / len(rows) ** 0.5 for place in chosen]
        total = sum((torch.exp(score) for score in scores), torch.zeros((), dtype=torch.float64))
        found = torch.zeros(len(rows), dtype=torch.float64)
        for place, score in zip(chosen, scores, strict=True):
            found = found + torch.exp(score) / total * (model.value.weight[rows] @ events[place])
        heads.append(found)
    return model.mix.weight @ torch.cat(heads)


def inputs(model: Eta, lengths: list[int], *, seed: int, copies: bool = False) -> tuple[Window, Query]:
    """Random vectors of histories and of three targets each: at 0, at a random position and behind all events."""
    batch = random_batch(lengths, targets=3, size=max(lengths) + 2, seed=seed)
    number_BLF = batch.history_BLF
    if copies:
        number_BLF = number_BLF.clamp(max=3)
    vector_BLE = model.embed(number_BLF, model.history_fields).detach()
    target_BCE = model.embed(batch.target_BCF, model.item_fields).detach()
    return (
        Window(vector_BLE, number_BLF, batch.time_BL, batch.length_B),
        Query(target_BCE, batch.target_BCF, batch.target_time_BC, batch.position_BC),
    )


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    hits=st.integers(1, 8),
    recent=st.integers(1, 14),
    copies=st.booleans(),
    seed=st.integers(0, 99),
)
def test_interest_is_that_of_the_naive_loop_in_value_and_gradient(
    lengths: list[int], hits: int, recent: int, copies: bool, seed: int
) -> None:
    model = make(hits=hits, recent=recent, seed=seed)
    window, query = inputs(model, lengths, seed=seed, copies=copies)
    weight_BCD = torch.rand(len(lengths), 3, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    leaves = (window.vector_BLE.requires_grad_(), query.vector_BCE.requires_grad_())
    parameters = [model.get_parameter(name) for name in PARTS]

    rows = [
        torch.stack(
            [
                naive_interest(model, list(window.vector_BLE[user, : query.position_BC[user, place]]), target)
                for place, target in enumerate(query.vector_BCE[user])
            ]
        )
        for user in range(len(lengths))
    ]
    results = []
    for interest_BCD in (model.find(window, query).interest_BCD, torch.stack(rows)):
        gradients = torch.autograd.grad((weight_BCD * interest_BCD).sum(), [*leaves, *parameters], allow_unused=True)
        results.append((interest_BCD.detach(), gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-12)
    for left, right in zip(results[0][1], results[1][1], strict=True):
        if right is None:
            assert left is None or not left.any()
        else:
            torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


def test_of_equally_near_events_the_latest_are_found() -> None:
    model = make(hits=2)
    window, query = inputs(model, [6], seed=0)
    same = window._replace(vector_BLE=window.vector_BLE[:, :1].expand(-1, 8, -1).clone().requires_grad_())
    model.find(same, query).interest_BCD[0, 2].sum().backward()
    assert same.vector_BLE.grad is not None
    assert same.vector_BLE.grad[0].any(dim=-1).tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_padding_equal_to_the_target_is_not_found() -> None:
    model = make(hits=4)
    window, query = inputs(model, [3], seed=1)
    dirty = window.vector_BLE.clone()
    dirty[:, 3:, : model.target_width] = query.vector_BCE[:, 2:]
    changed = model.find(window._replace(vector_BLE=dirty), query).interest_BCD
    assert torch.equal(changed, model.find(window, query).interest_BCD)


def test_attention_is_over_the_hits_and_nothing_without_events() -> None:
    model = make(hits=5)
    attention = model.find(*inputs(model, [3], seed=0)).attention_BCS
    assert attention is not None
    assert attention[0, 0].tolist() == [0.0] * 5
    assert attention[0, 2].ne(0).tolist() == [True] * 3 + [False] * 2
    assert attention[0, 2].sum().item() == pytest.approx(1.0)


def test_a_few_targets_at_a_time_give_the_same_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(), random_batch([9, 4], targets=7)
    results = []
    for most in (2**22, 1):
        monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", most)
        model.zero_grad()
        logit = model(batch).logit_BCT
        logit.sum().backward()
        results.append(
            (logit.detach(), *(value.grad.clone() for value in model.parameters() if value.grad is not None))
        )
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_hyperplanes_are_saved_and_never_trained() -> None:
    model = make()
    assert "plane_RE" in model.state_dict()
    assert "plane_RE" not in dict(model.named_parameters())
    assert model.half().plane_RE.dtype == torch.int16


def test_events_before_the_recent_ones_are_not_searched() -> None:
    model, batch = make(recent=3), random_batch([8], targets=1)
    changed = batch.history_BLF.clone()
    changed[:, :5] = 1
    assert torch.equal(model(batch).logit_BCT, model(replace(batch, history_BLF=changed)).logit_BCT)


def test_a_width_that_the_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="width 7 is not a multiple of 2 heads"):
        Eta(INPUTS, EtaConfig(width=7, heads=2))


def test_a_query_and_the_key_of_its_own_item_are_alike_at_the_start() -> None:
    model = make()
    target = torch.randn(5, model.target_width, dtype=torch.float64)
    event = torch.cat([target, torch.zeros(5, model.event_width - model.target_width, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(model.key(event), model.query(target), rtol=0, atol=1e-12)
