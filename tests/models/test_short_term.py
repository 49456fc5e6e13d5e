"""The attention to the last events that SIM, ETA, SDIM and TWIN may have in addition to their search, against loops."""

import math

import pytest
import torch

from lifelong.offline.models import build
from lifelong.offline.models.base import HistoryModel, Model
from lifelong.offline.nn.short_term import ShortTerm
from lifelong.testing.worlds import INPUTS, random_batch
from tests.models.finding import inputs_of

SEARCHING = ("sim", "sim_soft", "sim_cluster", "eta", "twin")


def model_of(name: str, *, short: int, **settings: int) -> Model:
    torch.manual_seed(0)
    return build(name, INPUTS, {"embedding": 3, "short": short, **settings}).double().eval()


def by_loops(block: ShortTerm, event_LE: torch.Tensor, target_E: torch.Tensor, position: int) -> torch.Tensor:
    """One target: for each head the softmax over its last events of q . k / sqrt(width of a head), and the sum."""
    part, found = block.width // block.heads, []
    seen = event_LE[max(0, position - block.size) : position]
    for head in range(block.heads):
        rows = slice(head * part, (head + 1) * part)
        query = block.query.weight[rows] @ target_E
        scores = [query @ (block.key.weight[rows] @ event) / math.sqrt(part) for event in seen]
        total = torch.zeros(part, dtype=torch.float64)
        for score, event in zip(scores, seen, strict=True):
            weight = torch.exp(score) / sum(torch.exp(other) for other in scores)
            total = total + weight * (block.value.weight[rows] @ event)
        found.append(total)
    return torch.cat(found)


def test_value_and_gradient_are_those_of_loops() -> None:
    torch.manual_seed(0)
    block = ShortTerm(6, 9, size=4, width=8, heads=2).double()
    event_BLE = torch.randn(2, 7, 9, dtype=torch.float64, requires_grad=True)
    target_BCE = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    position_BC = torch.tensor([[0, 3, 7], [2, 2, 5]])
    wanted = torch.stack(
        [
            torch.stack([by_loops(block, event_BLE[b], target_BCE[b, c], int(position_BC[b, c])) for c in range(3)])
            for b in range(2)
        ]
    )
    found = block(event_BLE, target_BCE, position_BC)
    torch.testing.assert_close(found, wanted)
    inputs = [event_BLE, target_BCE, *block.parameters()]
    weights = torch.randn_like(found)
    gradients = (torch.autograd.grad((value * weights).sum(), inputs) for value in (found, wanted))
    torch.testing.assert_close(*gradients)


def test_a_target_and_the_events_of_its_values_are_near_each_other_at_the_start() -> None:
    block = ShortTerm(8, 12, size=1)
    target_E = torch.randn(8)
    same, own = block.key(torch.cat([target_E, torch.randn(4)])), block.query(target_E)
    torch.testing.assert_close(same, own)
    torch.testing.assert_close(own @ own, target_E @ target_E)


@pytest.mark.parametrize("name", SEARCHING)
def test_the_short_term_stands_behind_what_was_found_and_ends_at_the_recent_events(name: str) -> None:
    model = model_of(name, short=5, recent=3)
    assert isinstance(model, HistoryModel) and model.short_term is not None
    assert model.short_term.size == 3
    window, query = inputs_of(model)
    whole, alone = model.look(window, query).interest_BCD, model.find(window, query).interest_BCD
    torch.testing.assert_close(whole[..., : alone.shape[-1]], alone)
    for user in range(len(window.length_B)):
        for target in range(query.position_BC.shape[1]):
            asked = window.vector_BLE[user], query.vector_BCE[user, target], int(query.position_BC[user, target])
            torch.testing.assert_close(whole[user, target, alone.shape[-1] :], by_loops(model.short_term, *asked))


def test_sdim_attends_to_what_its_memory_keeps() -> None:
    model, batch = model_of("sdim", short=4), random_batch([20, 3, 0], targets=4)
    whole = model(batch).logit_BCT
    with torch.no_grad():
        model.short_term.value.weight.zero_()
    changed_BC = (model(batch).logit_BCT != whole).any(dim=-1)
    assert torch.equal(changed_BC, batch.position_BC > 0)
