"""What any model can be given: numbers for each target that the head reads after the context.

`builder` gives a model concrete ones (`exact_counts`); the model only asks for their numbers.

Shapes: B users, C targets per user.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, TypedDict

from torch import Tensor, nn

from lifelong.data.batch import Batch
from lifelong.data.dataset import Dataset
from lifelong.data.examples import Examples
from lifelong.dtypes import FloatArray


class BatchParts(TypedDict, total=False):
    """What batches must hold besides histories and targets: arguments of `evaluation_batches` and `TrainingBatches`."""

    counts: bool


class HeadInput(nn.Module, ABC):
    """Numbers that the head of a model reads after the context."""

    width: int
    """Numbers for each target."""
    suffix: str
    """What follows in the model's title."""
    not_served: str = ""
    """Why no service can score with it; empty if one can."""
    reads_popularity: ClassVar[bool] = False
    """Whether it is given how often each value is the target in training: `learn_popularity`."""

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Numbers `[B, C, width]`, anything finite where a target is padding, and auxiliary losses."""

    def batch_parts(self) -> BatchParts:
        """What it reads of a batch."""
        return {}

    def tables(self) -> list[nn.Embedding]:
        """Its tables that grow with the data."""
        return []

    @property
    def number_tables(self) -> Mapping[str, str]:
        """See `Model.number_tables`."""
        return {}

    def requirements(self, dataset: Dataset) -> list[str]:
        """What a dataset lacks for it, in words."""
        return []

    def fit(self, dataset: Dataset, draw: Callable[[], Examples]) -> None:
        """Set what is not trained, such as a scale, before the first training.

        Args:
            dataset: with the histories.
            draw: draws labelled training examples.
        """

    def learn_popularity(self, counts: Mapping[str, FloatArray]) -> None:
        """See `Model.learn_popularity`."""


class Extras(nn.ModuleDict):
    """The head inputs that a model has been given, in the order in which the head reads them; none in most models."""

    def all(self) -> dict[str, HeadInput]:
        """Name -> head input."""
        return {name: extra for name, extra in self.items() if isinstance(extra, HeadInput)}

    def forward(self, batch: Batch) -> tuple[list[Tensor], dict[str, Tensor]]:
        """What each gives for the targets `[B, C, ...]`, and the auxiliary losses of all."""
        parts, losses = list[Tensor](), dict[str, Tensor]()
        for extra in self.all().values():
            part_BCX, own = extra(batch)
            parts.append(part_BCX)
            losses |= own
        return parts, losses

    def batch_parts(self) -> BatchParts:
        """What all of them read of a batch."""
        parts: BatchParts = {}
        for extra in self.all().values():
            parts |= extra.batch_parts()
        return parts

    def tables(self) -> list[nn.Embedding]:
        """The tables that grow with the data."""
        return [table for extra in self.all().values() for table in extra.tables()]

    @property
    def number_tables(self) -> dict[str, str]:
        """Names of their weights in the model -> their field; they hold a row for each of its numbers."""
        return {
            f"extras.{name}.{weight}": field
            for name, extra in self.all().items()
            for weight, field in extra.number_tables.items()
        }

    def requirements(self, dataset: Dataset) -> list[str]:
        """What a dataset lacks for them, in words."""
        return [problem for extra in self.all().values() for problem in extra.requirements(dataset)]

    def fit(self, dataset: Dataset, draw: Callable[[], Examples]) -> None:
        """Set what is not trained; see `HeadInput.fit`."""
        for extra in self.all().values():
            extra.fit(dataset, draw)

    def learn_popularity(self, counts: Mapping[str, FloatArray]) -> None:
        """See `Model.learn_popularity`."""
        for extra in self.all().values():
            extra.learn_popularity(counts)
