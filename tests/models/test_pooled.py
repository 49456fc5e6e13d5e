"""What DIN and DIEN give the head in addition to their interest, as their authors' public code does, against loops."""

import pytest
import torch

from lifelong.offline.models import build
from lifelong.offline.models.base import HistoryModel
from lifelong.testing.worlds import INPUTS, random_batch
from tests.models.finding import inputs_of, last_events

NAMES = ("din", "dien")


def pooled(name: str, recent: int = 4) -> HistoryModel:
    torch.manual_seed(0)
    model = build(name, INPUTS, {"recent": recent, "embedding": 3, "pooled": True})
    assert isinstance(model, HistoryModel)
    return model.double().eval()


@pytest.mark.parametrize("name", NAMES)
def test_behind_the_interest_come_the_mean_of_the_visible_items_and_its_product_with_the_target(name: str) -> None:
    model = pooled(name)
    window, query = inputs_of(model)
    whole, alone = model.look(window, query).interest_BCD, model.find(window, query).interest_BCD
    torch.testing.assert_close(whole[..., : alone.shape[-1]], alone)
    width = model.target_width
    for user in range(len(window.length_B)):
        for target in range(query.position_BC.shape[1]):
            mean = torch.zeros(width, dtype=torch.float64)
            places = last_events(model, query, user, target)
            for place in places:
                mean = mean + window.vector_BLE[user, place, :width] / len(places)
            wanted = torch.cat([mean, mean * query.vector_BCE[user, target]])
            torch.testing.assert_close(whole[user, target, alone.shape[-1] :], wanted)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_reaches_the_logit(name: str) -> None:
    model, batch = pooled(name), random_batch([20, 3, 0], targets=4)
    before = model(batch).logit_BCT
    first = model.head.layers[0]
    begin = model.find(*model.window_of(batch)).interest_BCD.shape[-1]
    with torch.no_grad():
        first.weight[:, begin : begin + 2 * model.target_width] += 1.0
    changed_BC = (model(batch).logit_BCT != before).any(dim=-1)
    assert torch.equal(changed_BC, batch.position_BC > 0)
