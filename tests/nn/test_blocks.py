import pytest
import torch
from torch import nn

from lifelong.offline.nn.attention import PairScore
from lifelong.offline.nn.embeddings import STD_FEW, STD_MANY, FieldEmbedding
from lifelong.offline.nn.head import Head
from lifelong.offline.nn.masks import masked_softmax
from lifelong.offline.nn.recurrent import gru_pass, gru_step


def test_masked_softmax_of_nothing_is_zero_forward_and_backward() -> None:
    score = torch.tensor([[1.0, float("inf")]], requires_grad=True)
    weight = masked_softmax(score, torch.tensor([[False, False]]))
    weight.sum().backward()
    assert weight.tolist() == [[0.0, 0.0]]
    assert score.grad is not None
    assert score.grad.tolist() == [[0.0, 0.0]]


def test_gru_step_is_one_step_of_the_pass() -> None:
    torch.manual_seed(0)
    gru, value = nn.GRU(3, 4, batch_first=True).double(), torch.randn(2, 5, 3).double()
    hidden_BD = torch.zeros(2, 4).double()
    for place in range(5):
        hidden_BD = gru_step(gru, value[:, place], hidden_BD)
        torch.testing.assert_close(hidden_BD, gru_pass(gru, value, torch.tensor([5, 5]))[:, place], rtol=0, atol=1e-14)


@pytest.mark.parametrize("memories", [1, 3])
def test_pair_score_in_split_form_is_the_mlp_of_all_four_parts(memories: int) -> None:
    torch.manual_seed(0)
    score = PairScore(5).double()
    query, entry = torch.randn(2, 3, 5).double(), torch.randn(2, memories, 4, 5).double()
    wide = query.unsqueeze(-2).expand(2, 3, 4, 5)
    parts = torch.cat([wide, entry.expand(2, 3, 4, 5), wide - entry, wide * entry], dim=-1)
    expected = score.last(torch.relu(score.second(torch.relu(score.first(parts))))).squeeze(-1)
    torch.testing.assert_close(score(query, entry), expected, rtol=0, atol=1e-14)


def test_padding_embeds_to_zeros_and_fields_stand_in_order() -> None:
    embed = FieldEmbedding({"item": 4, "category": 3}, 2)
    vector = embed(torch.tensor([[0, 2], [3, 0]]), ("item", "category"))
    assert vector.shape == (2, 4)
    assert vector[0].tolist() == [0.0, 0.0, *embed.tables["category"].weight[2].tolist()]
    assert vector[1].tolist() == [*embed.tables["item"].weight[3].tolist(), 0.0, 0.0]


def test_fields_may_have_any_name() -> None:
    embed = FieldEmbedding({"item": 4, "type": 3, "a.b": 3, "forward": 2}, 2)
    assert list(embed.tables) == ["item", "type", "a.b", "forward"]


def test_a_head_takes_one_context_for_all_targets_of_a_user() -> None:
    head, (interest, target) = Head(6, 2, hidden=(4,), dropout=0), torch.randn(2, 3, 5, 1).unbind()
    target, context = torch.cat([target, target * 2], dim=-1), torch.randn(3, 1, 3)
    one, each = head(interest, target, context), head(interest, target, context.expand(3, 5, 3))
    torch.testing.assert_close(one, each)
    assert not torch.allclose(one[0], head(interest, target, context.flip(0))[0])


def test_vectors_of_a_large_field_start_small_and_of_a_small_one_wide() -> None:
    torch.manual_seed(0)
    tables = FieldEmbedding({"item": 20_000, "category": 2_000}, 4).tables
    assert tables["item"].weight.std().item() == pytest.approx(STD_MANY, rel=0.05)
    assert tables["category"].weight.std().item() == pytest.approx(STD_FEW, rel=0.05)
    assert STD_MANY < STD_FEW
