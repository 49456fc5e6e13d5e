"""A finished model as a folder. No torch here: a server reads it with numpy and onnxruntime.

ARTIFACT/
  manifest.json          format version, id, size and SHA-256 of every other file
  config.json            ArtifactConfig: model, settings, fields, memory layout, calibrator, run
  metrics.json           what training measured; not part of the id
  vocabulary/<field>/    one per item field, and event_type; user.<field> for those of profiles
  catalogue/             every item with its field numbers
  statistics.npy         context numbers of every item at the end of the log   models that read some
  weights.safetensors    all weights                                         models trained by gradient
  tables/<field>.npy     embedding tables, float32 [V, E], memory-mapped     models that are served
  graphs/{write,read,head}.onnx                                              those; no write for history models
  graphs/run.onnx                                                            those whose memory is a stack of GRUs
  tables/items/, graphs/item_{write,read,run}.onnx, users/                       those with a side of items
  fitted/                what the model's own `save` wrote                   fitted models

The id is the SHA-256 over the names and checksums of all files but `metrics.json` and the manifest: equal ids score
equally.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from lifelong.artifact.calibration import Calibrator
from lifelong.data.catalogue import Catalogue
from lifelong.data.cell_plan import CellPacking
from lifelong.data.dataset import NegativeRule
from lifelong.data.events import InputSpec, Schema, user_context
from lifelong.data.item_statistics import LatestStatistics
from lifelong.data.known_users import KnownUsers
from lifelong.data.scales import ITEM_SCALES
from lifelong.data.vocabulary import Vocabulary
from lifelong.errors import ArtifactError, DatasetError

FORMAT = "lifelong-artifact"
FORMAT_VERSION = 1
RUN: Final = "run"
ITEM_RUN: Final = "item_run"
"""Graphs that an artifact may have beside them: runs of events of a user, or an item, at once."""
STRIDE = "stride"
"""Its metadata: what divides the count at which a run begins, and its number of events."""
Graph = Literal["write", "read", "head", "run", "item_write", "item_read", "item_run"]
GRAPHS: Final[tuple[Graph, ...]] = ("write", "read", "head")
Kind = Literal["memory", "history", "fitted"]
STATISTICS = "statistics.npy"
ITEM_TABLES, USERS = "items", "users"
_MANIFEST, _CONFIG, _METRICS = "manifest.json", "config.json", "metrics.json"
_AGAIN = "copy the whole folder again, or train anew"


class FieldLayout(BaseModel):
    """One field of a memory, such as HPMN's `slot` of shape (6, 32)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int16", "int32", "int64"] = "float32"
    """Floats may be stored with fewer bits, by choice of a codec; whole numbers are stored as they are."""
    cells: CellPacking | None = None
    """Of cells that count: how they are stored in fewer bytes."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value is not None}

    @property
    def size(self) -> int:
        """Numbers per user."""
        return int(np.prod(self.shape, dtype=np.int64))


NUMBER, TIME = "number", "time"


def recent_layout(recent: int, fields: int) -> tuple[FieldLayout, ...]:
    """What is kept of a user for a history model: her last `recent` events, each with its numbers and its time."""
    return (
        FieldLayout(name=NUMBER, shape=(recent, fields), dtype="int32"),
        FieldLayout(name=TIME, shape=(recent,), dtype="int64"),
    )


def is_recent(layout: Sequence[FieldLayout]) -> bool:
    """Whether a layout is that of a recent history."""
    return [part.name for part in layout] == [NUMBER, TIME]


class ItemSideConfig(BaseModel):
    """How the events of items are read, by a model that has a side of items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recent: int
    """Last events of an item that are kept."""
    period: int
    """A window starts at a multiple of it, counted from the item's first event."""
    memory: tuple[FieldLayout, ...]
    """What a window is folded into."""


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class ArtifactManifest(BaseModel):
    """What stands in `manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    id: str
    files: dict[str, FileEntry]
    """Path below the folder, with `/` -> its size and checksum."""


class ArtifactConfig(BaseModel):
    """What stands in `config.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    """memory: served from a memory; history: from the recent history; fitted: not trained by gradient, not served."""
    model: str
    """Its name in the registry."""
    title: str
    settings: dict[str, Any]
    """All settings of the model, defaults included."""
    dataset_schema: Schema
    inputs: dict[str, dict[str, int]]
    """item, event and context: field -> size."""
    users: int
    """Size of the user numbers in training."""
    memory: tuple[FieldLayout, ...] | None = None
    """Fields of what is kept of a user; None for a model that cannot be served."""
    not_served: str | None = None
    """Why the model cannot be served; None if it can."""
    items: ItemSideConfig | None = Field(default=None, exclude_if=operator.not_)
    """Of a model that is served with a side of items."""
    codec: str = "fp32"
    """How stores encode memories by default."""
    negatives: NegativeRule
    protocol: str
    base_rate: float | None
    """Share of positives among the training examples where labels are logged, else None."""
    data_hash: str
    calibrator: Calibrator | None = None
    """Of the first task."""
    other_calibrators: dict[str, Calibrator | None] = Field(default_factory=dict, exclude_if=operator.not_)
    """Of the other tasks, where there are several."""
    run: dict[str, Any]
    """Settings of the run that made it."""
    versions: dict[str, str]
    """Library -> version at training."""

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


class Artifact:
    """An opened artifact; vocabularies, catalogue and tables are mapped when first used."""

    def __init__(self, path: Path, manifest: ArtifactManifest, config: ArtifactConfig) -> None:
        self.path, self.manifest, self.config = path, manifest, config

    @classmethod
    def open(cls, path: Path | str, *, verify: Literal["full", "sizes"] = "full") -> Artifact:
        """Open a folder after checking every file.

        Args:
            path: the folder.
            verify: "full" reads all bytes and compares checksums, "sizes" compares sizes alone.

        Raises:
            ArtifactError: the folder is absent, foreign or of a newer format, or a file of it is missing, truncated or
                altered; says which.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        check_files(folder, manifest, full=verify == "full")
        return cls(folder, manifest, _read_config(folder))

    @property
    def id(self) -> str:
        """Hash over everything that scores depend on."""
        return self.manifest.id

    @cached_property
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        """Item field -> vocabulary, in the schema's order."""
        return {field: self._vocabulary(field) for field in self.config.dataset_schema.item_fields}

    @cached_property
    def profile_vocabularies(self) -> Mapping[str, Vocabulary]:
        """Context field `user.<field>` -> vocabulary, in the schema's order."""
        return {name: self._vocabulary(name) for name in map(user_context, self.config.dataset_schema.user_fields)}

    @cached_property
    def event_types(self) -> Vocabulary | None:
        """Vocabulary of the event types, None if the training data has none."""
        return self._vocabulary("event_type") if self.config.dataset_schema.event_types else None

    def _vocabulary(self, field: str) -> Vocabulary:
        try:
            return Vocabulary.open(self.path / "vocabulary" / field)
        except DatasetError as error:
            raise ArtifactError(f"{self.path}: {error.found}", fix=_AGAIN) from error

    @cached_property
    def catalogue(self) -> Catalogue:
        """All items of the training data."""
        try:
            return Catalogue.open(self.path / "catalogue", self.vocabularies)
        except DatasetError as error:
            raise ArtifactError(f"{self.path}: {error.found}", fix=_AGAIN) from error

    @cached_property
    def item_statistics(self) -> LatestStatistics | None:
        """What is known of items beside their fields, as of the end of the training log; None of a model without.

        Raises:
            ArtifactError: it is missing, or not of the catalogue's size.
        """
        fields = item_context(self.config.input_spec)
        if not fields:
            return None
        path, shape = self.path / STATISTICS, (len(self.catalogue), len(fields))
        try:
            number_VK: npt.NDArray[np.int32] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}", fix=_AGAIN) from error
        if number_VK.shape != shape:
            raise ArtifactError(f"{path} has shape {number_VK.shape}", expected=str(shape), fix=_AGAIN)
        return LatestStatistics(fields, np.asarray(number_VK), self.config.dataset_schema.rating_range)

    @cached_property
    def tables(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """Field -> embedding table `[V, E]`, of a model that can be served.

        Raises:
            ArtifactError: the model cannot be served, or a table has not as many rows as the field has numbers.
        """
        self.require_memory()
        spec = self.config.input_spec
        context = {field: spec.context[field] for field in spec.context_fields}
        # Without the user's side nobody embeds her events.
        event = {} if self.config.settings.get("side") == "item" else spec.event
        return {field: self._table(field, size) for field, size in {**spec.item, **event, **context}.items()}

    @cached_property
    def item_tables(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """The same of what the side of items reads.

        Raises:
            ArtifactError: a table has not as many rows as the field has numbers.
        """
        spec = self.config.input_spec.item_side
        sizes = {**spec.item, **spec.event, **spec.context}
        return {field: self._table(f"{ITEM_TABLES}/{field}", size) for field, size in sizes.items()}

    @cached_property
    def known_users(self) -> KnownUsers:
        """The users of the training, as the side of items knows them.

        Raises:
            ArtifactError: a file is missing, or they do not fit each other.
        """
        try:
            return KnownUsers.open(self.path / USERS, len(self.config.input_spec.item_side.item) - 1)
        except DatasetError as error:
            raise ArtifactError(f"{self.path}: {error.found}", fix=_AGAIN) from error

    def _table(self, field: str, size: int) -> npt.NDArray[np.float32]:
        path = self.path / "tables" / f"{field}.npy"
        try:
            table: npt.NDArray[np.float32] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}", fix=_AGAIN) from error
        if table.ndim != 2 or len(table) != size or table.dtype != np.float32:
            raise ArtifactError(
                f"{path} holds {table.dtype} {table.shape}", expected=f"float32 with {size} rows", fix=_AGAIN
            )
        return table

    def graph(self, name: Graph) -> Path:
        """Path of one of the graphs.

        Raises:
            ArtifactError: the model cannot be served, and why.
        """
        self.require_memory()
        return self.path / "graphs" / f"{name}.onnx"

    def require_memory(self) -> tuple[FieldLayout, ...]:
        """The memory layout of a model that can be served.

        Raises:
            ArtifactError: the model cannot be served, and why.
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
        """What training measured."""
        found: dict[str, Any] = json.loads((self.path / _METRICS).read_text())
        return found

    def probability(
        self, logit: npt.ArrayLike, base_rate: float | None = None, *, task: str | None = None
    ) -> tuple[npt.NDArray[np.float64] | None, str | None]:
        """Probabilities of logits of one task, or the reason why there are none.

        Args:
            logit: raw logits, any shape.
            base_rate: share of positives in the world, if the caller knows it.
            task: its name; the first if None.
        """
        calibrator = self.calibrator(task)
        if calibrator is None:
            return None, "this artifact has no calibrator: its validation examples did not allow to fit one"
        return calibrator.probability(logit, base_rate)

    def calibrator(self, task: str | None = None) -> Calibrator | None:
        """The calibrator of a task, of the first if None."""
        first = task in (None, self.config.dataset_schema.tasks[0])
        return self.config.calibrator if first else self.config.other_calibrators.get(task or "")


def item_context(inputs: InputSpec) -> tuple[str, ...]:
    """Context fields that a model reads of the target's item, in its order."""
    return tuple(field for field in inputs.context_fields if field in ITEM_SCALES)


def read_manifest(folder: Path) -> ArtifactManifest:
    """The manifest of an artifact.

    Raises:
        ArtifactError: there is none, it is foreign, or of a newer format.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        what = "has no manifest.json" if folder.is_dir() else "does not exist"
        raise ArtifactError(
            f"{folder} {what}", expected="an artifact folder", fix="give the folder that `lifelong train --out` wrote"
        )
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ArtifactError(f"{path} is not of an artifact", expected=f'"format": "{FORMAT}"', fix="check the path")
        if found.get("format_version") != FORMAT_VERSION:
            raise ArtifactError(
                f"{folder} has artifact format {found.get('format_version')}",
                expected=f"{FORMAT_VERSION}, the format of this release",
                fix="install the release of lifelong that wrote it, or train anew",
            )
        return ArtifactManifest.model_validate(found)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix=_AGAIN) from error


def check_files(folder: Path, manifest: ArtifactManifest, *, full: bool) -> None:
    """Compare the files of a folder with its manifest.

    Raises:
        ArtifactError: one is missing, truncated or altered, or the manifest itself was altered.
    """
    if artifact_id(manifest.files) != manifest.id:
        raise ArtifactError(f"{folder / _MANIFEST} was altered: its id does not fit its checksums", fix=_AGAIN)
    for name, entry in manifest.files.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise ArtifactError(f"{folder / _MANIFEST} names {name!r}, which is outside of the folder", fix=_AGAIN)
        path = folder / place
        if not path.is_file():
            raise ArtifactError(f"{path} is missing", fix=_AGAIN)
        size = path.stat().st_size
        if size != entry.size:
            what = "truncated" if size < entry.size else "altered"
            raise ArtifactError(f"{path} is {what}: {size} bytes", expected=f"{entry.size} bytes", fix=_AGAIN)
        if full and file_checksum(path) != entry.sha256:
            raise ArtifactError(f"{path} was altered: its checksum differs from the manifest's", fix=_AGAIN)


def artifact_id(files: Mapping[str, FileEntry]) -> str:
    """SHA-256 over the names and checksums of the files, metrics left out."""
    lines = [f"{name} {entry.sha256}\n" for name, entry in sorted(files.items()) if name != _METRICS]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_manifest(folder: Path) -> ArtifactManifest:
    """The manifest of the files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    files = {
        path.relative_to(folder).as_posix(): FileEntry(size=path.stat().st_size, sha256=file_checksum(path))
        for path in paths
    }
    return ArtifactManifest(id=artifact_id(files), files=files)


def _read_config(folder: Path) -> ArtifactConfig:
    try:
        return ArtifactConfig.model_validate_json((folder / _CONFIG).read_text())
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{folder / _CONFIG} cannot be read: {error}", fix=_AGAIN) from error
