"""Any log: csv, JSON lines or parquet with a mapping file that names the columns (see `mapping.py`).

    [events' files] --text or parquet--> user, item, time, event_type?, labels?, fields --+--> events, impressions
    [items' files]  --text or parquet--> item, fields ------------------------------------`--> items
    [users' files]  --text or parquet--> user, fields -----------------------------------------> users

Of a field with several values for an item the last one in the source wins; items without a row in the items' files are
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis

from lifelong.dataset.mapping import LOG, ItemsMapping, TableMapping, UsersMapping, load_mapping
from lifelong.errors import ConfigError
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.parquet import Kind
from lifelong.offline.preparation.sources.queries import Tables, columns_of, files_of
from lifelong.offline.preparation.sources.rawlog import RawLog
from lifelong.offline.preparation.sources.table_rows import (
    Opened,
    check_ids,
    is_json,
    numbers,
    open_log,
    open_rows,
    times,
    usable,
    wanted_of,
)
from lifelong.tables import quoted

OPTIONS = None
"""They are the mapping's settings, which it checks itself."""
_RATING = "rating value"
"""Name of the staged rating: no field is called so, while one may be called `rating`."""


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open a log by its mapping."""
    mapping, folder = load_mapping(options)
    files = files_of(paths, mapping)
    log = _MappedLog(connection, mapping, folder, files, Tables(connection, files, mapping) if mapping.asks else None)
    raw = log.read()
    if not (mapping.asks or mapping.tables or is_json(paths[0])):
        read = wanted_of(mapping)
        not_read = [name for name in columns_of(paths[0], mapping) if name not in read]
        raw.record |= {"columns_not_read": not_read} if not_read else {}
    return raw


@dataclass(frozen=True, slots=True)
class _MappedLog:
    """A log and its mapping.

    Args:
        connection: of the engine.
        mapping: says which column is what.
        folder: that relative paths in the mapping are relative to.
        files: table -> its files.
        tables: for queries; None if there are none.
    """

    connection: Any
    mapping: TableMapping
    folder: Path
    files: Mapping[str, Sequence[Path]]
    tables: Tables | None

    def read(self) -> RawLog:
        """Events, impressions, items and users."""
        mapping = self.mapping
        log, record = _log(self._opened_log(), mapping)
        tasks = mapping.labels
        base = ["user", "item", "time", "sequence"]
        events = log.filter(_is_event(log, tasks, mapping)).select(base + ["event_type"] * bool(mapping.event_type))
        shown = log.filter(log[tasks[0]].notnull()) if mapping.history == "unlabelled" else log
        raw = RawLog(
            name=mapping.name,
            events=events,
            items=staging.one_row_per_item(log, list(mapping.columns_read)) if mapping.columns_read else None,
            items_within=_fields_within(log, mapping),
            item_fields=tuple(mapping.fields),
            number_fields=mapping.numbers,
            titled=mapping.title is not None,
            event_types=mapping.event_type is not None,
            time_unit="ordinal" if mapping.time_unit == "ordinal" else "seconds",
            impressions=shown.select([*base, *tasks, *(["split"] if mapping.split else [])]) if tasks else None,
            tasks=tasks or ("response",),
            target_types=mapping.target_types,
            ratings=log.select(*base, rating=log[_RATING]) if mapping.rating else None,
            protocol="given" if mapping.split else "impressions" if tasks else "temporal",
            negatives=mapping.negatives,
            mapping=mapping,
            record=record,
        )
        for section in mapping.items:
            # In the order of the mapping, which is the order of the fields: several files may each give some of them.
            raw = self._with_items(raw, section)
        return self._with_users(raw, mapping.users) if mapping.users else raw

    def _opened_log(self) -> Opened:
        """The rows of the log."""
        mapping = self.mapping
        if self.tables is None:
            return open_log(self.connection, self.files[LOG], mapping)
        order = (mapping.time, mapping.user, mapping.item)
        opened = self.tables.rows(mapping.query or f"FROM {LOG}", setting="query", order=order)
        _check_columns(opened, wanted_of(mapping), setting="query")
        return opened

    def _rows_of(self, section: ItemsMapping | UsersMapping, key: Mapping[str, str]) -> tuple[Opened, Any] | None:
        """The rows of items or users: id, sequence and fields; None if its table has no file.

        Args:
            section: names files, table or query, and columns.
            key: name of the id in the result -> its column.
        """
        ((name, column),) = key.items()
        wanted: dict[str, Kind] = {**dict.fromkeys(section.columns_read.values(), "value"), column: "id"}
        if section.table is not None and section.table not in self.files:
            return None
        if self.tables is not None:
            setting = f"{name}s.query" if section.query else f"{name}s.table"
            opened = self.tables.rows(
                section.query or f"FROM {quoted(str(section.table))}", setting=setting, order=(column,)
            )
            _check_columns(opened, wanted, setting=setting)
        else:
            text = section if section.table is None else self.mapping.tables[section.table]
            opened = open_rows(self.connection, self._files_of(section), text, wanted)
        check_ids(opened, column)
        ids = opened.column(column).cast("string").name(name)
        return opened, opened.table.select(ids, opened.table["sequence"], *_fields(opened, section))

    def _files_of(self, section: ItemsMapping | UsersMapping) -> Sequence[Path]:
        if section.table is not None:
            return self.files[section.table]
        paths = [path for pattern in section.files for path in staging.expand(self.folder, pattern)]
        return staging.check_files(paths, source="table")

    def _with_users(self, raw: RawLog, mapping: UsersMapping) -> RawLog:
        """Add the users' profiles."""
        opened_rows = self._rows_of(mapping, {"user": mapping.user})
        if opened_rows is None:
            return raw
        opened, profiles = opened_rows
        raw.record["user_files"] = opened.record
        raw.user_fields = tuple(mapping.fields)
        raw.users = staging.one_row_per_item(profiles, raw.user_fields, key="user")
        return raw

    def _with_items(self, raw: RawLog, mapping: ItemsMapping) -> RawLog:
        """Add the fields of the items' files."""
        opened_rows = self._rows_of(mapping, {"item": mapping.item})
        if opened_rows is None:
            return raw
        opened, rows_of_items = opened_rows
        items = staging.one_row_per_item(rows_of_items, list(mapping.columns_read))
        raw.record["item_files"] = opened.record
        raw.record["items_without_meta"] = staging.without_meta(raw.events, items)
        # Kept before `raw` changes: the function below is called later, when `raw.items_within` is already that
        # function.
        of_log, within = raw.items, raw.items_within
        raw.item_fields, raw.titled = (*raw.item_fields, *mapping.fields), raw.titled or mapping.title is not None
        fields = raw.item_columns
        raw.items = _joined(of_log, items, fields)
        if within is not None:
            raw.items_within = lambda keep: _joined(within(keep), items, fields)
        raw.number_fields = (*raw.number_fields, *mapping.numbers)
        return raw


def _check_columns(opened: Opened, wanted: Iterable[str], *, setting: str) -> None:
    """Check that a query gives the columns that the mapping names."""
    absent = [name for name in wanted if name not in opened.alias]
    if absent:
        raise ConfigError(
            [f"{setting} gives no column {name}" for name in absent],
            fix=f"it gives {', '.join(opened.alias)}: name one of these, or add the column to the SELECT",
        )


def _log(opened: Opened, mapping: TableMapping) -> tuple[Any, dict[str, Any]]:
    """The rows with a user, an item and a time, under our names, and counts."""
    time = times(opened, mapping)
    is_usable, skipped = usable(opened, mapping, time)
    types = [opened.column(mapping.event_type).cast("string").name("event_type")] if mapping.event_type else []
    rated = [mapping.rating] if mapping.rating else []
    # Labels and ratings are checked to be numbers before any row is used: the first wrong one is named with its line.
    read = {
        name: numbers(opened, name, _labelled(opened, name, is_usable, mapping)) for name in (*mapping.labels, *rated)
    }
    splits = [opened.column(mapping.split).cast("string").name("split")] if mapping.split else []
    log = opened.table.filter(is_usable).select(
        opened.column(mapping.user).cast("string").name("user"),
        opened.column(mapping.item).cast("string").name("item"),
        time.name("time"),
        opened.table["sequence"],
        *types,
        *splits,
        *(read[name].name(name) for name in mapping.labels),
        *_fields(opened, mapping),
        # Under a name that no field has: a column may be a rating and a field at once.
        *(read[name].name(_RATING) for name in rated),
    )
    return log, {**opened.record, **skipped}


def _labelled(opened: Opened, name: str, kept: Any, mapping: TableMapping) -> Any:
    """The rows that must have a number in a column."""
    return kept & opened.column(name).notnull() if mapping.history == "unlabelled" else kept


def _fields_within(log: Any, mapping: TableMapping) -> Callable[[Callable[[Any], Any]], Any] | None:
    """The fields of items that a part of the log says, see `RawLog`."""
    if not mapping.columns_read:
        return None
    return lambda keep: staging.one_row_per_item(keep(log), list(mapping.columns_read))


def _is_event(log: Any, tasks: Sequence[str], mapping: TableMapping) -> Any:
    """Which rows are events."""
    if not tasks or mapping.history == "all":
        return ibis.literal(True)
    if mapping.history == "unlabelled":
        return log[tasks[0]].isnull()
    return ibis.or_(*(log[task] > 0 for task in tasks))


def _fields(opened: Opened, section: TableMapping | ItemsMapping | UsersMapping) -> list[Any]:
    """Columns of the fields, named by their field, null where missing."""
    return [
        _present(opened.column(column).cast("string"), section.missing).name(field)
        for field, column in section.columns_read.items()
    ]


def _present(column: Any, missing: Sequence[str]) -> Any:
    """A column with null for each text that means "no value"."""
    return ibis.ifelse(column.isin(list(missing)), ibis.null("string"), column) if missing else column


def _joined(of_log: Any, of_files: Any, fields: Sequence[str]) -> Any:
    """The fields of items that the log says, if it says any, and those of the items' files."""
    if of_log is None:
        return of_files.select("item", *fields)
    # Outer: an item may be in the log alone, or in the files alone, and both are items of the catalogue.
    both = of_log.outer_join(of_files, "item")
    both = both.mutate(item=ibis.coalesce(both["item"], both["item_right"])).drop("item_right")
    return both.select("item", *fields)
