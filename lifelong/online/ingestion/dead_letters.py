"""Keeps bad lines and messages that were left out."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lifelong.atomic import sync
from lifelong.errors import UsageError


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line or message that is not an event.

    Args:
        source: the file, or the topic.
        partition: partition of the topic; 0 for a file.
        offset: offset in the partition, or number of the line.
        reason: what is wrong with it.
        key: key of the message.
        value: the message itself, or the values of the line.
    """

    source: str
    partition: int
    offset: int
    reason: str
    key: bytes | None = None
    value: bytes | Mapping[str, Any] | None = None


_PLACE = ("source", "partition", "offset", "reason")


class DeadLetters(Protocol):
    """Keeps dead letters; after a crash one can be kept twice, with equal source, partition and offset."""

    def put(self, letter: DeadLetter) -> None:
        """Add one."""

    def flush(self) -> None:
        """Make durable what was added; called before the position of the source moves past it.

        Raises:
            LifelongError: it cannot be written.
        """

    def close(self) -> None:
        """Close the file or the connection."""


class FileLetters:
    """A file with one JSON object per line, to which dead letters are appended. Threads may share it.

    Args:
        path: the file; created if it does not exist.

    Raises:
        UsageError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        # A stream appends while a request takes a user out.
        self._path, self._written, self._lock = path, False, threading.Lock()
        try:
            self._file = path.open("a", encoding="utf-8")
            # A process that was killed may have left a torn line, to which the next letter would be glued.
            if path.is_file():
                if _is_torn(path):
                    self._file.write("\n")
                # Else the name of a new file would not survive a loss of power.
                sync(path.resolve().parent)
        except OSError as error:
            raise self._unwritable(error) from error

    def put(self, letter: DeadLetter) -> None:
        """Add one."""
        value = _text(letter.value) if isinstance(letter.value, bytes) else letter.value
        row = {**{name: getattr(letter, name) for name in _PLACE}, "key": _text(letter.key), "value": value}
        try:
            with self._lock:
                self._file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
                self._written = True
        except OSError as error:
            raise self._unwritable(error) from error

    def flush(self) -> None:
        """Bring all of them to the disk.

        Raises:
            UsageError: it cannot be written.
        """
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self._written:
            return
        try:
            self._file.flush()
            # The position moves past these lines next, and no run would look at them again.
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self._written = False

    def forget(self, users: Collection[str]) -> int:
        """Take users out, see `forget_letters`.

        Raises:
            UsageError: it cannot be written.
        """
        with self._lock:
            self._flush()
            return forget_letters(self._path, users)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"the dead letters cannot be written to {self._path}: {error.strerror or error}",
            expected="a file in a folder that can be written",
            fix="choose another place (--dead-letter, in Python dead_letters=)",
        )


def forget_letters(path: Path, users: Collection[str]) -> int:
    """Take the letters that name one of these users out of a file of letters; how many there were.

    A letter names a user if her id is the key, a value of the line, or a word of a text that is no JSON. It is
    overwritten with spaces, so that the process which appends to the file may continue; readers skip such lines.

    Raises:
        UsageError: the file is not there, or cannot be written.
    """
    named, found = _Named(users), 0
    try:
        with path.open("r+b") as file:
            while line := file.readline():
                # What has no end is still being written.
                if line.endswith(b"\n") and line.strip() and named.by(line):
                    # Back to the start of the line, and as many bytes again: nothing behind it moves.
                    file.seek(-len(line), os.SEEK_CUR)
                    file.write(b" " * (len(line) - 1) + b"\n")
                    found += 1
            file.flush()
            # After the answer to the erasure, nothing of the user may come back with the power.
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}",
            expected="a file of dead letters",
            fix="name a file in a folder that this user may write to",
        ) from error
    return found


def _is_torn(path: Path) -> bool:
    """Whether the last line has no end."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        return file.read(1) not in (b"", b"\n")


_BREAKS = re.compile(r"[\s,;:|\"'{}\[\]()]+")


class _Named:
    """Finds the lines that name one of some users.

    Args:
        users: their ids.
    """

    def __init__(self, users: Collection[str]) -> None:
        self._users = frozenset(users)
        self._broken = [user for user in self._users if _BREAKS.search(user)]

    def by(self, line: bytes) -> bool:
        """Whether a line of a file of letters does."""
        letter = _parsed(line.decode(errors="replace"))
        if not isinstance(letter, dict):
            return self._in_text(line.decode(errors="replace"))
        # The place of the line names no user.
        parts = [letter.get(name) for name in ("key", "value", "reason")]
        return any(text in self._users or self._in_text(text) for text in _texts(parts))

    def _in_text(self, text: str) -> bool:
        return not self._users.isdisjoint(_BREAKS.split(text)) or any(user in text for user in self._broken)


def _texts(value: Any) -> Iterator[str]:
    """All values of a JSON document as text, those of documents in texts too."""
    if isinstance(value, dict):
        if value.keys() == {"base64"}:
            value = {"bytes": base64.b64decode(value["base64"]).decode(errors="replace")}
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif value is not None:
        yield str(value)
        inner = _parsed(value) if isinstance(value, str) else None
        if isinstance(inner, dict | list):
            yield from _texts(inner)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(value: bytes | None) -> str | dict[str, str] | None:
    """Bytes as text if they are UTF-8, else as base64."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
