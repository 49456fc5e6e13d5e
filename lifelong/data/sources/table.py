"""Any log: csv or parquet with a mapping file that names the columns (see `mapping.py`).

    [events' files] --text or parquet--> user, item, time, event_type?, labels?, fields --+--> events, impressions
    [items' files]  --text or parquet--> item, fields ------------------------------------`--> items
    [users' files]  --text or parquet--> user, fields -----------------------------------------> users

Known quirks, all counted: ties, exact duplicates (kept), unsorted rows, items whose fields differ between rows (the
value that stands last wins), items without a row in the items' files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis

from lifelong.data.sources.mapping import ItemsMapping, TableMapping, UsersMapping, load_mapping
from lifelong.data.sources.parquet import Kind, ParquetFile, is_parquet, refuse_nulls, scan
from lifelong.data.sources.parquet import locate as locate_row
from lifelong.data.sources.rawlog import RawLog
from lifelong.data.sources.staging import (
    check_files,
    conflicts,
    count_quirks,
    expand,
    one_row_per_item,
    parsed,
    require_events,
    stage,
    to_seconds,
    without_meta,
)
from lifelong.data.sources.text import Column, Layout, Places, rows
from lifelong.errors import ConfigError, SourceError

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_RATING = "rating value"
"""Of no field: a field may be called `rating`."""
LAST_PLAUSIBLE = 7_258_118_400
"""2200-01-01: a later time is a wrong unit."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """Staged rows, columns under the file's own names, behind `column()`.

    Args:
        table: columns `c0`, `c1`, ... and `sequence`.
        alias: column of the file -> `c0`, ...
        locate: sequence -> file, line or row.
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
    """Open a log by its mapping.

    Raises:
        SourceError: a file is not what the mapping says.
        ConfigError: the mapping is wrong.
    """
    mapping, folder = load_mapping(options)
    files = check_files(paths, source="table")
    opened = _open(connection, files, mapping, _wanted(mapping))
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
    record: dict[str, Any] = opened.record | count_quirks(events)
    record["conflicting_fields"] = conflicts(log, list(mapping.fields))
    require_events(record, source="table", files=files)
    raw = RawLog(
        name=mapping.name,
        events=events,
        items=one_row_per_item(log, list(mapping.fields)) if mapping.fields else None,
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


def _wanted(mapping: TableMapping) -> dict[str, str]:
    """Column of the log -> kind of its values; the strictest where a column has two roles."""
    wanted = dict.fromkeys(mapping.fields.values(), "string")
    if mapping.event_type:
        wanted[mapping.event_type] = "id"
    wanted |= dict.fromkeys((mapping.user, mapping.item), "id")
    wanted |= dict.fromkeys((*mapping.labels, *([mapping.rating] if mapping.rating else ())), "number")
    timed_by_text = mapping.time_format or mapping.time_unit == "iso"
    return wanted | {mapping.time: "time" if timed_by_text else "stamp"}


def _open(connection: Any, files: Sequence[Path], section: Any, wanted: Mapping[str, str]) -> _Opened:
    """Stage text, or scan parquet.

    Raises:
        SourceError: a file is not what it should be, or the kinds are mixed.
    """
    alias = {name: f"c{at}" for at, name in enumerate(wanted)}
    if not any(is_parquet(path) for path in files):
        return _open_text(connection, files, section, wanted, alias)
    opened = [ParquetFile.open(path) for path in files]
    kinds: dict[str, Kind] = {
        "id": "text", "string": "any", "number": "number", "time": "any", "stamp": "any"
    }  # fmt: skip
    table = scan(connection, opened, {name: kinds[kind] for name, kind in wanted.items()}, names=alias)
    needed = {alias[name]: name for name, kind in wanted.items() if kind != "string"}
    refuse_nulls(table, needed, opened)
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
    places = Places()
    table = stage(connection, rows(files, layout, places), layout.schema())
    return _Opened(table, alias, places.locate, places.record())


def _times(opened: _Opened, mapping: TableMapping) -> Any:
    """The time column as int64 seconds (or ordinals).

    Raises:
        SourceError: a time cannot be read, or its unit is plainly wrong.
    """
    column = opened.column(mapping.time)
    if column.type().is_timestamp() or column.type().is_date():
        time = to_seconds(column.cast("timestamp"))
    elif mapping.time_format:
        time = to_seconds(parsed(column.cast("string"), mapping.time_format))
    elif mapping.time_unit == "iso":
        time = to_seconds(column.cast("string").try_cast("timestamp('UTC')"))
    elif mapping.time_unit == "ordinal":
        time = column.try_cast("int64")
    else:
        number = column if column.type().is_integer() else column.try_cast("float64")
        time = (number / UNITS[mapping.time_unit]).floor().try_cast("int64")
    _check_times(opened, mapping, column, time)
    return time


def _check_times(opened: _Opened, mapping: TableMapping, column: Any, time: Any) -> None:
    """Find the first time that cannot be right.

    Raises:
        SourceError: there is one.
    """
    wrong = time.isnull() if mapping.time_unit == "ordinal" else time.isnull() | (time > LAST_PLAUSIBLE)
    table = opened.table.select(sequence=opened.table["sequence"], text=column.cast("string"), wrong=wrong)
    table = table.filter(table["wrong"])
    found = table.aggregate(sequence=table["sequence"].min(), text=table["text"].argmin(table["sequence"]))
    row = found.to_pyarrow().to_pylist()[0]
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
    """The rows of items' or users' files: id, sequence and fields; the key's name -> its column."""
    files: list[Path] = []
    for pattern in mapping.files:
        files += expand(folder, pattern)
    ((name, column),) = key.items()
    wanted = {**dict.fromkeys(mapping.fields.values(), "string"), column: "id"}
    opened = _open(connection, check_files(files, source="table"), mapping, wanted)
    ids = opened.column(column).cast("string").name(name)
    return opened, opened.table.select(ids, opened.table["sequence"], *_fields(opened, mapping))


def _add_users(connection: Any, raw: RawLog, mapping: UsersMapping, folder: Path) -> RawLog:
    """Bring in the users' profiles.

    Raises:
        SourceError: a file is not what the mapping says.
    """
    opened, told = _rows_of(connection, mapping, folder, {"user": mapping.user})
    raw.record["user_files"] = opened.record
    raw.users, raw.user_fields = one_row_per_item(told, list(mapping.fields), key="user"), tuple(mapping.fields)
    return raw


def _add_items(connection: Any, raw: RawLog, mapping: ItemsMapping, folder: Path) -> RawLog:
    """Bring in the fields of the items' files.

    Raises:
        SourceError: one of them is not what the mapping says.
    """
    opened, rows_of_items = _rows_of(connection, mapping, folder, {"item": mapping.item})
    items = one_row_per_item(rows_of_items, list(mapping.fields))
    raw.record["item_files"] = opened.record
    raw.record["items_without_meta"] = without_meta(raw.events, items)
    raw.record["conflicting_fields"] |= conflicts(rows_of_items, list(mapping.fields))
    if raw.items is not None:
        both = raw.items.outer_join(items, "item")
        items = both.mutate(item=ibis.coalesce(both["item"], both["item_right"])).drop("item_right")
    fields = (*raw.item_fields, *mapping.fields)
    raw.items, raw.item_fields = items.select("item", *fields), fields
    raw.number_fields = (*raw.number_fields, *mapping.numbers)
    return raw
