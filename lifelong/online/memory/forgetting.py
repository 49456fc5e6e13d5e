"""Erases users from a store, exports what it keeps of a user, and trims event logs.

A store keeps of each user: a memory for each artifact, the event log, and client event ids. One commit erases all of
it; `purge` then rewrites the files of an embedded store, which may hold erased bytes for a while. What is kept of users
outside of the store, and who takes it out there: `docs/privacy.md`.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from typing import Any

from lifelong.dataset.events import NO_TIME
from lifelong.errors import UsageError
from lifelong.online.memory.codec import codec_of
from lifelong.online.memory.event import decode_event
from lifelong.online.store.contract import Commit, MemoryStore, try_commit, until_kept


def forget(store: MemoryStore, user: str) -> bool:
    """Erase a user: the memories of every artifact, the event log and the event ids.

    Returns:
        Whether the store held anything of the user.

    Raises:
        StoreUnavailableError: the store does not answer, or the list of artifacts changes again and again.
    """
    return erase(store, [user])[0]


def erase(store: MemoryStore, users: Sequence[str], marks: Mapping[tuple[str, int], int] | None = None) -> list[bool]:
    """`forget` for some users in one commit.

    Args:
        store: open for writing.
        users: to be erased.
        marks: watermarks of the messages that erase them; kept in the same commit.
    """

    def attempt(refused: frozenset[str] | None) -> list[bool]:
        # Before the commit, after which nothing of them is there.
        held = [holds(store, user) for user in users]
        store.commit(Commit(deleted=users, watermarks=marks or {}))
        return held

    # An artifact may be added or dropped in between.
    return until_kept(attempt, "the store's list of artifacts changes again and again", fix="erase the user again")


def holds(store: MemoryStore, user: str) -> bool:
    """Whether a store keeps anything of a user."""
    if any(store.read_many([user], space=space)[0] is not None for space in store.artifact_list().spaces):
        return True
    return bool(store.events(user, last=1) or store.event_ids(user))


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a search for inactive users found.

    Args:
        users: looked at.
        forgotten: erased, since their last event was before the limit.
        active: had an event between the check and the erasure, and stay.
    """

    users: int
    forgotten: int
    active: int


_GROUP = 10_000
"""Inactive users who are cleaned out of files at once: each time all files are read."""


def forget_inactive(
    store: MemoryStore,
    before: int,
    *,
    pause: Callable[[], bool] = lambda: False,
    clean: Callable[[Sequence[str]], object] = lambda users: None,
    on_forgotten: Callable[[str], None] = lambda user: None,
) -> Sweep:
    """Erase all users with a last event older than a moment.

    Args:
        store: open for writing; its times are UTC seconds.
        before: the moment.
        pause: called after each user who was erased; True ends the sweep.
        clean: called with users who are about to be erased, to take out what is kept of them elsewhere. It comes
            first, since after a crash in between nothing would name them any more.
        on_forgotten: called with each user who was erased.
    """
    served = store.artifact_list().served
    if served is None:
        return Sweep(0, 0, 0)
    codec, looked, forgotten, active, ended = codec_of(served.identity), 0, 0, 0, False

    def inactive() -> Iterator[tuple[str, bytes]]:
        nonlocal looked
        for user, record in store.scan(served.space):
            looked += 1
            if NO_TIME < int(codec.decode([record]).last_time_B[0]) < before:
                yield user, record

    # The scan goes on between two groups: all inactive users of a store may not fit into RAM.
    rows = inactive()
    while not ended and (group := list(islice(rows, _GROUP))):
        clean([user for user, _ in group])
        for user, record in group:
            if try_commit(store, Commit(deleted=[user], bases={served.space: {user: record}})) is not None:
                active += 1
                continue
            forgotten += 1
            on_forgotten(user)
            if ended := pause():
                break
    return Sweep(looked, forgotten, active)


def moment_before(days: float, *, now: Callable[[], float] = clock.time) -> int:
    """The UTC second this many days ago.

    Raises:
        UsageError: the number is not positive.
    """
    if not days > 0:
        raise UsageError(
            f"a limit of {days} days", expected="a number of days above 0", fix="give a number such as 365"
        )
    return int(now() - days * 86_400)


def export(store: MemoryStore, user: str) -> dict[str, Any]:
    """All that a store keeps of a user, ready for JSON.

    Returns:
        `user`, `known`, `memories` (per artifact: id, phase, codec, count, last_time, and its numbers by field),
        `events` (the log, oldest first) and `event_ids` with the UTC second at which each is forgotten.
    """
    memories = []
    for stored in store.artifact_list().artifacts:
        record = store.read_many([user], space=stored.space)[0]
        if record is None:
            continue
        states = codec_of(stored.identity).decode([record])
        last = int(states.last_time_B[0])
        memories.append(
            {
                "artifact": stored.id,
                "phase": stored.phase,
                "codec": stored.identity.codec,
                "count": int(states.count_B[0]),
                "last_time": None if last == NO_TIME else last,
                "bytes": len(record),
                "fields": {name: value[0].tolist() for name, value in states.fields.items()},
            }
        )
    events = [{"position": count, **asdict(decode_event(value))} for count, value in store.logs([(user, 0)])[0]]
    ids = [{"event_id": name, "forgotten_at": expiry} for name, expiry in store.event_ids(user)]
    anything = bool(memories or events or ids)
    return {"user": user, "known": anything, "memories": memories, "events": events, "event_ids": ids}


_USERS = 64
"""How many users' logs are read at once."""


@dataclass(frozen=True, slots=True)
class Trim:
    """What became of the logs of a store.

    Args:
        users: looked at.
        events: taken out.
        active: users who had an event between the check and the write; their logs stay until the next time.
    """

    users: int = 0
    events: int = 0
    active: int = 0


def trim_logs(store: MemoryStore, before: int, *, pause: Callable[[], bool] = lambda: False) -> Trim:
    """Take each user's first events out of the log, as far as they are older than a moment.

    Args:
        store: open for writing; its times are UTC seconds.
        before: the moment.
        pause: called after some users; True ends it.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    served = store.artifact_list().served
    if served is None:
        return Trim()
    looked = events = active = 0
    # Some at a time: a store's logs do not fit into RAM.
    names = (user for user, _ in store.scan(served.space))
    while some := list(islice(names, _USERS)):
        looked += len(some)
        # The memories first: a user who has an event after this line, or is erased, makes the write a conflict.
        records = store.read_many(some, space=served.space)
        for user, record, log in zip(some, records, store.logs([(user, 0) for user in some]), strict=True):
            old = _old(log, before)
            if not old or record is None:
                continue
            if try_commit(store, Commit(trimmed={user: old[-1]}, bases={served.space: {user: record}})) is None:
                events += len(old)
            else:
                active += 1
        if pause():
            break
    return Trim(looked, events, active)


def _old(log: Sequence[tuple[int, bytes]], before: int) -> list[int]:
    """Positions of the first events of a log that are older than a moment."""
    return [count for count, _ in takewhile(lambda row: decode_event(row[1]).time < before, log)]
