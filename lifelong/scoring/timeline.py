"""A user's history in columns, for a drawing of thousands of events.

Texts that come again are written once: a column of indices points into a list of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field, with_config

from lifelong.data.dataset import Dataset
from lifelong.scoring.past import past_of
from lifelong.scoring.scorer import Scorer


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
