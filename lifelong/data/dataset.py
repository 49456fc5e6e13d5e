"""A prepared dataset, as `prepare` writes it and everything else opens it.

DATA/
  dataset.json            Manifest: schema, protocol, cut times, negatives, counts, data hash, preparation record
  vocabulary/<field>/     one per item field, and event_type; user.<field> for those of profiles
  catalogue/              every item with its field numbers
  users/                  IdIndex: user id <-> index into the histories
  profile.npy             what is known of users beside their events, if anything (see `profiles`)
  histories/              memory-mapped ragged arrays
  items/                  the same events by item, if asked for (see `item_histories`)
  statistics/             how often each item was met, and how rated, before any time; if asked for (`item_statistics`)
  examples/{train,validation,test}/
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from lifelong.data.catalogue import Catalogue
from lifelong.data.events import GAP_NUMBERS, HOUR_NUMBERS, WEEKDAY_NUMBERS, InputSpec, Schema, user_context
from lifelong.data.examples import Examples, Split
from lifelong.data.histories import Histories
from lifelong.data.item_histories import FOLDER as ITEMS
from lifelong.data.item_histories import ItemHistories
from lifelong.data.item_statistics import FOLDER as STATISTICS
from lifelong.data.item_statistics import ItemStatistics
from lifelong.data.scales import ITEM_SCALES, SCALES
from lifelong.data.vocabulary import IdIndex, Vocabulary
from lifelong.errors import DatasetError

FORMAT_VERSION = 1
PROFILE = "profile.npy"


class NegativeRule(BaseModel):
    """How negatives are sampled; `rule = "none"` where labels are logged or given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["none", "popularity", "uniform", "same_category"]
    ratio: int = 1
    seed: int = 0
    category_field: str | None = None
    """The item field that `same_category` looks at."""
    stored: bool = False
    """Training examples hold both labels too, drawn once (the coin flip of the paper's protocol)."""

    @property
    def drawn_in_training(self) -> bool:
        """Whether the training examples are positives alone, whose negatives are drawn anew in each pass."""
        return self.rule != "none" and not self.stored


class Manifest(BaseModel):
    """What stands in `dataset.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: str
    source: str
    protocol: Literal["temporal", "paper", "impressions", "given"]
    dataset_schema: Schema
    negatives: NegativeRule
    cut_times: tuple[int, ...]
    """(first, second) global cut of the temporal and impressions protocols; (cut,) of the paper's; () if given."""
    counts: dict[str, int]
    """users, events, items, and per split `<split>_examples` and `<split>_positives`."""
    base_rate: float | None
    """Share of positives among the training examples where labels are logged, else None (sampled)."""
    data_hash: str
    """SHA-256 over the arrays and vocabularies."""
    record: dict[str, Any]
    """Preparation record: what was read, dropped, counted, and why."""


class Dataset:
    """An opened prepared dataset; arrays are mapped when first used."""

    def __init__(self, folder: Path | str) -> None:
        """Open a folder.

        Raises:
            DatasetError: there is none, it is unfinished, or of another format version.
        """
        self.folder = Path(folder)
        path = self.folder / "dataset.json"
        if not path.exists():
            raise DatasetError(
                f"{self.folder} is not a prepared dataset: dataset.json is missing",
                expected="a folder that `lifelong prepare` wrote",
                fix=f"lifelong prepare SOURCE PATH --out {self.folder}",
            )
        try:
            self.manifest = Manifest.model_validate_json(path.read_text())
        except ValidationError as error:
            raise DatasetError(f"{path} cannot be read: {error}", fix="make the dataset anew") from error
        if self.manifest.format_version != FORMAT_VERSION:
            raise DatasetError(
                f"{self.folder} has format version {self.manifest.format_version}",
                expected=str(FORMAT_VERSION),
                fix="make the dataset anew with this release",
            )

    @property
    def schema(self) -> Schema:
        """The fields."""
        return self.manifest.dataset_schema

    @cached_property
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        """Item field -> vocabulary, in the schema's order."""
        return {field: Vocabulary.open(self.folder / "vocabulary" / field) for field in self.schema.item_fields}

    @cached_property
    def event_types(self) -> Vocabulary | None:
        """Vocabulary of the event types, None if the log has none."""
        return Vocabulary.open(self.folder / "vocabulary" / "event_type") if self.schema.event_types else None

    @cached_property
    def catalogue(self) -> Catalogue:
        """All items."""
        return Catalogue.open(self.folder / "catalogue", self.vocabularies)

    @cached_property
    def users(self) -> IdIndex:
        """User id <-> index into the histories."""
        return IdIndex.open(self.folder / "users")

    @cached_property
    def profile_vocabularies(self) -> Mapping[str, Vocabulary]:
        """Context field `user.<field>` -> vocabulary, in the schema's order."""
        names = map(user_context, self.schema.user_fields)
        return {name: Vocabulary.open(self.folder / "vocabulary" / name) for name in names}

    @cached_property
    def profile_UF(self) -> npt.NDArray[np.int32]:  # noqa: N802  named like a field
        """Numbers of the users' profiles, width 0 where the data has none.

        Raises:
            DatasetError: they are missing, or not of the schema's size.
        """
        shape, path = (len(self.users), len(self.schema.user_fields)), self.folder / PROFILE
        if not shape[1]:
            return np.zeros(shape, np.int32)
        try:
            number_UF: npt.NDArray[np.int32] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot read {path}: {error}", fix="make the dataset anew") from error
        if number_UF.shape != shape:
            raise DatasetError(f"{path} has shape {number_UF.shape}", expected=str(shape), fix="make the dataset anew")
        return number_UF

    @cached_property
    def histories(self) -> Histories:
        """All events."""
        return Histories.open(self.folder / "histories")

    @property
    def has_item_histories(self) -> bool:
        """Whether `item_histories` is there."""
        return (self.folder / ITEMS).is_dir()

    @cached_property
    def item_histories(self) -> ItemHistories:
        """All events, by item.

        Raises:
            DatasetError: the dataset was prepared without them.
        """
        return ItemHistories.open(self.folder / ITEMS)

    @cached_property
    def item_statistics(self) -> ItemStatistics | None:
        """How often each item was met before any time, and how it was rated; None of a dataset prepared without.

        Raises:
            DatasetError: they are missing or damaged.
        """
        if not self.schema.item_statistics:
            return None
        return ItemStatistics.open(self.folder / STATISTICS, self.schema.rating_range)

    def examples(self, split: Split) -> Examples:
        """The examples of one split."""
        return Examples.open(self.folder / "examples" / split)

    @cached_property
    def inputs(self) -> InputSpec:
        """Sizes of all input fields."""
        sizes = {"gap": GAP_NUMBERS, "hour": HOUR_NUMBERS, "weekday": WEEKDAY_NUMBERS}
        sizes |= {field: scale.size for field, scale in (*SCALES.items(), *ITEM_SCALES.items())}
        sizes |= {field: vocabulary.size for field, vocabulary in self.profile_vocabularies.items()}
        if self.event_types is not None:
            sizes["event_type"] = self.event_types.size
        return InputSpec(
            item={field: vocabulary.size for field, vocabulary in self.vocabularies.items()},
            event={field: sizes[field] for field in self.schema.event_fields},
            context={field: sizes[field] for field in self.schema.context_fields},
            users=2 + len(self.users),
            tasks=self.schema.tasks,
            numbers=self.schema.number_fields,
            timed=self.schema.time_unit == "seconds",
        )


def array_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all arrays and vocabularies below a dataset folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "dataset.json":
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `dataset.json`, the last file of a dataset: a folder without it is unfinished."""
    (folder / "dataset.json").write_text(manifest.model_dump_json(indent=2) + "\n")
