"""Where memories live: the `MemoryStore` protocol, opening by URL, and the in-RAM store.

One write is one `Commit`: memories, the position in each event source, seen event ids and the event log go to disk
together or not at all. Values are bytes (the codec's business is elsewhere); users are strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What a store remembers of its maker; another identity is refused."""

    artifact_id: str
    codec: str
    layout: str
    """Canonical JSON of the memory layout."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One atomic write.

    Args:
        states: user -> encoded memory.
        watermarks: (source, partition) -> offset of the last event applied.
        event_ids: client event id -> expiry (UTC seconds).
        events: (user, count after the event) -> encoded event, for the event log.
        items: item id -> fields (JSON), for items added or changed online.
        deleted: users to erase, with their events.
    """

    states: Mapping[str, bytes] = field(default_factory=dict)
    watermarks: Mapping[tuple[str, int], int] = field(default_factory=dict)
    event_ids: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    items: Mapping[str, bytes] = field(default_factory=dict)
    deleted: Sequence[str] = ()


class MemoryStore(Protocol):
    """A durable user -> memory map. What "durable" survives is said by each store."""

    @property
    def identity(self) -> StoreIdentity | None:
        """Who wrote it; None while it is new."""

    def bind(self, identity: StoreIdentity) -> None:
        """Claim a new store, or check an old one.

        Raises:
            StoreForeignError: another artifact wrote it.
        """

    def read_many(self, users: Sequence[str]) -> list[bytes | None]:
        """Encoded memories, as many as asked, None where a user is absent."""

    def commit(self, change: Commit) -> None:
        """Apply one write, all of it or nothing.

        Raises:
            StoreUnavailableError: nothing was kept.
        """

    def watermark(self, source: str, partition: int) -> int:
        """Offset of the last event applied, -1 if none."""

    def seen(self, event_ids: Sequence[str], *, now: int) -> list[bool]:
        """Which client event ids were applied and have not expired."""

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """The user's event log, oldest first; [] if the store keeps none."""

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Items added or changed online."""

    def users(self) -> Iterator[tuple[str, bytes]]:
        """All users and their encoded memories: one consistent view."""

    def close(self) -> None:
        """Release everything; a second call does nothing."""
