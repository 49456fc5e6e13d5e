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
    """The command or call itself is wrong.

    Causes, and what to do:
        * a wrong option, argument or combination of them -> `COMMAND --help`, or the reference of the function, says
          what is expected
        * the target folder holds something else -> choose another name; only a dataset, an artifact or a store of this
          package is ever replaced
    """

    exit_code = 2


class ConfigError(UsageError):
    """One or more settings are wrong; `problems` names each.

    Causes, and what to do:
        * a misspelt setting, in TOML, after `--set` or as a keyword -> `docs/settings.md` lists `[train]`, `lifelong
          models` the settings of each model
        * a value out of range or of another type -> the message names the range; all problems are listed at once
    """

    def __init__(self, problems: list[str], *, fix: str = "") -> None:
        self.problems = problems
        super().__init__("; ".join(problems), fix=fix)


class DataError(LifelongError):
    """Something is wrong with data.

    Causes, and what to do:
        * a split without targets, or cut times that are equal -> use a longer log, or other `cuts`
        * no negative can be drawn -> a log needs more items than one user touches at one time
        * logits that are not finite numbers -> train the model again, with a lower learning rate
    """


class SourceError(DataError):
    """A raw file is not what it should be.

    Causes, and what to do:
        * a column is missing or has another name -> say which column is what: `--option user=NAME`, or a mapping file
        * a value is not what the column needs: a time that is no number, an empty id -> fix the line that the message
          names, or give the unit or format of times in the mapping
        * bytes that are not UTF-8, a file that is cut off, a row of more than some MiB -> convert or fetch the file
          again; a quote that is never closed makes a row endless

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
        place = file
        if line is not None:
            place += f", line {line}"
        if column is not None:
            place += f", column {column}"
        super().__init__(f"{place}: {found}" if place else found, expected=expected, fix=fix)


class DatasetError(DataError):
    """A prepared dataset is missing, damaged or of another format version.

    Causes, and what to do:
        * the folder is not one that `lifelong prepare` wrote -> check the path, or prepare the log
        * another format version, or a file that is cut or altered -> prepare the log again with this release
        * there is no vault -> prepare the log again with `--vault 0.05`, and train on that
    """


class MismatchError(DataError):
    """This dataset cannot train or evaluate this model.

    Causes, and what to do:
        * the dataset was prepared with other vocabularies, fields or tasks than the artifact was trained on -> prepare
          it with `--from ARTIFACT`, or train on it
        * processes of one run have different data, settings or versions -> make them equal; the message names the
          difference
        * the model needs something that the data lacks, such as times, a category or ratings -> prepare the data with
          it, or choose another model
    """


class ArtifactError(LifelongError):
    """An artifact folder is missing, truncated or altered, or not an artifact.

    Causes, and what to do:
        * the folder is not an artifact, or a file is missing, altered or not named by the manifest -> copy the artifact
          again from where it was trained
        * the model cannot be served -> take one that can: `lifelong models` says which
        * an artifact of a later format -> use the release that wrote it, or train again
    """


class StoreError(LifelongError):
    """Base of the memory store's errors.

    Causes, and what to do:
        * the store keeps memories of several artifacts, and the command fills those of one -> drop the others with
          `lifelong switch --drop`, or use `lifelong ingest`
        * the memories of an artifact are not complete -> run `lifelong backfill` again: it continues where it stopped
    """


class StoreLockedError(StoreError):
    """Another process owns the store.

    Causes, and what to do:
        * a service, `ingest` or `backfill` has the folder open -> stop it; or leave a service running and ask it:
          `backfill`, `switch`, `forget` and `export` take its address as `--store`, and events go to `POST /v1/events`
        * two services are to share memories -> use a Redis or Valkey store, which takes any number of processes
    """


class StoreForeignError(StoreError):
    """The store was written by another artifact.

    Causes, and what to do:
        * the artifact was trained again, and the store holds the memories of the earlier one -> build the new ones next
          to them: `lifelong backfill NEW`, then `lifelong switch NEW`
        * another codec or memory layout is asked for -> leave out the codec, or build a new store
    """


class StoreConflictError(StoreError):
    """A write is based on values that have changed since they were read.

    Causes, and what to do:
        * another process has written the same users in between -> read again and make the change again; `Updater`,
          `ingest` and the service do so by themselves

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
    """The store has lost commits that it had acknowledged, as a server may after a restart.

    Causes, and what to do:
        * a server was restarted or failed over, and lost commits -> run again: a file or topic is read on from the
          store's offset; send HTTP events again
        * it happens again and again -> `lifelong doctor --store URL` says which settings of the server lose commits
    """


class StoreCorruptError(StoreError):
    """A stored value cannot be decoded.

    Causes, and what to do:
        * a record, a file or the write-ahead log is damaged -> restore a backup (`lifelong backup --restore`) and
          apply what came since (`lifelong ingest`), or build the store again with `lifelong backfill`
        * one user's memory is damaged -> erase it (`lifelong forget USER`) and send her events again
    """


class StoreUnavailableError(StoreError):
    """The disk is full, or a server or its replicas do not answer; the error says what was kept, if anything.

    Causes, and what to do:
        * the disk is full -> free space; the service continues by itself
        * a Redis or Valkey server, or too few of its replicas, answers -> wait and send it again: events with an
          `event_id`, a topic or a file count once
        * other processes write the same users all the time -> send the events again; let each user's events go through
          one process
    """


class StreamError(LifelongError):
    """A stream of events cannot be followed.

    Causes, and what to do:
        * there is no such topic, or no right to read it -> check name, login and rights
        * Kafka has deleted messages that were not applied -> apply them from another copy, or leave them out with
          `--on-gap skip`; keep messages longer than any pause
        * the topic ends before the store's offset: it was recreated -> give it a name of its own with `--source NAME`
    """


class StreamUnavailableError(StreamError):
    """No broker answers.

    Causes, and what to do:
        * no broker answers -> check that it runs, and host, port and login of the URL
        * the brokers do not accept dead letters -> fix the topic, then run again: nothing after the last position was
          applied
    """


class RequestError(LifelongError):
    """A scoring or event request that cannot be served.

    Causes, and what to do:
        * a field, value or time of a request that the model does not know or the service does not accept -> the message
          names the place; nothing of the request was kept
        * an event lies too far ahead of the clock -> fix its time (UTC seconds), or raise `max_ahead`
    """


class LostProcessError(LifelongError):
    """Another process of the same run has ended or does not answer.

    Causes, and what to do:
        * a process of the run was killed, or ran out of memory -> look for the one that ended first, then continue with
          `--resume`
        * a worker of `ingest` ended -> run it again: each shard continues where it stopped
    """


class PluginError(LifelongError):
    """A model, source, store, metric or callback of another package fails with an error of its own.

    Causes, and what to do:
        * its code raises, or gives something else than is asked of it -> repair it at the line that the message names;
          `--debug` shows the calls that led there, and in Python the error is the `__cause__` of this one
        * it was written for another release -> run the checks of `lifelong.testing` on it, or uninstall its package
    """


class MissingExtraError(LifelongError):
    """An optional dependency is not installed.

    Causes, and what to do:
        * the command needs an optional package -> install the extra that the message names, such as `pip install
          'lifelong[serve]'`
    """


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
