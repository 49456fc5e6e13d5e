"""A finished model as a folder. No torch here: a server reads it with numpy and onnxruntime.

ARTIFACT/
  manifest.json          format version, id, size and SHA-256 of every other file
  config.json            ArtifactConfig: model, settings, fields, memory layout, calibrator, run
  metrics.json           what training measured; not part of the id
  README.md              the model card; not part of the id
  vocabulary/<field>/    one per item field, and event_type; user.<field> for fields of profiles
  catalogue/             every item with its field numbers
  drawn.npy              how often each item is drawn as a training negative    if served, and drawn by popularity
  weights.safetensors    all weights                                            if trained by gradient
  tables/<field>.npy     embedding tables, float32 [V, E], memory-mapped        if the model is served
  graphs/{write,read,head}.onnx                                                 if served; no write for history models
  fitted/                what the `save` of the model wrote                     if the model is a fitted one

Opening checks that the manifest names every file and nothing else (`lifelong.artifact.manifest`), that the files which
the config needs are among them, and that sizes in headers and in the config fit what is there.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from lifelong.artifact.calibration import NO_CALIBRATOR, Calibrator
from lifelong.artifact.list_order import ListOrder
from lifelong.artifact.manifest import AGAIN, MANIFEST, METRICS, ArtifactManifest, check_files, read_manifest
from lifelong.config import Record
from lifelong.dataset.arrays import open_arrays
from lifelong.dataset.catalogue import Catalogue
from lifelong.dataset.events import InputSpec, Schema, user_context
from lifelong.dataset.folder import Dataset, NegativeRule
from lifelong.dataset.mapping import TableMapping
from lifelong.dataset.periods import Periods
from lifelong.dataset.vocabulary import Vocabulary
from lifelong.dtypes import Float32Array, FloatArray, IntArray
from lifelong.errors import ArtifactError, DatasetError, MismatchError, UsageError
from lifelong.tables import html_table
from lifelong.tally.plan import CellPacking
from lifelong.tally.spec import KEYS, NO_KEY

Graph = Literal["write", "read", "head"]
Kind = Literal["memory", "history", "fitted"]
DRAWN = "drawn.npy"
_CONFIG = "config.json"
_INDEX = ("hash.npy", "offset.npy", "order.npy", "text.npy")
_MOST_NUMBERS = 1 << 24
"""Most numbers in one field of a user's memory: far more than any model has, far fewer than a machine holds."""

T = TypeVar("T")


class FieldLayout(Record):
    """One field of a memory, such as HPMN's `slot` of shape (6, 32)."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int16", "int32", "int64"] = "float32"
    """Floats may be stored with fewer bits, by choice of a codec; whole numbers are stored as they are."""
    cells: CellPacking | None = None
    """For counting cells: how they are stored in fewer bytes."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value is not None}

    @field_validator("shape")
    @classmethod
    def _of_a_memory(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if min(shape, default=1) < 0 or math.prod(shape) > _MOST_NUMBERS:
            raise ValueError(f"no field of a memory has the shape {shape}: at most {_MOST_NUMBERS:,} numbers")
        return shape

    @model_validator(mode="after")
    def _packed_as_shaped(self) -> Self:
        if self.cells is None:
            return self
        cells, values = self.cells.cells_F, self.cells.values_F
        bounded = len(cells) == len(values) and all(1 <= value <= KEYS for value in (*cells, *values))
        if not bounded or (self.dtype, self.shape) != ("int16", (sum(cells), 2)):
            raise ValueError(f"the cells {cells} of {values} values do not fill {self.dtype} {self.shape}")
        return self

    @property
    def size(self) -> int:
        """Numbers per user."""
        return math.prod(self.shape)


NUMBER, TIME = "number", "time"


def recent_layout(recent: int, fields: int) -> tuple[FieldLayout, ...]:
    """What is kept of a user for a history model: her last `recent` events, with the numbers and time of each."""
    return (
        FieldLayout(name=NUMBER, shape=(recent, fields), dtype="int32"),
        FieldLayout(name=TIME, shape=(recent,), dtype="int64"),
    )


def is_recent(layout: Sequence[FieldLayout]) -> bool:
    """Whether a layout is that of a recent history."""
    return [field.name for field in layout] == [NUMBER, TIME]


class ArtifactConfig(Record):
    """The content of `config.json`."""

    kind: Kind
    """memory: served from a memory; history: from the recent history; fitted: not trained by gradient, not served."""
    model: str
    """Name of the model in the registry."""
    title: str
    settings: dict[str, Any]
    """All settings of the model, defaults included."""
    dataset_schema: Schema
    inputs: dict[str, dict[str, int]]
    """item, event and context: field -> size."""
    users: int
    """Size of the user numbers in training."""
    memory: tuple[FieldLayout, ...] | None = None
    """What is kept of a user; None for a model that cannot be served."""
    not_served: str | None = None
    """Why the model cannot be served; None if it can."""
    codec: str = "fp32"
    """How stores encode memories by default."""
    negatives: NegativeRule
    protocol: str
    base_rate: float | None
    """Share of positives among the training examples where labels are logged, else None."""
    data_hash: str
    mapping: TableMapping | None = Field(default=None, exclude_if=operator.not_)
    """How the rows of the dataset's log were read; `ingest` and `score` read files alike."""
    seen: tuple[Periods, ...]
    """Periods of the dataset that it was trained on, then of those of the artifacts that its training started from."""
    calibrator: Calibrator | None = None
    """Calibrator of the first task."""
    other_calibrators: dict[str, Calibrator | None] = Field(default_factory=dict, exclude_if=operator.not_)
    """Calibrators of the other tasks, if there are several."""
    list_order: ListOrder | None = Field(default=None, exclude_if=operator.not_)
    """What is added to scores to order the catalogue; None for log popularity, where negatives are drawn by it."""
    run: dict[str, Any]
    """Settings of the run that made the artifact."""
    versions: dict[str, str]
    """Library -> version at training."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse sizes that do not belong together, which would fail at some request."""
        if problem := _contradiction(self):
            raise ValueError(problem)
        return self

    @property
    def input_spec(self) -> InputSpec:
        """Sizes of all input fields."""
        chosen = self.settings.get("context")
        return InputSpec(
            self.inputs["item"],
            self.inputs["event"],
            self.inputs["context"],
            self.users,
            self.dataset_schema.tasks,
            None if chosen is None else tuple(chosen),
            self.dataset_schema.number_fields,
            timed=self.dataset_schema.time_unit == "seconds",
        )


def _contradiction(config: ArtifactConfig) -> str:
    """How parts of a config contradict each other; "" if they do not."""
    schema, inputs = config.dataset_schema, config.inputs
    fields_of = {"item": schema.item_fields, "event": schema.event_fields}
    for name, fields in fields_of.items():
        if tuple(inputs.get(name, ())) != fields:
            return f"inputs.{name} are the fields {', '.join(inputs.get(name, ()))}, the schema's {', '.join(fields)}"
    order = config.list_order
    if order is not None and tuple(order.counts) != schema.item_fields:
        return f"list_order has weights of {', '.join(order.counts)}, and not of {', '.join(schema.item_fields)}"
    chosen = config.settings.get("context")
    if chosen is not None and not (isinstance(chosen, list | tuple) and all(isinstance(name, str) for name in chosen)):
        return f"settings.context is {chosen!r}, which is no list of names"
    # Before `input_spec`, which reads it and would fail without saying why.
    if "context" not in inputs:
        return "there is no inputs.context"
    if missing := set(config.input_spec.context_fields) - set(inputs["context"]):
        return f"inputs.context lacks {', '.join(sorted(missing))}"
    if config.memory is not None and is_recent(config.memory):
        number, times = (field.shape for field in config.memory)
        if len(number) != 2 or times != number[:1] or number[0] < 1 or number[1] != len(schema.history_fields):
            return f"a recent history of the shapes {number} and {times}"
    return ""


class Artifact:
    """An opened artifact; vocabularies, catalogue and tables are mapped when first used.

    `Artifact.open("ARTIFACT")` opens one; a `lifelong.Scorer` is made from it and a store.

    Args:
        path: the folder.
        manifest: its content and checksums.
        config: what it holds.
    """

    path: Path
    manifest: ArtifactManifest
    config: ArtifactConfig

    def __init__(self, path: Path, manifest: ArtifactManifest, config: ArtifactConfig) -> None:
        self.path, self.manifest, self.config = path, manifest, config

    @classmethod
    def open(cls, path: Path | str, *, verify: Literal["full", "sizes"] = "full") -> Artifact:
        """Open a folder after checking every file.

        Args:
            path: the folder.
            verify: "full" reads all bytes and compares checksums, "sizes" compares only names and sizes.

        Raises:
            ArtifactError: the folder is missing, not an artifact or of another format; one of its files is missing,
                truncated, altered or not in the manifest, or its sizes contradict each other; says which.
            UsageError: it is no path.
        """
        if not isinstance(path, str | PathLike):
            raise UsageError(
                f"an artifact's folder of type {type(path).__name__}",
                expected="the path of a folder",
                fix='Artifact.open("artifact")',
            )
        folder = Path(path)
        manifest = read_manifest(folder)
        check_files(folder, manifest, full=verify == "full")
        artifact = cls(folder, manifest, _read_config(folder))
        if missing := [name for name in artifact._needed() if name not in manifest.files]:
            raise ArtifactError(
                f"{folder / MANIFEST} does not name {missing[0]}, which its {artifact.config.title} needs", fix=AGAIN
            )
        if verify == "full":
            # A separate instance, so that no file stays open.
            cls(folder, manifest, artifact.config)._check_parts()
        return artifact

    def _needed(self) -> list[str]:
        """Files that this config cannot do without."""
        config = self.config
        schema = config.dataset_schema
        fields = [*schema.item_fields, *map(user_context, schema.user_fields), *["event_type"] * schema.event_types]
        names = [f"vocabulary/{field}/{name}" for field in fields for name in (*_INDEX, "vocabulary.json")]
        names += [f"catalogue/{name}" for name in (*_INDEX, "number.npy", "key.npy")]
        names += [] if config.kind == "fitted" else ["weights.safetensors"]
        if config.memory is not None:
            names += ["graphs/read.onnx", "graphs/head.onnx"]
            # Parts that count have no write graph; whether there is another part is known once the read graph is open.
            counted = any(layout.cells is not None for layout in config.memory)
            names += [] if counted or is_recent(config.memory) else ["graphs/write.onnx"]
            names += [f"tables/{field}.npy" for field in self._table_sizes()]
        return [*names, METRICS]

    def _check_parts(self) -> None:
        """Open every part and check that they fit each other; reads the catalogue and the vocabularies.

        Raises:
            ArtifactError: a header or a number does not fit.
        """
        vocabularies = {**self.vocabularies, **self.profile_vocabularies}
        if self.event_types is not None:
            vocabularies["event_type"] = self.event_types
        # Before anything is read with them: a wrong offset would give another id, and no error.
        whole = (
            all(vocabulary.index.is_whole() for vocabulary in vocabularies.values()) and self.catalogue.ids.is_whole()
        )
        sizes = [vocabulary.size for vocabulary in self.vocabularies.values()]
        number_VF, key_VF = self.catalogue.number_VF, self.catalogue.key_VF
        outside = (
            (number_VF < 0).any()
            or (number_VF >= sizes).any()
            or ((key_VF < NO_KEY) | (key_VF >= self.catalogue.keys_F)).any()
        )
        if not whole or outside:
            raise ArtifactError(f"the vocabularies or the catalogue of {self.path} contradict themselves", fix=AGAIN)
        # They check themselves where they are first read.
        _ = self.drawn, self.metrics
        if self.config.memory is not None:
            _ = self.tables

    def __repr__(self) -> str:
        measured = ", ".join(f"{name} {value:.4f}" for name, value in self._validation().items())
        parts = [self.config.title, f"id {self.id[:12]}", *([f"validation: {measured}"] if measured else [])]
        return f"Artifact({str(self.path)!r}: {'; '.join(parts)})"

    def _repr_html_(self) -> str:
        """Its validation metrics, as notebooks show them."""
        rows = [[name, f"{value:.4f}"] for name, value in self._validation().items()]
        title = f"Artifact {self.id[:12]} in {self.path}: {self.config.title}"
        return html_table(["validation", "value"], rows, caption=title)

    def _validation(self) -> dict[str, float]:
        """What training measured on validation, by the metric's name."""
        values = self.metrics.get("validation", {})
        names = {"auc": "AUC", "log_loss": "log loss", "calibration_error_calibrated": "calibration error"}
        return {words: values[name] for name, words in names.items() if isinstance(values.get(name), float)}

    @property
    def id(self) -> str:
        """SHA-256 over everything that scores depend on."""
        return self.manifest.id

    @property
    def family(self) -> str:
        """Id of the artifact that this one was continued from, through all continuations; its own if from none."""
        start = self.config.run.get("start") or {}
        return str(start.get("family") or start.get("artifact") or self.id)

    @cached_property
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        """Item field -> vocabulary, in the order of the schema."""
        return {field: self._vocabulary(field) for field in self.config.dataset_schema.item_fields}

    @cached_property
    def profile_vocabularies(self) -> Mapping[str, Vocabulary]:
        """Context field `user.<field>` -> vocabulary, in the order of the schema."""
        return {name: self._vocabulary(name) for name in map(user_context, self.config.dataset_schema.user_fields)}

    @cached_property
    def event_types(self) -> Vocabulary | None:
        """Vocabulary of the event types, None if the events have no types."""
        return self._vocabulary("event_type") if self.config.dataset_schema.event_types else None

    def _vocabulary(self, field: str) -> Vocabulary:
        vocabulary = self._part(lambda: Vocabulary.open(self.path / "vocabulary" / field))
        spec = self.config.input_spec
        size = {**spec.context, **spec.event, **spec.item}.get(field)
        if vocabulary.size != size:
            raise ArtifactError(
                f"{self.path / 'vocabulary' / field} has {vocabulary.size} numbers",
                expected=f"{size}, as in config.json",
                fix="copy or export the artifact again",
            )
        return vocabulary

    def _part(self, open_part: Callable[[], T]) -> T:
        """A part of the folder.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        try:
            return open_part()
        except DatasetError as error:
            raise ArtifactError(f"{self.path}: {error.found}", fix=AGAIN) from error

    @cached_property
    def catalogue(self) -> Catalogue:
        """All items of the training data."""
        return self._part(lambda: Catalogue.open(self.path / "catalogue", self.vocabularies))

    @cached_property
    def drawn(self) -> IntArray | None:
        """How often each catalogue row is drawn as a training negative `[V]` (`data.negatives.drawn_counts`).

        None if all are drawn alike.

        Raises:
            ArtifactError: the counts are damaged, or not of the catalogue's size.
        """
        if DRAWN not in self.manifest.files:
            return None
        drawn_V = self._part(lambda: open_arrays(self.path, ["drawn"], "counts of negatives"))["drawn"]
        if drawn_V.shape != (len(self.catalogue),) or drawn_V.dtype != np.int64 or (drawn_V < 0).any():
            description = f"{self.path / DRAWN} holds {drawn_V.dtype} {drawn_V.shape}"
            raise ArtifactError(description, expected=f"int64 ({len(self.catalogue)},), 0 or more", fix=AGAIN)
        return drawn_V

    @cached_property
    def tables(self) -> Mapping[str, Float32Array]:
        """Field -> embedding table `[V, E]`, of a model that is served.

        Raises:
            ArtifactError: the model is not served, or a table does not have a row for each number of its field.
        """
        self.require_memory()
        sizes = self._table_sizes()
        tables = self._part(lambda: open_arrays(self.path / "tables", sizes, "embedding tables"))
        for field, table in tables.items():
            if table.ndim != 2 or len(table) != sizes[field] or table.dtype != np.float32:
                raise ArtifactError(
                    f"{self.path / 'tables' / field}.npy holds {table.dtype} {table.shape}",
                    expected=f"float32 with {sizes[field]} rows",
                    fix=AGAIN,
                )
        return tables

    def _table_sizes(self) -> dict[str, int]:
        spec = self.config.input_spec
        return {**spec.item, **spec.event, **{field: spec.context[field] for field in spec.context_fields}}

    def graph(self, name: Graph) -> Path:
        """Path of one of the graphs.

        Raises:
            ArtifactError: the model cannot be served; says why.
        """
        self.require_memory()
        return self.path / "graphs" / f"{name}.onnx"

    def require_memory(self) -> tuple[FieldLayout, ...]:
        """The memory layout of a model that can be served.

        Raises:
            ArtifactError: the model cannot be served; says why.
        """
        if self.config.memory is None:
            why = f"which cannot be served from memories: {self.config.not_served}"
            raise ArtifactError(
                f"{self.path} holds {self.config.title}, {why}",
                expected="an artifact of a model that is served, such as hpmn or gru4rec",
                fix="train such a model; `lifelong models` lists which models are served",
            )
        return self.config.memory

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What training measured.

        Raises:
            ArtifactError: it cannot be read.
        """
        try:
            measured: dict[str, Any] = json.loads((self.path / METRICS).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(f"{self.path / METRICS} cannot be read: {error}", fix=AGAIN) from error
        return measured

    def probability(
        self, logit: npt.ArrayLike, base_rate: float | None = None, *, task: str | None = None
    ) -> tuple[FloatArray | None, str | None]:
        """Probabilities of logits of one task, or the reason why there are none.

        Args:
            logit: raw logits, any shape.
            base_rate: share of positives in the world, if the caller knows it.
            task: name of the task; the first if None.
        """
        calibrator = self.calibrator(task)
        if calibrator is None:
            return None, NO_CALIBRATOR
        return calibrator.probability(logit, base_rate)

    def calibrator(self, task: str | None = None) -> Calibrator | None:
        """The calibrator of a task, of the first if None."""
        first = task in (None, self.config.dataset_schema.tasks[0])
        return self.config.calibrator if first else self.config.other_calibrators.get(task or "")


def check_fits(artifact: Artifact, dataset: Dataset) -> None:
    """Refuse a dataset if its numbers do not mean what they meant in the training.

    Raises:
        MismatchError: names the field and the difference.
    """
    mine, theirs = artifact.config.dataset_schema, dataset.schema
    fix = "number it as the artifact: lifelong prepare ... --start ARTIFACT (start=ARTIFACT); or train on this dataset"
    if mine != theirs:
        differing = [name for name in type(mine).model_fields if getattr(mine, name) != getattr(theirs, name)]
        raise MismatchError(
            "; ".join(f"{name} is {getattr(theirs, name)!r} in this dataset" for name in differing),
            expected="; ".join(f"{name} = {getattr(mine, name)!r}, as in training" for name in differing),
            fix=fix,
        )
    pairs = [(name, artifact.vocabularies[name], vocabulary) for name, vocabulary in dataset.vocabularies.items()]
    pairs += [
        (name, artifact.profile_vocabularies[name], vocabulary)
        for name, vocabulary in dataset.profile_vocabularies.items()
    ]
    if artifact.event_types is not None and dataset.event_types is not None:
        pairs.append(("event_type", artifact.event_types, dataset.event_types))
    for name, trained, own in pairs:
        # Sizes first: a user can make something of them, while a hash only says that there is a difference.
        if (trained.size, trained.buckets) != (own.size, own.buckets):
            raise MismatchError(
                f"the field {name!r} has {own.size} numbers ({own.buckets} of them buckets) in this dataset",
                expected=f"{trained.size} ({trained.buckets}), as in training",
                fix=fix,
            )
        if trained.content_hash() != own.content_hash():
            raise MismatchError(
                f"the field {name!r} has as many numbers as in training, but they stand for other values",
                expected="the same vocabulary",
                fix=fix,
            )


def _read_config(folder: Path) -> ArtifactConfig:
    try:
        return ArtifactConfig.model_validate_json((folder / _CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / _CONFIG} cannot be read: {error}", fix=AGAIN) from error
