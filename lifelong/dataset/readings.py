"""What a vault was read for: every reading names the claim that it is to decide, before anything is read.

    DATA/vault/opened/readings.jsonl     a `Reading` a line, the earliest first

A figure that is looked at twice has been chosen once. How often a vault was read, and what for, says what its next
figure is worth.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from lifelong.config import Record
from lifelong.errors import DataError, DatasetError, UsageError

_WORDS = 4
"""Of a claim at least: with fewer words nothing is said that a figure could decide."""


class Reading(Record):
    """One reading of a vault: when, to decide which claim, and by which artifact ("" if by none)."""

    claim: str
    at: datetime
    by: str = ""

    def in_words(self) -> str:
        """All of it, in one line."""
        by = f", by {self.by}" if self.by else ""
        return f'"{self.claim}" ({self.at:%Y-%m-%d}{by})'


def stated(claim: str | None) -> str:
    """The claim, if it is one.

    Raises:
        UsageError: nothing is said that a reading could decide; says what to write.
    """
    words = (claim or "").split()
    if len(words) < _WORDS:
        raise UsageError(
            f"a vault is to be read for the claim {claim!r}" if words else "a vault is to be read without a claim",
            expected=f"a sentence of {_WORDS} words or more that says what this reading is to decide; it is kept",
            fix='state it: --claim "Tally has a higher AUC than LightGBM", in Python claim="..."',
        )
    return " ".join(words)


def note_reading(opened: Path, claim: str | None, by: str = "") -> list[Reading]:
    """Write down a reading, before it happens; all readings so far, this one last.

    Args:
        opened: folder of the record.
        claim: what the reading is to decide.
        by: the artifact that reads, if one does.

    Raises:
        UsageError: no claim is stated.
        DatasetError: it cannot be written down; then nothing must be read.
        DataError: the record is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = note_reading(Path(folder), "Tally is ahead of LightGBM")
    ...     found = note_reading(Path(folder), "LightGBM is ahead of counts")
    >>> in_words(found).partition(" (")[0]
    'Reading 2 of this vault, to decide "LightGBM is ahead of counts"'
    """
    reading = Reading(claim=stated(claim), at=datetime.now(UTC).replace(microsecond=0), by=by)
    found = [*readings(opened), reading]
    try:
        opened.mkdir(parents=True, exist_ok=True)
        # One line in one write at the end: a second process that reads at the same time loses neither.
        with _record(opened).open("ab", buffering=0) as file:
            file.write(reading.model_dump_json().encode() + b"\n")
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritten(opened, error) from error
    return found


def unwritten(opened: Path, error: OSError) -> DatasetError:
    """The error of a reading that cannot be written down."""
    return DatasetError(
        f"the vault cannot be opened, since that cannot be written down in {opened}: {error}",
        expected="a dataset folder that can be written",
        fix="copy the dataset to a disk that can be written, and measure there",
    )


def readings(opened: Path) -> list[Reading]:
    """All readings of a vault, the earliest first.

    Raises:
        DataError: the record is damaged.
    """
    path = _record(opened)
    if not path.exists():
        return []
    try:
        return [Reading.model_validate_json(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a record of readings: {error}",
            expected="one reading a line, as it was written",
            fix="restore the file from a copy: without it nobody knows what the vault was read for",
        ) from error


def in_words(found: list[Reading]) -> str:
    """Which reading the last one is, and what the vault was read for before."""
    before = "; ".join(reading.in_words() for reading in found[:-1]) or "none"
    return f"Reading {len(found)} of this vault, to decide {found[-1].in_words()}; before it: {before}."


def _record(opened: Path) -> Path:
    return opened / "readings.jsonl"
