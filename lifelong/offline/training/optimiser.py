"""Adam, its parameter groups, and the learning rate over a run.

    dense tables, all other weights --> Adam (fused)          every row moves at every step
    sparse tables                   --> SparseAdam            only the rows that a batch has touched

SparseAdam is Adam on touched rows only: the moments of a row decay when it is touched and not in between, and a row
does not keep moving by the momentum of its last batch. Its two moments are as large as the table, as Adam's are; but
there is no gradient of the table's size, and no step reads the whole table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lifelong.config import TrainSettings
from lifelong.offline.evaluation.divided_tables import DividedTables
from lifelong.offline.models.base import Model

SPARSE_FROM = 1_000_000
"""Rows of a table from which it is sparse, where `train.embeddings` is auto."""
_LAST = 0.01
"""Share of the learning rate at which the cosine schedule ends."""


class Optimiser:
    """Adam, and SparseAdam for sparse tables, as one optimiser.

    Args:
        parts: optimisers of disjoint sets of parameters.
        tables: those of the model that are divided between processes.
    """

    def __init__(self, parts: Iterable[torch.optim.Optimizer], tables: DividedTables | None = None) -> None:
        self._parts, self._tables = list(parts), tables

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all parts."""
        return [group for optimiser in self._parts for group in optimiser.param_groups]

    def step(self) -> None:
        """Update the weights by their gradients."""
        for optimiser in self._parts:
            optimiser.step()

    def zero_grad(self) -> None:
        """Reset the gradients."""
        for optimiser in self._parts:
            optimiser.zero_grad()

    def tensors(self) -> dict[tuple[int, str], Tensor]:
        """The state as (number of the parameter, name) -> tensor; parameters are numbered over all parts.

        That of divided tables is whole in the first process alone.
        """
        tensors, first = {}, 0
        for optimiser in self._parts:
            parameters = _parameters(optimiser)
            for place, entry in optimiser.state_dict()["state"].items():
                for name, value in entry.items():
                    # SparseAdam counts its steps in an int, Adam in a float32 tensor.
                    tensor = value if isinstance(value, Tensor) else torch.tensor(value)
                    tensors[first + place, name] = (
                        tensor if self._tables is None else self._tables.gather(parameters[place], tensor)
                    )
            first += len(parameters)
        return tensors

    def restore(self, tensors: Mapping[tuple[int, str], Tensor]) -> None:
        """Restore what `tensors` returned."""
        first = 0
        for optimiser in self._parts:
            parameters = _parameters(optimiser)
            last = first + len(parameters)
            state: dict[int, dict[str, Any]] = {}
            for (place, name), value in tensors.items():
                if first <= place < last:
                    # The step count of SparseAdam has to be an int again, or it refuses the state.
                    counted = not value.is_floating_point()
                    if self._tables is not None:
                        value = self._tables.cut(parameters[place - first], value)
                    state.setdefault(place - first, {})[name] = int(value) if counted else value
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
            first = last


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def use_sparse_tables(model: Model, settings: TrainSettings) -> None:
    """Choose the tables with gradients that have only the rows that a batch touches."""
    for table in model.tables():
        large = settings.embeddings == "auto" and table.num_embeddings >= SPARSE_FROM
        table.sparse = settings.embeddings == "sparse" or large


def build_optimiser(model: nn.Module, settings: TrainSettings, divided: DividedTables | None = None) -> Optimiser:
    """Adam with an L2 term on everything but embedding tables; SparseAdam for tables that are sparse.

    Of tables that are divided between processes, it steps the process's own rows.

    Adam divides by the size of the gradient, so an L2 term alone would wipe out the rows of a table that few batches
    touch. The fused form steps all tensors in one call, on CPU too: on tables of 50,000 rows it is several times
    faster.
    """
    tables = {id(module.weight): module for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sparse = [parameter for parameter in trained if id(parameter) in tables and tables[id(parameter)].sparse]
    parameters = [parameter for parameter in trained if not any(parameter is table for table in sparse)]
    groups = [
        {"params": [parameter for parameter in parameters if id(parameter) in tables], "weight_decay": 0.0},
        {
            "params": [parameter for parameter in parameters if id(parameter) not in tables],
            "weight_decay": settings.weight_decay,
        },
    ]
    parts: list[torch.optim.Optimizer] = []
    if parameters:
        dense = [group for group in groups if group["params"]]
        parts.append(torch.optim.Adam(dense, lr=settings.learning_rate, fused=True))
    if sparse:
        own = {} if divided is None else divided.own
        stepped = [own.get(id(table), table) for table in sparse]
        parts.append(torch.optim.SparseAdam(stepped, lr=settings.learning_rate))
    return Optimiser(parts, divided)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Clip every number of every gradient to +-largest; the rows of a sparse gradient are added up first."""
    dense = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            # A row that occurs several times would be clipped in pieces, and their sum could exceed the bound.
            parameter.grad = parameter.grad.coalesce()
            parameter.grad.values().clamp_(-largest, largest)
        else:
            dense.append(parameter)
    if dense:
        torch.nn.utils.clip_grad_value_(dense, largest)


def learning_rate(settings: TrainSettings, examples: int, total: int) -> float:
    """The learning rate after this many labelled examples of a run of `total`.

    >>> settings = TrainSettings(learning_rate=0.01, schedule="cosine")
    >>> [round(learning_rate(settings, examples, 100), 4) for examples in (0, 50, 100)]
    [0.01, 0.005, 0.0001]
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    done = min(1.0, examples / max(1, total))
    return settings.learning_rate * (_LAST + (1 - _LAST) * 0.5 * (1 + math.cos(math.pi * done)))
