"""Users, for people: found by a part of their id; the events of one, as a table or in columns, and what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, with_config

from lifelong.dataset.catalogue import FIRST_ROW, Catalogue
from lifelong.dataset.events import NO_TIME
from lifelong.dataset.folder import Dataset
from lifelong.errors import OtherShardError
from lifelong.online.memory.event import check_user
from lifelong.online.memory.state import Counting, States
from lifelong.online.opening import AnyDataset, as_dataset
from lifelong.online.scoring.evidence import bounds_of, met_of, past_of
from lifelong.online.scoring.explanation import HIGH, LOW, PRECISION
from lifelong.online.scoring.scorer import Scorer, checked_scorer
from lifelong.tables import table_of
from lifelong.tally.plan import Precision

LOOKED = 5_000
"""Memories of a store that a search looks at."""


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
    check_user(user)
    data = None if dataset is None else as_dataset(dataset)
    past = past_of(scorer, user, scorer.states([user])[0], dataset=data)
    columns = {"position": "int64", "item": "string", "time": "int64", "event_type": "string"}
    events = zip(past.position_N.tolist(), past.items, past.time_N.tolist(), past.types, strict=True)
    return table_of((dict(zip(columns, event, strict=True)) for event in events), columns)


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
    count: Annotated[int, Field(description="events in the memory; more than are listed where some are not known")]
    position: Annotated[list[int], Field(description="1 is the first event")]
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
    states, is_known = scorer.states([user])
    past = past_of(scorer, user, states, dataset=dataset, last=last)
    fields = {
        name: texts(scorer.online_items.texts(name, past.items, past.number_NF[:, column], past.fields))
        for column, name in enumerate(scorer.schema.item_fields[1:], start=1)
    }
    return Timeline(
        user=user,
        known_user=is_known[0],
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
    values = [entry for entry, _ in Counter(entry for entry in entries if entry is not None).most_common()]
    place_of: dict[str | None, int] = {entry: at for at, entry in enumerate(values)}
    return Texts(values, [place_of.get(entry, -1) for entry in entries])


@dataclass(frozen=True, slots=True)
class Cell:
    """One counter of a memory."""

    value: Annotated[
        str | None, Field(description="null where no value of the data has the counter's key, or several have")
    ]
    times: Annotated[int, Field(description="how often the user met it, see `precision`")]
    events_ago: Annotated[int, Field(description="about how many events ago that last was, 1 for the last")]
    precision: Annotated[Precision, Field(description=PRECISION)]
    low: Annotated[float | None, Field(description=LOW)] = None
    high: Annotated[float | None, Field(description=HIGH)] = None


@dataclass(frozen=True, slots=True)
class FieldCells:
    """The counters of one item field."""

    field: str
    size: Annotated[int, Field(description="cells there are; when all are taken, a new value displaces another one")]
    used: Annotated[int, Field(description="cells that hold a value")]
    cells: Annotated[list[Cell], Field(description="those in use, the most often met first")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class MemoryCells:
    """The counters of one user's memory."""

    user: str
    known_user: Annotated[bool, Field(description="false: nothing is kept of the user")]
    count: Annotated[int, Field(description="events in the memory")]
    fields: Annotated[list[FieldCells], Field(description="one per item field; empty for a memory without counters")]
    artifact: Annotated[str, Field(description="id of the artifact that the memory belongs to")]


def cells_of(scorer: Scorer, user: str) -> MemoryCells:
    """The cells of one user's memory; none are in use where she is not known.

    Args:
        scorer: artifact and store.
        user: her id.

    Raises:
        StoreCorruptError: the stored memory is damaged.
    """
    artifact = scorer.artifact
    states, is_known = scorer.states([user])
    count = int(states.count_B[0])
    counting = scorer.runtime.counting
    if counting is None:
        return MemoryCells(user, is_known[0], count, [], artifact.id)
    fields = [
        _field_cells(name, field, counting, states, artifact.catalogue)
        for field, name in enumerate(scorer.schema.item_fields)
    ]
    return MemoryCells(user, is_known[0], count, fields, artifact.id)


def _field_cells(name: str, field: int, counting: Counting, states: States, catalogue: Catalogue) -> FieldCells:
    """The cells of one field; of the items all ids have a name, of other fields those of the vocabulary."""
    vocabulary, kept, shown = catalogue.vocabularies[name], counting.kept(states, 0, field), list[Cell]()
    if field:
        ids, key_N = vocabulary.index, vocabulary.known_keys(catalogue.keys_F[field])
    else:
        ids, key_N = catalogue.ids, catalogue.key_VF[FIRST_ROW:, 0].astype(np.int64)
    # Few of very many values: the search below passes over these alone.
    at_N = np.flatnonzero(np.isin(key_N, kept[0]))
    for key, times, age in zip(*(part.tolist() for part in kept), strict=True):
        found = at_N[key_N[at_N] == key].tolist()
        # Of several values with one key it is not known which she met.
        value, number = (ids.id_at(found[0]), vocabulary.first_known + found[0]) if len(found) == 1 else (None, 0)
        shown.append(Cell(value, *met_of(times, age), *bounds_of(number, vocabulary)))
    # Of equal counts the later one first.
    shown.sort(key=lambda cell: (-cell.times, cell.events_ago))
    return FieldCells(name, counting.plan.cells_F[field], len(shown), shown)


@dataclass(frozen=True, slots=True)
class ListedUser:
    """One user of the store."""

    user: str
    count: Annotated[int, Field(description="events in the memory")]
    last_time: Annotated[int | None, Field(description="time of the last of them")]
    recent: Annotated[bool, Field(description="had an event since the service was started")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class FoundUsers:
    """Users that a search found."""

    users: list[ListedUser]
    looked_at: Annotated[int, Field(description="memories that were looked at")]
    complete: Annotated[bool, Field(description="false: the store has more, and an id found only as a whole")]


def find_users(scorer: Scorer, text: str, *, most: int, recent: Iterable[str] = ()) -> FoundUsers:
    """Users with a text in their id: the one with this id, recent ones, then others.

    Args:
        scorer: artifact and store.
        text: a part of an id, upper and lower case alike; empty for any.
        most: how many are given.
        recent: users that come first.
    """
    wanted = text.casefold()
    lately = list(recent)
    memories, complete = _looked_at(scorer)
    # Each user once, whoever is asked for by the whole id first.
    first = dict.fromkeys([*([text] if text else []), *lately])
    named = [user for user in first if wanted in user.casefold()]
    try:
        records = scorer.store.read_many(named, space=scorer.space) if named else []
    except OtherShardError:
        # The text, which may be no id at all: recent users are this node's own.
        named = [user for user in named if user != text]
        records = scorer.store.read_many(named, space=scorer.space) if named else []
    found = dict(zip(named, records, strict=True))
    others = {user: value for user, value in memories.items() if wanted in user.casefold() and user not in found}
    chosen = {user: value for user, value in (found | others).items() if value is not None}
    listed = _listed(scorer, chosen, lately, most=most)
    return FoundUsers(listed, len(memories), complete)


def _looked_at(scorer: Scorer) -> tuple[dict[str, bytes], bool]:
    """The first memories of the store, and whether these are all."""
    rows = scorer.store.scan(scorer.space)
    # Bounded: a search through a store of millions would hold up a reader for seconds.
    memories = dict(islice(rows, LOOKED))
    return memories, next(rows, None) is None


def _listed(scorer: Scorer, chosen: dict[str, bytes], lately: Sequence[str], *, most: int) -> list[ListedUser]:
    names = list(chosen)[:most]
    if not names:
        return []
    states = scorer.runtime.decode([chosen[name] for name in names], names)
    is_recent, found = set(lately), []
    for place, user in enumerate(names):
        last = int(states.last_time_B[place])
        known_last = None if last == NO_TIME else last
        found.append(ListedUser(user, int(states.count_B[place]), known_last, user in is_recent))
    return found
