"""Users of a store, found by a part of their id or by what their history looks like.

    the last `LOOKED_BACK` events:  | first half: earlier |          | last `RECENT`: recent |

The *overlap* of both is the share of recent events with values (categories, say) that come as often as earlier.
A small overlap makes a short-term story, a large one a long-term story, and one in between a story of several time
scales. A pause of `PAUSE` or more comes before all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

from lifelong.dataset.events import NO_TIME
from lifelong.online.memory.updater import decode_event
from lifelong.online.scoring.scorer import Scorer

LOOKED = 5_000
"""Memories of a store that a search looks at."""
READ = 100
"""How many users' events are read for stories."""
LOOKED_BACK, RECENT, LEAST = 400, 40, 100
"""Events of a user that are read for a story, those that count as recent, and how many there must be."""
CHANGED, STEADY = 0.4, 0.7
"""Overlap up to which a story is a short-term one, and from which on it is a long-term one."""
PAUSE = 90 * 86_400
"""Seconds without an event that make a story."""

Kind = Literal["long_term", "short_term", "several", "returned"]


@dataclass(frozen=True, slots=True)
class Story:
    """What a history looks like, by a fixed rule."""

    kind: Kind
    words: Annotated[str, Field(description="what was found, with its figures")]


@dataclass(frozen=True, slots=True)
class ListedUser:
    """One user of the store."""

    user: str
    count: Annotated[int, Field(description="events in her memory")]
    last_time: Annotated[int | None, Field(description="time of the last of them")]
    recent: Annotated[bool, Field(description="had an event since the service was started")]
    story: Annotated[Story | None, Field(description="null unless stories were asked for")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class FoundUsers:
    """Users that a search found."""

    users: list[ListedUser]
    looked_at: Annotated[int, Field(description="memories that were looked at")]
    complete: Annotated[bool, Field(description="false: the store has more, and an id found only as a whole")]


def find_users(
    scorer: Scorer, text: str, *, most: int, story: Kind | None = None, recent: Iterable[str] = ()
) -> FoundUsers:
    """Users with a text in their id or a story in their history: the one with this id, recent ones, then others.

    Args:
        scorer: artifact and store.
        text: a part of an id, upper and lower case alike; empty for any.
        most: how many are given.
        story: only users of this story.
        recent: users that come first.
    """
    wanted = text.casefold()
    lately = list(recent)
    memories, complete = _looked_at(scorer)
    first = dict.fromkeys([*([text] if text else []), *lately])
    named = [user for user in first if wanted in user.casefold()]
    found = dict(zip(named, scorer.store.read_many(named, space=scorer.space), strict=True)) if named else {}
    others = {user: value for user, value in memories.items() if wanted in user.casefold() and user not in found}
    chosen = {user: value for user, value in (found | others).items() if value is not None}
    listed = _listed(scorer, chosen, lately, most=most, story=story)
    return FoundUsers(listed, len(memories), complete)


def _looked_at(scorer: Scorer) -> tuple[dict[str, bytes], bool]:
    """The first memories of the store, and whether these are all."""
    rows = scorer.store.scan(scorer.space)
    memories = dict(islice(rows, LOOKED))
    return memories, next(rows, None) is None


def _listed(
    scorer: Scorer, chosen: dict[str, bytes], lately: Sequence[str], *, most: int, story: Kind | None
) -> list[ListedUser]:
    names = list(chosen)[: most if story is None else READ]
    if not names:
        return []
    states = scorer.runtime.decode([chosen[name] for name in names], names)
    is_recent, found = set(lately), []
    for place, user in enumerate(names):
        of_user = None if story is None else story_of(scorer, user)
        if story is not None and (of_user is None or of_user.kind != story):
            continue
        last = int(states.last_time_B[place])
        known_last = None if last == NO_TIME else last
        found.append(ListedUser(user, int(states.count_B[place]), known_last, user in is_recent, of_user))
    return found[:most]


def story_of(scorer: Scorer, user: str) -> Story | None:
    """What a user's latest events look like; None where too few are known."""
    events = [decode_event(value) for value in scorer.store.events(user, last=LOOKED_BACK)]
    if len(events) < LEAST:
        return None
    if scorer.schema.time_unit == "seconds":
        pause = max((after.time - before.time for before, after in pairwise(events)), default=0)
        if pause >= PAUSE:
            return Story("returned", f"came back after {pause // 86_400:,} days without an event")
    field = story_field(scorer)
    # By the catalogue alone: looking up what was put online would take as long as all the rest.
    number_N = scorer.artifact.catalogue.numbers([event.item for event in events])[:, field].tolist()
    kind, overlap = kind_of(number_N)
    name = scorer.schema.item_fields[field]
    return Story(kind, f"the {name} values of her last {RECENT} events overlap with her earlier ones by {overlap:.0%}")


def story_field(scorer: Scorer) -> int:
    """The item field that stories are about: the first one that is not numeric, other than the item; else the item."""
    numbers = scorer.schema.number_fields
    others = (at for at, name in enumerate(scorer.schema.item_fields) if at and name not in numbers)
    return next(others, 0)


def kind_of(number_N: Sequence[int]) -> tuple[Kind, float]:
    """The story of a history, and how much its recent events overlap with the earlier ones.

    >>> kind_of([1, 2] * 100), kind_of([1] * 160 + [2] * 40), kind_of([1] * 180 + [2] * 20)
    (('long_term', 1.0), ('short_term', 0.0), ('several', 0.5))

    Args:
        number_N: one value per event, oldest first; more than `RECENT`.
    """
    earlier, recent = Counter(number_N[: len(number_N) // 2]), Counter(number_N[-RECENT:])
    half = sum(earlier.values())
    overlap = sum(min(earlier[number] / half, times / RECENT) for number, times in recent.items())
    if overlap <= CHANGED:
        return "short_term", overlap
    return ("long_term" if overlap >= STEADY else "several"), overlap
