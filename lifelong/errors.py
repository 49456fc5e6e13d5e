"""Every error that `lifelong` raises on purpose.

    LifelongError
    |-- UsageError            the command or call itself is wrong (exit code 2)
    |   `-- ConfigError       a setting is unknown, missing or out of range; lists all of them at once
    |-- DataError
    |   |-- SourceError       a raw file is not what it should be; names file, line and column
    |   |-- DatasetError      a prepared dataset is missing, damaged or of another format version
    |   `-- MismatchError     this dataset cannot train or evaluate this model, and why
    |-- ArtifactError         an artifact folder is missing, truncated or altered, or not an artifact
    |-- StoreError
    |   |-- StoreLockedError       another process owns the store
    |   |-- StoreForeignError      the store was written by another artifact
    |   |-- StoreConflictError     a write is based on values that have changed since they were read
    |   |-- StoreBehindError       the store has lost commits that it had acknowledged
    |   |-- StoreCorruptError      a stored value cannot be decoded
    |   |-- OtherShardError        a user of a shard that another node has
    |   `-- StoreUnavailableError  the disk is full or the server does not answer
    |-- StreamError           a stream of events cannot be followed: no topic, no permission, a position that is gone
    |   `-- StreamUnavailableError  no broker answers
    |-- RequestError          a scoring or event request that cannot be served
    |-- LostProcessError      another process of the same run has ended or does not answer
    |-- PluginError           a model, source, store, metric or callback of another package fails
    `-- MissingExtraError     an optional dependency is not installed, and which extra brings it

A message has three parts: what was found, what was expected, what to do.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


class LifelongError(Exception):
    """Base of all errors.

    Args:
        found: what was found.
        expected: what was expected; "" if that is clear.
        fix: what to do; "" if that is clear.

    Attributes:
        found, expected, fix: as given; `--json` prints them separately.
        exit_code: of a command that fails with it.

    >>> str(UsageError("there is no model 'hpm'", expected="one of hpmn, tally", fix="check the name"))
    "there is no model 'hpm'. Expected: one of hpmn, tally. To do: check the name."
    """

    exit_code = 1
    found: str
    expected: str
    fix: str

    def __init__(self, found: str, *, expected: str = "", fix: str = "") -> None:
        self.found, self.expected, self.fix = found, expected, fix
        parts = [found.rstrip(".")]
        if expected:
            parts.append(f"Expected: {expected.rstrip('.')}")
        if fix:
            parts.append(f"To do: {fix.rstrip('.')}")
        super().__init__(". ".join(parts) + ".")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle message and parts, without calling the constructor again."""
        return _copied, (type(self), self.args, self.__dict__)


def _copied(kind: type[LifelongError], arguments: tuple[Any, ...], parts: dict[str, Any]) -> LifelongError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(parts)
    return error


class UsageError(LifelongError):
    """The command or call itself is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more settings are wrong; `problems` names each."""

    def __init__(self, problems: list[str], *, fix: str = "") -> None:
        self.problems = problems
        super().__init__("; ".join(problems), fix=fix)


class DataError(LifelongError):
    """Something is wrong with data."""


class SourceError(DataError):
    """A raw file is not what it should be.

    Args:
        found: what is wrong.
        file: the file.
        line: its line, counted from 1, if the format has lines.
        column: name or number (from 1) of the column.
    """

    file: str
    line: int | None
    column: str | int | None

    def __init__(
        self,
        found: str,
        *,
        file: str = "",
        line: int | None = None,
        column: str | int | None = None,
        expected: str = "",
        fix: str = "",
    ) -> None:
        self.file, self.line, self.column = file, line, column
        where = file
        if line is not None:
            where += f", line {line}"
        if column is not None:
            where += f", column {column}"
        super().__init__(f"{where}: {found}" if where else found, expected=expected, fix=fix)


class DatasetError(DataError):
    """A prepared dataset is missing, damaged or of another format version."""


class MismatchError(DataError):
    """This dataset cannot train or evaluate this model."""


class ArtifactError(LifelongError):
    """An artifact folder is missing, truncated or altered, or not an artifact."""


class StoreError(LifelongError):
    """Base of the memory store's errors."""


class StoreLockedError(StoreError):
    """Another process owns the store."""


class StoreForeignError(StoreError):
    """The store was written by another artifact."""


class StoreConflictError(StoreError):
    """A write is based on values that have changed since they were read.

    Args:
        found: what has changed.
        users: users for whom nothing was written; for all others of the write, everything was.
        expected: see `LifelongError`.
        fix: see `LifelongError`.
    """

    def __init__(self, found: str, *, users: frozenset[str], expected: str = "", fix: str = "") -> None:
        self.users = users
        super().__init__(found, expected=expected, fix=fix)


class StoreBehindError(StoreError):
    """The store has lost commits that it had acknowledged, as a server may after a restart."""


class OtherShardError(StoreError):
    """A user of a shard that another node has.

    Args:
        found: see `LifelongError`.
        shard: its number.
        expected: see `LifelongError`.
        fix: see `LifelongError`.
    """

    def __init__(self, found: str, *, shard: int = 0, expected: str = "", fix: str = "") -> None:
        self.shard = shard
        super().__init__(found, expected=expected, fix=fix)


class StoreCorruptError(StoreError):
    """A stored value cannot be decoded."""


class StoreUnavailableError(StoreError):
    """The disk is full, or a server or its replicas do not answer; the error says what was kept, if anything."""


class StreamError(LifelongError):
    """A stream of events cannot be followed."""


class StreamUnavailableError(StreamError):
    """No broker answers."""


class RequestError(LifelongError):
    """A scoring or event request that cannot be served."""


class LostProcessError(LifelongError):
    """Another process of the same run has ended or does not answer."""


class PluginError(LifelongError):
    """A model, source, store, metric or callback of another package fails with an error of its own."""


class MissingExtraError(LifelongError):
    """An optional dependency is not installed."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module by name, or say which extra brings it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{purpose} needs the package {error.name!r}, which is not installed",
            fix=f"pip install 'lifelong[{extra}]'",
        ) from error
