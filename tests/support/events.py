"""Events of a dataset as clients would send them."""

from __future__ import annotations

from typing import Any

from lifelong.online.memory.event import UserEvent


def events_of(dataset: Any) -> list[UserEvent]:
    """All events of a dataset in the order of time, as clients would send them."""
    events = []
    for user in range(dataset.histories.num_users):
        place = dataset.histories.of(user)
        name = dataset.users.id_at(user)
        events += [UserEvent(name, *dataset.event(at)) for at in range(place.start, place.stop)]
    return sorted(events, key=lambda event: event.time)
