"""Several stores that share the users among them, as one store.

    shard k   memories, event log and event ids of its users, and the positions of sources: see `part`
    shard 0   items put online, too, and the artifact list that counts

If the shards are partitions of a topic, a watermark is that of the partition's own shard, and users of shards that are
not here are refused.

A commit is divided by user and written shard by shard: all of what it says of a user or nothing. The watermark of the
whole store is the lowest one; if a crash left some shards behind, `positions` gives for each user how far the user's
shard is.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from lifelong.errors import OtherShardError, StoreConflictError, StoreError
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity
from lifelong.online.store.contract import ITEMS, SOURCES, Commit, MemoryStore, check_values, conflict
from lifelong.online.store.part import Share
from lifelong.online.store.record_cache import Listenable, Listener

K = TypeVar("K", str, tuple[str, str], tuple[str, int])
V = TypeVar("V")
A = TypeVar("A")


class Shards:
    """The stores of a share as one store; threads may share it.

    Args:
        place: the whole store, for messages.
        share: which shards these are.
        shards: number -> store; each is this process's alone.
        items: items put online, where the shard that keeps them is not among these.
    """

    shared = False

    def __init__(
        self, place: str, share: Share, shards: Mapping[int, MemoryStore], *, items: Mapping[str, bytes] | None = None
    ) -> None:
        self._place, self._share, self._items = place, share, items
        self._shards = dict(sorted(shards.items()))
        # A list of artifacts, a view of all users and a commit each see the others done or not begun.
        self._lock = threading.RLock()

    @property
    def _first(self) -> MemoryStore:
        return next(iter(self._shards.values()))

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; the first shard decides."""
        # All shards or none: a list that changes in between would differ from shard to shard.
        with self._lock:
            spaces = [shard.bind(identity) for shard in self._shards.values()]
        return spaces[0]

    def artifact_list(self) -> ArtifactList:
        """The artifacts that it holds memories of, as the first shard names them."""
        return self._first.artifact_list()

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """Write another list, into the first shard last."""
        with self._lock:
            if self.artifact_list().epoch != before.epoch:
                raise conflict(self._place, frozenset())
            # The first one counts, so that an interrupted change leaves the list as it was; `align` brings the others
            # back.
            for shard in reversed(self._shards.values()):
                shard.change_artifact_list(shard.artifact_list(), after)

    def align(self) -> None:
        """Give the first shard's list to those in which an interrupted change has left another one."""
        wanted = self.artifact_list()
        for shard in self._shards.values():
            listed = shard.artifact_list()
            if listed.to_json() != wanted.to_json():
                shard.change_artifact_list(listed, wanted)

    def listen(self, listener: Listener) -> None:
        """Have it called with what changes in any shard; see `Listener`."""
        for shard in self._shards.values():
            if isinstance(shard, Listenable):
                shard.listen(listener)

    def clear(self, space: int) -> None:
        """Empty a space in every shard."""
        for shard in self._shards.values():
            shard.clear(space)

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        """The value of each name, None if it is absent."""
        if space == ITEMS:
            here = self._items
            return self._first.read_many(names, space=ITEMS) if here is None else list(map(here.get, names))
        return self._asked(names, lambda shard, some: shard.read_many([names[at] for at in some], space=space))

    def figures(self) -> dict[str, int]:
        """What the shards count about themselves, for metrics, added up."""
        total: dict[str, int] = {}
        for shard in self._shards.values():
            # A shard of your own need not count.
            for name, value in getattr(shard, "figures", dict)().items():
                total[name] = total.get(name, 0) + value
        return total

    def commit(self, change: Commit) -> None:
        """Apply one write: of each user all or nothing.

        Raises:
            StoreConflictError: what it was made from has changed; names the users for whom nothing was kept.
            StoreError: a shard cannot be written; the error says for which users something was kept.
        """
        check_values(change)
        refused: set[str] = set()
        conflicts, written = False, list[int]()
        with self._lock:
            for number, own in self._divided(change).items():
                try:
                    self._shards[number].commit(own)
                    written.append(number)
                except StoreConflictError as error:
                    conflicts, refused = True, refused | error.users
                except StoreError as error:
                    raise self._half_written(error, written) from error
        if conflicts:
            raise conflict(self._place, frozenset(refused))

    def _half_written(self, error: StoreError, written: Sequence[int]) -> StoreError:
        """The error of a shard, with what other shards have kept of this write."""
        if not written:
            return error
        names = ", ".join(map(str, written))
        said = f"{error.found}; this write was kept for the users in shard {names} of {self._place}"
        return type(error)(said, expected=error.expected, fix=error.fix)

    def _divided(self, change: Commit) -> dict[int, Commit]:
        """Number of a shard -> its part of a change, of shards that have one."""
        parts, divided = self._parts(change), {}
        for number, shard in self._shards.items():
            # A shard that is further than the others stays where it is.
            marks = {
                key: offset
                for key, offset in change.watermarks.items()
                if shard in self._marked(key[1]) and offset > shard.watermark(*key)
            }
            own = replace(parts[number], watermarks=marks)
            if SOURCES in own.records and change.watermarks and not marks:
                # What was applied of a source goes with the watermark.
                records = {space: values for space, values in own.records.items() if space != SOURCES}
                own = replace(own, records=records)
            if own.users or own.watermarks or own.removed or min([0, *own.records, *own.bases]) < 0:
                divided[number] = own
        return divided

    def _parts(self, change: Commit) -> dict[int, Commit]:
        """Number of a shard -> what a change says of its users, the watermarks left as they are."""
        if len(self._shards) == 1 and not self._share.partitioner:
            # Whoever owns one shard alone is given its users alone.
            return dict.fromkeys(self._shards, change)
        number_of = self._numbers(list(change.users))
        event_ids, events = _by_shard(change.event_ids, number_of), _by_shard(change.events, number_of)
        trimmed = _by_shard(change.trimmed, number_of)
        records, bases = self._by_space(change.records, number_of), self._by_space(change.bases, number_of)
        return {
            number: replace(
                change,
                records=records[number],
                bases=bases[number],
                event_ids=event_ids[number],
                events=events[number],
                trimmed=trimmed[number],
                deleted=[user for user in change.deleted if number_of[user] == number],
                removed=change.removed if number == min(self._shards) else (),
            )
            for number in self._shards
        }

    def _by_space(
        self, spaces: Mapping[int, Mapping[str, V]], number_of: Mapping[str, int]
    ) -> dict[int, dict[int, Mapping[str, V]]]:
        """Number of a shard -> space -> what is its own; the items put online are the first shard's, sources all's."""
        of_shard: dict[int, dict[int, Mapping[str, V]]] = defaultdict(dict)
        for space, values in spaces.items():
            if space == SOURCES:
                parts: Mapping[int, Mapping[str, V]] = dict.fromkeys(self._shards, values)
            else:
                parts = {next(iter(self._shards)): values} if space == ITEMS else _by_shard(values, number_of)
            for number, own in parts.items():
                of_shard[number][space] = own
        return of_shard

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied in every shard, -1 if none."""
        return min(shard.watermark(source, partition) for shard in self._marked(partition))

    def _marked(self, partition: int) -> Sequence[MemoryStore]:
        """The shards that keep how far a partition is: all, or the one of which the partition is."""
        return [self._shards[partition]] if self._share.partitioner else list(self._shards.values())

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """Per user the watermark of the user's shard."""
        return self._asked(users, lambda shard, some: shard.positions(source, partition, [users[at] for at in some]))

    def clock(self) -> int:
        """The second by which event ids expire: of the shard that knows most, since each has only noted what was so."""
        return max(shard.clock() for shard in self._shards.values())

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """Which client event ids of which users were applied and have not expired."""
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

    def check_writes(self) -> None:
        """Write a mark to every shard; one that has refused a write is opened again, if that can be done."""
        for shard in self._shards.values():
            shard.check_writes()

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) the user's logged events after the first `count`."""
        users = [user for user, _ in asked]
        return self._asked(users, lambda shard, some: shard.logs([asked[at] for at in some]))

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """All names of a space and their values, shard by shard: the view is fixed when this is called."""
        if space == ITEMS and self._items is not None:
            return iter(self._items.items())
        # No commit in between: a view holds a write in every shard or in none.
        with self._lock:
            views = [shard.scan(space) for shard in self._shards.values()]
        return itertools.chain(*views)

    def close(self) -> None:
        """Release every shard; a second call does nothing."""
        for shard in self._shards.values():
            shard.close()

    def _of_user(self, user: str) -> MemoryStore:
        return self._asked([user], lambda shard, some: [shard] * len(some))[0]

    def _numbers(self, users: Sequence[str]) -> dict[str, int]:
        """User -> the number of her shard.

        Raises:
            OtherShardError: it is not here.
        """
        number_of = dict(zip(users, self._share.parts(users).tolist(), strict=True))
        if other := set(number_of.values()) - set(self._shards):
            raise OtherShardError(
                f"{self._place} does not have shard {min(other)} of {self._share.of}, which a user is of",
                shard=min(other),
                expected="users of the shards that this node has",
                fix="ask the node that has it",
            )
        return number_of

    def _asked(self, users: Sequence[str], ask: Callable[[MemoryStore, Sequence[int]], Sequence[A]]) -> list[A]:
        """What the shards answer, in the order of the question.

        Args:
            users: that are asked about.
            ask: gives a shard's answer about the users at some places.
        """
        if len(self._shards) == 1 and not self._share.partitioner:
            return list(ask(self._first, range(len(users))))
        number_of = self._numbers(users)
        places: dict[int, list[int]] = {number: [] for number in self._shards}
        for at, user in enumerate(users):
            places[number_of[user]].append(at)
        # Answers come shard by shard, and are put back into the order of the question.
        answer_at: dict[int, A] = {}
        for number, some in places.items():
            answer_at.update(zip(some, ask(self._shards[number], some), strict=True))
        return [answer_at[at] for at in range(len(users))]


def _by_shard(values: Mapping[K, V], number_of: Mapping[str, int]) -> dict[int, dict[K, V]]:
    """Number of a shard -> those of the values that are its users'; keys are users, or begin with one."""
    of_shard: dict[int, dict[K, V]] = defaultdict(dict)
    for key, value in values.items():
        user = key if isinstance(key, str) else key[0]
        of_shard[number_of[user]][key] = value
    return of_shard
