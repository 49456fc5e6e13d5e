"""Rows of files and messages of streams -> events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.dataset.mapping import TableMapping, mapping_of_events
from lifelong.dataset.times import TimeFormat
from lifelong.dtypes import IntArray
from lifelong.errors import SourceError, UsageError
from lifelong.online.memory.event import (
    ID_EXPECTED,
    EventTable,
    UserEvent,
    event_problem,
    last_time,
    texts_hold,
    time_problem,
    times_hold,
    whole_number,
)
from lifelong.tables import ColumnKind, json_object, naming_delimiter, text_of

if TYPE_CHECKING:
    from lifelong.dataset.events import Schema

COLUMNS = ("user", "item", "time", "event_type")
_SHOWN = 12
"""Columns of a file that an error names."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row.

    Args:
        found: what was found.
        expected: what was expected, "" if `found` is enough.
        column: name of the column in the row, None if the whole row is wrong.
    """

    found: str
    expected: str = ""
    column: str | None = None

    def __str__(self) -> str:
        place = "" if self.column is None else f"column {self.column}: "
        return f"{place}{self.found}" + (f" (expected {self.expected})" if self.expected else "")


class EventRows:
    """Makes events from rows of named values.

    Args:
        schema: of the artifact; a row may have its item fields.
        columns: our name -> the rows' name, for columns with other names, and settings of a mapping, such as
            `time_unit`; they win over `mapping`. `event_id` is read only if it is given here or there: a column that
            happens to have this name may hold anything.
        latest: gives the largest time that is taken now; None for no bound.
        mapping: says which column is what, as it did to `prepare`.

    Raises:
        UsageError: `columns` maps a column that does not exist, or a setting is wrong.

    >>> from lifelong.dataset.events import Schema
    >>> rows = EventRows(Schema(item_fields=("item",), event_types=False), {"user": "customer"})
    >>> rows.event({"customer": "ada", "item": "tea", "time": "1600000000"}).user
    'ada'
    >>> str(rows.event({"customer": "ada", "item": "tea", "time": "yesterday"}))
    "column time: time is 'yesterday' (expected a whole number)"
    """

    fields: tuple[str, ...]

    def __init__(
        self,
        schema: Schema,
        columns: Mapping[str, Any],
        latest: Callable[[], int] | None = None,
        mapping: TableMapping | None = None,
    ) -> None:
        self.fields, self.time_unit = schema.item_fields[1:], schema.time_unit
        self.latest: Callable[[], int] = latest or (lambda: last_time(self.time_unit))
        self.mapping: TableMapping = mapping_of_events(mapping, columns, self.fields)
        roles = {name: getattr(self.mapping, name) or name for name in COLUMNS}
        self.column: dict[str, str] = {**roles, **{name: self.mapping.fields.get(name, name) for name in self.fields}}
        self._event_id = self.mapping.event_id
        self._times = TimeFormat(self.mapping.time_unit, self.mapping.time_format)
        said = self.mapping.time_format is not None or "time_unit" in self.mapping.model_fields_set
        if said and (self._times.unit == "ordinal") != (self.time_unit == "ordinal"):
            raise UsageError(
                f"times are {self._times.pattern or self._times.unit}, and the artifact's are {self.time_unit}",
                expected="times of the kind that the artifact was trained on",
                fix="name the unit or format of the log's own times, as in training",
            )

    def in_seconds(self) -> EventRows:
        """The same for rows with times in UTC seconds, whatever was said of their unit.

        Raises:
            UsageError: the artifact's times are ordinals.
        """
        if self.time_unit == "ordinal":
            found = "times are timestamps, and the artifact's are ordinals"
            raise UsageError(
                found,
                expected="times of the kind that the artifact was trained on",
                fix="give the number of each event in her history, as whole numbers",
            )
        rows = copy(self)
        rows._times = TimeFormat()
        return rows

    @property
    def plain_times(self) -> bool:
        """Whether times are taken as they are: nothing was said of how they are written."""
        return self._times.plain

    @property
    def needed(self) -> list[str]:
        """The columns that every row must have."""
        return [self.column[name] for name in COLUMNS[:3]]

    @property
    def named(self) -> list[str]:
        """The columns that every file must have: those of user, item and time, and of type and id if they are named."""
        said = (self.mapping.event_type, self._event_id)
        return [*self.needed, *(name for name in said if name is not None)]

    def absent(self, names: Collection[str]) -> list[str]:
        """The columns of item fields that the mapping names and a file lacks."""
        return [name for ours, name in self.mapping.fields.items() if ours in self.fields and name not in names]

    def skips(self, problem: Problem) -> bool:
        """Whether a row may be left out for its problem: the mapping says so where user, item, time or type lack."""
        needed = {*self.needed, self.mapping.event_type}
        return self.mapping.skip_invalid and problem.column is not None and problem.column in needed

    @property
    def read(self) -> list[str]:
        """The columns that are read."""
        return [*self.column.values(), *([] if self._event_id is None else [self._event_id])]

    @property
    def reading(self) -> dict[str, str | None]:
        """All that decides which event a row is, as `columns` would say it; None where nothing does."""
        mapping, times, form = self.mapping, self._times.unit, self._times.pattern
        said = {"time_unit": times, "time_format": form, "delimiter": mapping.delimiter, "encoding": mapping.encoding}
        said |= {"query": mapping.query, "labels": ",".join(mapping.labels) or None, "history": mapping.history}
        return {**self.column, "event_id": self._event_id, **said}

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """What the columns hold, by the rows' names."""
        kinds: dict[str, ColumnKind] = {self.column[name]: "value" for name in self.fields}
        ids = (self.column["event_type"], self.column["user"], self.column["item"], self._event_id)
        return {**kinds, **{name: "id" for name in ids if name is not None}, self.column["time"]: "moment"}

    def table_of(self, rows: Sequence[Mapping[str, Any]]) -> EventTable | None:
        """The events of rows; None if `event` has to look at each."""
        return self.table({name: [row.get(name) for row in rows] for name in self.read})

    def table(self, columns: Mapping[str, Sequence[Any]]) -> EventTable | None:
        """The events of rows that are given as columns by their names; None if `event` has to look at each row."""
        try:
            return self._table(columns)
        except (TypeError, ValueError, OverflowError):
            return None

    def _table(self, columns: Mapping[str, Sequence[Any]]) -> EventTable | None:
        def texts(theirs: str | None) -> Sequence[str | None] | None:
            return None if theirs is None or theirs not in columns else _texts(columns[theirs])

        user, item, types, times = (self.column[name] for name in ("user", "item", "event_type", "time"))
        user_N, item_N, type_N, name_N = texts(user), texts(item), texts(types), texts(self._event_id)
        if user_N is None or item_N is None or times not in columns:
            return None
        needed, optional = (user_N, item_N), (type_N, name_N)
        if None in user_N or None in item_N or not texts_hold(needed, optional):
            return None
        given_times = columns[times] if self._times.plain else list(map(self._times.seconds, columns[times]))
        time_N = _times(given_times, self.latest())
        if time_N is None:
            return None
        if self.mapping.event_type is not None and (type_N is None or None in type_N):
            return None
        given = {name: found for name in self.fields if (found := texts(self.column[name])) is not None}
        if set(self.mapping.missing) - {""}:
            given = {name: [self._value(text) for text in found] for name, found in given.items()}
        # Neither user nor item is None anywhere, which a type checker does not see.
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
        given = ((name, self._value(values.get(self.column[name]))) for name in self.fields)
        fields = {name: value for name, value in given if value is not None}
        time = values.get(self.column["time"])
        if not self._times.plain:
            try:
                time = self._times.seconds(time)
            except (ValueError, TypeError, OverflowError):
                return Problem(f"time is {time!r}", self._times.expected, self.column["time"])
        time = whole_number(time)
        event = UserEvent(
            user=text_of(values.get(self.column["user"])) or "",
            item=text_of(values.get(self.column["item"])) or "",
            # One that is no number is no time, either.
            time=time if type(time) is int else -1,
            event_type=text_of(values.get(self.column["event_type"])),
            fields=fields or None,
            event_id=None if self._event_id is None else text_of(values.get(self._event_id)),
        )
        problem = event_problem(event, time_unit=self.time_unit, latest=self.latest())
        if problem is None and event.event_type is None and self.mapping.event_type is not None:
            problem = "event_type", "is not given", ID_EXPECTED
        if problem is None:
            return event
        column, found, expected = problem
        if column == "time" and (wrong := time_problem(time, time_unit=self.time_unit)):
            found, expected = wrong
        return Problem(f"{column} {found}", expected, self.column.get(column, self._event_id))

    def _value(self, value: Any) -> str | None:
        """The text of an item field; None where it means "no value"."""
        text = text_of(value)
        return None if text in self.mapping.missing else text


def check_columns(
    names: Sequence[str], needed: Sequence[str], *, file: Path, expected: str, line: int | None = None
) -> None:
    """Check that a file has the columns that are named.

    Args:
        names: of the file's columns.
        needed: those of user, item and time, in this order, and others that the mapping names.
        file: the file.
        expected: what was expected, in words.
        line: of the header, if the format has one.

    Raises:
        SourceError: one is missing; says which option names it.

    >>> check_columns(["who", "item", "time"], ["who", "item", "time"], file=Path("log.csv"), expected="a header")
    """
    for place, name in enumerate(needed):
        if name not in names:
            ours = COLUMNS[place] if place < len(COLUMNS) - 1 else "OURS"
            rest = "" if len(names) <= _SHOWN else f" and {len(names) - _SHOWN} more"
            raise SourceError(
                f"there is no column {name!r} among {', '.join(map(repr, names[:_SHOWN]))}{rest}",
                file=str(file),
                line=line,
                expected=expected,
                fix=(naming_delimiter(names[0]) if line is not None and len(names) == 1 else "")
                or f"name the column by --column {ours}=NAME, or in a mapping file; in Python by {ours}='NAME'",
            )


def json_row(text: str | bytes) -> Mapping[str, Any] | Problem:
    """The values of a JSON object, or what is wrong with it."""
    try:
        return json_object(text)
    except ValueError as error:
        expected = "" if str(error).startswith("not JSON") else '{"user": .., "item": .., "time": ..}'
        return Problem(str(error), expected)


def _fields(columns: Mapping[str, Sequence[str | None]]) -> list[Mapping[str, str | None] | None] | None:
    """The item fields of each row; rows with equal values share one object."""
    if not columns:
        return None
    # Many rows, few combinations of values: each is made once.
    made = _Made(columns)
    return list(map(made.__getitem__, zip(*columns.values(), strict=True)))


class _Made(dict[tuple[str | None, ...], Mapping[str, str | None] | None]):
    """Values in the order of these names -> the fields; None if there is no value."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._names = tuple(names)

    def __missing__(self, row: tuple[str | None, ...]) -> Mapping[str, str | None] | None:
        given = {name: value for name, value in zip(self._names, row, strict=True) if value is not None}
        self[row] = fields = given or None
        return fields


def _texts(values: Sequence[Any]) -> Sequence[str | None] | None:
    """`text_of` of a column; None if the column is empty.

    Raises:
        TypeError: a value is a list or an object.
    """
    kinds = set(map(type, values))
    if kinds == {str}:
        found: Sequence[str | None] = values if "" not in values else [value or None for value in values]
    elif kinds <= {type(None)}:
        return None
    elif kinds & {list, dict}:
        raise TypeError("a list or an object")
    elif kinds <= {str, type(None)}:
        found = [value or None for value in values]
    elif kinds <= {int, type(None)}:
        # Of one type alone: True and 1.0 equal 1, and have other texts.
        found = list(map({value: text_of(value) for value in set(values)}.__getitem__, values))
    else:
        found = list(map(text_of, values))
    return found if any(found) else None


def _times(values: Sequence[Any], latest: int) -> IntArray | None:
    """A column of times, which may be text; None if one is not possible.

    Raises:
        ValueError: a text is not a whole number.
        OverflowError: a number is far too large.
    """
    if set(map(type, values)) != {str}:
        return np.array(values, np.int64) if times_hold(values, latest) else None
    time_N = np.fromiter(map(int, values), np.int64, len(values))
    # All of them lie between the least and the largest.
    return time_N if times_hold([int(time_N.min()), int(time_N.max())], latest) else None
