import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from pathlib import Path

from lifelong.artifact.graphs import write_graphs
from lifelong.models import MODELS, SERVED, build, require_served
from lifelong.models.base import HistoryModel
from lifelong.testing.worlds import INPUTS

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if issubclass(entry, SERVED)])
def test_graphs_of_every_served_model_give_the_numbers_of_the_model(name: str, tmp_path: Path) -> None:
    # `write_graphs` compares each graph with the model, for several numbers of users, targets and events.
    model = require_served(build(name, INPUTS, {}), purpose="export").eval()
    write_graphs(model, tmp_path)
    expected = {"write.onnx", "read.onnx", "head.onnx"}
    if isinstance(model, HistoryModel):
        expected.remove("write.onnx")
    assert {path.name for path in tmp_path.iterdir()} == expected
