"""Scores by blocks of pairs against the MLP of all pairs."""

import pytest
import torch

from lifelong.offline.nn.attention import PairScore
from lifelong.zoo.layers import pairs
from lifelong.zoo.layers.pairs import visible_scores


@pytest.mark.parametrize("numbers", [1, 2_000, 2**19])
def test_visible_pairs_are_scored_as_by_the_mlp_in_value_and_gradient(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pairs.NUMBERS_AT_ONCE, "cpu", numbers)
    torch.manual_seed(0)
    score = PairScore(5, (7, 4)).double()
    query_BCE, event_BLE = (
        torch.randn(3, 6, 5).double().requires_grad_(),
        torch.randn(3, 9, 5).double().requires_grad_(),
    )
    end_BC = torch.tensor([[0, 3, 3, 5, 9, 0], [9, 1, 7, 2, 2, 9], [0] * 6])
    first_BC = (end_BC - 4).clamp(min=0)
    place_L = torch.arange(9)
    visible_BCL = (place_L >= first_BC.unsqueeze(-1)) & (place_L < end_BC.unsqueeze(-1))
    factor_BCL = torch.randn(3, 6, 9).double()
    leaves, results = [query_BCE, event_BLE, *score.parameters()], []
    for value_BCL in (
        visible_scores(score, query_BCE, event_BLE, first_BC, end_BC),
        score(query_BCE, event_BLE.unsqueeze(1)),
    ):
        seen_BCL = value_BCL.masked_fill(~visible_BCL, 0.0)
        results.append((seen_BCL.detach(), *torch.autograd.grad((seen_BCL * factor_BCL).sum(), leaves)))
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def test_no_events_are_no_scores() -> None:
    none_BC = torch.zeros(2, 3, dtype=torch.int64)
    assert visible_scores(PairScore(5), torch.randn(2, 3, 5), torch.zeros(2, 0, 5), none_BC, none_BC).shape == (2, 3, 0)
