"""The graph that folds runs of events into memories, for models that have a stack of periodic GRUs as memory.

    event [L, B, E] --GRU 1--> states --every k-th--> GRU 2 --> states --every k-th--> ...      k = ratio of the periods

Each layer is one GRU operator over all its steps, which takes a fiftieth of the time of as many single steps. A run
begins at a count that the largest period divides, and its number of events is a multiple of that period (`STRIDE` in
the graph's metadata), so that each layer begins and ends with a whole step.

Shapes: B users, L events of the longest run, E width of an embedded event, S layers, D width of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from lifelong.artifact.folder import STRIDE
from lifelong.dtypes import Float32Array
from lifelong.errors import require

_OPSET, _IR = 20, 10
_END = 2**62


class _Builder:
    """Nodes and constants of a graph."""

    def __init__(self) -> None:
        self.onnx = require("onnx", extra="train", purpose="exporting graphs")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: npt.NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        name = f"constant {len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node; returns the names of its outputs."""
        names = [f"{operator} {len(self.nodes)} {place}" for place in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), names, **attributes))
        return names


def run_graph(stack: Sequence[tuple[nn.GRU, int]], field: str) -> Any:
    """The graph as an ONNX model: `field`, `event`, `length` -> `new_field`.

    Args:
        stack: layers and their nested periods, the lowest first.
        field: name of the field of the memory, `[B, S, D]`.
    """
    build, helper = _Builder(), require("onnx", extra="train", purpose="exporting graphs").helper
    (input_LBE,) = build.node("Transpose", "event", perm=[1, 0, 2])
    starts = build.node("Split", field, outputs=len(stack), axis=1, num_outputs=len(stack))
    ends, below = [], 1
    for (gru, period), start_B1D in zip(stack, starts, strict=True):
        input_LBE, end_1BD = _layer(build, gru, _every(build, input_LBE, period // below), start_B1D, period)
        ends.append(end_1BD)
        below = period
    (slot_SBD,) = build.node("Concat", *ends, axis=0)
    build.nodes.append(helper.make_node("Transpose", [slot_SBD], [f"new_{field}"], perm=[1, 0, 2]))
    return _model(build, stack, field)


def _every(build: _Builder, input_LBE: str, step: int) -> str:
    """The last row of every `step` rows."""
    if step == 1:
        return input_LBE
    numbers = [build.constant(np.array([number], np.int64)) for number in (step - 1, _END, 0, step)]
    return build.node("Slice", input_LBE, *numbers)[0]


def _layer(build: _Builder, gru: nn.GRU, input_LBE: str, start_B1D: str, period: int) -> tuple[str, str]:
    """One GRU: its states `[L, B, D]` and the last state `[1, B, D]`."""
    (length_B,) = build.node("Div", "length", build.constant(np.array(period, np.int64)))
    (steps_B,) = build.node("Cast", length_B, to=build.onnx.TensorProto.INT32)
    (start_1BD,) = build.node("Transpose", start_B1D, perm=[1, 0, 2])
    weight_x, weight_h, bias_x, bias_h = map(_gates, gru.all_weights[0])
    weights = [weight_x[None], weight_h[None], np.concatenate([bias_x, bias_h])[None]]
    names = [build.constant(value) for value in weights]
    states, end = build.node(
        "GRU", input_LBE, *names, steps_B, start_1BD, outputs=2, hidden_size=gru.hidden_size, linear_before_reset=1
    )
    return build.node("Squeeze", states, build.constant(np.array([1], np.int64)))[0], end


def _gates(weight: Tensor) -> Float32Array:
    """From torch's order of the gates (reset, update, new) to ONNX's (update, reset, new)."""
    reset, update, new = np.split(weight.detach().numpy(), 3)
    return np.concatenate([update, reset, new])


def _model(build: _Builder, stack: Sequence[tuple[nn.GRU, int]], field: str) -> Any:
    helper, kind = build.onnx.helper, build.onnx.TensorProto
    width, layers, event = stack[0][0].hidden_size, len(stack), stack[0][0].input_size
    inputs = [
        helper.make_tensor_value_info(field, kind.FLOAT, ["B", layers, width]),
        helper.make_tensor_value_info("event", kind.FLOAT, ["B", "L", event]),
        helper.make_tensor_value_info("length", kind.INT64, ["B"]),
    ]
    outputs = [helper.make_tensor_value_info(f"new_{field}", kind.FLOAT, ["B", layers, width])]
    graph = helper.make_graph(build.nodes, "run", inputs, outputs, build.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    helper.set_model_props(model, {STRIDE: str(stack[-1][1])})
    return model
