import pytest
import torch

from lifelong.offline.nn.hits import best_events, over_events, take_events


def test_best_events_stand_in_the_order_of_their_scores() -> None:
    place, hit = best_events(torch.tensor([[[1.0, 4.0, 2.0, 3.0]]]), torch.ones(1, 1, 4, dtype=torch.bool), 3)
    assert place.tolist() == [[[1, 3, 2]]]
    assert hit.all()


@pytest.mark.parametrize("scores", [[-9.0, -8.0, 5.0], [-9, -8, 5], [float("-1e30"), -1e29, 0.0]])
def test_an_unseen_event_never_wins_whatever_its_score(scores: list[float]) -> None:
    seen = torch.tensor([[[True, True, False]]])
    place, hit = best_events(torch.tensor([[scores]]), seen, 3)
    assert place.tolist() == [[[1, 0, 0]]]
    assert hit.tolist() == [[[True, True, False]]]


def test_nan_at_an_unseen_event_changes_nothing() -> None:
    place, hit = best_events(torch.tensor([[[1.0, float("nan")]]]), torch.tensor([[[True, False]]]), 1)
    assert (place.tolist(), hit.tolist()) == ([[[0]]], [[[True]]])


def test_a_history_shorter_than_asked_for_has_fewer_hits() -> None:
    _, hit = best_events(torch.zeros(2, 1, 2), torch.tensor([[[True, True]], [[False, False]]]), 5)
    assert hit.sum(dim=-1).tolist() == [[2], [0]]


def test_no_history_has_no_hit() -> None:
    place, hit = best_events(torch.zeros(1, 2, 0), torch.zeros(1, 2, 0, dtype=torch.bool), 3)
    assert place.tolist() == [[[0] * 3] * 2]
    assert not hit.any()
    assert take_events(torch.zeros(1, 0, 4), place, hit).tolist() == [[[[0.0] * 4] * 3] * 2]


def test_events_are_taken_from_their_own_user_and_zeros_where_there_is_no_hit() -> None:
    value = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    taken = take_events(value, torch.tensor([[[1, 0]], [[1, 1]]]), torch.tensor([[[True, False]], [[True, True]]]))
    assert taken.tolist() == [[[[2.0], [0.0]]], [[[4.0], [4.0]]]]


def test_the_gradient_of_what_is_taken_counts_how_often_it_was() -> None:
    value = torch.ones(1, 3, 1, requires_grad=True)
    hit = torch.tensor([[[True, True, True, False]]])
    take_events(value, torch.tensor([[[2, 2, 0, 1]]]), hit).sum().backward()
    assert value.grad is not None
    assert value.grad.flatten().tolist() == [1.0, 0.0, 2.0]


def test_weights_go_back_to_their_events_and_those_of_one_event_are_summed() -> None:
    weight = torch.tensor([[[0.5, 0.25, 0.25, 0.0]]])
    place = torch.tensor([[[2, 0, 2, 0]]])
    assert over_events(weight, place, 4).tolist() == [[[0.25, 0.0, 0.75, 0.0]]]


def test_without_events_there_is_nothing_to_give_a_weight_to() -> None:
    assert over_events(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int64), 0).shape == (1, 2, 0)
