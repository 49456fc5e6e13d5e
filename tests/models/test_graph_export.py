from pathlib import Path

import pytest
import torch

from lifelong.offline.export.graphs import write_graphs
from lifelong.offline.models import MODELS, SERVED, build, require_served
from lifelong.offline.models.base import HistoryModel
from lifelong.testing.worlds import INPUTS

pytestmark = pytest.mark.slow


CASES = [
    *((name, {}) for name, entry in MODELS.items() if issubclass(entry, SERVED)),
    *((name, {"pooled": True, "recent": recent}) for name in ("din", "dien") for recent in (20, 1000)),
    *((name, {"short": short}) for name in ("sim", "eta", "twin", "sdim") for short in (3, 60)),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_graphs_of_every_served_model_give_the_numbers_of_the_model(
    name: str, settings: dict[str, object], tmp_path: Path
) -> None:
    # `write_graphs` compares each graph with the model, for several numbers of users, targets and events.
    torch.manual_seed(0)
    model = require_served(build(name, INPUTS, settings), purpose="export").eval()
    with torch.no_grad():
        # A new model has tables of zeros, which would hide that a graph looks up other rows.
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    write_graphs(model, tmp_path)
    expected = {"write.onnx", "read.onnx", "head.onnx"}
    if isinstance(model, HistoryModel):
        expected.remove("write.onnx")
    assert {path.name for path in tmp_path.iterdir()} == expected
