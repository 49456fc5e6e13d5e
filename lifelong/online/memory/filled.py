"""Until when a store was filled by a backfill: an event that is earlier was in DATA, and is not folded in again.

    DATA ----------------------.                 moment = the earlier of --until and the second after DATA's last event
    file, topic, HTTP ---------|------------>    an event before it: known; at it or after it: new
                            moment

No event is counted twice by this rule, and none is lost as long as DATA had every event before the moment.
"""

from __future__ import annotations

import json

from lifelong.online.store.contract import BACKFILL, SOURCES, Commit, MemoryStore


def filled_until(store: MemoryStore) -> int | None:
    """The moment before which a store has everything, UTC seconds; None if it was not filled.

    >>> from lifelong.online.store.ram import InMemoryStore
    >>> store = InMemoryStore()
    >>> note_filled(store, 1_700_000_000)
    >>> filled_until(store)
    1700000000
    """
    return max((json.loads(value)["until"] for name, value in store.scan(SOURCES) if name == BACKFILL), default=None)


def note_filled(store: MemoryStore, until: int) -> None:
    """Note that all memories hold what came before a moment; one that is earlier than the last changes nothing.

    Args:
        store: all its memories have been written.
        until: UTC seconds.
    """
    value = json.dumps({"until": max(until, filled_until(store) or 0)}).encode()
    store.commit(Commit(records={SOURCES: {BACKFILL: value}}))
