"""What a check of a model takes: the model and the settings to test it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from lifelong.dataset.events import InputSpec
from lifelong.offline.models import build, model_class
from lifelong.offline.models.base import FittedModel, MemoryModel, Model
from lifelong.testing.worlds import INPUTS


@dataclass(frozen=True)
class ModelCase:
    """A registered model and the settings to test it with."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        flags = (key if value is True else value for key, value in self.config.items())
        return "-".join([self.name, *(flag for flag in flags if isinstance(flag, str))])

    @property
    def entry(self) -> type[Model] | type[FittedModel]:
        """The class of the model."""
        return model_class(self.name, self.config)

    def build(self, *, inputs: InputSpec = INPUTS, seed: int = 0) -> Model:
        """A new model in float64 and evaluation mode."""
        torch.manual_seed(seed)
        model = build(self.name, inputs, self.config)
        assert isinstance(model, Model)
        return model.double().eval()

    def build_memory(self) -> MemoryModel:
        """The new model, as a `MemoryModel`."""
        model = self.build()
        assert isinstance(model, MemoryModel)
        return model


Check = Callable[[ModelCase], None]


def checks_in(names: Mapping[str, Any], *earlier: list[Check]) -> list[Check]:
    """The checks that a module has defined so far, without those of earlier lists: so none can be forgotten.

    >>> checks_in({"check_one": print, "check_two": repr, "helper": len}, [print])
    [<built-in function repr>]
    """
    earlier_checks = [check for checks in earlier for check in checks]
    return [check for name, check in names.items() if name.startswith("check_") and check not in earlier_checks]
