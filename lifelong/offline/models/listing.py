"""The models as a list for people and programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lifelong.offline.models.registry import all_names, choose
from lifelong.tables import html_table


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that can be trained.

    Args:
        name: as `train` takes it.
        title: its name in tables.
        source: the paper.
        state: what a service keeps of a user.
        served: whether a service can run it.
        settings: name -> default.
    """

    name: str
    title: str
    source: str
    state: str
    served: bool
    settings: Mapping[str, Any] = field(default_factory=dict)


class ModelList(dict[str, ModelInfo]):
    """Name -> model; notebooks show it as a table."""

    def _repr_html_(self) -> str:
        rows = [
            [info.name, info.title, info.source, info.state, "yes" if info.served else "no"] for info in self.values()
        ]
        return html_table(["model", "title", "source", "state of a user", "served"], rows, caption="Models")


def model_list() -> ModelList:
    """Every model and preset.

    >>> model_list()["hpmn"].settings["periods"]
    (1, 2, 4, 8, 16, 32)
    """
    return ModelList((info.name, info) for info in _infos())


def _infos() -> Iterator[ModelInfo]:
    for name in all_names():
        entry = choose(name, {}).entry
        settings = {setting.name: setting.default for setting in fields(entry.Config)}
        yield ModelInfo(name, entry.title, entry.source, entry.state, not entry.not_served, settings)
