"""Any log: csv or parquet with a mapping file that names the columns (see `mapping.py`).

    [events' files] --text or parquet--> user, item, time, event_type?, labels?, fields --+--> events, impressions
    [items' files]  --text or parquet--> item, fields ------------------------------------`--> items
    [users' files]  --text or parquet--> user, fields -----------------------------------------> users

Known quirks, all counted: ties, exact duplicates (kept), unsorted rows, items with fields that differ between rows (the
last value wins), items without a row in the items' files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis

from lifelong.errors import ConfigError, SourceError
from lifelong.preparation.engine import scalars
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.mapping import ItemsMapping, TableMapping, UsersMapping, load_mapping
from lifelong.preparation.sources.parquet import Kind, ParquetFile, is_parquet, scan
from lifelong.preparation.sources.parquet import locate as locate_row
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.text import Column, Layout, staged

OPTIONS = None
"""They are the mapping's settings, which it checks itself."""
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_RATING = "rating value"
"""Name of the staged rating: no field is called so, while one may be called `rating`."""
LAST_PLAUSIBLE = 7_258_118_400
"""2200-01-01: a later time is a wrong unit."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """Staged rows; `column` gives a column by its name in the file.

    Args:
        table: columns `c0`, `c1`, ... and `sequence`.
        alias: column of the file -> `c0`, ...
        locate: sequence -> file, and line or row.
        record: counts.
    """

    table: Any
    alias: Mapping[str, str]
    locate: Callable[[int], tuple[str, int]]
    record: dict[str, int]

    def column(self, name: str) -> Any:
        """A column by its name in the file."""
        return self.table[self.alias[name]]


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open a log by its mapping."""
    mapping, folder = load_mapping(options)
    opened = _open(connection, paths, mapping, _wanted(mapping))
    types = [opened.column(mapping.event_type).cast("string").name("event_type")] if mapping.event_type else []
    log = opened.table.select(
        opened.column(mapping.user).cast("string").name("user"),
        opened.column(mapping.item).cast("string").name("item"),
        _times(opened, mapping).name("time"),
        opened.table["sequence"],
        *types,
        *_labels(opened, mapping),
        *_fields(opened, mapping),
        *([opened.column(mapping.rating).cast("float64").name(_RATING)] if mapping.rating else ()),
    )
    tasks = mapping.labels if mapping.threshold is None else ("response",)
    base = ["user", "item", "time", "sequence"]
    events = log.filter(_is_event(log, tasks, mapping)).select(base + ["event_type"] * bool(mapping.event_type))
    record: dict[str, Any] = {**opened.record, "conflicting_fields": staging.conflicts(log, list(mapping.fields))}
    raw = RawLog(
        name=mapping.name,
        events=events,
        items=staging.one_row_per_item(log, list(mapping.fields)) if mapping.fields else None,
        items_within=_fields_within(log, mapping),
        item_fields=tuple(mapping.fields),
        number_fields=mapping.numbers,
        event_types=mapping.event_type is not None,
        time_unit="ordinal" if mapping.time_unit == "ordinal" else "seconds",
        impressions=log.select([*base, *tasks]) if tasks else None,
        tasks=tasks or ("response",),
        target_types=mapping.target_types,
        ratings=log.select(*base, rating=log[_RATING]) if mapping.rating else None,
        protocol="impressions" if tasks or mapping.rating else "temporal",
        negatives=mapping.negatives,
        record=record,
    )
    if mapping.items:
        raw = _add_items(connection, raw, mapping.items, folder)
    return _add_users(connection, raw, mapping.users, folder) if mapping.users else raw


def _fields_within(log: Any, mapping: TableMapping) -> Callable[[Callable[[Any], Any]], Any] | None:
    """The fields of items that a part of the log says, see `RawLog`."""
    if not mapping.fields:
        return None
    return lambda keep: staging.one_row_per_item(keep(log), list(mapping.fields))


def _wanted(mapping: TableMapping) -> dict[str, str]:
    """Column of the log -> kind of its values; the strictest kind where a column has two roles."""
    wanted = dict.fromkeys(mapping.fields.values(), "string")
    if mapping.event_type:
        wanted[mapping.event_type] = "id"
    wanted |= dict.fromkeys((mapping.user, mapping.item), "id")
    wanted |= dict.fromkeys((*mapping.labels, *([mapping.rating] if mapping.rating else ())), "number")
    timed_by_text = mapping.time_format or mapping.time_unit == "iso"
    return wanted | {mapping.time: "time" if timed_by_text else "stamp"}


def _open(connection: Any, files: Sequence[Path], section: Any, wanted: Mapping[str, str]) -> _Opened:
    """Stage text, or scan parquet."""
    alias = {name: f"c{at}" for at, name in enumerate(wanted)}
    if not any(is_parquet(path) for path in files):
        return _open_text(connection, files, section, wanted, alias)
    opened = [ParquetFile.open(path) for path in files]
    kinds: dict[str, Kind] = {
        "id": "text", "string": "any", "number": "number", "time": "any", "stamp": "any"
    }  # fmt: skip
    columns = {name: kinds[kind] for name, kind in wanted.items()}
    optional = [name for name, kind in wanted.items() if kind == "string"]
    table = scan(connection, opened, columns, names=alias, optional=optional)
    record = {"files": len(files), "rows": sum(file.rows for file in opened)}
    return _Opened(table, alias, lambda sequence: locate_row(opened, sequence), record)


def _open_text(
    connection: Any, files: Sequence[Path], section: Any, wanted: Mapping[str, str], alias: Mapping[str, str]
) -> _Opened:
    """Stage csv files."""
    kinds = {"id": "id", "string": "string", "number": "number", "time": "id", "stamp": "number"}
    if not section.header:
        absent = [name for name in wanted if name not in section.columns]
        if absent:
            raise ConfigError([f"columns does not hold {name!r}" for name in absent])
    layout = Layout(
        tuple(Column(alias[name], kinds[kind], header=name) for name, kind in wanted.items()),  # type: ignore[arg-type]
        header=section.header,
        names=section.columns,
        delimiter=section.delimiter,
        quoted=section.quoted,
        encoding=section.encoding,
    )
    table, places = staged(connection, files, layout)
    return _Opened(table, alias, places.locate, places.record())


def _times(opened: _Opened, mapping: TableMapping) -> Any:
    """The time column as int64 seconds (or ordinals)."""
    column = opened.column(mapping.time)
    if column.type().is_timestamp() or column.type().is_date():
        time = staging.to_seconds(column.cast("timestamp"))
    elif mapping.time_format:
        time = staging.to_seconds(staging.parsed(column.cast("string"), mapping.time_format))
    elif mapping.time_unit == "iso":
        time = staging.to_seconds(column.cast("string").try_cast("timestamp('UTC')"))
    elif mapping.time_unit == "ordinal":
        time = column.try_cast("int64")
    else:
        number = column if column.type().is_integer() else column.try_cast("float64")
        time = (number / UNITS[mapping.time_unit]).floor().try_cast("int64")
    _check_times(opened, mapping, column, time)
    return time


def _check_times(opened: _Opened, mapping: TableMapping, column: Any, time: Any) -> None:
    """Check that all times can be right."""
    wrong = time.isnull() if mapping.time_unit == "ordinal" else time.isnull() | (time > LAST_PLAUSIBLE)
    table = opened.table.select(sequence=opened.table["sequence"], text=column.cast("string"), wrong=wrong)
    table = table.filter(table["wrong"])
    found = table.aggregate(sequence=table["sequence"].min(), text=table["text"].argmin(table["sequence"]))
    row = scalars(found)
    if row["sequence"] is None:
        return
    file, line = opened.locate(row["sequence"])
    raise SourceError(
        f"{row['text']!r} is not a time",
        file=file,
        line=line,
        column=mapping.time,
        expected=f"the format {mapping.time_format}" if mapping.time_format else f"time_unit = {mapping.time_unit!r}",
        fix="set time_unit (s, ms, us, ns, iso, ordinal) or time_format in the mapping",
    )


def _labels(opened: _Opened, mapping: TableMapping) -> list[Any]:
    """Label columns, named by their task."""
    if mapping.rating and mapping.threshold is not None:
        liked = opened.column(mapping.rating).cast("float64") >= mapping.threshold
        return [liked.cast("float64").name("response")]
    return [opened.column(name).cast("float64").name(name) for name in mapping.labels]


def _is_event(log: Any, tasks: Sequence[str], mapping: TableMapping) -> Any:
    """Which rows are events."""
    history = mapping.history or ("positive" if mapping.labels else "all")
    if not tasks or history == "all":
        return ibis.literal(True)
    return ibis.or_(*(log[task] > 0 for task in tasks))


def _fields(opened: _Opened, section: TableMapping | ItemsMapping | UsersMapping) -> list[Any]:
    """Columns of the fields, named by their field, null where missing."""
    return [
        _present(opened.column(column).cast("string"), section.missing).name(field)
        for field, column in section.fields.items()
    ]


def _present(column: Any, missing: Sequence[str]) -> Any:
    """A column with null for each text that means "no value"."""
    return ibis.ifelse(column.isin(list(missing)), ibis.null("string"), column) if missing else column


def _rows_of(
    connection: Any, mapping: ItemsMapping | UsersMapping, folder: Path, key: Mapping[str, str]
) -> tuple[_Opened, Any]:
    """The rows of items' or users' files: id, sequence and fields.

    Args:
        connection: of the engine.
        mapping: names files and columns.
        folder: that relative paths are relative to.
        key: name of the id in the result -> its column.
    """
    files: list[Path] = []
    for pattern in mapping.files:
        files += staging.expand(folder, pattern)
    ((name, column),) = key.items()
    wanted = {**dict.fromkeys(mapping.fields.values(), "string"), column: "id"}
    opened = _open(connection, staging.check_files(files, source="table"), mapping, wanted)
    ids = opened.column(column).cast("string").name(name)
    return opened, opened.table.select(ids, opened.table["sequence"], *_fields(opened, mapping))


def _add_users(connection: Any, raw: RawLog, mapping: UsersMapping, folder: Path) -> RawLog:
    """Add the users' profiles."""
    opened, profiles = _rows_of(connection, mapping, folder, {"user": mapping.user})
    raw.record["user_files"] = opened.record
    raw.user_fields = tuple(mapping.fields)
    raw.users = staging.one_row_per_item(profiles, raw.user_fields, key="user")
    return raw


def _joined(of_log: Any, of_files: Any, fields: Sequence[str]) -> Any:
    """The fields of items that the log says, if it says any, and those of the items' files."""
    if of_log is None:
        return of_files.select("item", *fields)
    both = of_log.outer_join(of_files, "item")
    both = both.mutate(item=ibis.coalesce(both["item"], both["item_right"])).drop("item_right")
    return both.select("item", *fields)


def _add_items(connection: Any, raw: RawLog, mapping: ItemsMapping, folder: Path) -> RawLog:
    """Add the fields of the items' files."""
    opened, rows_of_items = _rows_of(connection, mapping, folder, {"item": mapping.item})
    items = staging.one_row_per_item(rows_of_items, list(mapping.fields))
    raw.record["item_files"] = opened.record
    raw.record["items_without_meta"] = staging.without_meta(raw.events, items)
    raw.record["conflicting_fields"] |= staging.conflicts(rows_of_items, list(mapping.fields))
    fields, of_log, within = (*raw.item_fields, *mapping.fields), raw.items, raw.items_within
    raw.items, raw.item_fields = _joined(of_log, items, fields), fields
    if within is not None:
        raw.items_within = lambda keep: _joined(within(keep), items, fields)
    raw.number_fields = (*raw.number_fields, *mapping.numbers)
    return raw
