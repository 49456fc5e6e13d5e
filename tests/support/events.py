"""Events of a dataset as clients would send them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifelong.online.memory.event import UserEvent, decode_event
from lifelong.online.memory.updater import Updater
from lifelong.online.store.ram import InMemoryStore


def events_of(dataset: Any) -> list[UserEvent]:
    """All events of a dataset in the order of time, as clients would send them."""
    events = []
    for user in range(dataset.histories.num_users):
        place = dataset.histories.of(user)
        name = dataset.users.id_at(user)
        events += [UserEvent(name, *dataset.event(at)) for at in range(place.start, place.stop)]
    return sorted(events, key=lambda event: event.time)


def assert_equal_to_a_replay(updater: Updater, events: Sequence[UserEvent]) -> None:
    """Each event was applied once, in its order, and the memories are those that this gives, bit for bit."""
    once, of_user = InMemoryStore(), dict[str, list[str]]()
    Updater(updater.artifact, once).apply(events)
    for event in events:
        of_user.setdefault(event.user, []).append(event.item)
    found = {user: [decode_event(value).item for value in updater.store.events(user)] for user in of_user}
    assert found == of_user
    assert dict(updater.store.scan()) == dict(once.scan())
