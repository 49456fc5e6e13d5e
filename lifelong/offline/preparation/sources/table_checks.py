"""Which rows of the source `table` cannot be used: without a user, an item, a time or a type, or with a wrong time.

The first one is an error, unless `skip_invalid` asks to count and skip them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ibis

from lifelong.errors import SourceError
from lifelong.offline.preparation.engine import scalars
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.mapping import TableMapping
from lifelong.offline.preparation.sources.table_rows import Opened

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
    whens = [(column.isnull() | (column == ""), f"no_{name}") for name, column in text.items()]
    reason = ibis.cases(*whens, (_is_wrong(time, mapping), "wrong_time"), else_="")
    rows = opened.table.select(sequence=opened.table["sequence"], text=text["time"], reason=reason)
    found = rows.group_by("reason").aggregate(
        rows=rows.count(), sequence=rows["sequence"].min(), text=rows["text"].argmin(rows["sequence"])
    )
    by_reason = {row.pop("reason"): row for row in found.to_pyarrow().to_pylist()}
    kept = by_reason.pop("", None)
    if by_reason and (kept is None or not mapping.skip_invalid):
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
    lacking = number.isnull() | number.isnan() | number.isinf()
    sequence, found = _first(opened, rows & lacking, column.cast("string"))
    if sequence is not None:
        file, line = opened.locate(sequence)
        raise SourceError(
            f"{found!r} is not a number",
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
        fix="check the mapping" if mapping.skip_invalid else "--option skip_invalid=true counts and skips such rows",
    )


def _not_a_time(opened: Opened, mapping: TableMapping, sequence: int, text: str | None) -> SourceError:
    file, line = opened.locate(sequence)
    return SourceError(
        f"{text!r} is not a time",
        file=file,
        line=line,
        column=mapping.time,
        expected=f"the format {mapping.time_format}" if mapping.time_format else f"time_unit = {mapping.time_unit!r}",
        fix="for texts such as 2017-11-25T18:00:00Z --option time_unit=iso, for milliseconds --option time_unit=ms (or "
        "us, ns, ordinal), for others such as --option 'time_format=%d.%m.%Y %H:%M:%S'; or the same in the mapping",
    )
