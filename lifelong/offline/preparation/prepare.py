"""Raw log -> prepared dataset, from disk to disk.

    files --source--> RawLog --number, sort, stream--> histories --protocol--> targets --negatives--> examples
                                                           `--training period--> vocabularies, catalogue

The dataset is built in a hidden folder next to its place and renamed at the end: an error leaves nothing behind, and a
kill nothing that looks finished. Equal rows and settings give equal arrays (`data_hash`), whatever the number of
threads.
"""

from __future__ import annotations

import difflib
import glob
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lifelong.atomic import building, in_use, put_in_place, remove_remains
from lifelong.config import problems_of
from lifelong.dataset.examples import VAULT
from lifelong.dataset.folder import OPENED, Dataset, Manifest, array_hash, write_manifest
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.preparation.assemble import assemble
from lifelong.offline.preparation.engine import clear_errors, open_engine
from lifelong.offline.preparation.ratings import label_ratings
from lifelong.offline.preparation.settings import Job, PrepareSettings
from lifelong.offline.preparation.sources import SOURCES, RawLog, is_mapped
from lifelong.plugins import named_in_errors
from lifelong.tables import TABLES, expand, is_path, table_file

__all__ = ["PrepareSettings", "expand", "prepare"]
logger: logging.Logger = logging.getLogger(__name__)
TABLE = "table"
"""The source that reads what a caller has in hand: files, or a table of another library (`lifelong.tables`)."""
_NOT_OF_EVENTS: Mapping[str, Any] = {"items": (), "users": None}
"""The parts of a mapping that tell of other files than those of the events."""
_SOURCE = "a function of (connection, paths, options) that gives a RawLog, see lifelong.offline.preparation.sources"
_ENGINES = ("duckdb", "_duckdb", "ibis")


def prepare(
    log: Any,
    paths: Sequence[str | Path] = (),
    out: Path | str | None = None,
    *,
    settings: PrepareSettings | None = None,
    progress: bool | Callable[[str], None] | None = None,
    **named: Any,
) -> Dataset:
    """Prepare a raw log.

    Args:
        log: a name in `SOURCES`; or a log of your own: a path, a glob, a list of them, or a table that exports Arrow
            (of pandas, Polars, DuckDB, Ibis, Arrow ...), one row per event.
        paths: files or globs of a source that has a name; the source decides what roles they have.
        out: folder of the dataset; must not exist or must be empty, unless `settings.overwrite`.
        settings: how to prepare; all settings have defaults.
        progress: True for lines on stderr at every stage, False for none, or a function that takes a line; with None,
            what to know of the dataset (`Dataset.notes`) is logged as warnings.
        named: settings by their names, which win over `settings`; and of a log of your own which column is what, as in
            a mapping file (docs/sources.md); of other sources their options.

    Returns:
        The finished dataset, opened.

    Raises:
        UsageError: there is no such source, protocol or setting, `out` is taken, or the earlier dataset or
            artifact does not exist or has other fields.
        ConfigError: a setting is wrong; lists all of them.
        SourceError: a file is not what it should be.
        DataError: the log cannot be prepared, or the disk is full; nothing is left behind.

    >>> import pandas, tempfile
    >>> log = pandas.DataFrame({"who": ["ann", "bob"] * 50, "what": [f"i{n % 7}" for n in range(100)]})
    >>> log["at"] = range(1_700_000_000, 1_700_360_000, 3_600)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dataset = prepare(log, out=Path(folder) / "data", user="who", item="what", time="at", min_count=1)
    ...     dataset.histories.num_events, dataset.schema.item_fields
    (100, ('item',))
    """
    if not isinstance(out, str | Path):
        found = "no folder for the dataset was named" if out is None else f"out of type {type(out).__name__}"
        raise UsageError(found, expected="a new folder as out", fix='prepare(log, out="data")')
    tell = (lambda line: print(line, file=sys.stderr)) if progress is True else progress or (lambda _: None)
    if not callable(tell):
        found, expected = f"progress = {progress!r}", "True, False, or a function that takes a line"
        raise UsageError(found, expected=expected, fix="progress=print")
    with _files_of(log, paths) as (source, named_files):
        chosen, columns = _settings_of(source, settings, named)
        dataset = _prepare(source, expand(named_files), Path(out), chosen, columns, tell)
    if progress is None:
        for note in dataset.notes:
            logger.warning(note)
    return dataset


def _by_ratings(log: RawLog, settings: PrepareSettings) -> PrepareSettings:
    """The settings, without tasks of ratings once these have labelled the log; few logs have any."""
    return label_ratings(log, settings) if any(">=" in task for task in settings.tasks or ()) else settings


def _prepare(
    source: str,
    files: list[Path],
    out: Path,
    settings: PrepareSettings,
    columns: Mapping[str, Any],
    tell: Callable[[str], None],
) -> Dataset:
    """Prepare files; `columns` are settings of the mapping of a table."""
    _check_source(source)
    _check_out(out, settings.overwrite)
    earlier = None
    if settings.start is not None:
        # Loaded where it is asked for: it brings everything that opens artifacts.
        from lifelong.offline.preparation.earlier_dataset import EarlierDataset

        earlier = EarlierDataset.open(settings.start)
    started = time.monotonic()
    # Only after `_check_out` has seen that nobody is writing there.
    for remains in remove_remains(out):
        tell(f"removed {remains}, which a killed run had left; starting over")
    with clear_errors(out.parent), building(out) as folder:
        # Inside the hidden folder: what a kill leaves is found and removed with it.
        (folder / "work").mkdir()
        with open_engine(
            folder / "work",
            memory_limit=settings.memory_limit,
            threads=settings.threads,
        ) as connection:
            tell(f"reading {source}" + (f": {len(files)} file(s)" if files else ""))
            given = {} if settings.mapping is None else {"mapping": str(settings.mapping)}
            options = {**settings.options, **given, **columns}
            with named_in_errors("sources", source, "its files were read", expected=_SOURCE):
                log = SOURCES[source](connection, files, options)
                _check_log(source, log)
            # Tables may be computed when they are first read.
            with named_in_errors("sources", source, "its tables were read", only=_ENGINES):
                job = Job(connection, log, folder, _by_ratings(log, settings), tell, earlier)
                manifest = _with_vault(job) if settings.vault else assemble(job)
        shutil.rmtree(folder / "work")
        tell("hashing the dataset")
        record = {**manifest.record, "files": [path.name for path in files], "options": settings.options}
        if settings.mapping is not None:
            record["mapping"] = settings.mapping.read_text(encoding="utf-8")
        if columns:
            record["columns"] = dict(columns)
        record["seconds"] = round(time.monotonic() - started, 1)
        # Those of public logs say how their files are written, which new events of a service are not.
        mapping = log.mapping.model_copy(update=_NOT_OF_EVENTS) if log.mapping and source == TABLE else None
        update = {"source": source, "record": record, "data_hash": array_hash(folder), "mapping": mapping}
        manifest = manifest.model_copy(update=update)
        write_manifest(folder, manifest)
        # Before the old dataset is replaced: its vault must stay opened for those who have read it.
        _keep_openings(out, folder)
        put_in_place(folder, out)
    tell(f"done: {out}")
    return Dataset(out)


def _with_vault(job: Job) -> Manifest:
    """The dataset of the log without its last part, and that part in a dataset of its own."""
    from lifelong.offline.preparation.vault import assemble_vault, put_aside

    aside, rest = put_aside(job.connection, job.log, job.settings)
    manifest = assemble(replace(job, log=rest, cut_times=aside.cut_times[:2]))
    write_manifest(job.folder, manifest)
    whole = replace(job, folder=job.folder / VAULT)
    whole.work.mkdir(parents=True)
    return manifest.model_copy(update={"vault": assemble_vault(whole, Dataset(job.folder), aside)})


def _keep_openings(out: Path, folder: Path) -> None:
    """Keep who has read a vault when the same one takes its place."""
    if not (out / "dataset.json").exists() or not (before := Dataset(out)).has_vault:
        return
    now, read = Dataset(folder), before.vault.folder / OPENED
    if now.has_vault and read.is_dir() and now.vault.manifest.data_hash == before.vault.manifest.data_hash:
        shutil.copytree(read, now.vault.folder / OPENED)


def _check_source(source: str) -> None:
    if source not in SOURCES:
        close = difflib.get_close_matches(source, SOURCES, n=1)
        raise UsageError(
            f"there is no source {source!r}{f' (did you mean {close[0]!r}?)' if close else ''}",
            expected=", ".join(sorted(SOURCES)),
            fix="read a log of any other format with the source `table`",
        )


def _check_log(source: str, log: object) -> None:
    """Check what the source of another package gave; those of this one give a log."""
    if not isinstance(log, RawLog):
        raise UsageError(
            f"the source {source!r} gave an object of type {type(log).__name__}",
            expected="a RawLog, see lifelong.offline.preparation.sources",
            fix="return RawLog(...) at the end of the source",
        )
    events = {"user", "item", "time", "sequence", *(("event_type",) if log.event_types else ())}
    tables = [("events", log.events, events), ("items", log.items, {"item", *log.item_columns})]
    tables.append(("users", log.users, {"user", *log.user_fields}))
    tables.append(("impressions", log.impressions, {"user", "item", "time", "sequence", *log.tasks}))
    for name, table, wanted in tables:
        missing = [] if table is None else sorted(wanted.difference(table.columns))
        if missing:
            raise UsageError(
                f"the table {name!r} of the source {source!r} has {', '.join(table.columns)}",
                expected=f"also {', '.join(missing)}, see RawLog in lifelong.offline.preparation.sources",
                fix="add the missing columns, or name what the table has in the RawLog",
            )


def _check_out(out: Path, overwrite: bool) -> None:
    if (busy := in_use(out)) is not None:
        raise UsageError(
            f"another process is writing {out} now (in {busy.name})",
            expected="one process for a folder",
            fix="wait until it has ended, or choose another folder",
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "dataset.json").exists():
        raise UsageError(f"{out} exists and is not a dataset", expected="a new folder", fix="choose another folder")
    if not overwrite:
        raise UsageError(
            f"{out} already holds a dataset",
            expected="a new folder",
            fix="choose another, or replace it with --overwrite (overwrite=True)",
        )


def _is_file(log: object) -> bool:
    """Whether what names a log looks like a file or a glob, and not like the name of a source.

    >>> _is_file("events.csv"), _is_file("logs/2024-*"), _is_file("taobao")
    (True, True, False)
    """
    if not isinstance(log, str | Path):
        return False
    return bool(Path(log).suffix) or glob.has_magic(str(log)) or Path(log).expanduser().exists()


@contextmanager
def _files_of(log: object, paths: Sequence[str | Path]) -> Iterator[tuple[str, Sequence[str | Path]]]:
    """The source of a log, and its files; those of a table in memory are removed at the end.

    Args:
        log: the name of a source, a path or glob, a list of them, or a table.
        paths: files of the source that `log` names.

    Raises:
        UsageError: it is none of these, or both name files.
    """
    if isinstance(log, str) and (log in SOURCES or not _is_file(log)):
        if paths and not is_path(paths):
            found, fix = f"files of type {type(paths).__name__}", f'prepare("{log}", ["one.csv"], out="data")'
            raise UsageError(found, expected="paths, globs, or a list of them", fix=fix)
        yield log, [paths] if isinstance(paths, str | Path) else paths
        return
    if paths:
        raise UsageError(
            f"files twice: {_named(log)} and {_named(paths)}",
            expected="the name of a source and its files, or a log",
            fix='prepare(["one.csv", "two.csv"], out="data"), or prepare("taobao", ["UserBehavior.csv"], out="data")',
        )
    if _is_file(log):
        yield TABLE, [log]  # type: ignore[list-item]
    elif is_path(log):
        yield TABLE, log  # type: ignore[misc]
    else:
        with table_file(log, what="a log", expected=f"the name of a source, a path, or {TABLES}") as path:
            yield TABLE, [path]


def _settings_of(
    source: str, settings: PrepareSettings | None, named: Mapping[str, Any]
) -> tuple[PrepareSettings, dict[str, Any]]:
    """The settings of a preparation, and the columns of a table, from settings by their names.

    Args:
        source: its name; other names are settings of its mapping, or its options.
        settings: that named ones are added to.
        named: what the caller named.

    Raises:
        UsageError: there is no such setting.
        ConfigError: a setting of the preparation is wrong; lists all of them.
    """
    own = {name: value for name, value in named.items() if name in PrepareSettings.model_fields}
    others = {name: value for name, value in named.items() if name not in own}
    columns: dict[str, Any] = {}
    if source == TABLE or is_mapped(source):
        if isinstance(own.get("mapping"), Mapping):
            columns |= own.pop("mapping")
        columns |= others
        _check_names(columns)
    elif others:
        texts = {name: str(value) for name, value in others.items()}
        own["options"] = {**(settings.options if settings else {}), **own.get("options", {}), **texts}
    try:
        return PrepareSettings.model_validate({**(settings.model_dump() if settings else {}), **own}), columns
    except ValidationError as error:
        raise ConfigError(problems_of(error), fix="`lifelong prepare --help` describes each of them") from None


def _check_names(columns: Mapping[str, Any]) -> None:
    from lifelong.dataset.mapping import TableMapping

    unknown = [name for name in columns if name not in TableMapping.model_fields]
    if unknown:
        names = ", ".join([*TableMapping.model_fields, *PrepareSettings.model_fields])
        raise UsageError(
            f"`prepare` has no setting {', '.join(map(repr, unknown))}",
            expected=f"one of {names}",
            fix='columns are named by what they are: user="customer_id", fields=["brand"]',
        )


def _named(value: object) -> str:
    return str(value) if isinstance(value, str | Path | list | tuple) else f"a {type(value).__name__}"
