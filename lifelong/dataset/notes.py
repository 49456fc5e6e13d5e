"""What whoever prepared a dataset should know before using it: each with what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lifelong.dataset.mapping import TableMapping
from lifelong.tables import quoted


def notes_of(record: Mapping[str, Any], *, items: int, mapping: TableMapping | None = None) -> list[str]:
    """Sentences about a dataset, from the record that its preparation left.

    Args:
        record: `Manifest.record`, with the splits of a vault among those that are too small.
        items: of the catalogue.
        mapping: by which the log was read; None if none was.

    >>> notes_of({"read": {"columns_not_read": ["brand"]}}, items=7)[0].split(".")[0]
    'Not read, as nothing names them: brand'
    >>> notes_of({}, items=7)
    []
    """
    return too_small_notes(record) + _ordinal(record) + _not_numbers(record, items, mapping) + _not_read(record)


def too_small_notes(record: Mapping[str, Any]) -> list[str]:
    """Which splits are too small to conclude anything from.

    >>> too_small_notes({"too_small": {"test": "40 examples of 6 users"}})
    ['Too small to conclude from: test, 40 examples of 6 users.']
    """
    return [f"Too small to conclude from: {split}, {why}." for split, why in record.get("too_small", {}).items()]


def _not_numbers(record: Mapping[str, Any], items: int, mapping: TableMapping | None) -> list[str]:
    """Which fields of numbers have values that are none."""
    columns, lines = mapping.fields if mapping and not mapping.asks else {}, []
    for field, examples in record.get("not_numbers", {}).items():
        value = examples["first"]
        line = (
            f"{field} is unknown for {examples['items']:,} of {items:,} items: {value!r} is not a number of at least 0"
        )
        fix = "leave it out of numbers if it is none"
        if re.fullmatch(r"[\d.]*\d,\d+", value):
            column = columns.get(field, field)
            column = column if re.fullmatch(r"[a-z_]\w*", column, re.IGNORECASE | re.ASCII) else quoted(column)
            text = f"replace({column}, '.', '')" if "." in value else column
            number = f"replace({text}, ',', '.') AS {column}"
            # A query that the mapping has already, and one for a file of items, is not rewritten here.
            made = f"query=SELECT * REPLACE ({number}) FROM log".replace('"', r"\"")
            fix = f'a query reads decimal commas: --column "{made}"'
            fix = fix if field in columns else f"let a query give {number}"
        lines.append(f"{line}. To do: {fix}")
    return lines


def _not_read(record: Mapping[str, Any]) -> list[str]:
    """Which columns no model will see."""
    names = record.get("read", {}).get("columns_not_read", [])
    listed = f"Not read, as nothing names them: {', '.join(names)}. To do, where they describe the item: "
    return [f"{listed}name them in fields, as by --column fields=COLUMN,COLUMN"] if names else []


def _ordinal(record: Mapping[str, Any]) -> list[str]:
    """What a cut at one number means where times only count each user's events."""
    cuts = record.get("ordinal_cuts")
    if cuts is None:
        return []
    return [
        f"Times are ordinal, and all users are cut at the same numbers, {' and '.join(map(str, cuts['cut_times']))}: "
        f"all events of {cuts['users_before_all_cuts']:,} of {cuts['users']:,} users are before the first. "
        "Clock times, where the log has them, cut better."
    ]
