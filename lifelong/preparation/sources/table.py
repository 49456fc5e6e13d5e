"""Any log: csv or parquet with a mapping file that names the columns (see `mapping.py`).

    [events' files] --text or parquet--> user, item, time, event_type?, labels?, fields --+--> events, impressions
    [items' files]  --text or parquet--> item, fields ------------------------------------`--> items
    [users' files]  --text or parquet--> user, fields -----------------------------------------> users

Known quirks, all counted: ties, exact duplicates (kept), unsorted rows, items with fields that differ between rows (the
last value wins), items without a row in the items' files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.preparation.sources import staging
from lifelong.preparation.sources.mapping import ItemsMapping, TableMapping, UsersMapping, load_mapping
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.table_checks import check_times, numbers, times, usable
from lifelong.preparation.sources.table_rows import Opened, columns_not_read, is_checked_later, open_log, open_rows

OPTIONS = None
"""They are the mapping's settings, which it checks itself."""
_RATING = "rating value"
"""Name of the staged rating: no field is called so, while one may be called `rating`."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open a log by its mapping."""
    mapping, folder = load_mapping(options)
    raw = read_mapped(connection, open_log(connection, paths, mapping), mapping, folder)
    if not_read := columns_not_read(paths, mapping):
        raw.record["columns_not_read"] = not_read
    return raw


def read_mapped(connection: Any, opened: Opened, mapping: TableMapping, folder: Path = Path()) -> RawLog:
    """The log of staged rows.

    Args:
        connection: of the engine.
        opened: `open_log` of the mapping.
        mapping: says which column is what.
        folder: that relative paths in the mapping are relative to.
    """
    log, record = _log(opened, mapping)
    tasks = mapping.labels if mapping.threshold is None else ("response",)
    base = ["user", "item", "time", "sequence"]
    events = log.filter(_is_event(log, tasks, mapping)).select(base + ["event_type"] * bool(mapping.event_type))
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
        record={**record, "conflicting_fields": staging.conflicts(log, list(mapping.fields))},
    )
    if mapping.items:
        raw = _add_items(connection, raw, mapping.items, folder)
    return _add_users(connection, raw, mapping.users, folder) if mapping.users else raw


def _log(opened: Opened, mapping: TableMapping) -> tuple[Any, dict[str, Any]]:
    """The rows with a user, an item and a time, under our names, and counts."""
    time, later = times(opened, mapping), is_checked_later(mapping)
    kept, skipped = usable(opened, mapping, time) if later else (ibis.literal(True), {})
    if not later:
        check_times(opened, mapping, time)
    types = [opened.column(mapping.event_type).cast("string").name("event_type")] if mapping.event_type else []
    rated = [mapping.rating] if mapping.rating else []
    read = {
        name: numbers(opened, name, kept) if later else opened.column(name).cast("float64")
        for name in (*mapping.labels, *rated)
    }
    log = opened.table.filter(kept).select(
        opened.column(mapping.user).cast("string").name("user"),
        opened.column(mapping.item).cast("string").name("item"),
        time.name("time"),
        opened.table["sequence"],
        *types,
        *_labels(read, mapping),
        *_fields(opened, mapping),
        *(read[name].name(_RATING) for name in rated),
    )
    return log, {**opened.record, **skipped}


def _fields_within(log: Any, mapping: TableMapping) -> Callable[[Callable[[Any], Any]], Any] | None:
    """The fields of items that a part of the log says, see `RawLog`."""
    if not mapping.fields:
        return None
    return lambda keep: staging.one_row_per_item(keep(log), list(mapping.fields))


def _labels(number: Mapping[str, Any], mapping: TableMapping) -> list[Any]:
    """Label columns, named by their task, from the columns that are numbers."""
    if mapping.rating and mapping.threshold is not None:
        return [(number[mapping.rating] >= mapping.threshold).cast("float64").name("response")]
    return [number[name].name(name) for name in mapping.labels]


def _is_event(log: Any, tasks: Sequence[str], mapping: TableMapping) -> Any:
    """Which rows are events."""
    history = mapping.history or ("positive" if mapping.labels else "all")
    if not tasks or history == "all":
        return ibis.literal(True)
    return ibis.or_(*(log[task] > 0 for task in tasks))


def _fields(opened: Opened, section: TableMapping | ItemsMapping | UsersMapping) -> list[Any]:
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
) -> tuple[Opened, Any]:
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
    opened = open_rows(connection, staging.check_files(files, source="table"), mapping, wanted)
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
