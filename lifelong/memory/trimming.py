"""Takes old events out of the event log of a store; memories stay as they are.

Of a user her first events go, up to the first one that is not older than the limit, so that her log has no holes: a
replay with a dataset of her first events goes on where it begins, and one without says that they are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from lifelong.errors import StoreConflictError
from lifelong.memory.event import decode_event
from lifelong.memory.store import Commit

if TYPE_CHECKING:
    from lifelong.memory.store import MemoryStore

_USERS = 64
"""Users whose logs are read at once."""


@dataclass(frozen=True, slots=True)
class Trim:
    """What became of the logs of a store.

    Args:
        users: looked at.
        events: taken out.
        active: users who had an event between the look and the write; their logs stay until the next time.
    """

    users: int = 0
    events: int = 0
    active: int = 0


def trim_logs(store: MemoryStore, before: int, *, pause: Callable[[], bool] = lambda: False) -> Trim:
    """Take each user's first events out of her log, as far as they are older than a moment.

    Args:
        store: open for writing; its times are UTC seconds.
        before: the moment.
        pause: called after some users; True ends it.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    served = store.roster().served
    if served is None:
        return Trim()
    looked = events = active = 0
    names = (user for user, _ in store.users(slot=served.slot))
    while some := list(islice(names, _USERS)):
        looked += len(some)
        # The memories first: who has an event after this line, or is erased, makes the write a conflict.
        records = store.read_many(some, slot=served.slot)
        for user, record, log in zip(some, records, store.logs([(user, 0) for user in some]), strict=True):
            old = _old(log, before)
            if not old or record is None:
                continue
            try:
                store.commit(Commit(trimmed={user: old[-1]}, slot=served.slot, based_on={user: record}))
                events += len(old)
            except StoreConflictError:
                active += 1
        if pause():
            break
    return Trim(looked, events, active)


def _old(log: Sequence[tuple[int, bytes]], before: int) -> list[int]:
    """Positions of the first events of a log that are older than a moment."""
    return [count for count, _ in takewhile(lambda row: decode_event(row[1]).time < before, log)]
