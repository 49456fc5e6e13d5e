"""Caser against a naive transcription: loops over users, targets, filters and windows, in float64."""

import pytest
import torch
from finding import assert_naive_agrees, inputs_of, last_events
from torch import Tensor

from lifelong.offline.models.base import Query, Window
from lifelong.testing.worlds import INPUTS
from lifelong.zoo.caser import Caser, CaserConfig, check_heights


def make(*, recent: int = 5, heights: tuple[int, ...] = (1, 2, 4)) -> Caser:
    torch.manual_seed(0)
    config = CaserConfig(embedding=2, width=4, recent=recent, heights=heights, horizontal=3, vertical=2)
    return Caser(INPUTS, config).double().eval()


def naive(model: Caser, window: Window, query: Query, user: int, target: int) -> Tensor:
    """Section 3.2 and 3.3 for one target."""
    events, size = [window.vector_BLE[user, place] for place in last_events(model, query, user, target)], model.recent
    image = torch.stack([torch.zeros(model.event_width).double()] * (size - len(events)) + events)
    features = []
    for height, filters in zip(model.heights, model.horizontal, strict=True):
        for filter_EH, bias in zip(filters.weight, filters.bias, strict=True):
            parts = [torch.relu((image[i : i + height] * filter_EH.T).sum() + bias) for i in range(size - height + 1)]
            features.append(torch.stack(parts).max())
    for weight_N in model.vertical.weight[:, 0]:
        features += [sum(weight_N[i] * image[i, e] for i in range(size)) for e in range(model.event_width)]
    return torch.relu(model.both.weight @ torch.stack(features) + model.both.bias)


@pytest.mark.parametrize("recent", [1, 3, 5, 20])
def test_interest_is_that_of_the_paper_in_value_and_gradient(recent: int) -> None:
    model = make(recent=recent)
    assert_naive_agrees(model, lambda *place: naive(model, *place), *inputs_of(model))


def test_heights_above_the_window_are_left_out() -> None:
    assert make(recent=3).heights == (1, 2)


@pytest.mark.parametrize("heights", [(), (0, 1), (2, 2)])
def test_heights_that_are_not_different_positive_numbers_are_refused(heights: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="heights"):
        check_heights(heights)
