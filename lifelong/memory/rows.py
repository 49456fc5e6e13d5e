"""Rows of files and messages of streams -> events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.errors import UsageError
from lifelong.memory.event import MAX_ID, UserEvent, event_problem
from lifelong.memory.event_table import EventTable, IntArray, last_time, texts_hold, times_hold

if TYPE_CHECKING:
    from lifelong.data.events import Schema
    from lifelong.memory.plain_lines import PlainLines

COLUMNS = ("user", "item", "time", "event_type")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row.

    Args:
        found: what was found.
        expected: what was expected, "" where `found` says it all.
        column: the row's name of it, None where it is the whole row.
    """

    found: str
    expected: str = ""
    column: str | None = None

    def __str__(self) -> str:
        place = "" if self.column is None else f"column {self.column}: "
        return f"{place}{self.found}" + (f" (expected {self.expected})" if self.expected else "")


class EventRows:
    """Makes events of rows that name their values.

    Args:
        schema: of the artifact; its item fields may stand in a row.
        columns: our name -> the rows' name, for columns that are called otherwise. `event_id` is read only where it is
            named here: a column that is called so may hold anything.

    Raises:
        UsageError: `columns` names no column of ours.
    """

    def __init__(self, schema: Schema, columns: Mapping[str, str]) -> None:
        self.fields, self.time_unit = schema.item_fields[1:], schema.time_unit
        names = (*COLUMNS, *self.fields)
        unknown = sorted(set(columns) - {*names, "event_id"})
        if unknown:
            expected = f"one of: {', '.join((*names, 'event_id'))}"
            raise UsageError(f"there is no column {unknown[0]!r} to map", expected=expected)
        self.column = {name: columns.get(name, name) for name in names}
        self._event_id = columns.get("event_id")

    @property
    def needed(self) -> list[str]:
        """The columns that every row has."""
        return [self.column[name] for name in COLUMNS[:3]]

    @property
    def read(self) -> list[str]:
        """The columns that are looked at."""
        return [*self.column.values(), *([] if self._event_id is None else [self._event_id])]

    def place(self, name: str, head: Sequence[str]) -> int:
        """Where our column of a name stands; of several that are called so the last one counts."""
        return len(head) - 1 - head[::-1].index(self.column[name])

    def hold(self, lines: PlainLines, head: Sequence[str]) -> bool:
        """Whether all lines are events, seen before they are cut; where False, they may be all the same."""
        user, item, time = (lines.lengths(self.place(name, head)) for name in COLUMNS[:3])
        if lines.longest > MAX_ID or min(user.min(), item.min(), time.min()) < 1:
            return False
        # A number with fewer digits than the last time is none behind it.
        short = int(time.max()) < len(str(last_time(self.time_unit)))
        return short and lines.are_digits(self.place("time", head))

    def table(self, columns: Mapping[str, Sequence[Any]], *, plain: bool = False) -> EventTable | None:
        """The events of rows that are given as columns; None where `event` has to look at each.

        Args:
            columns: values by the rows' names.
            plain: whether all of them are text that was decoded, and none is longer than an id may be.
        """
        try:
            return self._table(columns, plain=plain)
        except (TypeError, ValueError, OverflowError):
            return None

    def _table(self, columns: Mapping[str, Sequence[Any]], *, plain: bool) -> EventTable | None:
        def texts(theirs: str | None) -> Sequence[str | None] | None:
            return None if theirs is None or theirs not in columns else _texts(columns[theirs], plain=plain)

        user, item, types, times = (self.column[name] for name in ("user", "item", "event_type", "time"))
        user_N, item_N, type_N, name_N = texts(user), texts(item), texts(types), texts(self._event_id)
        if user_N is None or item_N is None or times not in columns:
            return None
        needed, optional = (user_N, item_N), (type_N, name_N)
        if None in user_N or None in item_N or not (plain or texts_hold(needed, optional)):
            return None
        time_N = _times(columns[times], self.time_unit)
        if time_N is None:
            return None
        given = {name: found for name in self.fields if (found := texts(self.column[name])) is not None}
        # There is text in each place of both.
        return EventTable(
            user_N,  # type: ignore[arg-type]
            item_N,  # type: ignore[arg-type]
            time_N,
            type_N,
            _fields(given),
            name_N,
        )

    def event(self, values: Mapping[str, Any]) -> UserEvent | Problem:
        """The event of a row, or what is wrong with it."""
        nested = next((name for name in self.read if isinstance(values.get(name), list | dict)), None)
        if nested is not None:
            return Problem("a list or an object", "text or a number", nested)
        fields = {name: value for name in self.fields if (value := _text(values.get(self.column[name]))) is not None}
        event = UserEvent(
            user=_text(values.get(self.column["user"])) or "",
            item=_text(values.get(self.column["item"])) or "",
            time=_whole(values.get(self.column["time"])),
            event_type=_text(values.get(self.column["event_type"])),
            fields=fields or None,
            event_id=None if self._event_id is None else _text(values.get(self._event_id)),
        )
        problem = event_problem(event, time_unit=self.time_unit)
        if problem is None:
            return event
        column, found, expected = problem
        return Problem(f"{column} {found}", expected, self.column.get(column, self._event_id))


def json_row(text: str | bytes) -> Mapping[str, Any] | Problem:
    """The values of a JSON object, or what is wrong with it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Problem(f"not JSON: {error}")
    if not isinstance(values, dict):
        return Problem("not a JSON object", '{"user": .., "item": .., "time": ..}')
    return values


def _fields(columns: Mapping[str, Sequence[str | None]]) -> list[Mapping[str, str | None] | None] | None:
    """Item fields that stand in the rows; one object for all rows that have the same."""
    if not columns:
        return None
    rows = list(zip(*columns.values(), strict=True))
    made: dict[tuple[str | None, ...], Mapping[str, str | None]] = {
        row: {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in dict.fromkeys(rows)
    }
    return [made[row] or None for row in rows]


def _texts(values: Sequence[Any], *, plain: bool) -> Sequence[str | None] | None:
    """`_text` of a column; None where nothing stands in it.

    Raises:
        TypeError: a value is a list or an object.
    """
    kinds = {str} if plain else set(map(type, values))
    if kinds == {str}:
        found: Sequence[str | None] = values if "" not in values else [value or None for value in values]
    elif kinds & {list, dict}:
        raise TypeError("a list or an object")
    else:
        found = list(map(_text, values))
    return found if any(found) else None


def _times(values: Sequence[Any], time_unit: str) -> IntArray | None:
    """A column of times, from text too; None where one cannot be.

    Raises:
        ValueError: text that is no whole number.
        OverflowError: one that is far too large.
    """
    if set(map(type, values)) != {str}:
        return np.array(values, np.int64) if times_hold(values, time_unit) else None
    time_N = np.fromiter(map(int, values), np.int64, len(values))
    return time_N if times_hold([int(time_N.min()), int(time_N.max())], time_unit) else None


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _whole(value: Any) -> Any:
    """A whole number, from text too; anything else as it is, to be refused."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value
