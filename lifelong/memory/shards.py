"""Several stores that share the users among them, as one store.

    user --CRC-32 of her id, modulo N--> shard k: her memories, event log, event ids, and the positions of sources
                                         shard 0: online items, too, and the list of artifacts that counts

A commit is divided by user and written shard by shard: all of a user's part or nothing of it. Every shard keeps the
watermarks of its own users, in the same write as their memories; the watermark of the whole is the lowest one, and
where a crash left some shards behind, `positions` says of each user how far her own shard is.
"""

from __future__ import annotations

import itertools
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lifelong.errors import StoreConflictError, StoreError
from lifelong.memory.roster import Roster, StoreIdentity
from lifelong.memory.store import Commit, MemoryStore, check_values, conflict

K = TypeVar("K")
V = TypeVar("V")


def shard_of(user: str, of: int) -> int:
    """Number of a user's shard, of so many."""
    return zlib.crc32(user.encode()) % of


@dataclass(frozen=True, slots=True)
class Share:
    """Some of the shards of a store, and their users.

    Args:
        numbers: of the shards, rising.
        of: how many shards there are.
    """

    numbers: tuple[int, ...]
    of: int

    @property
    def first(self) -> bool:
        """Whether the first shard is among them, which has what is no user's."""
        return 0 in self.numbers

    def places(self, users: Sequence[str]) -> npt.NDArray[np.int64]:
        """Where the users of these shards stand among others."""
        return np.flatnonzero(self.chosen(np.fromiter(map(zlib.crc32, map(str.encode, users)), np.uint32, len(users))))

    def chosen(self, hash_N: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Which users are of these shards, by the CRC-32 of their ids."""
        mine = np.zeros(self.of, np.bool_)
        mine[list(self.numbers)] = True
        return mine[hash_N % self.of]


class Shards:
    """The stores of a share as one store; threads may share it.

    Args:
        place: the whole store, for messages.
        share: which shards these are.
        shards: number -> store, each of which is this process's alone.
        items: items put online, where the shard that keeps them is not among these.
    """

    shared = whole = False

    def __init__(
        self, place: str, share: Share, shards: Mapping[int, MemoryStore], *, items: Mapping[str, bytes] | None = None
    ) -> None:
        self._place, self._of, self._items = place, share.of, items
        self._shards = dict(sorted(shards.items()))
        # A list of artifacts, a view of all users and a commit each see the others done or not begun.
        self._lock = threading.RLock()

    @property
    def _first(self) -> MemoryStore:
        return next(iter(self._shards.values()))

    @property
    def identity(self) -> StoreIdentity | None:
        """The artifact that is served from it; None while it is new."""
        return self._first.identity

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; the first shard decides.

        Raises:
            StoreForeignError: it holds no memories of this artifact, or they are not complete.
        """
        with self._lock:
            slots = [shard.bind(identity) for shard in self._shards.values()]
        return slots[0]

    def roster(self) -> Roster:
        """Whose memories it holds: what the first shard says."""
        return self._first.roster()

    def change_roster(self, before: Roster, after: Roster) -> None:
        """Write another list, into the first shard last.

        Raises:
            StoreConflictError: the list is another one by now; nothing was kept.
        """
        with self._lock:
            if self.roster().epoch != before.epoch:
                raise conflict(self._place, frozenset())
            for shard in reversed(self._shards.values()):
                shard.change_roster(shard.roster(), after)

    def align(self) -> None:
        """Give the first shard's list to those in which an interrupted change has left another one."""
        wanted = self.roster()
        for shard in self._shards.values():
            found = shard.roster()
            if found.to_json() == wanted.to_json():
                continue
            if wanted.epoch or found.epoch:
                shard.change_roster(found, wanted)
            elif wanted.served is not None:
                shard.bind(wanted.served.identity)

    def clear(self, slot: int) -> None:
        """Empty a slot in every shard."""
        for shard in self._shards.values():
            shard.clear(slot)

    def read_many(self, users: Sequence[str], *, slot: int = 0) -> list[bytes | None]:
        """Encoded memories, as many as asked, None where a user is absent."""
        return self._asked(users, lambda shard, some: shard.read_many([users[at] for at in some], slot=slot))

    def commit(self, change: Commit) -> None:
        """Apply one write: of each user all or nothing.

        Raises:
            StoreConflictError: what it was made from has changed; names the users of whom nothing was kept.
            StoreError: a shard cannot be written; the error says of which users something was kept.
        """
        check_values(change)
        refused: set[str] = set()
        conflicts, written = False, list[int]()
        with self._lock:
            for number, part in self._divided(change).items():
                try:
                    self._shards[number].commit(part)
                    written.append(number)
                except StoreConflictError as error:
                    conflicts, refused = True, refused | error.users
                except StoreError as error:
                    raise self._half_written(error, written) from error
        if conflicts:
            raise conflict(self._place, frozenset(refused))

    def _half_written(self, error: StoreError, written: Sequence[int]) -> StoreError:
        """The error of a shard, with what others have kept of the same write."""
        if not written:
            return error
        names = ", ".join(map(str, written))
        found = f"{error.found}; the same write was kept of the users in shard {names} of {self._place}"
        return type(error)(found, expected=error.expected, fix=error.fix)

    def _divided(self, change: Commit) -> dict[int, Commit]:
        """Number of a shard -> what there is for it in a change."""
        if len(self._shards) == 1:
            parts = dict.fromkeys(self._shards, replace(change, items={}, items_based_on={}))
        else:
            parts = self._by_user(change)
        first, found = next(iter(self._shards)), {}
        for number, shard in self._shards.items():
            # A shard that is further than the others stays where it is.
            marks = {key: offset for key, offset in change.watermarks.items() if offset > shard.watermark(*key)}
            part = replace(parts[number], watermarks=marks)
            if number == first:
                part = replace(part, items=change.items, items_based_on=change.items_based_on)
            if part.users or part.watermarks or part.items or part.items_based_on:
                found[number] = part
        return found

    def _by_user(self, change: Commit) -> dict[int, Commit]:
        """Number of a shard -> what there is of its users in a change."""
        number_of = {user: shard_of(user, self._of) for user in change.users}

        def of(key: str | tuple[object, object]) -> int:
            # (user, event id) and (user, count), but (slot, user).
            if isinstance(key, str):
                return number_of[key]
            return number_of[key[0] if isinstance(key[0], str) else key[1]]  # type: ignore[index]

        def parts(values: Mapping[K, V]) -> dict[int, dict[K, V]]:
            found: dict[int, dict[K, V]] = defaultdict(dict)
            for key, value in values.items():
                found[of(key)][key] = value  # type: ignore[arg-type]
            return found

        states, event_ids, events = parts(change.states), parts(change.event_ids), parts(change.events)
        trimmed, deleted = parts(change.trimmed), parts(dict.fromkeys(change.deleted))
        based_on, beside, beside_based_on = (
            parts(change.based_on),
            parts(change.beside),
            parts(change.beside_based_on),
        )
        return {
            number: Commit(
                states=states.get(number, {}),
                event_ids=event_ids.get(number, {}),
                events=events.get(number, {}),
                trimmed=trimmed.get(number, {}),
                deleted=tuple(deleted.get(number, ())),
                based_on=based_on.get(number, {}),
                slot=change.slot,
                beside=beside.get(number, {}),
                beside_based_on=beside_based_on.get(number, {}),
                epoch=change.epoch,
                reached=change.reached,
            )
            for number in self._shards
        }

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied in every shard, -1 if none."""
        return min(shard.watermark(source, partition) for shard in self._shards.values())

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """Per user the watermark of her shard."""
        return self._asked(users, lambda shard, some: shard.positions(source, partition, [users[at] for at in some]))

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """Of which users which client event ids were applied and have not expired."""
        users = [user for user, _ in event_ids]
        return self._asked(users, lambda shard, some: shard.seen([event_ids[at] for at in some], now=now))

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """The user's event log, oldest first."""
        return self._of_user(user).events(user, last=last)

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires; expired ones too, until a later write removes them."""
        return self._of_user(user).event_ids(user)

    def purge(self) -> bool:
        """Take what was erased out of the files of every shard."""
        rewritten = [shard.purge() for shard in self._shards.values()]
        return all(rewritten)

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) her logged events after the first `count`."""
        users = [user for user, _ in asked]
        return self._asked(users, lambda shard, some: shard.logs([asked[at] for at in some]))

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Items added or changed online, as they are now."""
        return self._first.items() if self._items is None else iter(self._items.items())

    @property
    def has_items(self) -> bool:
        """Whether any items were put online."""
        return self._first.has_items if self._items is None else bool(self._items)

    def read_items(self, items: Sequence[str]) -> list[bytes | None]:
        """What was put online of some items, as many as asked."""
        return self._first.read_items(items) if self._items is None else list(map(self._items.get, items))

    def users(self, *, slot: int = 0) -> Iterator[tuple[str, bytes]]:
        """All users and their encoded memories, shard by shard: the view is fixed when this is called."""
        with self._lock:
            views = [shard.users(slot=slot) for shard in self._shards.values()]
        return itertools.chain(*views)

    def close(self) -> None:
        """Release every shard; a second call does nothing."""
        for shard in self._shards.values():
            shard.close()

    def _of_user(self, user: str) -> MemoryStore:
        return self._shards[shard_of(user, self._of)] if len(self._shards) > 1 else self._first

    def _asked(self, users: Sequence[str], ask: Callable[[MemoryStore, Sequence[int]], Sequence[V]]) -> list[V]:
        """What the shards answer, in the order of the question.

        Args:
            users: of whom is asked.
            ask: gives what a shard answers of the users at some places.
        """
        if len(self._shards) == 1:
            return list(ask(self._first, range(len(users))))
        places: dict[int, list[int]] = {number: [] for number in self._shards}
        for place, user in enumerate(users):
            places[shard_of(user, self._of)].append(place)
        found: dict[int, V] = {}
        for number, some in places.items():
            found.update(zip(some, ask(self._shards[number], some), strict=True))
        return [found[place] for place in range(len(users))]
