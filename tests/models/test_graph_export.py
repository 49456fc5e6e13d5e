import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from pathlib import Path

from lifelong.artifact.graphs import write_graphs
from lifelong.models import MODELS, build, require_memory
from lifelong.models.base import MemoryModel
from lifelong.testing.worlds import INPUTS

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if issubclass(entry, MemoryModel)])
def test_graphs_of_every_memory_model_give_the_numbers_of_the_model(name: str, tmp_path: Path) -> None:
    # `write_graphs` compares each graph with the model, for several numbers of users and targets.
    write_graphs(require_memory(build(name, INPUTS, {}), purpose="export").eval(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"write.onnx", "read.onnx", "head.onnx"}
