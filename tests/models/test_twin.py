"""TWIN against a naive transcription: loops over users, targets, events and heads, in float64."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.models.base import Query, Window
from lifelong.models.twin import Twin, TwinConfig
from lifelong.nn import chunks
from lifelong.testing.worlds import INPUTS, random_batch


def make(*, hits: int = 4, recent: int = 1000, seed: int = 0) -> Twin:
    torch.manual_seed(seed)
    model = Twin(INPUTS, TwinConfig(embedding=3, width=6, heads=2, hits=hits, recent=recent, dropout=0.0))
    for table in (model.of_seconds, model.of_events):
        torch.nn.init.normal_(table)
    return model.double().eval()


def power(distance: int) -> int:
    """The row of a table for so many seconds or events."""
    return 2 if distance == 0 else 3 + math.floor(math.log2(distance))


def naive_interest(
    model: Twin, events: list[Tensor], times: list[int], target: Tensor, moment: int
) -> tuple[Tensor, list[list[int]]]:
    """Relevance of all events per head, the largest, softmax over these, heads side by side; and what was selected."""
    position, width = len(events), model.target_width
    heads, selected = [], []
    for head, rows in enumerate(torch.arange(model.query.out_features).chunk(model.config.heads)):
        q = model.query.weight[rows] @ target
        relevance = {}
        for place in range(max(0, position - model.recent), position):
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
        selected.append(best)
    return model.mix.weight @ torch.cat(heads), selected


def inputs(model: Twin, lengths: list[int], *, seed: int) -> tuple[Window, Query]:
    """Vectors and times of histories, and three targets each: at 0, at a random position and behind all events."""
    generator = torch.Generator().manual_seed(seed)
    batch = random_batch(lengths, targets=3, size=max(lengths) + 2, seed=seed)
    time_BL = torch.randint(0, 10**6, batch.time_BL.shape, generator=generator).cumsum(dim=1)
    time_BC = time_BL.gather(1, batch.position_BC) + torch.randint(
        0, 10**6, batch.position_BC.shape, generator=generator
    )
    window = Window(
        model.embed(batch.history_BLF, model.history_fields).detach(), batch.history_BLF, time_BL, batch.length_B
    )
    target_BCE = model.embed(batch.target_BCF, model.item_fields).detach()
    return window, Query(target_BCE, batch.target_BCF, time_BC, batch.position_BC)


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
    window, query = inputs(model, lengths, seed=seed)
    weight_BCD = torch.rand(len(lengths), 3, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    leaves = [window.vector_BLE.requires_grad_(), query.vector_BCE.requires_grad_()]
    leaves += [value for name, value in model.named_parameters() if name.split(".")[0] not in ("embed", "head")]

    def naive(user: int, place: int) -> Tensor:
        before = slice(0, int(query.position_BC[user, place]))
        events, times = list(window.vector_BLE[user, before]), window.time_BL[user, before].tolist()
        return naive_interest(model, events, times, query.vector_BCE[user, place], int(query.time_BC[user, place]))[0]

    naive_BCD = torch.stack([torch.stack([naive(user, place) for place in range(3)]) for user in range(len(lengths))])
    results = []
    for interest_BCD in (model.find(window, query).interest_BCD, naive_BCD):
        gradients = torch.autograd.grad((weight_BCD * interest_BCD).sum(), leaves, allow_unused=True)
        results.append((interest_BCD.detach(), gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-12)
    for left, right in zip(results[0][1], results[1][1], strict=True):
        if right is None:
            assert left is None or not left.any()
        else:
            torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


def test_with_room_for_all_events_nothing_is_left_out() -> None:
    model = make(hits=9)
    found = model.find(*inputs(model, [6], seed=0)).attention_BCS
    assert found is not None
    by_head = found[0, 2].view(2, 9)
    assert by_head.ne(0).tolist() == [[True] * 6 + [False] * 3] * 2
    assert by_head.sum(dim=1).tolist() == pytest.approx([0.5, 0.5])


def test_padding_that_is_most_relevant_is_not_selected() -> None:
    model = make(hits=2)
    window, query = inputs(model, [3], seed=1)
    dirty = window.vector_BLE.clone()
    dirty[:, 3:] = 1e6
    changed = model.find(window._replace(vector_BLE=dirty, time_BL=window.time_BL.clone()), query).interest_BCD
    assert torch.equal(changed, model.find(window, query).interest_BCD)


def test_age_alone_can_decide_what_is_selected() -> None:
    model = make(hits=1)
    with torch.no_grad():
        for part in (model.key.weight, model.of_seconds, model.of_events, model.of_event.weight):
            part.zero_()
        # Between 4 and 7 events ago.
        model.of_events[:, 5] = 10.0
    window, query = inputs(model, [12], seed=0)
    events = window.vector_BLE.requires_grad_()
    model.find(window, query).interest_BCD[0, 2].sum().backward()
    assert events.grad is not None
    assert events.grad[0].any(dim=-1).nonzero().flatten().tolist() == [12 - 4]


def test_a_few_targets_at_a_time_give_the_same_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(), random_batch([9, 4], targets=7)
    results = []
    for most in (2**22, 1):
        monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", most)
        model.zero_grad()
        logit = model(batch).logit_BCT
        logit.sum().backward()
        gradients = (value.grad.clone() for value in model.parameters() if value.grad is not None)
        results.append((logit.detach(), *gradients))
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_a_log_without_event_fields_and_times_works() -> None:
    ordinal = replace(INPUTS, event={}, context={})
    model = Twin(ordinal, TwinConfig(embedding=3, width=6, heads=2))
    assert model.of_event is None
    assert model(random_batch([5, 0], targets=2, inputs=ordinal)).logit_BCT.isfinite().all()


def test_a_width_that_the_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="width 7 is not a multiple of 2 heads"):
        Twin(INPUTS, TwinConfig(width=7, heads=2))
