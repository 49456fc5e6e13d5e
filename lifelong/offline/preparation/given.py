"""What a caller has in hand: the name of a source, files, or a table of another library; and settings by their names.

"taobao"                         a source
"events.csv", "2024-*.parquet"   files of the source `table`
a table (`lifelong.tables`)      written to a temporary parquet file, batch by batch, and read as `table`
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lifelong.config import problems_of
from lifelong.errors import ConfigError, UsageError
from lifelong.offline.preparation.settings import PrepareSettings
from lifelong.tables import TABLES, is_path, table_file

TABLE = "table"


def is_file(log: object) -> bool:
    """Whether what names a log looks like a file or a glob, and not like the name of a source.

    >>> is_file("events.csv"), is_file("logs/2024-*"), is_file("taobao")
    (True, True, False)
    """
    if not isinstance(log, str | Path):
        return False
    return bool(Path(log).suffix) or glob.has_magic(str(log)) or Path(log).expanduser().exists()


@contextmanager
def files_of(log: object, paths: Sequence[str | Path]) -> Iterator[tuple[str, Sequence[str | Path]]]:
    """The source of a log, and its files; those of a table in memory are removed at the end.

    Args:
        log: the name of a source, a path or glob, a list of them, or a table.
        paths: files of the source that `log` names.

    Raises:
        UsageError: it is none of these, or both name files.
    """
    from lifelong.offline.preparation.sources import SOURCES

    if isinstance(log, str) and (log in SOURCES or not is_file(log)):
        yield log, paths
        return
    if paths:
        raise UsageError(
            f"files twice: {_named(log)} and {_named(paths)}",
            expected="the name of a source and its files, or a log",
            fix='prepare(["one.csv", "two.csv"], out="data"), or prepare("taobao", ["UserBehavior.csv"], out="data")',
        )
    if is_file(log):
        yield TABLE, [log]  # type: ignore[list-item]
    elif is_path(log):
        yield TABLE, log  # type: ignore[misc]
    else:
        with table_file(log, what="a log", expected=f"the name of a source, a path, or {TABLES}") as path:
            yield TABLE, [path]


def settings_of(
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
    from lifelong.offline.preparation.sources import is_mapped

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
    from lifelong.offline.preparation.sources.mapping import TableMapping

    unknown = [name for name in columns if name not in TableMapping.model_fields]
    if unknown:
        known = ", ".join([*TableMapping.model_fields, *PrepareSettings.model_fields])
        raise UsageError(
            f"`prepare` has no setting {', '.join(map(repr, unknown))}",
            expected=f"one of {known}",
            fix='columns are named by what they are: user="customer_id", fields=["brand"]',
        )


def _named(value: object) -> str:
    return str(value) if isinstance(value, str | Path | list | tuple) else f"a {type(value).__name__}"
