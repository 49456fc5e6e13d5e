"""Fixed codes together with trained embeddings."""

import pytest
import torch

from lifelong.offline.nn.embeddings import FieldEmbedding


def test_a_code_stands_behind_its_fields_vector_and_is_split_off_again() -> None:
    embed = FieldEmbedding({"item": 9, "category": 4, "hour": 5}, 2, codes=["category"])
    number, fields = torch.tensor([[3, 2, 1], [0, 3, 4]]), ("item", "category", "hour")
    vector = embed(number, fields)
    assert embed.widths(fields) == [2, 4, 2]
    assert vector[:, 4:6].tolist() == [[1, 0], [0, 1]]
    assert torch.equal(embed.trained_part(vector, fields)[:, 1], embed.tables["category"].weight[[2, 3]])
    assert embed.code_part(vector, fields).tolist() == [[1, 0], [0, 1]]
    assert torch.equal(embed.vectors("category")[[2, 3]], vector[:, 2:6])


def test_codes_are_neither_trained_nor_saved() -> None:
    embed = FieldEmbedding({"item": 9, "category": 4}, 2, codes=["category"])
    plain = FieldEmbedding({"item": 9, "category": 4}, 2)
    assert embed.state_dict().keys() == plain.state_dict().keys()
    assert len(list(embed.parameters())) == 2


def test_codes_change_no_first_vector() -> None:
    tables = []
    for codes in ([], ["item"]):
        torch.manual_seed(0)
        tables.append(FieldEmbedding({"item": 9, "category": 4}, 2, codes=codes).tables["category"].weight)
    assert torch.equal(*tables)


def test_a_restart_has_one_spread_and_keeps_padding_at_zero() -> None:
    torch.manual_seed(0)
    embed = FieldEmbedding({"item": 20_000, "category": 2_000}, 4)
    embed.restart(0.1)
    for table in embed.tables.values():
        assert table.weight.std().item() == pytest.approx(0.1, rel=0.05)
        assert not table.weight[0].any()
