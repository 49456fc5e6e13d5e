"""Ties and time gaps."""

import numpy as np
import torch

from lifelong.dataset.events import gap_numbers
from lifelong.offline.nn.hits import gaps_since, later_of_equal


def test_of_equal_scores_the_later_event_is_better() -> None:
    score = torch.tensor([[[2.0, 5.0, 2.0, -1.0, 5.0, -1.0]]])
    assert later_of_equal(score).argsort(dim=-1, descending=True).tolist() == [[[4, 1, 2, 0, 5, 3]]]


def test_rounding_errors_do_not_decide() -> None:
    score = torch.tensor([[[3.0000001, 3.0, 2.9999999, 2.99]]], dtype=torch.float64)
    assert later_of_equal(score).argsort(dim=-1, descending=True).tolist() == [[[2, 1, 0, 3]]]


def test_gaps_are_numbered_as_those_of_events() -> None:
    powers = 2 ** np.arange(62, dtype=np.int64)
    seconds = np.concatenate([[-5, 0], powers, powers - 1, powers + 1])
    wanted = gap_numbers(seconds, np.zeros_like(seconds))
    found = gaps_since(torch.from_numpy(seconds), torch.zeros(len(seconds), dtype=torch.int64))
    np.testing.assert_array_equal(found.numpy(), wanted)
