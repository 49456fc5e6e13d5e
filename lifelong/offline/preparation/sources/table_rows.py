"""The rows of files with some columns by name, staged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from lifelong.errors import ConfigError
from lifelong.offline.preparation.sources.mapping import TableMapping, Text
from lifelong.offline.preparation.sources.parquet import Kind, ParquetFile, is_parquet, locate, scan
from lifelong.offline.preparation.sources.text import Column, Layout, staged


@dataclass(frozen=True, slots=True)
class Opened:
    """Staged rows.

    Args:
        table: columns `c0`, `c1`, ... and `sequence`; of a query its own.
        alias: column of the log -> `c0`, ...
        locate: sequence -> file, and line or row.
        record: counts.
        first: sequence of the first line or row of each file, in the order of the files.
    """

    table: Any
    alias: Mapping[str, str]
    locate: Callable[[int], tuple[str, int]]
    record: dict[str, Any]
    first: Sequence[int]

    def column(self, name: str) -> Any:
        """A column by its name in the log."""
        return self.table[self.alias[name]]


def open_log(connection: Any, files: Sequence[Path], mapping: TableMapping) -> Opened:
    """Stage the columns of a log that the mapping names.

    Raises:
        SourceError: a file is not what it should be.
    """
    return open_rows(connection, files, mapping.tables.get("log", mapping), wanted_of(mapping))


_NAMING = "say which column is what: --option user=COLUMN (item, time ...), or a --mapping file"


def wanted_of(mapping: TableMapping) -> dict[str, Kind]:
    """Column of the log -> kind of its values; the strictest kind where a column has two roles."""
    wanted: dict[str, Kind] = dict.fromkeys(mapping.fields.values(), "value")
    ids = (mapping.event_type, mapping.split, mapping.user, mapping.item)
    wanted |= dict.fromkeys((name for name in ids if name), "id")
    wanted |= dict.fromkeys((*mapping.labels, *([mapping.rating] if mapping.rating else ())), "number")
    return wanted | {mapping.time: "moment"}


def open_rows(connection: Any, files: Sequence[Path], section: Text, wanted: Mapping[str, Kind]) -> Opened:
    """Stage text, whose values stay texts, or scan parquet.

    Args:
        connection: of the engine.
        files: all text, or all parquet.
        section: of the mapping; says how text is written.
        wanted: column -> kind of its values; parquet has types, and any of its values may be missing.
    """
    alias = {name: f"c{at}" for at, name in enumerate(wanted)}
    if not any(is_parquet(path) for path in files):
        return _open_text(connection, files, section, alias)
    opened = [ParquetFile.open(path) for path in files]
    table = scan(connection, opened, wanted, names=alias, optional=wanted)
    end = list(accumulate(file.rows for file in opened))
    record = {"files": len(files), "rows": end[-1]}
    return Opened(table, alias, lambda sequence: locate(opened, sequence), record, [0, *end[:-1]])


def _open_text(connection: Any, files: Sequence[Path], section: Text, alias: Mapping[str, str]) -> Opened:
    """Stage csv files."""
    if not section.header:
        absent = [name for name in alias if name not in section.columns]
        if absent:
            raise ConfigError(
                [f"columns does not hold {name!r}" for name in absent],
                fix="add it to columns: they are all columns of the file, in their order",
            )
    table, places = staged(connection, files, layout_of(section, alias))
    return Opened(table, alias, places.locate, dict(places.record()), tuple(places.first))


def layout_of(section: Text, alias: Mapping[str, str]) -> Layout:
    """How the rows of a csv file are written; `alias` as in `Opened`."""
    return Layout(
        tuple(Column(own, header=name) for name, own in alias.items()),
        header=section.header,
        names=section.columns,
        delimiter=section.delimiter,
        quoted=section.quoted,
        encoding=section.encoding,
        naming=_NAMING,
    )
