"""AttRec against a naive transcription: loops over users, targets and pairs of events, in float64."""

import math

import pytest
import torch
from torch import Tensor

from lifelong.models.attrec import AttRec, AttRecConfig, time_signals
from lifelong.models.base import Found, Query, Window
from lifelong.nn import chunks
from lifelong.testing.worlds import INPUTS

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


def naive_interest(model: AttRec, events: list[Tensor], target: Tensor) -> Tensor:
    """Sections 3.2 to 3.4 for one target; `events` are all before it."""
    recent = events[max(0, len(events) - model.recent) :]
    last = [model.short.weight @ event for event in events[max(0, len(events) - model.window) :]]
    keys = [
        torch.relu(model.affinity.weight @ (x + naive_signal(model.window - len(last) + place)))
        for place, x in enumerate(last)
    ]
    short = torch.zeros(WIDTH, dtype=torch.float64)
    for i, query in enumerate(keys):
        affinity = {
            j: torch.exp(query @ key / math.sqrt(WIDTH)) for j, key in enumerate(keys) if j != i or len(keys) == 1
        }
        seen = sum(value / sum(affinity.values()) * last[j] for j, value in affinity.items())
        short = short + seen / len(keys)
    mean = sum(recent) / len(recent) if recent else torch.zeros(model.event_width, dtype=torch.float64)
    user = model.user.weight @ mean + model.user.bias
    item = model.item.weight @ target + model.item.bias
    no_fields = torch.zeros(model.event_width - model.target_width, dtype=torch.float64)
    as_event = model.short.weight @ torch.cat([target, no_fields])
    distances = [((user - item) ** 2).sum() / WIDTH, ((as_event - short) ** 2).sum() / WIDTH]
    return torch.cat([short, torch.stack(distances)])


def run(model: AttRec, event_BLE: Tensor, position_BC: Tensor, target_BCE: Tensor) -> Found:
    users, size, _ = event_BLE.shape
    window = Window(event_BLE, torch.ones(users, size, 4).long(), torch.zeros(users, size).long(), position_BC.amax(1))
    number_BCF = torch.zeros(*position_BC.shape, 2, dtype=torch.int64)
    return model.find(window, Query(target_BCE, number_BCF, torch.zeros_like(position_BC), position_BC))


def drawn(model: AttRec) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    position_BC = torch.tensor([[0, 3, 9], [1, 7, 4], [0, 0, 0]])
    event_BLE = torch.randn(3, 9, model.event_width, dtype=torch.float64).requires_grad_()
    return event_BLE, position_BC, torch.randn(3, 3, model.target_width, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(("window", "recent"), [(1, 1), (4, 6), (3, 3), (20, 30)])
@pytest.mark.parametrize("numbers_at_once", [1, 2**22])
def test_interest_is_that_of_the_paper_in_value_and_gradient(
    window: int, recent: int, numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", numbers_at_once)
    model = make(window=window, recent=recent)
    # In double precision, as the naive one: the buffer was made in single.
    model.signal_ND = torch.stack([naive_signal(place) for place in range(window)])
    event_BLE, position_BC, target_BCE = drawn(model)
    weight_BCD = torch.randn(3, 3, WIDTH + 2, dtype=torch.float64)
    naive = [
        [naive_interest(model, list(event_BLE[user, :position]), target_BCE[user, place]) for place, position in row]
        for user, row in enumerate(map(enumerate, position_BC.tolist()))
    ]
    naive_BCD = torch.stack([torch.stack(row) for row in naive])
    found_BCD = run(model, event_BLE, position_BC, target_BCE).interest_BCD
    torch.testing.assert_close(found_BCD, naive_BCD, rtol=0, atol=1e-12)
    layers = (model.short, model.affinity, model.user, model.item)
    leaves = [event_BLE, target_BCE, *(weight for layer in layers for weight in layer.parameters())]
    gradients = [
        torch.autograd.grad((weight_BCD * value).sum(), leaves, materialize_grads=True, allow_unused=True)
        for value in (found_BCD, naive_BCD)
    ]
    for found_grad, naive_grad in zip(*gradients, strict=True):
        torch.testing.assert_close(found_grad, naive_grad, rtol=0, atol=1e-10)


def test_time_signals_are_sines_and_cosines_of_the_place() -> None:
    naive_ND = torch.stack([naive_signal(place) for place in range(50)])
    torch.testing.assert_close(time_signals(50, WIDTH).double(), naive_ND, rtol=0, atol=1e-6)


def test_an_only_event_attends_to_itself() -> None:
    model = make()
    assert run(model, *drawn(model)).attention_BCS[1, 0].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_two_events_attend_to_each_other_and_not_to_themselves() -> None:
    model = make(window=2)
    event_BLE, _, target_BCE = drawn(model)
    attention_BCS = run(model, event_BLE, torch.full((3, 3), 2), target_BCE).attention_BCS
    # Each row of affinities is one entry, 1: the mean is one half of each event, whatever the keys.
    assert attention_BCS.unique().tolist() == [0.5]


def test_events_before_the_recent_ones_change_nothing() -> None:
    model = make()
    event_BLE, position_BC, target_BCE = drawn(model)
    changed_BLE = event_BLE.detach().clone()
    changed_BLE[0, :3] = 7.0
    interests = [run(model, events, position_BC, target_BCE).interest_BCD[0, 2] for events in (event_BLE, changed_BLE)]
    torch.testing.assert_close(*interests, rtol=0, atol=1e-12)


def test_an_item_starts_where_an_event_with_it_is() -> None:
    model = make()
    assert torch.equal(model.item.weight, model.user.weight[:, : model.target_width])
