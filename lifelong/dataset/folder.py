"""A prepared dataset, as `prepare` writes it and everything else opens it.

DATA/
  dataset.json            Manifest: schema, protocol, cut times, negatives, counts, data hash, preparation record
  vocabulary/<field>/     one per item field, and event_type; user.<field> for those of profiles
  catalogue/              every item with its field numbers
  users/                  IdIndex: user id <-> index into the histories
  profile.npy             what is known of users besides their events, if anything (`preparation.user_profiles`)
  drawn.npy               `drawn_counts` of the whole log, of a dataset with a part of the users (`--part`)
  histories/              memory-mapped ragged arrays
  examples/{train,validation,test}/
  vault/                  a dataset of the whole log with the numbers of this one, if asked for (`--vault`): its only
                          examples are examples/vault, and its folder opened/ says who has read them
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from lifelong.config import Record
from lifelong.dataset.arrays import AGAIN, open_arrays
from lifelong.dataset.catalogue import FOR_PEOPLE, Catalogue
from lifelong.dataset.events import GAP_NUMBERS, HOUR_NUMBERS, WEEKDAY_NUMBERS, InputSpec, Schema, user_context
from lifelong.dataset.examples import SPLITS, VAULT, Examples, Split
from lifelong.dataset.histories import Histories
from lifelong.dataset.mapping import TableMapping
from lifelong.dataset.notes import notes_of
from lifelong.dataset.scales import SCALES
from lifelong.dataset.vocabulary import IdIndex, Vocabulary
from lifelong.dtypes import Int32Array
from lifelong.errors import DatasetError, UsageError
from lifelong.tables import html_table

FORMAT_VERSION = 1
PROFILE = "profile.npy"
OPENED = "opened"
"""Folder of a vault that says who has read it, and what for."""
logger: logging.Logger = logging.getLogger(__name__)


class NegativeRule(Record):
    """How negatives are sampled; `rule = "none"` where labels are logged or given."""

    rule: Literal["none", "popularity", "uniform", "windowed", "following"]
    ratio: int = 1
    seed: int = 0
    window: float | None = Field(default=None, exclude_if=lambda window: window is None)
    """Days by a target that `windowed` and `following` draw from."""
    stored: bool = False
    """Training examples hold both labels too, drawn once (the coin flip of the paper's protocol)."""

    @property
    def window_seconds(self) -> int:
        """The width of the window; 0 without one."""
        return round((self.window or 0) * 86_400)

    @property
    def drawn_in_training(self) -> bool:
        """Whether the training examples are positives alone, with negatives drawn again in each epoch."""
        return self.rule != "none" and not self.stored


class VaultEntry(Record):
    """What `prepare --vault` put aside."""

    share: float
    """As asked for: of the events, or of the users where a protocol does not cut by time."""
    start: int | None
    """Targets from this time on; None where those of some users are put aside."""
    users: int | None
    """How many users; None where a time decides."""
    examples: int
    positives: int
    data_hash: str
    """Of the vault's own arrays."""


class Manifest(Record):
    """The content of `dataset.json`."""

    format_version: int
    name: str
    source: str
    protocol: Literal["temporal", "paper", "impressions", "given"]
    dataset_schema: Schema
    negatives: NegativeRule
    cut_times: tuple[int, ...]
    """Two cuts of the temporal and impressions protocols, one of the paper's, none where the split is given."""
    counts: dict[str, int]
    """users, events, items, and per split `<split>_examples` and `<split>_positives`."""
    base_rate: float | None
    """Share of positives among the training examples where labels are logged, else None (sampled)."""
    data_hash: str
    """SHA-256 over the arrays and vocabularies."""
    record: dict[str, Any]
    """Preparation record: what was read, dropped and counted, and why."""
    mapping: TableMapping | None = Field(default=None, exclude_if=lambda mapping: mapping is None)
    """How the rows of the log were read, where a mapping said so; artifacts keep it."""
    vault: VaultEntry | None = Field(default=None, exclude_if=lambda entry: entry is None)
    """What was put aside; None if nothing was."""


class Dataset:
    """An opened prepared dataset; arrays are mapped when first used.

    Args:
        folder: as `prepare` wrote it.

    Raises:
        DatasetError: there is none, it is unfinished, or of another format version.

    >>> import tempfile
    >>> from lifelong.testing.datasets import tiny_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = tiny_dataset(Path(folder) / "data", num_users=3)
    ...     dataset = Dataset(Path(folder) / "data")
    ...     dataset.schema.item_fields, dataset.histories.num_users, len(dataset.catalogue)
    (('item', 'category'), 3, 62)
    """

    def __init__(self, folder: Path | str) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise UsageError(
                f"a dataset's folder of type {type(folder).__name__}",
                expected="the folder that `lifelong prepare` wrote",
                fix='Dataset("data")',
            )
        self.folder: Path = Path(folder)
        path = self.folder / "dataset.json"
        if not path.exists():
            raise DatasetError(
                f"{self.folder} is not a prepared dataset: {_instead(self.folder)}",
                expected="a folder that `lifelong prepare` wrote",
                # Nothing is to be prepared into a folder that is something else.
                fix="give the folder that `lifelong prepare` named; it holds a dataset.json"
                if self.folder.exists()
                else f"lifelong prepare SOURCE FILE --out {self.folder}",
            )
        self.manifest: Manifest = _read_manifest(path)

    def __repr__(self) -> str:
        counts = self.manifest.counts
        sizes = ", ".join(f"{counts[name]:,} {name}" for name in ("users", "events", "items") if name in counts)
        examples = ", ".join(f"{split} {counts.get(f'{split}_examples', 0):,}" for split in SPLITS)
        return f"Dataset({str(self.folder)!r}: {sizes}; examples: {examples})"

    def _repr_html_(self) -> str:
        """Its counts, as notebooks show them."""
        rows = [[name.replace("_", " "), f"{number:,}"] for name, number in self.manifest.counts.items()]
        table = html_table(["", "number"], rows, caption=f"Dataset {self.manifest.name} in {self.folder}")
        return table + "".join(f"<p>{escape(note)}</p>" for note in self.notes)

    @property
    def notes(self) -> list[str]:
        """What to know before using it: columns that are not read, splits that are too small, and the like."""
        record = self.manifest.record
        if self.manifest.vault is not None:
            small = {**record.get("too_small", {}), **self.vault.manifest.record.get("too_small", {})}
            record = {**record, "too_small": small}
        return notes_of(record, items=self.manifest.counts.get("items", 0), mapping=self.manifest.mapping)

    @property
    def schema(self) -> Schema:
        """The fields of events, items and users."""
        return self.manifest.dataset_schema

    @cached_property
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        """Item field -> vocabulary, in the order of the schema."""
        return {field: Vocabulary.open(self.folder / "vocabulary" / field) for field in self.schema.item_fields}

    @cached_property
    def event_types(self) -> Vocabulary | None:
        """Vocabulary of the event types, None if the events have no types."""
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
        """Context field `user.<field>` -> vocabulary, in the order of the schema."""
        names = map(user_context, self.schema.user_fields)
        return {name: Vocabulary.open(self.folder / "vocabulary" / name) for name in names}

    @cached_property
    def profile_UF(self) -> Int32Array:  # noqa: N802  named like a field
        """Numbers of the users' profiles; of width 0 where the data has none.

        Raises:
            DatasetError: they are missing, or have another shape than the schema says.
        """
        shape = (len(self.users), len(self.schema.user_fields))
        if not shape[1]:
            return np.zeros(shape, np.int32)
        number_UF: Int32Array = open_arrays(self.folder, ["profile"], "profiles")["profile"]
        if number_UF.shape != shape:
            raise DatasetError(f"{self.folder / PROFILE} has shape {number_UF.shape}", expected=str(shape), fix=AGAIN)
        return number_UF

    @cached_property
    def histories(self) -> Histories:
        """All events."""
        return Histories.open(self.folder / "histories")

    def event(self, at: int) -> tuple[str, int, str | None]:
        """Item id ("" where it is unknown), time and type of an event, by its place among all events."""
        histories, types, kind = self.histories, self.event_types, None
        if types is not None and histories.event_type_N is not None:
            kind = types.value_of(int(histories.event_type_N[at]))
        return self.catalogue.id_of(int(histories.row_N[at])) or "", int(histories.time_N[at]), kind

    def examples(self, split: Split) -> Examples:
        """The examples of one split."""
        return Examples.open(self.folder / "examples" / split)

    @property
    def has_vault(self) -> bool:
        """Whether a part of the log was put aside (`prepare --vault`)."""
        return (self.folder / VAULT / "dataset.json").exists()

    @cached_property
    def vault(self) -> Self:
        """The dataset that holds what was put aside: the whole log, in the numbers of this dataset.

        Raises:
            DatasetError: nothing was put aside.
        """
        if not self.has_vault:
            raise DatasetError(
                f"{self.folder} has no vault",
                expected="a dataset that was prepared with a vault",
                fix="prepare the log again with --vault 0.05 (vault=0.05), and train on that",
            )
        return type(self)(self.folder / VAULT)

    def holding(self, split: Split, claim: str | None = None) -> Self:
        """The dataset with the examples of a split and the histories before them: this one, or its vault.

        A reading of the vault is counted, and from the second one on a warning says what it was read for before.

        Args:
            split: one of the dataset's, or "vault".
            claim: a sentence that says what a reading of the vault is to decide; kept in its record.

        Raises:
            DatasetError: the split is `vault`, and there is none, or its reading cannot be written down.
            UsageError: the vault is to be read, and no claim is stated.
        """
        from lifelong.dataset.readings import in_words, note_reading

        if split != VAULT:
            return self
        found = note_reading(self.vault.folder / OPENED, claim)
        if len(found) > 1:
            logger.warning("%s", in_words(found))
        return self.vault

    @cached_property
    def inputs(self) -> InputSpec:
        """How many numbers each input field has."""
        sizes = {"gap": GAP_NUMBERS, "hour": HOUR_NUMBERS, "weekday": WEEKDAY_NUMBERS}
        sizes |= {field: scale.size for field, scale in SCALES.items()}
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


def _read_manifest(path: Path) -> Manifest:
    try:
        document = json.loads(path.read_text())
        # Before anything else: another format may have other fields.
        if isinstance(document, dict) and document.get("format_version") != FORMAT_VERSION:
            raise DatasetError(
                f"{path.parent} has dataset format {document.get('format_version')}",
                expected=f"{FORMAT_VERSION}, the format of this release",
                fix="prepare the dataset again with this release, or install the one that wrote it",
            )
        return Manifest.model_validate(document)
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {error}", fix=AGAIN) from error


def _instead(folder: Path) -> str:
    """What is where a dataset was expected."""
    if (folder / "manifest.json").is_file():
        return "it is an artifact"
    if folder.is_dir():
        return "dataset.json is missing"
    return "it is a file" if folder.exists() else "there is no such folder"


def array_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all arrays and vocabularies of a dataset folder.

    Without its vault, and without the items' own numbers and titles, which are for people alone.
    """
    digest, left_out = hashlib.sha256(), {"dataset.json", *(f"catalogue/{name}" for name in FOR_PEOPLE)}
    # Sorted, since file systems list names in different orders and the hash must not depend on that.
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name.partition("/")[0] not in (VAULT, OPENED) and name not in left_out:
            digest.update(name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `dataset.json`, the last file of a dataset: a folder without it is unfinished."""
    (folder / "dataset.json").write_text(manifest.model_dump_json(indent=2) + "\n")
