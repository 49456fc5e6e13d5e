"""ELU in the form that runs faster."""

from typing import Any

import numpy as np
import pytest

from lifelong.offline.export.activations import replace_elu

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def graph_of(*slopes: float) -> Any:
    """A chain of ELUs with these slopes."""
    ends = [onnx.helper.make_tensor_value_info(f"v{at}", onnx.TensorProto.FLOAT, [None]) for at in (0, len(slopes))]
    nodes = [
        onnx.helper.make_node("Elu", [f"v{at}"], [f"v{at + 1}"], name=f"elu{at}", alpha=slope)
        for at, slope in enumerate(slopes)
    ]
    return onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:])


def run(graph: Any, values: np.ndarray) -> np.ndarray:
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"v0": values})[0])


def test_the_other_form_gives_the_same_numbers() -> None:
    values = np.array([-1e30, -100.0, -3.0, -1e-3, -1e-30, -0.0, 0.0, 1e-30, 1e-3, 3.0, 1e30, np.inf], np.float32)
    graph = graph_of(1.0, 1.0)
    wanted = run(graph, values)
    replace_elu(graph)
    assert "Elu" not in {node.op_type for node in graph.node}
    np.testing.assert_allclose(run(graph, values), wanted, rtol=0, atol=2e-7)


def test_what_is_not_a_number_stays_so() -> None:
    graph = graph_of(1.0)
    replace_elu(graph)
    assert np.isnan(run(graph, np.array([np.nan], np.float32))).all()


def test_another_slope_stays_as_it_is() -> None:
    graph = graph_of(0.5)
    replace_elu(graph)
    assert [node.op_type for node in graph.node] == ["Elu"]
    assert not graph.initializer
