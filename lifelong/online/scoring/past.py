"""The events behind a memory, for people: from a prepared dataset, the store's event log, or a stored recent history.

Where several know an event, the log is taken, which knows most of it, then the dataset. A recent history knows only
numbers: an item that has no number of its own has no name there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, with_config

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import IntArray
from lifelong.errors import UsageError
from lifelong.online.memory.event import LoggedEvent, decode_event
from lifelong.online.memory.state import States, unroll
from lifelong.online.opening import AnyDataset, as_dataset
from lifelong.online.scoring.scorer import Scorer, checked_scorer
from lifelong.tables import table_of


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of the events that were folded into a memory, oldest first.

    Args:
        position_N: int64, 1 is the user's first event.
        items: item ids; empty where not known.
        time_N: int64, UTC seconds or the ordinal of a log without times.
        types: event types; None where not known.
        number_NF: int64, item field numbers.
        fields: what came with the events themselves; None where nothing did.
        source: "data", "store", "memory", or several with "and"; None if nothing is known.
        note: where the events come from, in words, and what is missing.
    """

    position_N: IntArray
    items: list[str]
    time_N: IntArray
    types: list[str | None]
    number_NF: IntArray
    fields: list[Mapping[str, str | None] | None]
    source: str | None
    note: str


def history(scorer: Scorer, user: str, *, dataset: AnyDataset | None = None) -> Any:
    """What is known of the events behind a user's memory, the oldest first, as a `pyarrow.Table`.

    Args:
        scorer: artifact and store.
        user: her id; a user who is not known has no events.
        dataset: where events are looked up that the store's event log does not hold, or its folder.

    Returns:
        A row per event: position (1 is her first), item, time, event_type.

    Raises:
        StoreCorruptError: the stored memory is damaged.
        MissingExtraError: pyarrow is not installed.
        UsageError: there is no scorer, or the user is no id.
    """
    checked_scorer(scorer)
    if not isinstance(user, str):
        raise UsageError(
            f"a user of type {type(user).__name__}: {user!r}",
            expected="the id of a user, a text",
            fix="give it as text: str(user)",
        )
    data = None if dataset is None else as_dataset(dataset)
    past = past_of(scorer, user, scorer.states([user])[0], dataset=data)
    columns = {"position": "int64", "item": "string", "time": "int64", "event_type": "string"}
    events = zip(past.position_N.tolist(), past.items, past.time_N.tolist(), past.types, strict=True)
    return table_of((dict(zip(columns, event, strict=True)) for event in events), columns)


def past_of(scorer: Scorer, user: str, states: States, *, dataset: Dataset | None, last: int | None = None) -> Past:
    """What is known of one user's past; of a recent history at least all that it holds.

    Args:
        scorer: artifact and store.
        user: her id.
        states: her memory alone, of `count` events.
        dataset: its first `count` events of the user are taken for those of the memory, where the log lacks them.
        last: how many of the latest events are read; all if None.
    """
    count = int(states.count_B[0])
    skipped = 0 if last is None else max(0, count - last)
    from_data = _from_dataset(dataset, user, skipped, count) if dataset is not None else {}
    from_store = _from_store(scorer, user, skipped, count)
    logged = {**from_data, **from_store}
    from_memory = {at: row for at, row in _from_memory(scorer, states).items() if at not in logged}
    every = {**logged, **from_memory}
    rows = {at: every[at] for at in sorted(every)}
    found = {"data": from_data, "store": from_store, "memory": from_memory}
    sources = [name for name in found if found[name]]
    events = list(rows.values())
    items, fields = [row.item for row in events], [row.fields for row in events]
    return Past(
        position_N=np.fromiter(rows, np.int64, len(rows)),
        items=items,
        time_N=np.array([row.time for row in events], np.int64),
        types=[row.event_type for row in events],
        number_NF=scorer.online_items.numbers(items, fields),
        fields=fields,
        source=" and ".join(sources) or None,
        note=_note(count - skipped, len(rows), sources, asked_data=dataset is not None),
    )


def _from_dataset(dataset: Dataset, user: str, skipped: int, count: int) -> dict[int, LoggedEvent]:
    """The user's first `count` events in a dataset without the first `skipped` of them, by position."""
    index = int(dataset.users.find([user])[0])
    if index < 0:
        return {}
    place = dataset.histories.of(index)
    events = map(dataset.event, range(place.start + skipped, min(place.stop, place.start + count)))
    return {position: LoggedEvent(*event) for position, event in enumerate(events, start=skipped + 1)}


def _from_store(scorer: Scorer, user: str, skipped: int, count: int) -> dict[int, LoggedEvent]:
    """The user's first `count` events in the store's log except the first `skipped`, by position, as far as known."""
    stored = scorer.store.logs([(user, skipped)])[0]
    log = {place: decode_event(value) for place, value in stored if place <= count}
    # A user's events are of few items: each is looked up once.
    items = list({event.item for event in log.values()})
    rows = scorer.artifact.catalogue.rows(items).tolist()
    known = {item for item, row in zip(items, rows, strict=True) if row >= FIRST_ROW}
    # As the memory has it: see `MemoryWriter`.
    return {
        place: replace(event, fields=None) if event.fields and event.item in known else event
        for place, event in log.items()
    }


def _from_memory(scorer: Scorer, states: States) -> dict[int, LoggedEvent]:
    """The events that a recent history holds, by position; none for a memory of another kind."""
    schema, vocabularies = scorer.schema, scorer.artifact.vocabularies
    types = scorer.artifact.event_types if schema.event_types else None
    count = int(states.count_B[0])
    stored = scorer.runtime.stored(count)
    if not stored:
        return {}
    recent, found = unroll(states), {}
    # The stored events are the last ones of `count`: the first of them is at position count - stored + 1.
    for place in range(stored):
        number = dict(zip(schema.history_fields, recent.number_BLF[0, place].tolist(), strict=True))
        values = {name: vocabularies[name].value_of(number[name]) for name in schema.item_fields}
        item = values.pop("item") or ""
        event_type = None if types is None else types.value_of(number["event_type"])
        found[count - stored + 1 + place] = LoggedEvent(item, int(recent.time_BL[0, place]), event_type, values)
    return found


def _note(count: int, found: int, sources: list[str], *, asked_data: bool) -> str:
    """Where the events come from, and what is missing, in words."""
    if not count:
        return "the memory has no events yet"
    if not found:
        fix = "" if asked_data else "; a prepared dataset (--data) would give them"
        return f"none of the {count} events behind this memory is known{fix}"
    words = {"data": "the dataset", "store": "the store's event log", "memory": "the stored recent history"}
    where = " and ".join(words[name] for name in sources)
    missing = f"; {count - found} of {count} are not known" if found < count else ""
    return f"events from {where}{missing}"


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts."""

    values: Annotated[list[str], Field(description="each text once, the most frequent first")]
    index: Annotated[list[int], Field(description="per event the place of its text in `values`; -1 where not known")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Timeline:
    """The latest events of one user, oldest first, in columns of one length."""

    user: str
    known_user: bool
    count: Annotated[int, Field(description="events in her memory; more than are listed where some are not known")]
    position: Annotated[list[int], Field(description="1 is her first event")]
    time: Annotated[list[int], Field(description="UTC seconds (or the ordinal of a log without times)")]
    items: Texts
    types: Annotated[Texts, Field(description="event types; none where the log has none")]
    fields: Annotated[Mapping[str, Texts], Field(description="item field -> its values")]
    note: Annotated[str, Field(description="where the events come from, in words, and what is missing")]


def timeline(scorer: Scorer, user: str, *, last: int, dataset: Dataset | None = None) -> Timeline:
    """What is known of a user's latest events.

    Args:
        scorer: artifact and store.
        user: her id; a user who is not known has no events.
        last: how many events are read, at most.
        dataset: where events are looked up that the store's event log does not hold.

    Raises:
        StoreCorruptError: the stored memory is damaged.
    """
    states, known = scorer.states([user])
    past = past_of(scorer, user, states, dataset=dataset, last=last)
    fields = {
        name: texts(scorer.online_items.texts(name, past.items, past.number_NF[:, column], past.fields))
        for column, name in enumerate(scorer.schema.item_fields[1:], start=1)
    }
    return Timeline(
        user=user,
        known_user=known[0],
        count=int(states.count_B[0]),
        position=past.position_N.tolist(),
        time=past.time_N.tolist(),
        items=texts(item or None for item in past.items),
        types=texts(past.types),
        fields=fields,
        note=past.note,
    )


def texts(column: Iterable[str | None]) -> Texts:
    """A column with each text once.

    >>> texts(["milk", "tea", None, "tea"])
    Texts(values=['tea', 'milk'], index=[1, 0, -1, 0])
    """
    entries = list(column)
    often: dict[str, int] = {}
    for entry in entries:
        if entry is not None:
            often[entry] = often.get(entry, 0) + 1
    values = sorted(often, key=lambda entry: -often[entry])
    place: dict[str | None, int] = {entry: at for at, entry in enumerate(values)}
    return Texts(values, [place.get(entry, -1) for entry in entries])
