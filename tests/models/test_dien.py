"""DIEN against a naive transcription: loops over users, targets and events, in float64."""

import pytest
import torch
from finding import assert_naive_agrees, inputs_of, last_events, naive_gru
from torch import Tensor, nn

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.dien import Dien, DienConfig


def make(*, recent: int = 1000, next_event: float = 1.0) -> Dien:
    torch.manual_seed(0)
    config = DienConfig(embedding=3, width=5, recent=recent, next_event=next_event, dropout=0.0)
    return Dien(INPUTS, config).double().eval()


def extract(gru: nn.GRU, events: list[Tensor], weights: list[Tensor] | None = None) -> list[Tensor]:
    """h_1, h_2, ... of the interest extractor layer, or with weights of the interest evolving layer."""
    h, states = torch.zeros(gru.hidden_size, dtype=torch.float64), []
    for e, a in zip(events, weights or [1.0] * len(events), strict=True):
        h = h + a * (naive_gru(gru, e, h) - h)
        states.append(h)
    return states


def naive(model: Dien, window: Window, query: Query, user: int, target: int) -> Tensor:
    events = [window.vector_BLE[user, place] for place in last_events(model, query, user, target)]
    hidden = extract(model.extractor, events)
    fit = [torch.exp(h @ (model.attention.weight @ query.vector_BCE[user, target])) for h in hidden]
    return extract(model.augru, hidden, [e / sum(fit) for e in fit])[-1] if hidden else torch.zeros(5).double()


@pytest.mark.parametrize("recent", [1000, 9, 4, 1])
def test_interest_is_that_of_the_papers_two_layers_over_the_last_events(recent: int) -> None:
    model = make(recent=recent)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model))


def naive_loss(model: Dien, window: Window) -> Tensor:
    """The auxiliary loss with the sampled events of evaluation: half of all pairs further on."""
    pairs = []
    for user, length in enumerate(window.length_B.tolist()):
        hidden = extract(model.extractor, list(window.vector_BLE[user, :length]))
        pairs += [(hidden[t], window.vector_BLE[user, t + 1, :6], t, user) for t in range(length - 1)]
    right, wrong = [], []
    for place, (h, following, t, user) in enumerate(pairs):
        expected = model.expect.weight @ h + model.expect.bias
        right.append(-torch.log(torch.sigmoid(expected @ following)))
        _, other, other_t, other_user = pairs[(place + len(pairs) // 2) % len(pairs)]
        if window.number_BLF[user, t + 1, 0] != window.number_BLF[other_user, other_t + 1, 0]:
            wrong.append(-torch.log(1 - torch.sigmoid(expected @ other)))
    return torch.stack(right).mean() + torch.stack(wrong).mean()


def test_auxiliary_loss_is_that_of_the_paper_in_value_and_gradient() -> None:
    model = make(next_event=0.5)
    window, query = inputs_of(model, (7, 0, 1, 5, 2))
    losses = [sum(model.find(window, query).aux_losses.values()), 0.5 * naive_loss(model, window)]
    torch.testing.assert_close(losses[0], losses[1])
    leaves = [window.vector_BLE, *model.extractor.parameters(), *model.expect.parameters()]
    for left, right in zip(*(torch.autograd.grad(loss, leaves) for loss in losses), strict=True):
        torch.testing.assert_close(left, right)


def test_sampled_events_are_drawn_in_training_by_the_seed_and_not_in_evaluation() -> None:
    model = make()
    window, query = inputs_of(model, (9, 9))

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return sum(model.find(window, query).aux_losses.values()).item()

    assert loss(0) == loss(1)
    model.train()
    assert loss(0) == loss(0) != loss(1)


def test_a_sampled_event_is_another_one_of_the_batch() -> None:
    model = make().train()
    for _ in range(20):
        assert not model._others(3, torch.device("cpu")).eq(torch.arange(3)).any()


@pytest.mark.parametrize("lengths", [(0, 0), (1, 0), (2, 0)])
def test_auxiliary_loss_is_finite_where_there_is_nothing_to_tell_apart(lengths: tuple[int, int]) -> None:
    model = make().train()
    loss = sum(model.find(*inputs_of(model, lengths)).aux_losses.values())
    loss.backward()
    assert bool(loss.isfinite())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
