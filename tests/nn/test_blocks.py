import pytest
import torch

from lifelong.offline.nn.embeddings import STD_FEW, STD_MANY, FieldEmbedding
from lifelong.offline.nn.head import Head
from lifelong.offline.nn.masks import masked_softmax


def test_masked_softmax_of_nothing_is_zero_forward_and_backward() -> None:
    score = torch.tensor([[1.0, float("inf")]], requires_grad=True)
    weight = masked_softmax(score, torch.tensor([[False, False]]))
    weight.sum().backward()
    assert weight.tolist() == [[0.0, 0.0]]
    assert score.grad is not None
    assert score.grad.tolist() == [[0.0, 0.0]]


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
