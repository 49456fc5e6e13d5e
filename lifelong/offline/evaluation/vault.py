"""The split after test, which each family of artifacts reads once.

    DATA/vault/opened/<family>.json     an `Opening`: who read it when, to decide what, and what came out
    DATA/vault/opened/readings.jsonl    every reading and its claim, whoever read (`lifelong.dataset.readings`)

A family is an artifact and all that were continued from it: a figure that has been seen may have led to the next
artifact of the family. The opening is written before anything is scored and its result when it is known, so that a
process that was killed in between may repeat it, with the same artifact alone. A measurement that has a result is never
repeated; the record answers instead.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from lifelong.artifact.folder import Artifact
from lifelong.dataset.examples import VAULT, Split
from lifelong.dataset.folder import OPENED, Dataset
from lifelong.dataset.readings import Reading, note_reading, readings, stated, unwritten
from lifelong.errors import MismatchError, UsageError
from lifelong.offline.evaluation.results import RecordFile, Result

FORMAT_VERSION = 1


class Opening(RecordFile):
    """One reading of a vault."""

    _what: ClassVar = "record of an opened vault"
    _made_by: ClassVar = "lifelong evaluate --split vault"

    format_version: int = FORMAT_VERSION
    family: str
    """Id of the first artifact of the family."""
    artifact_id: str
    title: str
    claim: str = ""
    """What the reading was to decide."""
    opened: datetime
    data_hash: str
    """Of the vault."""
    result: Result | None = None
    """None while it is measured."""

    def in_words(self) -> str:
        """Who has read the vault, and when."""
        return f"{self.title} (artifact {self.artifact_id[:12]}) read it on {self.opened:%Y-%m-%d at %H:%M:%S} UTC"


def openings(dataset: Dataset) -> list[Opening]:
    """All readings of the dataset's vault, the earliest first.

    Raises:
        DatasetError: the dataset has no vault.
        DataError: a record is damaged.
    """
    openings = [Opening.load(path) for path in sorted((dataset.vault.folder / OPENED).glob("*.json"))]
    return sorted(openings, key=lambda one: (one.opened, one.family))


def opening_of(dataset: Dataset, artifact: Artifact) -> Opening | None:
    """The reading of the artifact's family, None if there was none.

    Raises:
        DatasetError: the dataset has no vault.
        DataError: the record is damaged.
    """
    path = _path(dataset, artifact.family)
    return Opening.load(path) if path.exists() else None


def stored_result(dataset: Dataset, artifact: Artifact) -> Result:
    """What came out when the artifact's family read the vault; nothing is computed.

    Raises:
        UsageError: it has not read it, or was interrupted.
    """
    opening = opening_of(dataset, artifact)
    if opening is None or opening.result is None:
        raise UsageError(
            f"the vault of {dataset.folder} holds no result of this artifact's family",
            expected="an artifact of a family that has been measured on it",
            fix="measure it without --stored (stored=True), once",
        )
    return opening.result


def check_closed(dataset: Dataset, artifact: Artifact) -> None:
    """Refuse a second reading by one family.

    Raises:
        MismatchError: the family has read the vault; says which artifact, and when.
        DatasetError: the dataset has no vault.
    """
    opening = opening_of(dataset, artifact)
    if opening is None or (opening.result is None and opening.artifact_id == artifact.id):
        return
    family = "" if opening.artifact_id == artifact.id else ", of the same family (one was continued from the other)"
    raise MismatchError(
        f"the vault of {dataset.folder} has been opened: {opening.in_words()}{family}",
        expected="one measurement for an artifact and all that are continued from it",
        fix="--stored (stored=True) shows what was measured; a new measurement needs data that nobody has seen",
    )


def held_by(dataset: Dataset, split: Split) -> Dataset:
    """`Dataset.holding` of a reading that has been written down."""
    return dataset.vault if split == VAULT else dataset


def open_for(dataset: Dataset, artifact: Artifact, claim: str | None) -> Opening:
    """Record that an artifact reads the vault to decide a claim, before it does.

    Raises:
        MismatchError: see `check_closed`.
        UsageError: no claim is stated.
        DatasetError: it cannot be written; then nothing must be read.
    """
    check_closed(dataset, artifact)
    opening = Opening(
        family=artifact.family,
        artifact_id=artifact.id,
        title=artifact.config.title,
        claim=stated(claim),
        opened=datetime.now(UTC).replace(microsecond=0),
        data_hash=dataset.vault.manifest.data_hash,
    )
    path = _path(dataset, opening.family)
    try:
        opening.save(path)
        note_reading(path.parent, claim, f"{opening.title} {artifact.id[:12]}")
    except OSError as error:
        raise unwritten(path.parent, error) from error
    return opening


def readings_of(dataset: Dataset) -> list[Reading]:
    """All readings of the dataset's vault and their claims, the earliest first.

    Raises:
        DatasetError: the dataset has no vault.
        DataError: the record is damaged.
    """
    return readings(dataset.vault.folder / OPENED)


def keep(dataset: Dataset, opening: Opening, result: Result) -> None:
    """Write down what came out."""
    opening.model_copy(update={"result": result}).save(_path(dataset, opening.family))


def _path(dataset: Dataset, family: str) -> Path:
    return dataset.vault.folder / OPENED / f"{family}.json"
