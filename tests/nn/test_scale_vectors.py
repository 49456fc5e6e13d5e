import pytest
import torch

from lifelong.dataset.scales import SINCE, TIME_OF_DAY
from lifelong.offline.nn.embeddings import FieldEmbedding

SCALES = {"since_event": SINCE, "time_of_day": TIME_OF_DAY}


def embedding() -> FieldEmbedding:
    torch.manual_seed(0)
    return FieldEmbedding({"item": 9, "since_event": SINCE.size, "hour": 26}, 4, scales=SCALES)


def test_a_field_on_a_scale_has_its_codes_times_one_matrix() -> None:
    embed = embedding()
    code_VK = torch.from_numpy(SINCE.codes()).float()
    number = torch.tensor([[3, 100, 5], [1, 362, 0]])
    found = embed(number, ("item", "since_event", "hour"))
    assert torch.allclose(found[:, 4:8], code_VK[number[:, 1]] @ embed.scales["since_event"].weight)
    assert torch.equal(found[:, :4], embed.tables["item"].weight[number[:, 0]])
    assert torch.equal(found[:, 8:], embed.tables["hour"].weight[number[:, 2]])


def test_tables_and_scales_are_apart_and_both_are_exported() -> None:
    embed = embedding()
    assert (list(embed.tables), list(embed.scales)) == (["item", "hour"], ["since_event"])
    assert {name: tuple(value.shape) for name, value in embed.state_dict().items()} == {
        "table_list.0.weight": (9, 4),
        "table_list.1.weight": (26, 4),
        "scale_list.0.weight": (31, 4),
    }
    vectors = embed.vectors("since_event")
    assert vectors.shape == (SINCE.size, 4) and not vectors[0].any()


def test_vectors_on_a_scale_start_as_long_as_those_of_a_table() -> None:
    torch.manual_seed(0)
    embed = FieldEmbedding({name: scale.size for name, scale in SCALES.items()}, 400, scales=SCALES)
    for field in SCALES:
        assert embed.vectors(field)[1:].square().mean().sqrt().item() == pytest.approx(1, abs=0.15)
    embed.restart(0.01)
    assert embed.vectors("time_of_day")[1:].square().mean().sqrt().item() == pytest.approx(0.01, abs=0.002)
