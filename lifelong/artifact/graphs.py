"""The three functions of a memory model as ONNX graphs, checked against the model.

    write.onnx    count, <field>..., event [B, E]                  -> new_count, new_<field>...
    read.onnx     count, <field>... [B, 1, ...], target [B, C, E]  -> interest [B, C, D], attention [B, C, S] if any
    head.onnx     interest, target, context [B, C, ...]            -> logit [B, C, T]

`count` is int64, everything else float32; B and C are free. A field is named as in the model's memory, without the
shape letters. `context` is left out where the schema has no context fields.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.artifact.folder import FieldLayout
from lifelong.errors import ArtifactError, require
from lifelong.models.base import Memory, MemoryModel

TOLERANCE = 1e-5
"""Largest allowed difference between a graph and its model, absolute and relative."""
_SIZES = ((1, 1), (1, 7), (5, 1), (3, 4))
"""(B, C) at which graphs are checked."""
_TRACED = (2, 3)
"""(B, C) of the trace; an example size of 1 would freeze the axis."""


def field_name(attribute: str) -> str:
    """Name of a memory field without its shape letters: `slot_BSD` -> `slot`."""
    return attribute.rsplit("_", 1)[0]


def memory_layout(model: MemoryModel) -> tuple[FieldLayout, ...]:
    """The float fields of a model's memory."""
    fields = model.initial_memory(1)._asdict()
    return tuple(
        FieldLayout(name=field_name(name), shape=tuple(value.shape[1:]))
        for name, value in fields.items()
        if name != "count_B"
    )


class WriteGraph(nn.Module):
    """`write_vector` with the memory as separate inputs and outputs."""

    def __init__(self, model: MemoryModel) -> None:
        super().__init__()
        self.model, self.kind = model, type(model.initial_memory(1))

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Memory fields, then the embedded event."""
        return tuple(self.model.write_vector(self.kind(*parts[:-1]), parts[-1]))


class ReadGraph(nn.Module):
    """`read_vector` with the memory as separate inputs."""

    def __init__(self, model: MemoryModel) -> None:
        super().__init__()
        self.model, self.kind = model, type(model.initial_memory(1))

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Memory fields `[B, 1, ...]`, then the embedded targets."""
        interest_BCD, attention_BCS = self.model.read_vector(self.kind(*parts[:-1]), parts[-1])
        return (interest_BCD,) if attention_BCS is None else (interest_BCD, attention_BCS)


class HeadGraph(nn.Module):
    """`head` from interest, target and, if the schema has one, context."""

    def __init__(self, model: MemoryModel) -> None:
        super().__init__()
        self.head, self.context = model.head, model.context_width > 0

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Interest, target, context."""
        interest, target = parts[:2]
        context = parts[2] if self.context else target[..., :0]
        return (self.head(interest, target, context),)


@dataclass(frozen=True, slots=True)
class _Function:
    """One graph to make: the module, the names of its inputs and outputs, and how to draw inputs of sizes (B, C)."""

    module: nn.Module
    inputs: Sequence[str]
    outputs: Sequence[str]
    draw: Callable[[int, int], tuple[Tensor, ...]]
    per_candidate: frozenset[str] = frozenset()
    """Inputs whose second axis is the candidate."""


def write_graphs(model: MemoryModel, folder: Path) -> None:
    """Export and check the graphs of a model in evaluation mode.

    Raises:
        ArtifactError: a graph gives other numbers than the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A copy, so that a model on another device stays there.
    model = copy.deepcopy(model).cpu()
    with torch.no_grad():
        for name, function in _functions(model).items():
            path = folder / f"{name}.onnx"
            _export(function, path)
            _strip(path)
            _check(function, path)


def _functions(model: MemoryModel) -> dict[str, _Function]:
    names = [field_name(name) for name in model.initial_memory(1)._asdict()]
    draw = _Draw(model)
    attention = ReadGraph(model)(*draw.read(2, 2))[1:]
    return {
        "write": _Function(WriteGraph(model), [*names, "event"], [f"new_{name}" for name in names], draw.write),
        "read": _Function(
            ReadGraph(model),
            [*names, "target"],
            ["interest", "attention"] if attention else ["interest"],
            draw.read,
            frozenset({"target"}),
        ),
        "head": _Function(
            HeadGraph(model),
            ["interest", "target", "context"] if model.context_width else ["interest", "target"],
            ["logit"],
            draw.head,
            frozenset({"interest", "target", "context"}),
        ),
    }


class _Draw:
    """Random inputs of the functions of one model."""

    def __init__(self, model: MemoryModel) -> None:
        self.model, self.generator = model, torch.Generator().manual_seed(0)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _memory(self, users: int, axes: tuple[int, ...] = ()) -> list[Tensor]:
        empty: Memory = self.model.initial_memory(users)
        # Small and large counts: with and without empty slots.
        count_B = torch.randint(0, 100, (users, *axes), generator=self.generator)
        floats = [value for name, value in empty._asdict().items() if name != "count_B"]
        return [count_B, *(self._normal(users, *axes, *value.shape[1:]) for value in floats)]

    def write(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Memories and one event each."""
        return (*self._memory(users), self._normal(users, self.model.event_width))

    def read(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Memories `[B, 1, ...]` and targets."""
        return (*self._memory(users, (1,)), self._normal(users, candidates, self.model.target_width))

    def head(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Interest, target, context."""
        interest = self.model.read_vector(*self._read_arguments(users, candidates))[0]
        parts = [interest, self._normal(users, candidates, self.model.target_width)]
        if self.model.context_width:
            parts.append(self._normal(users, candidates, self.model.context_width))
        return tuple(parts)

    def _read_arguments(self, users: int, candidates: int) -> tuple[Any, Tensor]:
        *memory, target = self.read(users, candidates)
        return type(self.model.initial_memory(1))(*memory), target


def _export(function: _Function, path: Path) -> None:
    batch, candidate = torch.export.Dim("B"), torch.export.Dim("C")
    axes = tuple({0: batch, 1: candidate} if name in function.per_candidate else {0: batch} for name in function.inputs)
    with _silence():
        torch.onnx.export(
            function.module.eval(),
            function.draw(*_TRACED),
            path,
            input_names=list(function.inputs),
            output_names=list(function.outputs),
            dynamo=True,
            dynamic_shapes=(axes,),
            external_data=False,
            verbose=False,
        )


def _strip(path: Path) -> None:
    """Take out what the exporter notes about its source: file names and stack traces of this machine."""
    onnx = require("onnx", extra="train", purpose="exporting graphs")
    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]
    onnx.save(model, path)


def _check(function: _Function, path: Path) -> None:
    """Compare a graph with its function.

    Raises:
        ArtifactError: they differ.
    """
    runtime = require("onnxruntime", extra="train", purpose="checking exported graphs")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = {part.name for part in session.get_inputs()}
    for users, candidates in _SIZES:
        inputs = function.draw(users, candidates)
        feed = {name: value.numpy() for name, value in zip(function.inputs, inputs, strict=True) if name in taken}
        found, wanted = session.run(list(function.outputs), feed), function.module(*inputs)
        for name, graph_value, value in zip(function.outputs, found, wanted, strict=True):
            if not np.allclose(graph_value, value.numpy(), rtol=TOLERANCE, atol=TOLERANCE):
                raise ArtifactError(
                    f"{path.name}: {name} differs from the model for {users} users and {candidates} candidates",
                    expected=f"equal within {TOLERANCE}",
                    fix="write the model's function without branches on values or sizes",
                )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The exporter prints, logs and warns about its own insides."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
