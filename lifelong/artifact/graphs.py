"""The functions of a model that a service calls as ONNX graphs, checked against the model.

    write.onnx    count, <field>..., event [B, E]                  -> new_count, new_<field>...
    read.onnx     count, <field>... [B, 1, ...], target [B, C, E]  -> interest [B, C, D], attention [B, C, S] if any
    head.onnx     interest, target, context [B, C, ...]            -> logit [B, C, T]
    run.onnx      <field> [B, S, D], event [B, L, E], length [B]   -> new_<field>; of a memory that is a stack of GRUs
    item_write.onnx, item_read.onnx, item_run.onnx    the same of the side of items, where there is one; what is read
                                                      goes behind the context

`count` is int64, everything else float32; B and C are free. A field is named as in the model's memory, without the
shape letters. `context` is left out where the schema has no context fields.

A history model has no write graph; its read graph takes the recent history instead of a memory (`_WINDOW`), and gives
the attention over its events, `[B, C, L]`: under the name `weight` where it is no share of 1 but free.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.artifact.folder import ITEM_RUN, RUN, FieldLayout, recent_layout
from lifelong.artifact.run_graph import run_graph
from lifelong.errors import ArtifactError, require
from lifelong.models.base import HistoryModel, Memory, MemoryModel, Model, Query, Window
from lifelong.nn.masks import length_mask

TOLERANCE = 1e-5
"""Largest allowed difference between a graph and its model.

Of a memory absolute and relative; of what is read from one in units of its largest number, and of one at least: a sum
of large numbers that comes out small is as uncertain as they are.
"""
CELLS = "cell_BKX"
"""The field of a memory that `MemoryModel.cells` is about."""
_WINDOW = ("history", "history_number", "history_time", "length", "moment")
"""Embedded events [B, L, E], their numbers [B, L, F] and times [B, L]; how many are real and when it is asked [B]."""
_DRAWN_EVENTS, _DRAWN_NUMBERS = 300, 400
_SIZES = ((1, 1), (1, 7), (5, 1), (3, 4))
"""(B, C) at which graphs are checked."""
_TRACED = (2, 3)
"""(B, C) of the trace; an example size of 1 would freeze the axis."""


def field_name(attribute: str) -> str:
    """Name of a memory field without its shape letters: `slot_BSD` -> `slot`."""
    return attribute.rsplit("_", 1)[0]


def memory_layout(model: MemoryModel | HistoryModel) -> tuple[FieldLayout, ...]:
    """What is kept of a user."""
    if isinstance(model, HistoryModel):
        return recent_layout(model.recent, len(model.history_fields))
    fields = model.initial_memory(1)._asdict()
    return tuple(
        FieldLayout(
            name=field_name(name),
            shape=tuple(value.shape[1:]),
            dtype=_dtype(value),
            cells=model.cells if name == CELLS else None,
        )
        for name, value in fields.items()
        if name != "count_B"
    )


def _dtype(value: Tensor) -> Literal["float32", "int16", "int32"]:
    if value.is_floating_point():
        return "float32"
    return "int16" if value.dtype == torch.int16 else "int32"


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


class FindGraph(nn.Module):
    """`look` for candidates that all stand behind the user's last event."""

    def __init__(self, model: HistoryModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """What `_WINDOW` names, then the embedded targets and their numbers."""
        vector_BLE, number_BLF, time_BL, length_B, moment_B, target_BCE, number_BCF = parts
        each = target_BCE.shape[:2]
        query = Query(target_BCE, number_BCF, moment_B.unsqueeze(-1).expand(each), length_B.unsqueeze(-1).expand(each))
        found = self.model.look(Window(vector_BLE, number_BLF, time_BL, length_B), query)
        attention_BCL = found.attention_over(time_BL.shape[1])
        return (found.interest_BCD,) if attention_BCL is None else (found.interest_BCD, attention_BCL)


class HeadGraph(nn.Module):
    """`head` from interest, target and, if the schema has one, context."""

    def __init__(self, model: Model) -> None:
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
    second: Mapping[str, str] = field(default_factory=dict)
    """Inputs whose second axis is free -> what it is: C the candidate, L the event."""
    fixed: _Function | None = None
    """The same for histories of one length, for a module that cannot be traced with a free one."""


_CANDIDATES = {"interest": "C", "target": "C", "target_number": "C", "context": "C"}
_EVENTS = {"history": "L", "history_number": "L", "history_time": "L"}


def write_graphs(model: MemoryModel | HistoryModel, folder: Path) -> None:
    """Export and check the graphs of a model in evaluation mode.

    Raises:
        ArtifactError: a graph gives other numbers than the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A copy, so that a model on another device stays there.
    model = copy.deepcopy(model).cpu()
    with torch.no_grad():
        for name, function in _functions(model).items():
            _write(function, folder / f"{name}.onnx")
        if isinstance(model, MemoryModel):
            of_items = [] if model.item_side is None else [(model.item_side.memory, ITEM_RUN)]
            for memory, name in [(model, RUN), *of_items]:
                if memory.stack:
                    write_run_graph(memory, folder / f"{name}.onnx")


def _write(function: _Function, path: Path) -> None:
    _export(function, path)
    if function.fixed is not None and not _is_free(path, "history"):
        # Not every operation can be traced for histories of any length: such a model always reads a full window.
        function = function.fixed
        _export(function, path)
    _strip(path)
    _check(function, path)


def _is_free(path: Path, name: str) -> bool:
    """Whether the second axis of an input is free in a graph."""
    onnx = require("onnx", extra="train", purpose="exporting graphs")
    (found,) = (part for part in onnx.load(path).graph.input if part.name == name)
    return bool(found.type.tensor_type.shape.dim[1].dim_param)


def _functions(model: MemoryModel | HistoryModel) -> dict[str, _Function]:
    head = _Function(
        HeadGraph(model),
        ["interest", "target", "context"] if model.context_width else ["interest", "target"],
        ["logit"],
        _Draw(model).head,
        _CANDIDATES,
    )
    if isinstance(model, MemoryModel):
        functions = {**_memory_functions(model), "head": head}
        if model.item_side is not None:
            of_items = _memory_functions(model.item_side.memory)
            functions |= {f"item_{name}": function for name, function in of_items.items()}
        return functions
    graph, inputs = FindGraph(model), [*_WINDOW, "target", "target_number"]
    attention = graph(*_Draw(model).find(2, 2))[1:]
    outputs = ["interest", "weight" if model.free_weights else "attention"] if attention else ["interest"]
    fixed = _Function(graph, inputs, outputs, _Draw(model, model.recent).find, _CANDIDATES)
    read = _Function(graph, inputs, outputs, _Draw(model).find, _CANDIDATES | _EVENTS, fixed)
    return {"read": read, "head": head}


def _memory_functions(model: MemoryModel) -> dict[str, _Function]:
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
            _CANDIDATES,
        ),
    }


class _Draw:
    """Random inputs of the functions of one model."""

    def __init__(self, model: MemoryModel | HistoryModel, events: int | None = None) -> None:
        self.model, self.events, self.generator = model, events, torch.Generator().manual_seed(0)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _number(self, fields: Sequence[str], *shape: int) -> Tensor:
        sizes = {**self.model.inputs.item, **self.model.inputs.event}
        draw = [torch.randint(1, sizes[name], shape, generator=self.generator) for name in fields]
        return torch.stack(draw, dim=-1)

    def find(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """What `_WINDOW` names, targets and their numbers; the longer the history, the more of both.

        No history is longer than what a service keeps.
        """
        assert isinstance(self.model, HistoryModel)
        size = self.events or min(6 * (users * candidates - 1) + 1, self.model.recent)
        length_B = torch.randint(0, size + 1, (users,), generator=self.generator)
        length_B[0] = size
        real_BL = length_mask(length_B, size)
        number_BLF = self._number(self.model.history_fields, users, size).masked_fill(~real_BL.unsqueeze(-1), 0)
        time_BL = (torch.rand(users, size, generator=self.generator) * 1e7).long().sort(dim=1).values + 1_600_000_000
        number_BCF = self._number(self.model.item_fields, users, candidates)
        return (
            self.model.embed(number_BLF, self.model.history_fields),
            number_BLF,
            time_BL.masked_fill(~real_BL, 0),
            length_B,
            torch.full((users,), 1_610_100_000),
            self.model.embed(number_BCF, self.model.item_fields),
            number_BCF,
        )

    def _memory(self, users: int, axes: tuple[int, ...] = ()) -> list[Tensor]:
        assert isinstance(self.model, MemoryModel)
        empty: Memory = self.model.initial_memory(users)
        # Small and large counts: with and without empty slots.
        count_B = torch.randint(0, 100, (users, *axes), generator=self.generator)
        drawn = [
            self._normal(users, *axes, *value.shape[1:])
            if value.is_floating_point()
            else self._whole(name, users, axes)
            for name, value in empty._asdict().items()
            if name != "count_B"
        ]
        return [count_B, *drawn]

    def _whole(self, name: str, users: int, axes: tuple[int, ...]) -> Tensor:
        """A field of whole numbers as random events make it: not all numbers are possible."""
        assert isinstance(self.model, MemoryModel)
        event_BLE = self._embedded(self.model.history_fields, users, _DRAWN_EVENTS)
        length_B = torch.full((users,), _DRAWN_EVENTS)
        memory = self.model.encode_vector(event_BLE, length_B, length_B.unsqueeze(-1))
        value: Tensor = memory._asdict()[name][:, 0]
        return value.unsqueeze(1) if axes else value

    def _embedded(self, fields: Sequence[str], *shape: int) -> Tensor:
        """Random events or targets, some of them alike: `[..., E]`."""
        embedded: Tensor = self.model.embed(self._number(fields, *shape).clamp(max=_DRAWN_NUMBERS), tuple(fields))
        return embedded

    def write(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Memories and one event each."""
        return (*self._memory(users), self._vectors(self.model.history_fields, users))

    def read(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Memories `[B, 1, ...]` and targets."""
        return (*self._memory(users, (1,)), self._vectors(self.model.item_fields, users, candidates))

    def _vectors(self, fields: Sequence[str], *shape: int) -> Tensor:
        """Embedded events or targets: any numbers, but those of real ones where whole numbers are in them."""
        if self.model.embed.keyed:
            return self._embedded(fields, *shape)
        return self._normal(*shape, sum(self.model.embed.widths(fields)))

    def head(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Interest, target, context."""
        parts = [self._interest(users, candidates), self._vectors(self.model.item_fields, users, candidates)]
        if self.model.context_width:
            parts.append(self._normal(users, candidates, self.model.context_width))
        return tuple(parts)

    def _interest(self, users: int, candidates: int) -> Tensor:
        if isinstance(self.model, HistoryModel):
            return FindGraph(self.model).forward(*self.find(users, candidates))[0]
        return ReadGraph(self.model).forward(*self.read(users, candidates))[0]


def _export(function: _Function, path: Path) -> None:
    size = {name: torch.export.Dim(name) for name in "BCL"}
    axes = tuple(
        {0: size["B"], 1: size[function.second[name]]} if name in function.second else {0: size["B"]}
        for name in function.inputs
    )
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
    _drop_unused_inputs(graph)
    onnx.save(model, path)


def _drop_unused_inputs(graph: Any) -> None:
    """What a model does not look at need not be given."""
    used = {name for node in graph.node for name in node.input} | {part.name for part in graph.output}
    kept = [part for part in graph.input if part.name in used]
    del graph.input[:]
    graph.input.extend(kept)


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
            # A memory is kept and written again, so that each of its numbers has to be right by itself.
            kept = path.stem in ("write", "item_write")
            unit = 1.0 if kept or not value.numel() else max(1.0, float(value.abs().max()))
            if not np.allclose(graph_value, value.numpy(), rtol=TOLERANCE if kept else 0.0, atol=TOLERANCE * unit):
                raise ArtifactError(
                    f"{path.name}: {name} differs from the model for {users} users and {candidates} candidates",
                    expected=f"equal within {TOLERANCE * unit:.1g}",
                    fix="write the model's function without branches on values or sizes",
                )


def write_run_graph(model: MemoryModel, path: Path) -> None:
    """Write the graph that folds runs of events in, and check it against single writes.

    Raises:
        ArtifactError: it gives other numbers than the model.
    """
    onnx = require("onnx", extra="train", purpose="exporting graphs")
    (name,) = (part.name for part in memory_layout(model))
    onnx.save(run_graph(model.stack, name), path)
    draw, kind, stride = _Draw(model), type(model.initial_memory(1)), model.stack[-1][1]
    length_B = torch.tensor([2 * stride, stride])
    event_BLE = torch.stack([draw._vectors(model.history_fields, 2) for _ in range(2 * stride)], dim=1)
    memory = kind(torch.tensor([3 * stride, 0]), *draw._memory(2)[1:])
    feed = {name: memory[1].numpy(), "event": event_BLE.numpy(), "length": length_B.numpy()}
    for step_BE in event_BLE.unbind(1):
        after = model.write_vector(memory, step_BE)
        goes_B11 = (memory[0] - torch.tensor([3 * stride, 0]) < length_B)[:, None, None]
        memory = kind(after[0], torch.where(goes_B11, after[1], memory[1]))
    runtime = require("onnxruntime", extra="train", purpose="checking exported graphs")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    if not np.allclose(session.run(None, feed)[0], memory[1].numpy(), rtol=TOLERANCE, atol=TOLERANCE):
        raise ArtifactError(
            f"{path.name}: a run of events gives another memory than the events one by one",
            expected=f"equal within {TOLERANCE:.1g}",
            fix="let `stack` name the layers that `write_vector` steps",
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
