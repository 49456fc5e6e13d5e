"""JSON messages -> events, many at once.

Most messages hold texts and whole numbers. msgspec checks these while it reads them, so that a process that folds in
the events of some users makes columns of these events alone.

Shapes: N messages; M of them are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import numpy as np

from lifelong.dtypes import IntArray
from lifelong.errors import require
from lifelong.online.ingestion.rows import EventRows
from lifelong.online.memory.event import MAX_ID, EventTable


@dataclass(frozen=True, slots=True)
class MessageEvents:
    """The events of N messages, one of each.

    Args:
        users: N ids, of all messages.
        place_M: of the chosen messages among all.
        table: M events.
    """

    users: Sequence[str]
    place_M: IntArray
    table: EventTable


class JsonMessages:
    """Reads the events of many messages at once.

    Args:
        rows: what the messages' values mean.

    Raises:
        MissingExtraError: msgspec is not installed.

    >>> from lifelong.dataset.events import Schema
    >>> messages = JsonMessages(EventRows(Schema(item_fields=("item",), event_types=False), {}))
    >>> texts = [b'{"user": "ada", "item": "tea", "time": 5}', b'{"user": 7, "item": "tea", "time": 6}']
    >>> messages.events(texts).table.user
    ['ada', '7']
    >>> messages.events([b'{"user": "ada", "item": "tea"}'])
    """

    def __init__(self, rows: EventRows) -> None:
        self._rows, self._msgspec = rows, require("msgspec", extra="serve", purpose="following a topic")
        names = list(dict.fromkeys(rows.read))
        self._value_of: dict[str, Callable[[Any], Any]] = {
            name: attrgetter(_attribute(place)) for place, name in enumerate(names)
        }
        self._any = self._decoder(dict.fromkeys(names, Any), needed=())
        # A name that stands for two of our columns may hold both a text and a time.
        plain = rows.plain_times and len(names) == len(rows.read)
        self._checking = self._decoder(self._types(), needed=rows.needed) if plain else None

    def _types(self) -> dict[str, Any]:
        """What the values of an event are that needs no closer look."""
        meta = self._msgspec.Meta
        types: dict[str, Any] = {
            "id": Annotated[str, meta(min_length=1, max_length=MAX_ID)],
            "value": str,
            "moment": Annotated[int, meta(ge=0)],
        }
        return {name: types[self._rows.kinds[name]] for name in self._rows.read}

    def _decoder(self, types: Mapping[str, Any], needed: Sequence[str]) -> Any:
        """A decoder of objects with these values; None if an object of msgspec cannot have such names."""
        names = {_attribute(place): name for place, name in enumerate(types)}
        fields = [
            (attribute, types[name]) if name in needed else (attribute, types[name] | None, None)
            for attribute, name in names.items()
        ]
        try:
            made = self._msgspec.defstruct("Message", fields, rename=names, kw_only=True, gc=False)
        except ValueError:
            return None
        return self._msgspec.json.Decoder(made)

    def events(
        self, texts: Sequence[bytes | None], chosen: Callable[[Sequence[str]], IntArray] | None = None
    ) -> MessageEvents | None:
        """The events of messages; None if one may not be an event, so that each has to be looked at by itself.

        Args:
            texts: N messages.
            chosen: users of the messages -> places of those whose events are wanted; None for all.
        """
        rows = self._decoded(self._checking, texts)
        if rows is None:
            return self._of_any(texts, chosen)
        users, times = self._column("user", rows), self._column("time", rows)
        if max(times, default=0) > self._rows.latest():
            return None
        place_M = np.arange(len(users)) if chosen is None else chosen(users)
        if len(place_M) == 0:
            return MessageEvents(users, place_M, EventTable([], [], np.zeros(0, np.int64)))
        if len(place_M) < len(rows):
            rows = [rows[place] for place in place_M.tolist()]
        table = self._rows.table(self._columns(rows), plain=True)
        return None if table is None else MessageEvents(users, place_M, table)

    def _of_any(
        self, texts: Sequence[bytes | None], chosen: Callable[[Sequence[str]], IntArray] | None
    ) -> MessageEvents | None:
        """`events` where a text may be a number, or the other way round."""
        rows = self._decoded(self._any, texts)
        table = None if rows is None else self._rows.table(self._columns(rows))
        if table is None:
            return None
        place_M = np.arange(len(table)) if chosen is None else chosen(table.user)
        return MessageEvents(table.user, place_M, table.take(place_M))

    def _decoded(self, decoder: Any, texts: Sequence[bytes | None]) -> list[Any] | None:
        if decoder is None:
            return None
        try:
            rows = list(map(decoder.decode, texts))
            # In values that are not asked for, msgspec does not look whether the text is UTF-8.
            str(b"\n".join(texts), "utf-8")  # type: ignore[arg-type]
        except (TypeError, ValueError, RecursionError, self._msgspec.MsgspecError):
            return None
        return rows

    def _column(self, name: str, rows: Sequence[Any]) -> list[Any]:
        return list(map(self._value_of[self._rows.column[name]], rows))

    def _columns(self, rows: Sequence[Any]) -> dict[str, list[Any]]:
        return {name: list(map(value_of, rows)) for name, value_of in self._value_of.items()}


def _attribute(place: int) -> str:
    return f"value_{place}"
