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

_KINDS_OF_PARQUET: Mapping[str, Kind] = {
    "id": "id", "string": "value", "any": "any", "number": "number", "time": "moment", "stamp": "moment"
}  # fmt: skip
_KINDS_OF_TEXT = {"id": "id", "string": "string", "any": "string", "number": "number", "time": "id", "stamp": "number"}


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


def is_checked_later(mapping: TableMapping) -> bool:
    """Whether rows may be wrong when they are staged: some may be skipped, or come from a query."""
    return bool(mapping.skip_invalid or mapping.query)


def open_log(connection: Any, files: Sequence[Path], mapping: TableMapping) -> Opened:
    """Stage the columns of a log that the mapping names.

    Raises:
        SourceError: a file is not what it should be.
    """
    text = mapping.tables.get("log", mapping)
    return open_rows(connection, files, text, wanted_of(mapping), checked=not is_checked_later(mapping))


_NAMING = "say which column is what: --option user=COLUMN (item, time ...), or a --mapping file"
_DATES = (
    "for texts such as 2017-11-25T18:00:00Z set time_unit to iso (--option time_unit=iso), for others time_format,"
    " such as %d/%m/%Y"
)


def wanted_of(mapping: TableMapping) -> dict[str, str]:
    """Column of the log -> kind of its values; the strictest kind where a column has two roles."""
    wanted = dict.fromkeys(mapping.fields.values(), "string")
    if mapping.event_type:
        wanted[mapping.event_type] = "id"
    wanted |= dict.fromkeys((mapping.user, mapping.item), "id")
    wanted |= dict.fromkeys((*mapping.labels, *([mapping.rating] if mapping.rating else ())), "number")
    if mapping.split:
        wanted[mapping.split] = "id"
    timed_by_text = mapping.time_format or mapping.time_unit == "iso"
    return wanted | {mapping.time: "time" if timed_by_text else "stamp"}


def open_rows(
    connection: Any, files: Sequence[Path], section: Text, wanted: Mapping[str, str], *, checked: bool = True
) -> Opened:
    """Stage text, or scan parquet.

    Args:
        connection: of the engine.
        files: all text, or all parquet.
        section: of the mapping; says how text is written.
        wanted: column -> kind of its values.
        checked: whether every value must be there and be of its kind. Else values of text files stay texts, and those
            of parquet may be missing.
    """
    alias = {name: f"c{at}" for at, name in enumerate(wanted)}
    if not any(is_parquet(path) for path in files):
        return _open_text(connection, files, section, wanted if checked else dict.fromkeys(wanted, "string"), alias)
    opened = [ParquetFile.open(path) for path in files]
    columns = {name: _KINDS_OF_PARQUET[kind] for name, kind in wanted.items()}
    optional = [name for name, kind in wanted.items() if kind in ("string", "any") or not checked]
    table = scan(connection, opened, columns, names=alias, optional=optional)
    end = list(accumulate(file.rows for file in opened))
    record = {"files": len(files), "rows": end[-1]}
    return Opened(table, alias, lambda sequence: locate(opened, sequence), record, [0, *end[:-1]])


def _open_text(
    connection: Any, files: Sequence[Path], section: Text, wanted: Mapping[str, str], alias: Mapping[str, str]
) -> Opened:
    """Stage csv files."""
    if not section.header:
        absent = [name for name in wanted if name not in section.columns]
        if absent:
            raise ConfigError(
                [f"columns does not hold {name!r}" for name in absent],
                fix="add it to columns: they are all columns of the file, in their order",
            )
    layout = layout_of(section, wanted, alias)
    table, places = staged(connection, files, layout)
    return Opened(table, alias, places.locate, dict(places.record()), tuple(places.first))


def layout_of(section: Text, wanted: Mapping[str, str], alias: Mapping[str, str]) -> Layout:
    """How the rows of a csv file are written."""
    columns = (
        Column(alias[name], _KINDS_OF_TEXT[kind], header=name, fix=_DATES if kind == "stamp" else "")  # type: ignore[arg-type]
        for name, kind in wanted.items()
    )
    return Layout(
        tuple(columns),
        header=section.header,
        names=section.columns,
        delimiter=section.delimiter,
        quoted=section.quoted,
        encoding=section.encoding,
        naming=_NAMING,
    )
