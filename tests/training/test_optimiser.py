"""Adam's groups and the learning rate over a run."""

import pytest
from torch import nn

from lifelong.config import TrainSettings
from lifelong.offline.training.optimiser import build_optimiser, learning_rate


def test_weight_decay_leaves_embedding_tables_out() -> None:
    model = nn.ModuleList([nn.Embedding(5, 2), nn.Linear(2, 1)])
    tables, others = build_optimiser(model, TrainSettings(weight_decay=0.1)).param_groups
    assert [tuple(part.shape) for part in tables["params"]] == [(5, 2)]
    assert (tables["weight_decay"], others["weight_decay"]) == (0.0, 0.1)
    assert len(others["params"]) == 2


def test_model_without_tables_has_one_group() -> None:
    assert len(build_optimiser(nn.Linear(2, 1), TrainSettings()).param_groups) == 1


def test_constant_rate() -> None:
    settings = TrainSettings(learning_rate=0.5)
    assert {learning_rate(settings, examples, 100) for examples in (0, 50, 100)} == {0.5}


def test_cosine_falls_to_a_hundredth_at_the_end_of_the_run() -> None:
    settings = TrainSettings(learning_rate=1.0, schedule="cosine")
    rates = [learning_rate(settings, examples, 100) for examples in (0, 50, 100, 200)]
    assert rates == pytest.approx([1.0, 0.505, 0.01, 0.01])
