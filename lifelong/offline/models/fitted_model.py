"""Models that are fitted at once and not by gradient."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from lifelong.dataset.events import InputSpec
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray

T = TypeVar("T")


class FittedModel(ABC):
    """A model that is fitted at once and not by gradient: baselines, LightGBM.

    Registry, commands and comparison are those of the other models.
    """

    Config: ClassVar[type[Any]]
    config: Any
    """The settings it was built with, a `Config`."""
    shared_settings: Mapping[str, Any] = {}
    """Settings that are the same for every model (`model.head`, `model.context` ...), where they are not as usual."""
    title: str
    source: ClassVar[str]
    state: ClassVar[str]
    not_served: ClassVar[str] = "it reads the raw history"
    """Why no service can score with it."""
    learns_from_negatives: ClassVar[bool] = True
    """Whether a score says how much more likely the item is than as a drawn negative; False for a formula."""
    counts_in_lists: ClassVar[bool] = False
    """Whether exact counts of the history are added to scores to order lists, with weights fitted on validation."""

    def __init__(self, inputs: InputSpec, config: Any) -> None:
        self.inputs: InputSpec = inputs
        self.config = config
        self.learned: dict[str, npt.NDArray[Any]] = {}
        """What a fit has found, as named arrays."""
        self.shared: MutableMapping[Any, Any] | None = None
        """What several fits to one dataset share, as the trials of a search do; None where there is one fit alone."""

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` returns, computed by the first of all fits that share, and kept nowhere by a single one.

        Args:
            key: hashable; of everything that the result depends on.
            make: computes it; nobody may change the result.
        """
        if self.shared is None:
            return make()
        if key not in self.shared:
            self.shared[key] = make()
        value: T = self.shared[key]
        return value

    @abstractmethod
    def fit(self, dataset: Dataset, *, seed: int = 0) -> None:
        """Fit on the training period only."""

    @abstractmethod
    def predict(self, dataset: Dataset, examples: Examples) -> FloatArray:
        """Logits `[N, T]` of examples, each from the events before its position alone."""

    def save(self, folder: Path) -> None:
        """Write `model.json` and what was learned, one `.npy` file per array: all that `load` needs, without pickle."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {"inputs": asdict(self.inputs), "settings": asdict(self.config), "arrays": sorted(self.learned)}
        (folder / "model.json").write_text(json.dumps(record, indent=2) + "\n")
        for name, values in self.learned.items():
            np.save(folder / f"{name}.npy", values)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        record = json.loads((folder / "model.json").read_text())
        model = cls(InputSpec(**record["inputs"]), cls.Config(**record["settings"]))
        model.learned = {name: np.load(folder / f"{name}.npy") for name in record["arrays"]}
        return model

    def requirements(self, dataset: Dataset) -> list[str]:
        """What this model misses in a dataset, in words."""
        return []
