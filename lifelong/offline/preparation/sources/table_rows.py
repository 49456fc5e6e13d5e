"""The rows of files with some columns by name, staged, and which of them cannot be used.

A row without a user, an item, a time or a type, or with a wrong time, is an error, unless `skip_invalid` asks to count
and skip such rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from lifelong.dataset.mapping import JSON, TableMapping, Text
from lifelong.errors import ConfigError, SourceError
from lifelong.offline.preparation.engine import scalars, stage
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.parquet import Kind, ParquetFile, is_parquet, locate, scan
from lifelong.offline.preparation.sources.text import Column, Layout, Places, open_text, rows, staged
from lifelong.tables import json_object, text_of

# JSON writes this character as an escape, so that no line holds it and each is one value.
JSON_LINES = Layout((Column(JSON),), delimiter="\x1f")


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
    return open_rows(connection, files, mapping.of_log, wanted_of(mapping))


_NAMING = 'say which column is what: --column user=COLUMN (item, time ...), in Python user="COLUMN"; or a mapping file'


def wanted_of(mapping: TableMapping) -> dict[str, Kind]:
    """Column of the log -> kind of its values; the strictest kind where a column has two roles."""
    wanted: dict[str, Kind] = dict.fromkeys(mapping.columns_read.values(), "value")
    # Later assignments win: a column with two roles is checked as the stricter one.
    ids = (mapping.event_type, mapping.split, mapping.user, mapping.item)
    wanted |= dict.fromkeys((name for name in ids if name), "id")
    wanted |= dict.fromkeys((*mapping.labels, *([mapping.rating] if mapping.rating else ())), "number")
    return wanted | {mapping.time: "moment"}


def open_rows(connection: Any, files: Sequence[Path], section: Text, wanted: Mapping[str, Kind]) -> Opened:
    """Stage csv or JSON lines, whose values are texts, or scan parquet.

    Args:
        connection: of the engine.
        files: all of one form.
        section: of the mapping; says how csv is written.
        wanted: column -> kind of its values; parquet has types, and any of its values may be missing.
    """
    # The engine ignores upper and lower case in names, and a log may have both `User` and `user`.
    alias = {name: f"c{at}" for at, name in enumerate(wanted)}
    if any(is_json(path) for path in files):
        return _open_json(connection, files, alias, wanted)
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


def is_json(path: Path) -> bool:
    """Whether a file is one of JSON lines, by its name or its first characters."""
    if is_parquet(path) or any(ending in (".json", ".jsonl", ".ndjson") for ending in path.suffixes):
        return not is_parquet(path)
    with open_text(path) as stream:
        return stream.read(99).lstrip(b"\xef\xbb\xbf \r\n").startswith(b'{"')


def _open_json(connection: Any, files: Sequence[Path], alias: Mapping[str, str], wanted: Mapping[str, Kind]) -> Opened:
    """Stage JSON lines by their keys, in whatever order; a key that a line lacks has no value there, as in `ingest`."""
    places, keys = Places(JSON_LINES), dict.fromkeys(alias, False)

    def tables() -> Iterator[pa.Table]:
        for lines in rows(files, JSON_LINES, places):
            kept = [(line, at) for line, at in zip(*lines.to_pydict().values(), strict=True) if line.strip()]
            found = [_values(line, at, wanted, places) for line, at in kept]
            keys.update(dict.fromkeys(chain.from_iterable(found), True))
            cells = {own: [row.get(name) for row in found] for name, own in alias.items()}
            yield pa.table({**cells, "sequence": [at for _, at in kept]}, schema=schema)

    schema = pa.schema([*((own, pa.string()) for own in alias.values()), ("sequence", pa.int64())])
    table = stage(connection, tables(), schema)
    if places.rows and (absent := [name for name in alias if not keys[name]]):
        raise SourceError(
            f"no line has this key (there are {', '.join(name for name in keys if keys[name])})",
            file=", ".join(map(str, files)),
            column=absent[0],
            expected=f"the keys {', '.join(alias)}",
            fix=_NAMING,
        )
    not_read = [name for name in keys if name not in alias]
    record = {**places.record(), **({"columns_not_read": not_read} if not_read else {})}
    return Opened(table, alias, places.locate, record, tuple(places.first))


def _values(line: str, at: int, wanted: Mapping[str, Kind], places: Places) -> dict[str, Any]:
    """Key -> value of the object of a line: text, or None, where it is wanted."""
    name, expected = None, "one JSON object on each line"
    try:
        values = json_object(line)
        for name in filter(values.__contains__, wanted):
            value, expected = values[name], "text or a number"
            if isinstance(value, list | dict):
                raise ValueError("a list or an object")
            text = text_of(int(value) if wanted[name] == "number" and isinstance(value, bool) else value)
            # A half of a character has no bytes.
            values[name] = text and text.encode().decode()
    except ValueError as error:
        file, number = places.locate(at)
        fix = "correct the line, or write a query that takes the value out of it: json->>'$.key'"
        raise SourceError(str(error), file=file, line=number, column=name, expected=expected, fix=fix) from error
    return values


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


UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
LAST_PLAUSIBLE = 7_258_118_400
"""2200-01-01: a later time is a wrong unit."""
_BEYOND = 1e15
REASONS = ("no_user", "no_item", "no_time", "no_event_type", "wrong_time")
"""Why a row cannot be used; of several, the first counts."""


def times(opened: Opened, mapping: TableMapping) -> Any:
    """The time column as int64 seconds (or ordinals), null where it is none."""
    column = opened.column(mapping.time)
    if column.type().is_timestamp() or column.type().is_date():
        return staging.to_seconds(column.cast("timestamp"))
    if mapping.time_format:
        return staging.to_seconds(staging.try_strptime(column.cast("string"), mapping.time_format))
    if mapping.time_unit == "iso":
        return staging.to_seconds(column.cast("string").try_cast("timestamp('UTC')"))
    if mapping.time_unit == "ordinal":
        return _number(column).try_cast("int64")
    if column.type().is_integer():
        return _in_seconds(column, mapping)
    # As text: if the statistics of a parquet file record no NaN, DuckDB takes every comparison with NaN for true.
    no_number = column.cast("string").lower().contains("nan")
    return _in_seconds(ibis.ifelse(no_number, ibis.null("float64"), column.try_cast("float64")), mapping)


def _in_seconds(number: Any, mapping: TableMapping) -> Any:
    seconds = number / UNITS[mapping.time_unit]
    # A value that no whole number can hold becomes null, and not an error of the engine.
    return ibis.ifelse(seconds.abs() < _BEYOND, seconds, ibis.null("float64")).floor().cast("int64")


def usable(opened: Opened, mapping: TableMapping, time: Any) -> tuple[Any, dict[str, Any]]:
    """Which rows have a user, an item, a time and, where the log has types, a type.

    Args:
        opened: staged rows.
        mapping: says whether rows may be skipped.
        time: `times`.

    Returns:
        A condition of the rows, and the part of the record on those that are skipped: their number, and for each
        reason the number and where the first one is.

    Raises:
        SourceError: a row cannot be used and may not be skipped, or none is left; names the first.
    """
    needed = ("user", "item", "time", *(["event_type"] if mapping.event_type else []))
    text = {name: opened.column(getattr(mapping, name)).cast("string") for name in needed}
    # In the order of `REASONS`: of several reasons the first one counts.
    whens = [(column.isnull() | (column == ""), f"no_{name}") for name, column in text.items()]
    reason = ibis.cases(*whens, (_is_wrong(time, mapping), "wrong_time"), else_="")
    rows = opened.table.select(sequence=opened.table["sequence"], text=text["time"], reason=reason)
    # One pass over the rows finds all reasons, their numbers and their first places.
    counted = rows.group_by("reason").aggregate(
        rows=rows.count(), sequence=rows["sequence"].min(), text=rows["text"].argmin(rows["sequence"])
    )
    by_reason = {row.pop("reason"): row for row in counted.to_pyarrow().to_pylist()}
    without_reason = by_reason.pop("", None)
    if by_reason and (without_reason is None or not mapping.skip_invalid):
        raise _unusable(opened, mapping, by_reason)
    if not mapping.skip_invalid:
        return ibis.literal(True), {}
    skipped: dict[str, Any] = {"rows": sum(row["rows"] for row in by_reason.values())}
    for name in REASONS:
        if name in by_reason:
            file, line = opened.locate(by_reason[name]["sequence"])
            skipped[name] = {"rows": by_reason[name]["rows"], "first": f"{Path(file).name}, line {line}"}
    return reason == "", {"skipped": skipped}


def check_ids(opened: Opened, name: str) -> None:
    """Check that a column has an id in every row.

    Raises:
        SourceError: a row has none; names the first.
    """
    text = opened.column(name).cast("string")
    sequence, _ = _first(opened, text.isnull() | (text == ""), text)
    if sequence is not None:
        file, line = opened.locate(sequence)
        expected, fix = "an id in every row", "correct the value, or remove the row"
        raise SourceError("there is no value", file=file, line=line, column=name, expected=expected, fix=fix)


def numbers(opened: Opened, name: str, rows: Any) -> Any:
    """A column that must hold numbers, as float64.

    Args:
        opened: staged rows.
        name: of the column.
        rows: condition of those that are kept.

    Raises:
        SourceError: a kept row has no number; names the first.
    """
    column = opened.column(name)
    number = _number(column)
    # NaN and infinity are numbers to the engine, but no label, and one of them would spoil a whole training.
    lacking = number.isnull() | number.isnan() | number.isinf()
    sequence, text = _first(opened, rows & lacking, column.cast("string"))
    if sequence is not None:
        file, line = opened.locate(sequence)
        raise SourceError(
            f"{text!r} is not a number",
            file=file,
            line=line,
            column=name,
            expected="a number",
            fix="correct the value, or leave the field out of `numbers`",
        )
    return number


def _number(column: Any) -> Any:
    return column.try_cast("float64") if column.type().is_string() else column.cast("float64")


def _is_wrong(time: Any, mapping: TableMapping) -> Any:
    return time.isnull() if mapping.time_unit == "ordinal" else time.isnull() | (time > LAST_PLAUSIBLE)


def _first(opened: Opened, wrong: Any, text: Any) -> tuple[int | None, str | None]:
    """Place of the first wrong row, and its text; None if there is none."""
    table = opened.table.select(sequence=opened.table["sequence"], text=text, wrong=wrong)
    table = table.filter(table["wrong"])
    row = scalars(table.aggregate(sequence=table["sequence"].min(), text=table["text"].argmin(table["sequence"])))
    return row["sequence"], row["text"]


def _unusable(opened: Opened, mapping: TableMapping, by_reason: Mapping[str, Mapping[str, Any]]) -> SourceError:
    """The first row that cannot be used."""
    # The first wrong row of the log, whatever is wrong with it: a user corrects a file from its top.
    reason, row = min(by_reason.items(), key=lambda pair: pair[1]["sequence"])
    if reason == "wrong_time" and not mapping.skip_invalid:
        return _not_a_time(opened, mapping, row["sequence"], row["text"])
    file, line = opened.locate(row["sequence"])
    role = reason.partition("_")[2]
    counted = ", ".join(f"{name} {each['rows']}" for name, each in by_reason.items())
    return SourceError(
        f"no row can be used ({counted}), from this one on" if mapping.skip_invalid else "there is no value",
        file=file,
        line=line,
        column=getattr(mapping, role),
        expected="rows with a user, an item and a time" if mapping.skip_invalid else f"the {role} in every row",
        fix="check the mapping"
        if mapping.skip_invalid
        else "--column skip_invalid=true (skip_invalid=True) counts and skips them",
    )


def _not_a_time(opened: Opened, mapping: TableMapping, sequence: int, text: str | None) -> SourceError:
    file, line = opened.locate(sequence)
    return SourceError(
        f"{text!r} is not a time",
        file=file,
        line=line,
        column=mapping.time,
        expected=f"the format {mapping.time_format}" if mapping.time_format else f"time_unit = {mapping.time_unit!r}",
        fix="for texts such as 2017-11-25T18:00:00Z --column time_unit=iso, for milliseconds --column time_unit=ms (or "
        "us, ns, ordinal), for others such as --column 'time_format=%d.%m.%Y %H:%M:%S'; or the same in the mapping, "
        'in Python time_unit="iso"',
    )
