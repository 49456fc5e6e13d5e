"""Users of a store, found by a part of their id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from pydantic import ConfigDict, Field, with_config

from lifelong.dataset.events import NO_TIME
from lifelong.errors import OtherShardError
from lifelong.online.scoring.scorer import Scorer

LOOKED = 5_000
"""Memories of a store that a search looks at."""


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
