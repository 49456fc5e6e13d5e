"""The tables of a log, and the rows that queries of its mapping give.

    files --by a column or a name--> tables: all columns, `file`, `sequence` --SELECT--> rows of log, items or users

Once the tables are filled, the engine can reach no file, network or setting any more: a query reads these tables alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lifelong.dataset.mapping import JSON, LOG, NamedTable, TableMapping, Text
from lifelong.errors import SourceError
from lifelong.offline.preparation.engine import count
from lifelong.offline.preparation.sources.parquet import ParquetFile, is_parquet
from lifelong.offline.preparation.sources.table_rows import JSON_LINES, Opened, is_json, layout_of, open_rows
from lifelong.offline.preparation.sources.text import header_names, staged
from lifelong.tables import quoted


def files_of(paths: Sequence[Path], mapping: TableMapping) -> dict[str, list[Path]]:
    """Table -> its files.

    Raises:
        SourceError: a file belongs to no table, or a table that is needed has no file.
    """
    if not mapping.tables:
        return {LOG: list(paths)}
    files: dict[str, list[Path]] = {name: [] for name in mapping.tables}
    for path in paths:
        files[_table_of(path, mapping.tables)].append(path)
    for name in mapping.tables:
        if not files[name] and _is_needed(name, mapping):
            raise SourceError(
                f"there is no file of {name}", expected=_described(mapping.tables), fix="name its files, too"
            )
    return {name: found for name, found in files.items() if found}


def _table_of(path: Path, tables: Mapping[str, NamedTable]) -> str:
    """The table that a file belongs to."""
    names: Sequence[str] = ()
    for name, table in tables.items():
        if table.file is not None and fnmatch(path.name, table.file):
            return name
        if table.column is not None:
            names = columns_of(path, table)
            if table.column in names:
                return name
    found = f"its columns are {', '.join(names)}" if names else "it is empty, or has another name"
    raise SourceError(found, file=str(path), expected=_described(tables), fix="name the files of this log only")


def _described(tables: Mapping[str, NamedTable]) -> str:
    """How the files of each table are recognised."""
    parts = (f"{name} ({each.file or f'with the column {each.column}'})" for name, each in tables.items())
    return ", ".join(parts)


def _is_needed(name: str, mapping: TableMapping) -> bool:
    """Whether the rows of the log come from a table; fields of items and users may be absent."""
    if mapping.query is None:
        return name == LOG
    return re.search(rf"\b{re.escape(name)}\b", mapping.query) is not None


def columns_of(path: Path, text: Text) -> Sequence[str]:
    """Names of the columns of a file."""
    if is_parquet(path):
        names: list[str] = ParquetFile.open(path).schema.names
        return names
    if is_json(path):
        return (JSON,)
    return header_names(path, layout_of(text, {})) if text.header else text.columns


class Tables:
    """The tables of a log in the engine, for queries.

    Args:
        connection: of the engine.
        files: table -> its files.
        mapping: says how they are written.

    Raises:
        SourceError: a file is not what it should be.
    """

    def __init__(self, connection: Any, files: Mapping[str, Sequence[Path]], mapping: TableMapping) -> None:
        self._connection = connection
        self._opened = {name: self._fill(name, list(paths), mapping) for name, paths in files.items()}
        # Here and below: loaded where there is a query.
        from lifelong.dataset.query import SANDBOX

        for setting in SANDBOX:
            connection.raw_sql(f"SET {setting}")

    @property
    def record(self) -> dict[str, Any]:
        """Counts of each table."""
        return {name: opened.record for name, opened in self._opened.items()}

    def _fill(self, name: str, paths: Sequence[Path], mapping: TableMapping) -> Opened:
        """Stage all columns of a table."""
        if is_json(paths[0]):
            table, places = staged(self._connection, paths, JSON_LINES)
            opened = Opened(table, {JSON: JSON}, places.locate, dict(places.record()), tuple(places.first))
        else:
            text: Text = mapping.tables.get(name, mapping)
            names = columns_of(paths[0], text)
            opened = open_rows(self._connection, paths, text, dict.fromkeys(names, "any"))
        ends = (*opened.first[1:], None)
        which = " ".join(
            f"WHEN sequence < {end} THEN {_text(path.name)}" for path, end in zip(paths[:-1], ends[:-1], strict=True)
        )
        file = f"CASE {which} ELSE {_text(paths[-1].name)} END" if which else _text(paths[-1].name)
        columns = ", ".join(f"{quoted(own)} AS {quoted(column)}" for column, own in opened.alias.items())
        self._connection.raw_sql(
            f"CREATE TABLE {quoted(name)} AS SELECT {columns}, {file} AS file, sequence"
            f" FROM ({self._connection.compile(opened.table)})"
        )
        return opened

    def rows(self, query: str, *, setting: str, order: Sequence[str]) -> Opened:
        """The rows that a query gives.

        Where it keeps the `sequence` of the only table, errors name file and line; else rows are numbered in the order
        of `sequence`, if the query gives one, and of some columns.

        Args:
            query: one SELECT.
            setting: its name in the mapping, for errors.
            order: columns.

        Raises:
            ConfigError: it is not one SELECT, or cannot be computed.
        """
        from lifelong.dataset.query import running

        connection, name = self._connection, f"lifelong_{setting.replace('.', '_')}"
        with running(query, setting=setting, tables=self._opened) as checked:
            connection.con.sql(checked).create(name)
        table = connection.table(name)
        names = {column: column for column in table.columns}
        record = {"rows": count(table), "tables": self.record}
        if len(self._opened) == 1 and "sequence" in names:
            ((_, only),) = self._opened.items()
            return Opened(table, names, only.locate, record, only.first)
        by = ", ".join(quoted(column) for column in ("sequence", *order) if column in names)
        others = ", ".join(quoted(column) for column in names if column != "sequence")
        numbered = f"SELECT {others}, row_number() OVER (ORDER BY {by}) - 1 AS sequence FROM {name}"
        connection.raw_sql(f"CREATE TABLE {name}_numbered AS {numbered}")
        names = {**names, "sequence": "sequence"}
        return Opened(
            connection.table(f"{name}_numbered"),
            names,
            lambda sequence: (f"rows of {setting}", sequence + 1),
            record,
            (0,),
        )


def _text(value: str) -> str:
    """A text in SQL."""
    return "'" + value.replace("'", "''") + "'"
