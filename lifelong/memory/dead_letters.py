"""Where bad lines and messages go that were left out: a file here, a topic in `lifelong.memory.kafka`."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lifelong.errors import UsageError


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line or message that was no event.

    Args:
        source: the file, or the topic.
        partition: of the topic, 0 of a file.
        offset: in the partition; number of the line.
        reason: what is wrong with it.
        key: of the message.
        value: the message itself, or the values of the line.
    """

    source: str
    partition: int
    offset: int
    reason: str
    key: bytes | None = None
    value: bytes | Mapping[str, Any] | None = None


class DeadLetters(Protocol):
    """Keeps dead letters. After a crash one can be kept twice: its source, partition and offset tell."""

    def put(self, letter: DeadLetter) -> None:
        """Take one."""

    def flush(self) -> None:
        """Make durable what was taken; called before the position of the source moves on.

        Raises:
            LifelongError: it cannot be kept.
        """

    def close(self) -> None:
        """Let go of the file or the connection."""


class FileLetters:
    """A file, one JSON object a line; new ones are put at its end.

    Args:
        path: made if it is not there.

    Raises:
        UsageError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._written = path, False
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def put(self, letter: DeadLetter) -> None:
        """Take one."""
        row = {
            "source": letter.source,
            "partition": letter.partition,
            "offset": letter.offset,
            "reason": letter.reason,
            "key": _text(letter.key),
            "value": _text(letter.value) if isinstance(letter.value, bytes) else letter.value,
        }
        try:
            self._file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error
        self._written = True

    def flush(self) -> None:
        """Bring it to the disk.

        Raises:
            UsageError: it cannot be written.
        """
        if not self._written:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self._written = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"the dead letters cannot be written to {self._path}: {error.strerror or error}",
            expected="a file in a folder that can be written",
            fix="choose another --dead-letter",
        )


def _text(value: bytes | None) -> str | dict[str, str] | None:
    """Bytes as text where they are text."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
