"""One event: as it comes from outside, as the store's log keeps it, and what can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

MAX_ID = 1_024
"""Longest id of a user, item or event, in characters."""
LAST_SECOND = 253_402_300_799
"""End of the year 9999; a larger time is in milliseconds by mistake."""
LAST_ORDINAL = 2**62 - 1
"""The largest ordinal of a log without times."""
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One thing a user did to one item.

    Args:
        user: her id; any text that is not empty.
        item: its id; need not be known.
        time: UTC seconds (or the ordinal of a log without times).
        event_type: click, buy ...; None where it is not known.
        fields: item fields that came with the event; they win over items put online and over the catalogue.
        event_id: the client's own id; a second event of this user with it changes nothing.
    """

    user: str
    item: str
    time: int
    event_type: str | None = None
    fields: Mapping[str, str | None] | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event as the store's log keeps it."""

    item: str
    time: int
    event_type: str | None = None
    fields: Mapping[str, str | None] | None = None


def event_problem(event: UserEvent, *, time_unit: str = "seconds") -> tuple[str, str, str] | None:
    """What is wrong with an event: (column, what was found, what was expected), or None."""
    texts = (("user", event.user), ("item", event.item), ("event_type", event.event_type), ("event_id", event.event_id))
    for column, value in texts:
        if value is None and column.startswith("event_"):
            continue
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
            return column, f"is {_short(value)}", f"text of 1 to {MAX_ID} characters"
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return column, f"is {_short(value)}, which is no valid text", "Unicode text"
    if type(event.time) is not int:
        return "time", f"is {_short(event.time)}", "a whole number"
    if not 0 <= event.time <= LAST_SECOND and time_unit == "seconds":
        return "time", f"is {event.time}", f"UTC seconds, 0 to {LAST_SECOND} (not milliseconds)"
    if time_unit != "seconds" and not 0 <= event.time <= LAST_ORDINAL:
        return "time", f"is {event.time}", "the ordinal of the event, 0 or more"
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def encode_event(event: UserEvent | LoggedEvent) -> bytes:
    """One event for the log: a JSON list [item, time, type, fields], without empty parts at its end."""
    parts = [event.item, event.time, event.event_type, dict(event.fields) if event.fields else None]
    while parts[-1] is None:
        parts.pop()
    return to_json(parts).encode()


def decode_event(value: bytes) -> LoggedEvent:
    """The inverse of `encode_event`."""
    return LoggedEvent(*json.loads(value))
