"""Many events as columns: what the updater works on, since one Python object an event costs more than its memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from lifelong.errors import RequestError
from lifelong.memory.event import (
    LAST_ORDINAL,
    LAST_SECOND,
    MAX_ID,
    UserEvent,
    event_problem,
    to_json,
)

IntArray = npt.NDArray[np.int64]
Fields = Mapping[str, str | None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EventTable:
    """N events in their order; the columns are as long as each other.

    Args:
        user: ids.
        item: ids.
        time_N: UTC seconds (or ordinals).
        event_type: None where no event has one.
        fields: item fields that came with the events; None where no event has any.
        event_id: clients' own ids; None where no event has one.
    """

    user: Sequence[str]
    item: Sequence[str]
    time_N: IntArray
    event_type: Sequence[str | None] | None = None
    fields: Sequence[Fields | None] | None = None
    event_id: Sequence[str | None] | None = None

    @classmethod
    def of(cls, events: Sequence[UserEvent], *, time_unit: str = "seconds") -> EventTable:
        """The events of a list, checked.

        Raises:
            RequestError: says which event is wrong and why.
        """
        types, fields = [event.event_type for event in events], [event.fields or None for event in events]
        names = [event.event_id for event in events]
        user, item, times = (
            [event.user for event in events],
            [event.item for event in events],
            [event.time for event in events],
        )
        if not (texts_hold((user, item), (types, names)) and times_hold(times, time_unit)):
            check_events(events, time_unit=time_unit)
        return cls(user, item, np.array(times, np.int64), _or_none(types), _or_none(fields), _or_none(names))

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]]) -> EventTable:
        """The events of rows that were checked and name their values as `UserEvent` does."""
        types, fields = [row.get("event_type") for row in rows], [row.get("fields") or None for row in rows]
        names = [row.get("event_id") for row in rows]
        time_N = np.array([row["time"] for row in rows], np.int64)
        user, item = [row["user"] for row in rows], [row["item"] for row in rows]
        return cls(user, item, time_N, _or_none(types), _or_none(fields), _or_none(names))

    def __len__(self) -> int:
        return len(self.user)

    def take(self, place_N: IntArray) -> EventTable:
        """The chosen events, in the chosen order."""
        if len(place_N) == len(self) and np.array_equal(place_N, np.arange(len(self))):
            return self
        places = place_N.tolist()
        columns = (self.event_type, self.fields, self.event_id)
        optional = [None if column is None else [column[place] for place in places] for column in columns]
        user, item = [self.user[place] for place in places], [self.item[place] for place in places]
        return EventTable(user, item, self.time_N[place_N], *optional)

    def behind(self, number: int) -> EventTable:
        """The events without the first few."""
        return self if number == 0 else self.take(np.arange(min(number, len(self)), len(self)))

    def logged(self) -> list[bytes]:
        """Each event for the log, as `encode_event` gives it."""
        item_json = {item: to_json(item) for item in set(self.item)}
        pairs = zip(map(item_json.__getitem__, self.item), self.time_N.tolist(), strict=True)
        if self.event_type is None and self.fields is None:
            return [f"[{item},{time}]".encode() for item, time in pairs]
        return [f"[{item},{time}{end}".encode() for (item, time), end in zip(pairs, self._ends(), strict=True)]

    def _ends(self) -> list[str]:
        """What stands behind the time of each event in the log."""
        types = self.event_type or [None] * len(self)
        type_json = {kind: "null" if kind is None else to_json(kind) for kind in set(types)}
        if self.fields is None:
            end = {kind: "]" if kind is None else f",{text}]" for kind, text in type_json.items()}
            return [end[kind] for kind in types]
        ends = []
        for kind, fields in zip(types, self.fields, strict=True):
            if fields:
                ends.append(f",{type_json[kind]},{to_json(dict(fields))}]")
            else:
                ends.append("]" if kind is None else f",{type_json[kind]}]")
        return ends


def check_events(events: Sequence[UserEvent], *, time_unit: str = "seconds") -> None:
    """Refuse events that cannot be what was meant.

    Raises:
        RequestError: says which event and why.
    """
    for place, event in enumerate(events):
        problem = event_problem(event, time_unit=time_unit)
        if problem is not None:
            column, found, expected = problem
            raise RequestError(f"event {place}: {column} {found}", expected=expected, fix="mend it; nothing was kept")


def texts_hold(needed: Iterable[Sequence[str | None]], optional: Iterable[Sequence[str | None] | None] = ()) -> bool:
    """Whether all that stands in the columns can be an id; in the optional ones None can, too."""
    given = [[text for text in column if text is not None] for column in optional if column is not None]
    return all(map(_are_ids, (*needed, *given)))


def _are_ids(column: Sequence[str | None]) -> bool:
    if not column:
        return True
    if set(map(type, column)) != {str}:
        return False
    texts = cast("Sequence[str]", column)
    if min(map(len, texts)) < 1 or max(map(len, texts)) > MAX_ID:
        return False
    return "".join(texts).isascii() or all(map(_encodes, texts))


def times_hold(times: Sequence[int], time_unit: str) -> bool:
    """Whether all of them can be times."""
    if not times:
        return True
    return set(map(type, times)) == {int} and min(times) >= 0 and max(times) <= last_time(time_unit)


def last_time(time_unit: str) -> int:
    """The largest time that there can be."""
    return LAST_SECOND if time_unit == "seconds" else LAST_ORDINAL


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def places(ids: Sequence[str]) -> tuple[list[str], IntArray]:
    """The distinct ids, sorted as a store sorts its keys, and the place of each id among these."""
    distinct = sorted(set(ids))
    place_of = dict(zip(distinct, itertools.count(), strict=False))
    return distinct, np.fromiter(map(place_of.__getitem__, ids), np.int64, len(ids))


def _or_none(column: list[T | None]) -> list[T | None] | None:
    return None if all(value is None for value in column) else column
