"""Takes users out of a store with all that is kept of them, and says beforehand what that is.

Of a user a store keeps: her memory of each artifact, her event log, her client event ids. One commit erases all of it;
`purge` then rewrites the files of an embedded store, in which erased bytes may stand for a while. Where a model has a
side of items, her events stand in their windows, too: there they become events of somebody unknown, first of all.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.data.events import NO_TIME
from lifelong.data.vocabulary import UNKNOWN
from lifelong.errors import StoreConflictError, StoreUnavailableError, UsageError
from lifelong.memory.codec import Codec, codec_of
from lifelong.memory.event import decode_event
from lifelong.memory.item_memory import ITEMS, ItemMemories
from lifelong.memory.members import open_member
from lifelong.memory.store import Commit

if TYPE_CHECKING:
    from lifelong.memory.store import MemoryStore

_ATTEMPTS = 100
_WINDOWS = 1_024
"""Windows of items that are searched together."""


def forget(store: MemoryStore, user: str) -> bool:
    """Erase a user: her memories of every artifact, her event log and her event ids.

    Returns:
        Whether there was anything.

    Raises:
        StoreUnavailableError: the store does not answer, or the list of artifacts changes again and again.
        StoreForeignError: see `unlink`.
    """
    for _ in range(_ATTEMPTS):
        known = _holds(store, user)
        try:
            unlink(store, [user])
            store.commit(Commit(deleted=[user]))
        except StoreConflictError:
            # An artifact came or went in between, or events of items.
            continue
        return known
    raise StoreUnavailableError("the store's list of artifacts changes again and again", fix="erase her again")


def unlink(store: MemoryStore, users: Sequence[str]) -> int:
    """Let the windows of items hold some users' events as those of nobody known.

    Args:
        store: open for writing.
        users: ids.

    Returns:
        Items in whose windows they were.

    Raises:
        StoreConflictError: events came in between; some windows may be changed and others not.
        StoreForeignError: the artifact that is served from the store cannot be opened, so that nobody can tell by which
            number it knows them.
    """
    of_items = _item_memories(store)
    if of_items is None:
        return 0
    number_U = np.setdiff1d(of_items.users.numbers(users)[:, 0], [UNKNOWN])
    found = 0
    for some in _windows(store) if len(number_U) else ():
        states = of_items.codec.decode([record for _, record in some])
        changed = of_items.unlinked(states, number_U)
        after = of_items.codec.encode(states.take(changed))
        based_on = {(ITEMS, some[at][0]): some[at][1] for at in changed.tolist()}
        store.commit(Commit(beside=dict(zip(based_on, after, strict=True)), beside_based_on=based_on))
        found += len(changed)
    return found


def _item_memories(store: MemoryStore) -> ItemMemories | None:
    """What reads the windows of items, None where the store has none.

    Raises:
        StoreForeignError: the artifact that is served cannot be opened.
    """
    served = store.roster().served
    if served is None or not _has_windows(store):
        return None
    return ItemMemories(open_member(served))


def _has_windows(store: MemoryStore) -> bool:
    """Whether it keeps events of items."""
    return store.whole and next(iter(store.users(slot=ITEMS)), None) is not None


def _windows(store: MemoryStore) -> Iterator[list[tuple[str, bytes]]]:
    """All windows, some at a time."""
    windows = store.users(slot=ITEMS)
    while some := list(islice(windows, _WINDOWS)):
        yield some


def _holds(store: MemoryStore, user: str) -> bool:
    if any(store.read_many([user], slot=slot)[0] is not None for slot in store.roster().slots):
        return True
    return bool(store.events(user, last=1) or store.event_ids(user))


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a search for inactive users found.

    Args:
        users: looked at.
        forgotten: erased, since their last event was before the limit.
        active: had an event between the look and the erasure, and stay.
    """

    users: int
    forgotten: int
    active: int


def forget_inactive(
    store: MemoryStore,
    before: int,
    *,
    pause: Callable[[], bool] = lambda: False,
    on_forgotten: Callable[[str], None] = lambda user: None,
) -> Sweep:
    """Erase all users whose last event is older than a moment.

    Args:
        store: open for writing; its times are UTC seconds.
        before: the moment.
        pause: called after each user who was erased; True ends the sweep.
        on_forgotten: called with each of them.
    """
    served = store.roster().served
    if served is None:
        return Sweep(0, 0, 0)
    codec, looked, forgotten, active = codec_of(served.identity), 0, 0, 0
    # Before they are erased, so that an interrupted sweep finds them again; in one search for all.
    _unlink_inactive(store, served.slot, codec, before)
    for user, record in store.users(slot=served.slot):
        looked += 1
        last = int(codec.decode([record]).last_time_B[0])
        if last == NO_TIME or last >= before:
            continue
        try:
            store.commit(Commit(deleted=[user], slot=served.slot, based_on={user: record}))
        except StoreConflictError:
            active += 1
            continue
        forgotten += 1
        on_forgotten(user)
        if pause():
            break
    return Sweep(looked, forgotten, active)


def _unlink_inactive(store: MemoryStore, slot: int, codec: Codec, before: int) -> None:
    """Take those out of the windows of items who are about to be erased."""
    if not _has_windows(store):
        return
    inactive = [
        user
        for user, record in store.users(slot=slot)
        if NO_TIME != int(codec.decode([record]).last_time_B[0]) < before
    ]
    for _ in range(_ATTEMPTS):
        try:
            unlink(store, inactive)
        except StoreConflictError:
            continue
        return
    raise StoreUnavailableError("events of the items come in again and again", fix="sweep again")


def moment_before(days: float, *, now: Callable[[], float] = clock.time) -> int:
    """The UTC second so many days ago.

    Raises:
        UsageError: the number is not positive.
    """
    if not days > 0:
        raise UsageError(f"a limit of {days} days", expected="a number of days above 0")
    return int(now() - days * 86_400)


def export(store: MemoryStore, user: str) -> dict[str, Any]:
    """All that a store keeps of a user, as JSON.

    Returns:
        `user`, `known`, `memories` (per artifact: id, phase, codec, count, last_time, and its numbers by field),
        `events` (her log, oldest first) and `event_ids` with the UTC second at which each is forgotten; where the store
        keeps events of items, `items`: item -> times of her events in its window.

    Raises:
        StoreForeignError: it does, and the artifact that is served cannot be opened.
    """
    memories = []
    for member in store.roster().members:
        record = store.read_many([user], slot=member.slot)[0]
        if record is None:
            continue
        states = codec_of(member.identity).decode([record])
        last = int(states.last_time_B[0])
        memories.append(
            {
                "artifact": member.id,
                "phase": member.phase,
                "codec": member.identity.codec,
                "count": int(states.count_B[0]),
                "last_time": None if last == NO_TIME else last,
                "bytes": len(record),
                "fields": {name: value[0].tolist() for name, value in states.fields.items()},
            }
        )
    events = [{"position": count, **_plain(value)} for count, value in store.logs([(user, 0)])[0]]
    ids = [{"event_id": name, "forgotten_at": expiry} for name, expiry in store.event_ids(user)]
    known = bool(memories or events or ids)
    items = _items(store, user)
    of_items = {} if items is None else {"items": items}
    return {"user": user, "known": known, "memories": memories, "events": events, "event_ids": ids, **of_items}


def _items(store: MemoryStore, user: str) -> dict[str, list[int]] | None:
    """Item -> times of a user's events in its window; None where there are no windows."""
    of_items = _item_memories(store)
    if of_items is None:
        return None
    number = int(of_items.users.numbers([user])[0, 0])
    if number == UNKNOWN:
        return {}
    found: dict[str, list[int]] = {}
    for some in _windows(store):
        states = of_items.codec.decode([record for _, record in some])
        times = of_items.times_of(states, number)
        found |= {item: sorted(of_item) for (item, _), of_item in zip(some, times, strict=True) if of_item}
    return found


def _plain(value: bytes) -> dict[str, Any]:
    event = decode_event(value)
    return {
        "item": event.item,
        "time": event.time,
        "event_type": event.event_type,
        "fields": None if event.fields is None else dict(event.fields),
    }
