"""Events, one at a time or as columns: as they come from outside, as the store's log keeps them, and their checks."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar, cast

import numpy as np

from lifelong.dataset.times import seconds_of
from lifelong.dtypes import IntArray
from lifelong.errors import RequestError, StoreCorruptError, UsageError

MAX_ID = 256
"""Longest id of a user, item or event, in characters, whichever way it comes.

An id is a part of an address where a user is looked at or erased, and takes up to 12 bytes a character there: 256 are
3 KiB, so two of them fit into a request line of 8 KiB, which is what a proxy lets through if nobody sets it.
"""
ID_EXPECTED = f"text of 1 to {MAX_ID} characters"
LAST_SECOND = 253_402_300_799
"""End of the year 9999; a larger time is in milliseconds by mistake."""
LAST_ORDINAL = 2**62 - 1
"""The largest ordinal of a log without times."""
MAX_AHEAD = 1.0
"""Days that an event may be ahead of the clock, if nothing else is said."""
_DAY = 86_400
to_json: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One thing a user did to one item.

    Args:
        user: id; any text that is not empty.
        item: id; may be unknown to the model.
        time: UTC seconds (or the ordinal of a log without times); a datetime or an ISO 8601 text becomes these, as UTC
            where it has no zone.
        event_type: click, buy ...; None if it is not known.
        fields: item fields that came with the event, for an item that the catalogue does not have; they win over items
            put online. Those of other items are kept in the log.
        event_id: the client's own id; a second event of this user with it changes nothing.

    Example:
        >>> event = UserEvent("ann", "i7", 1_700_000_000, "click")
        >>> encode_event(event), event_problem(event)
        (b'["i7",1700000000,"click"]', None)
    """

    user: str
    item: str
    time: int
    event_type: str | None = None
    fields: Mapping[str, str | None] | None = None
    event_id: str | None = None

    def __post_init__(self) -> None:
        """Take other forms of a time, and refuse values of other types.

        Raises:
            UsageError: user or item is no text, or the time is no time.
        """
        if type(self.time) is not int:
            # The class is frozen; nobody has seen the event yet.
            object.__setattr__(self, "time", seconds_of(self.time))
        for name in ("user", "item"):
            if not isinstance(value := getattr(self, name), str):
                raise UsageError(f"{name} = {_short(value)}", expected=ID_EXPECTED, fix=f"give it as text: str({name})")


def check_user(user: object) -> None:
    """Refuse what is no user's id.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(user, str) or not _are_ids([user]):
        raise UsageError(
            f"user is {_short(user)}", expected=ID_EXPECTED, fix="use an id of that length, the same everywhere"
        )


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event as the store's log keeps it."""

    item: str
    time: int
    event_type: str | None = None
    fields: Mapping[str, str | None] | None = None


def event_problem(
    event: UserEvent, *, time_unit: str = "seconds", latest: int | None = None
) -> tuple[str, str, str] | None:
    """What is wrong with an event: (column, what was found, what was expected); None if nothing is.

    Args:
        event: from outside.
        time_unit: of the log, "seconds" or "ordinal".
        latest: the largest time that is taken, see `latest_time`; None for no bound.
    """
    texts = (("user", event.user), ("item", event.item), ("event_type", event.event_type), ("event_id", event.event_id))
    for column, value in texts:
        if value is None and column.startswith("event_"):
            continue
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
            return column, f"is {_short(value)}", ID_EXPECTED
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return column, f"is {_short(value)}, which is no valid text", "Unicode text"
    if not _are_fields(event.fields):
        return "fields", f"is {_short(event.fields)}", "item field -> text, or None where it is not known"
    wrong = time_problem(event.time, time_unit=time_unit)
    if wrong is not None:
        return "time", *wrong
    if latest is not None and event.time > latest and time_unit == "seconds":
        return ahead_problem(event.time, latest)
    return None


def time_problem(time: object, *, time_unit: str = "seconds") -> tuple[str, str] | None:
    """What is wrong with a time: (what was found, what was expected); None if nothing is.

    >>> time_problem(1_700_000_000_000)
    ('is 1700000000000', 'UTC seconds, 0 to 253402300799 (not milliseconds)')
    """
    if type(time) is not int:
        return f"is {_short(time)}", "a whole number"
    if time_unit == "seconds":
        expected = f"UTC seconds, 0 to {LAST_SECOND} (not milliseconds)"
        return None if 0 <= time <= LAST_SECOND else (f"is {time}", expected)
    return None if 0 <= time <= LAST_ORDINAL else (f"is {time}", "the ordinal of the event, 0 or more")


def whole_number(value: Any) -> Any:
    """A number, which may be text, rounded down to a whole one; anything else as it is, to be refused.

    >>> whole_number("1700000000.7"), whole_number(1.0), whole_number("noon"), whole_number(float("nan"))
    (1700000000, 1, 'noon', nan)
    """
    try:
        if isinstance(value, float | Decimal):
            return math.floor(value)
        return _whole_of_text(value) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return value


def _whole_of_text(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return math.floor(float(text))


def ahead_problem(time: int, latest: int) -> tuple[str, str, str]:
    """`event_problem` of a time that is too far ahead."""
    return "time", f"is {time}, too far ahead of this machine's clock", f"at most {latest}, as max_ahead allows"


def latest_time(time_unit: str, max_ahead: float, now: float) -> int:
    """The largest time that an event may have now.

    A time that is ahead of all others stays the last one of its user: every event after it would be late.

    Args:
        time_unit: of the log; ordinals have no clock.
        max_ahead: days ahead of the clock; infinite for no bound.
        now: the clock, UTC seconds.

    >>> latest_time("seconds", 1, 1_700_000_000), latest_time("ordinal", 1, 0) == LAST_ORDINAL
    (1700086400, True)
    """
    return int(min(last_time(time_unit), now + max_ahead * _DAY)) if time_unit == "seconds" else LAST_ORDINAL


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_list(events: object) -> None:
    """Refuse what is no list of objects with the attributes of a `UserEvent`.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(events, Sequence) or not all(hasattr(event, "event_id") for event in events):
        fix = 'give a list, as in [UserEvent("u1", "i1", 1700000000)]'
        raise UsageError(f"events = {_short(events)}", expected="a list of UserEvent", fix=fix)


def _are_fields(fields: object) -> bool:
    """Whether something can be the item fields of an event."""
    if fields is None:
        return True
    return isinstance(fields, Mapping) and all(
        isinstance(name, str) and (value is None or isinstance(value, str)) for name, value in fields.items()
    )


def encode_event(event: UserEvent | LoggedEvent) -> bytes:
    """One event for the log: a JSON list [item, time, type, fields], without empty parts at its end."""
    parts = [event.item, event.time, event.event_type, dict(event.fields) if event.fields else None]
    # The item is never None, so this ends.
    while parts[-1] is None:
        parts.pop()
    return to_json(parts).encode()


def decode_event(value: bytes) -> LoggedEvent:
    """The inverse of `encode_event`.

    Raises:
        StoreCorruptError: no event was encoded so.
    """
    try:
        # Of bytes, json would first guess the encoding.
        return LoggedEvent(*json.loads(str(value, "utf-8")))
    except (ValueError, TypeError) as error:
        raise StoreCorruptError(
            f"an event of the log is damaged: {value[:80]!r}",
            fix="restore the store from a backup, or build it again from its sources",
        ) from error


Fields = Mapping[str, str | None]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EventTable:
    """N events in their order; all columns have one length.

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
            UsageError: they are no events.
        """
        check_list(events)
        user, item, times, types, fields, names = columns = _columns(events)
        texts = texts_hold((user, item), (types, names)) and all(map(_are_fields, fields))
        if not (texts and times_hold(times, last_time(time_unit))):
            check_events(events, time_unit=time_unit)
        return cls._of(*columns)

    @classmethod
    def of_checked(cls, events: Sequence[Any]) -> EventTable:
        """The events of objects that were checked and have the attributes of a `UserEvent`."""
        return cls._of(*_columns(events))

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Any]]) -> EventTable:
        """The events of rows that were checked and name their values as `UserEvent` does."""
        return cls._of(*([row.get(name) for row in rows] for name in _NAMES))

    @classmethod
    def _of(
        cls, user: list[Any], item: list[Any], times: list[Any], types: list[Any], fields: list[Any], names: list[Any]
    ) -> EventTable:
        # Whoever asks an event for its fields asks whether there are any: none and no mapping are one.
        given = [some or None for some in fields]
        return cls(user, item, np.array(times, np.int64), _or_none(types), _or_none(given), _or_none(names))

    @classmethod
    def joined(cls, tables: Sequence[EventTable]) -> EventTable:
        """The events of several tables, one table after another.

        >>> one, other = EventTable(["u"], ["i"], np.array([1])), EventTable(["v"], ["j"], np.array([2]), ["buy"])
        >>> EventTable.joined([one, other]).event_type
        [None, 'buy']
        """
        if len(tables) == 1:
            return tables[0]

        def column(name: str) -> list[Any] | None:
            given = [getattr(table, name) for table in tables]
            if all(one is None for one in given):
                return None
            # A column that one table lacks and another has is empty in the first.
            filled = [[None] * len(table) if one is None else one for one, table in zip(given, tables, strict=True)]
            return list(itertools.chain.from_iterable(filled))

        user, item = column("user") or [], column("item") or []
        time_N = np.concatenate([table.time_N for table in tables])
        return cls(user, item, time_N, column("event_type"), column("fields"), column("event_id"))

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
        # Items come again and again in a batch: each is written once.
        item_json = {item: to_json(item) for item in set(self.item)}
        pairs = zip(map(item_json.__getitem__, self.item), self.time_N.tolist(), strict=True)
        if self.event_type is None and self.fields is None:
            return [f"[{item},{time}]".encode() for item, time in pairs]
        return [f"[{item},{time}{end}".encode() for (item, time), end in zip(pairs, self._ends(), strict=True)]

    def _ends(self) -> list[str]:
        """The part of each logged event after its time."""
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


_NAMES = ("user", "item", "time", "event_type", "fields", "event_id")
"""Columns, as the attributes of events are called."""


def _columns(events: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any], list[Any], list[Any], list[Any]]:
    """The values of events, in the order of `_NAMES`."""
    # Attributes that are named here are found at once; those that a variable names are looked up in each event.
    ids = [event.user for event in events], [event.item for event in events], [event.time for event in events]
    types, fields = [event.event_type for event in events], [event.fields for event in events]
    return *ids, types, fields, [event.event_id for event in events]


def check_events(events: Sequence[UserEvent], *, time_unit: str = "seconds") -> None:
    """Refuse events that are not valid.

    Raises:
        RequestError: says which event and why.
    """
    for place, event in enumerate(events):
        problem = event_problem(event, time_unit=time_unit)
        if problem is not None:
            column, found, expected = problem
            raise RequestError(f"event {place}: {column} {found}", expected=expected, fix="fix it; nothing was kept")


def texts_hold(needed: Iterable[Sequence[str | None]], optional: Iterable[Sequence[str | None] | None] = ()) -> bool:
    """Whether all values of the columns can be ids; the optional columns may hold None, too."""
    given = [[text for text in column if text is not None] for column in optional if column is not None]
    return all(map(_are_ids, (*needed, *given)))


def _are_ids(column: Sequence[str | None]) -> bool:
    if not column:
        return True
    if set(map(type, column)) != {str}:
        return False
    texts = cast("Sequence[str]", column)
    lengths = set(map(len, texts))
    if min(lengths) < 1 or max(lengths) > MAX_ID:
        return False
    # One question for all of them; only where it fails is each text looked at.
    return "".join(texts).isascii() or all(map(_encodes, texts))


def times_hold(times: Sequence[int], latest: int) -> bool:
    """Whether all of them can be times, up to the latest one."""
    if not times:
        return True
    return set(map(type, times)) == {int} and min(times) >= 0 and max(times) <= latest


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
    """The distinct ids, sorted as a store sorts its keys, and the place of each id among these.

    Example:
        >>> places(["bob", "ann", "bob"])
        (['ann', 'bob'], array([1, 0, 1]))
    """
    distinct = sorted(set(ids))
    place_of = dict(zip(distinct, itertools.count(), strict=False))
    return distinct, np.fromiter(map(place_of.__getitem__, ids), np.int64, len(ids))


def _or_none(column: list[T | None]) -> list[T | None] | None:
    # No id is empty, and nothing else stands for none: `any` is many times faster than to compare each with None.
    return column if any(column) else None
