"""The functions of a model that a service calls, as ONNX graphs that are checked against the model.

    write.onnx    count, <field>..., event [B, E]                  -> new_count, new_<field>...
    read.onnx     count, <field>... [B, 1, ...], target [B, C, E]  -> interest [B, C, D], attention [B, C, S] if any
    head.onnx     interest, target, context [B, C, ...]            -> logit [B, C, T]; context [B, 1, ...] where it can

`count` is int64, everything else float32; B and C are free. A field has its name in the model's memory without the
shape letters. `context` is left out if the model reads no context.

Of a model with a part that counts (`CountingModel`), a service writes and reads that part by itself
(`lifelong.online.memory.state`). Its write graph knows the slots alone, and is left out if there are none. Its read
graph takes, in place of what is counted, what is known of each target, `_KNOWN`.

A history model has no write graph; its read graph takes the recent history instead of a memory (`_WINDOW`), and gives
the attention over its events, `[B, C, L]`. It is called `weight` if it need not sum to 1.
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

from lifelong.artifact.folder import FieldLayout, recent_layout
from lifelong.errors import ArtifactError, require
from lifelong.offline.export.activations import replace_elu
from lifelong.offline.models.base import CountingModel, HistoryModel, MemoryModel, Model, Query, Window
from lifelong.offline.nn.hpmn import Slots
from lifelong.offline.nn.masks import length_mask
from lifelong.tally.spec import KINDS

TOLERANCE = 1e-5
"""Largest allowed difference between a graph and its model.

For a memory both absolute and relative. For what is read from it, in units of its largest number, but at least of 1: a
small sum of large numbers is as uncertain as they are.
"""
CELLS = "cell_BKX"
"""The field of a memory that `MemoryModel.cells` describes."""
_WINDOW = ("history", "history_number", "history_time", "length", "moment")
"""Embedded events [B, L, E], their numbers [B, L, F] and times [B, L]; number of real ones and request time [B]."""
_KNOWN = ("known", "kind")
"""What a memory knows of each target, see `lifelong.tally.kernel.Found`: `[B, C, Y]` and `[B, C, F]`."""
_SIZES = ((1, 1), (1, 7), (5, 1), (3, 4))
"""(B, C) at which graphs are checked."""
_OPSET = 20
_TRACED = (2, 3)
"""(B, C) of the trace; an example size of 1 would freeze the axis."""


def field_name(attribute: str) -> str:
    """Name of a memory field without its shape letters.

    >>> field_name("slot_BSD")
    'slot'
    """
    return attribute.rsplit("_", 1)[0]


def memory_layout(model: MemoryModel | HistoryModel) -> tuple[FieldLayout, ...]:
    """The fields that are kept of a user."""
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


class _Graph(nn.Module):
    """A function of tensors as a module, which is what exporters take.

    Args:
        function: what the graph computes.
        parts: the modules that it uses, by the names that their weights begin with in the graph.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return self.function(*parts)


def _write_graph(model: MemoryModel, kind: Callable[..., Any]) -> _Graph:
    """`write_vector`: fields of what `kind` makes, then the embedded event."""
    return _Graph(lambda *parts: tuple(model.write_vector(kind(*parts[:-1]), parts[-1])), model=model)


def _read_graph(model: MemoryModel) -> _Graph:
    """`read_vector`: memory fields `[B, 1, ...]`, then the embedded targets."""
    kind = type(model.initial_memory(1))
    return _Graph(lambda *parts: _there(*model.read_vector(kind(*parts[:-1]), parts[-1])), model=model)


def _there(interest: Tensor, attention: Tensor | None) -> tuple[Tensor, ...]:
    return (interest,) if attention is None else (interest, attention)


def _read_known_graph(model: CountingModel) -> _Graph:
    """`read_known`: count and slots `[B, 1, ...]` if there are some, `_KNOWN`, and the embedded targets."""

    def read(*parts: Tensor) -> tuple[Tensor, ...]:
        *slots, known, kind, target = parts
        return _there(*model.read_known(known, kind, Slots(*slots) if slots else None, target))

    return _Graph(read, model=model)


def _find_graph(model: HistoryModel) -> _Graph:
    """`look` for candidates after the user's last event: `_WINDOW`, then the embedded targets and their numbers."""

    def find(*parts: Tensor) -> tuple[Tensor, ...]:
        vector_BLE, number_BLF, time_BL, length_B, moment_B, target_BCE, number_BCF = parts
        each = target_BCE.shape[:2]
        query = Query(target_BCE, number_BCF, moment_B.unsqueeze(-1).expand(each), length_B.unsqueeze(-1).expand(each))
        found = model.look(Window(vector_BLE, number_BLF, time_BL, length_B), query)
        return _there(found.interest_BCD, found.attention_over(time_BL.shape[1]))

    return _Graph(find, model=model)


def _head_graph(model: Model) -> _Graph:
    """`head`: interest, target and, if the model reads one, context."""
    head, reads = model.head, model.context_width > 0
    return _Graph(lambda *parts: (head(*parts[:2], parts[2] if reads else parts[1][..., :0]),), head=head)


@dataclass(frozen=True, slots=True)
class _Function:
    """One graph to make: the module, the names of its inputs and outputs, and how to draw inputs of sizes (B, C)."""

    module: nn.Module
    inputs: Sequence[str]
    outputs: Sequence[str]
    draw: Callable[[int, int], tuple[Tensor, ...]]
    second: Mapping[str, str] = field(default_factory=dict)
    """Inputs with a free second axis -> its letter: C for candidates, L for events."""
    fixed: _Function | None = None
    """The function for histories of one length, for a module that cannot be traced with a free length."""
    loops: bool = False
    """Whether the function has loops over an axis that is free."""


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


def _write(function: _Function, path: Path) -> None:
    if not function.loops and _write_fast(function, path):
        return
    _export(function, path)
    if function.fixed is not None and not _is_free(path, "history"):
        # Not every operation can be traced for histories of any length: such a model always reads a full window.
        function = function.fixed
        _export(function, path)
    _strip(path)
    _check(function, path)


def _write_fast(function: _Function, path: Path) -> bool:
    """Write and check a graph by the exporter that runs the function once; whether that works.

    The other one works with symbols for sizes, and takes a hundred times as long: half a minute for `tally`.
    """
    try:
        _export_once(function, path)
        _strip(path)
        _check(function, path)
    except Exception:
        # Whatever it cannot do (it is not developed further): the other exporter says what is wrong, if anything is.
        return False
    return True


def _is_free(path: Path, name: str) -> bool:
    """Whether the second axis of an input is free in a graph."""
    onnx = require("onnx", extra="train", purpose="exporting graphs")
    (found,) = (part for part in onnx.load(path).graph.input if part.name == name)
    return bool(found.type.tensor_type.shape.dim[1].dim_param)


def one_context(model: Model) -> bool:
    """Whether the head's graph takes one context for all candidates of a user: `[B, 1, ...]`."""
    return bool(getattr(model.head, "takes_one_context", False))


def _functions(model: MemoryModel | HistoryModel) -> dict[str, _Function]:
    axes = {name: axis for name, axis in _CANDIDATES.items() if name != "context" or not one_context(model)}
    head = _Function(
        _head_graph(model),
        ["interest", "target", "context"] if model.context_width else ["interest", "target"],
        ["logit"],
        _Draw(model).head,
        axes,
    )
    if isinstance(model, MemoryModel):
        return {**_memory_functions(model), "head": head}
    graph, inputs = _find_graph(model), [*_WINDOW, "target", "target_number"]
    attention = graph(*_Draw(model).find(2, 2))[1:]
    outputs = ["interest", "weight" if model.free_weights else "attention"] if attention else ["interest"]
    fixed = _Function(graph, inputs, outputs, _Draw(model, model.recent).find, _CANDIDATES)
    read = _Function(graph, inputs, outputs, _Draw(model).find, _CANDIDATES | _EVENTS, fixed, loops=True)
    return {"read": read, "head": head}


def _memory_functions(model: MemoryModel) -> dict[str, _Function]:
    if isinstance(model, CountingModel):
        return _counting_functions(model)
    empty, draw = model.initial_memory(1), _Draw(model)
    names = [field_name(name) for name in empty._asdict()]
    write = _write_graph(model, type(empty))
    attention = _read_graph(model)(*draw.read(2, 2))[1:]
    return {
        "write": _Function(write, [*names, "event"], [f"new_{name}" for name in names], draw.write),
        "read": _Function(
            _read_graph(model),
            [*names, "target"],
            ["interest", "attention"] if attention else ["interest"],
            draw.read,
            _CANDIDATES,
        ),
    }


def _counting_functions(model: CountingModel) -> dict[str, _Function]:
    """Both graphs without the part that counts; no write graph without slots."""
    draw, names = _Draw(model), ["count", "slot"] if model.plan.slots[0] else []
    graph = _read_known_graph(model)
    attention = graph(*draw.known(2, 2))[1:]
    read = _Function(
        graph,
        [*names, *_KNOWN, "target"],
        ["interest", "attention"] if attention else ["interest"],
        draw.known,
        _CANDIDATES | dict.fromkeys(_KNOWN, "C"),
    )
    if not names:
        return {"read": read}
    write = _write_graph(model, Slots)
    return {"write": _Function(write, [*names, "event"], ["new_count", "new_slot"], draw.write_slots), "read": read}


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
        """The inputs of `_WINDOW`, targets and their numbers; histories are longer where there are more of both.

        No history is longer than what a service keeps.
        """
        assert isinstance(self.model, HistoryModel)
        # At the largest size there are several lengths of history, at the smallest a single event.
        size = self.events or min(6 * (users * candidates - 1) + 1, self.model.recent)
        length_B = torch.randint(0, size + 1, (users,), generator=self.generator)
        # Someone has to have the full length, or the graph would never be tried on its last place.
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
        fields = self.model.initial_memory(1)._asdict()
        drawn = [self._normal(users, *axes, *value.shape[1:]) for name, value in fields.items() if name != "count_B"]
        return [self._counts(users, *axes), *drawn]

    def _counts(self, *shape: int) -> Tensor:
        """Small and large ones, so that there are memories with and without empty slots."""
        return torch.randint(0, 100, shape, generator=self.generator)

    def write(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Memories and one event each."""
        return (*self._memory(users), self._vectors(self.model.history_fields, users))

    def read(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Memories `[B, 1, ...]` and targets."""
        return (*self._memory(users, (1,)), self._vectors(self.model.item_fields, users, candidates))

    def write_slots(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Slots, and one event each."""
        return (*self._slots(users), self._vectors(self.model.history_fields, users))

    def _slots(self, *axes: int) -> list[Tensor]:
        """Count and slots; nothing of a model without slots."""
        assert isinstance(self.model, CountingModel)
        size = self.model.plan.slots
        return [self._counts(*axes), self._normal(*axes, *size)] if size[0] else []

    def known(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Slots `[B, 1, ...]`, what is known of targets, and the targets."""
        assert isinstance(self.model, CountingModel)
        fields = len(self.model.item_fields)
        kind = torch.randint(0, KINDS, (users, candidates, fields), generator=self.generator)
        known = self._normal(users, candidates, self.model.plan.known)
        target = self._vectors(self.model.item_fields, users, candidates)
        # Kinds of all fields lie in one table, field after field.
        return *self._slots(users, 1), known, kind + KINDS * torch.arange(fields), target

    def _vectors(self, fields: Sequence[str], *shape: int) -> Tensor:
        """Random embedded events or targets."""
        return self._normal(*shape, sum(self.model.embed.widths(fields)))

    def head(self, users: int, candidates: int) -> tuple[Tensor, ...]:
        """Interest, target, context."""
        parts = [self._interest(users, candidates), self._vectors(self.model.item_fields, users, candidates)]
        if self.model.context_width:
            contexts = 1 if one_context(self.model) else candidates
            parts.append(self._normal(users, contexts, self.model.context_width))
        return tuple(parts)

    def _interest(self, users: int, candidates: int) -> Tensor:
        if isinstance(self.model, HistoryModel):
            return _find_graph(self.model).forward(*self.find(users, candidates))[0]
        if isinstance(self.model, CountingModel):
            return _read_known_graph(self.model).forward(*self.known(users, candidates))[0]
        return _read_graph(self.model).forward(*self.read(users, candidates))[0]


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


def _export_once(function: _Function, path: Path) -> None:
    axes = {name: {0: "B", 1: "C"} if name in function.second else {0: "B"} for name in function.inputs}
    # Opset 20 has no operator for it, and this exporter no substitute.
    register: Any = getattr(torch.onnx, "register_custom_op_symbolic")  # noqa: B009  it has no type
    register("aten::exp2", _power_of_two, _OPSET)
    with _silence():
        torch.onnx.export(
            function.module.eval(),
            function.draw(*_TRACED),
            path,
            input_names=list(function.inputs),
            output_names=list(function.outputs),
            dynamo=False,
            dynamic_axes=axes,
            opset_version=_OPSET,
        )


def _power_of_two(graph: Any, exponent: Any) -> Any:
    return graph.op("Pow", graph.op("Constant", value_t=torch.tensor(2.0)), exponent)


def _strip(path: Path) -> None:
    """Remove what the exporter notes about its source: file names and stack traces of this machine.

    Also writes ELUs in the form that runs faster.
    """
    onnx = require("onnx", extra="train", purpose="exporting graphs")
    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]
    replace_elu(graph)
    _drop_unused_inputs(graph)
    onnx.save(model, path)


def _drop_unused_inputs(graph: Any) -> None:
    """Remove inputs that no node uses, so that they need not be given."""
    used = {name for node in graph.node for name in node.input} | {part.name for part in graph.output}
    inputs = [part for part in graph.input if part.name in used]
    del graph.input[:]
    graph.input.extend(inputs)


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
        # The session refuses inputs that the graph has dropped.
        feed = {name: value.numpy() for name, value in zip(function.inputs, inputs, strict=True) if name in taken}
        answered, wanted = session.run(list(function.outputs), feed), function.module(*inputs)
        for name, graph_value, value in zip(function.outputs, answered, wanted, strict=True):
            # A memory is kept and written again, so each of its numbers has to be right by itself.
            kept = path.stem == "write"
            unit = 1.0 if kept or not value.numel() else max(1.0, float(value.abs().max()))
            if not np.allclose(graph_value, value.numpy(), rtol=TOLERANCE if kept else 0.0, atol=TOLERANCE * unit):
                raise ArtifactError(
                    f"{path.name}: {name} differs from the model for {users} users and {candidates} candidates",
                    expected=f"equal within {TOLERANCE * unit:.1g}",
                    fix="write the model's function without branches on values or sizes",
                )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter from printing, logging and warning about its internals."""
    # Put back afterwards, as the caller may have switched off logging itself.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
