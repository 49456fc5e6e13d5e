"""Adam's groups and the learning rate over a run."""

from torch import nn

from lifelong.config import TrainSettings
from lifelong.offline.training.optimiser import build_optimiser


def test_weight_decay_leaves_embedding_tables_out() -> None:
    model = nn.ModuleList([nn.Embedding(5, 2), nn.Linear(2, 1)])
    tables, others = build_optimiser(model, TrainSettings(weight_decay=0.1)).param_groups
    assert [tuple(part.shape) for part in tables["params"]] == [(5, 2)]
    assert (tables["weight_decay"], others["weight_decay"]) == (0.0, 0.1)
    assert len(others["params"]) == 2


def test_model_without_tables_has_one_group() -> None:
    assert len(build_optimiser(nn.Linear(2, 1), TrainSettings()).param_groups) == 1
