"""What several sources share: files, options and roles, expressions on staged tables, and the counts of the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ibis

from lifelong.errors import ConfigError, SourceError
from lifelong.offline.preparation.engine import count
from lifelong.offline.preparation.sources.rawlog import RawLog

T = TypeVar("T")


def check_files(paths: Sequence[Path], *, source: str) -> list[Path]:
    """The files, once it is sure that each is a file.

    Raises:
        SourceError: no file is named, one is missing, or one is a folder.
    """
    if not paths:
        raise SourceError(
            f"no file was named for the source {source!r}",
            expected="at least one file or glob",
            fix="name the files or their folder after the source",
        )
    for path in paths:
        if path.is_dir():
            raise SourceError("this is a folder", file=str(path), expected="a file", fix=f"name its files: {path}/*")
        if not path.exists():
            raise SourceError(
                "there is no such file", file=str(path), expected="an existing file", fix="check the path"
            )
    return list(paths)


def expand(folder: Path, pattern: str) -> list[Path]:
    """Files that a path or glob names, relative to `folder`; the path itself where nothing is found."""
    path = Path(pattern)
    base = Path(path.anchor) if path.is_absolute() else folder
    relative = str(path.relative_to(path.anchor)) if path.is_absolute() else pattern
    return sorted(base.glob(relative)) or [base / relative]


def by_marker(
    files: Iterable[tuple[T, Sequence[str]]], markers: Mapping[str, str], needed: Mapping[str, str], *, expected: str
) -> dict[str, list[T]]:
    """Role -> files, by the column that only files of a role have.

    Args:
        files: each with the names of its columns.
        markers: role -> name of its column; of several, the first role counts.
        needed: role that must be there -> what to do where it is not; "" if that is clear.
        expected: the roles in words.

    Raises:
        SourceError: a file has no role, or a role that is needed has no file.
    """
    roles: dict[str, list[T]] = {role: [] for role in markers}
    for file, names in files:
        # The name of a file says nothing: people rename downloads. Its columns do not change.
        role = next((role for role, marker in markers.items() if marker in names), None)
        if role is None:
            found = f"its columns are {', '.join(names)}" if names else "it is empty"
            raise SourceError(found, file=str(file), expected=expected, fix="name the files of this source only")
        roles[role].append(file)
    for role, fix in needed.items():
        if not roles[role]:
            raise SourceError(f"there is no file of {role}", expected=f"files of {', '.join(needed)}", fix=fix)
    return roles


def check_options(
    options: Mapping[str, str], known: Mapping[str, str | tuple[str, ...]], *, source: str
) -> dict[str, str]:
    """The options that were given, and the defaults of the others.

    Args:
        options: given by the user.
        known: name -> default, or the possible values, the default first.
        source: name of the source.

    Raises:
        ConfigError: an option is unknown, or has none of the possible values.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        fix = f"options of {source}: {', '.join(sorted(known)) or 'none'}"
        raise ConfigError([f"the source {source!r} has no option {name!r}" for name in unknown], fix=fix)
    choices = {name: values for name, values in known.items() if isinstance(values, tuple)}
    wrong = [name for name, values in choices.items() if options.get(name, values[0]) not in values]
    if wrong:
        raise ConfigError(
            [f"{name} = {options[name]!r} is not one of {', '.join(choices[name])}" for name in wrong],
            fix="choose one of these",
        )
    return {name: options.get(name, value[0] if isinstance(value, tuple) else value) for name, value in known.items()}


# Functions of the engine: microseconds since 1970; a timestamp from a text, null where the text does not fit.
epoch_us: Any = ibis.udf.scalar.builtin(lambda moment: None, name="epoch_us", signature=(("timestamp",), "int64"))
try_strptime: Any = ibis.udf.scalar.builtin(
    lambda text, layout: None, name="try_strptime", signature=(("string", "string"), "timestamp")
)


def to_seconds(moment: Any) -> Any:
    """Whole seconds since 1970 of a timestamp, rounded down (`epoch_seconds` of Ibis has 32 bits)."""
    return (epoch_us(moment) / 1_000_000).floor().cast("int64")


def one_row_per_item(table: Any, fields: Sequence[str], *, key: str = "item") -> Any:
    """Fields of items from rows that repeat them: of several values, the last one in the source wins.

    Args:
        table: columns `item`, `sequence` and `fields`.
        fields: names of the fields; a null never wins over a value.
        key: column of the ids, where the fields belong to users.
    """
    # Per field and not per row: a later row that leaves a field empty does not take its earlier value away.
    last = [table[field].argmax(table["sequence"], where=table[field].notnull()).name(field) for field in fields]
    return table.group_by(key).aggregate(last)


def add_fields(raw: RawLog, table: Any, fields: Sequence[str]) -> None:
    """Take the fields of items.

    Args:
        raw: gets them.
        table: columns `item`, `sequence` and `fields`; rows may repeat items. With `user` and `time` they are the
            rows of the log, and a part of the log has the fields that its own rows say.
        fields: names of the fields.
    """
    raw.items, raw.item_fields = one_row_per_item(table, fields), tuple(fields)
    if {"user", "time"} <= set(table.columns):
        raw.items_within = lambda keep: one_row_per_item(keep(table), fields)


def without_meta(events: Any, items: Any) -> int:
    """How many items of the events have no row in `items`."""
    return count(events.select("item").distinct().anti_join(items, "item"))
