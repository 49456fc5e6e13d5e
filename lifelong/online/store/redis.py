"""Memories in a Redis or Valkey server, or in a cluster of them; any number of processes may read and write.

Users are divided into groups, which are parts (`lifelong.online.store.part`): one on a single server, 256 in a cluster.
All keys of a group have one hash tag, so they are in one hash slot, on one server, and one script reads and writes them
atomically.

    PREFIX:{0}:store       what this is: format version, number of groups
    PREFIX:{0}:roster      all artifacts that it holds memories of
    PREFIX:{0}:watermarks  hash: "partition:source" -> offset up to which the events of all groups were applied, and
                           its checksum; with a single group also the sums, as in marks
    PREFIX:{0}:items       hash: item -> fields put online, JSON
    PREFIX:{0}:sources     hash: source -> what was applied of a file, JSON; written with the watermark
    PREFIX:{g}:marks       the same for the events of this group; and "s" (space 0), "s1" ... -> the exclusive or of
                           the marks of all memories in a space, for `redis_check`
    PREFIX:{g}:epoch       of the list of artifacts; older commits are refused
    PREFIX:{g}:s:USER      mark of memory and user (8), encoded memory, in space 0; s1:USER in space 1 ...
    PREFIX:{g}:e:USER      sorted set: count (8) and event, by count
    PREFIX:{g}:d:USER      sorted set: client event id, by expiry
    PREFIX:{g}:expiries    sorted set: user who has event ids, by the expiry of the last one
    PREFIX:{0}:clock       the second by which event ids expire; the processes that write advance it together
    PREFIX:{g}:c:NAME      a commit that was applied; kept for ten minutes
    PREFIX:{g}:touch       written to wait for replicas
    PREFIX:{g}:token       drawn at random when the store was made: see below

A USER is the whole rest of a key, whatever is in it, so no two users share a key. Whoever looks keys up by a pattern
takes each apart from the left, since a pattern's `*` would match in the middle of a USER too.

A commit is one script per group that it touches. The script applies nothing where a memory is not the one that the new
one was made from (their marks are compared), else all of the group: memories, log, ids and the group's position. A
position of a group is thus always that of its memories, whatever became of the other groups; `docs/redis.md` has the
argument. The watermark of the whole store follows when every group is written.

Whoever opens the store notes its tokens. Every script compares the one of its group, and every read asks for it in the
same trip: on a server that was emptied, came back empty or is another one, where by now another artifact may keep its
memories, nothing is written and nothing is read.

No event id expires by a clock that can be set, neither the server's nor a client's: see `online.store.shared_clock`.
Each commit with event ids removes those of some users whose last one has expired.

A commit has a name. The script notes it, so that one that is sent again, because the answer to it was lost, changes
nothing.

What a commit survives, once `commit` has returned, is the server's setting: a crash of our process always; of the
server's process, a crash of the operating system and a loss of power with `appendonly yes` and `appendfsync always`
(with `everysec` the last second or two can be lost, of a server that is killed only while its disk is slow; without
`appendonly` everything since the last snapshot). A failover to a
replica can lose what had not reached it, unless the URL says `replicas=1` or more: then `commit` returns only when so
many have it, and in a cluster positions are written when the replicas have the memories.
"""

from __future__ import annotations

import json
import logging
import secrets
import struct
import time
import zlib
from binascii import crc_hqx
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from itertools import islice
from typing import Any

from lifelong.errors import StoreCorruptError, StoreError, StoreUnavailableError
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity, space_of
from lifelong.online.store.contract import ITEMS, SOURCES, Commit, check_values, conflict, refuse_write
from lifelong.online.store.part import part_of
from lifelong.online.store.redis_address import Address
from lifelong.online.store.redis_client import Script, ask, connect, disconnect, run, translated
from lifelong.online.store.replicas import Replicas
from lifelong.online.store.shared_clock import SharedSeconds

logger: logging.Logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
GROUPS = 256
"""Groups of a new store in a cluster."""
_SLOTS, _NEAR = 16_384, 4
"""Hash slots of a cluster, and how far from its place a group's slot may be: exact ones would need longer tags."""
_MARK = 8
"""Bytes of the hash of a memory, which is stored before it and compared in its place."""
_MOST = 1_000
"""Keys of one command at most, so that the server does not make others wait."""
_NO_SUM = b"0" * 2 * _MARK
"""Of the marks of no memory."""
_REMEMBERED = 600
"""Seconds for which a commit's name is kept: longer than the commit is retried."""
_SWEPT = 8
"""Users without any event id left that a commit removes, next to two for each user with a new one."""
_COUNT = struct.Struct(">q")
_COMMIT = Script(f"""
local function offset(text) return tonumber(string.match(text, '^%-?%d+') or '-1') end
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
local at, row, sums = 2, {{}}, {{}}
-- Puts the mark of a memory into the sum of its space, or takes it out.
local function add(kind, mark)
  if #mark < {_MARK} then return end
  local sum, first, second = sums[kind] or {{0, 0}}, struct.unpack('>I4I4', mark)
  sums[kind] = {{bit.bxor(sum[1], first), bit.bxor(sum[2], second)}}
end
for _ = 1, tonumber(ARGV[1]) do
  local key, item, base = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  local found
  if item == '!' then
    found = redis.call('GET', key) or ''
    if found ~= base then return -1 end
  elseif item == '' then
    found = redis.call('GETRANGE', key, 0, {_MARK - 1})
  elseif item == '<' then
    found = base
    if tonumber(redis.call('GET', key) or '0') > tonumber(base) then return 0 end
  elseif string.sub(item, 1, 1) == '#' then
    found = redis.call('HGET', key, string.sub(item, 2)) or '-1'
    if offset(found) >= tonumber(base) then found = base end
  else
    found = redis.call('HGET', key, string.sub(item, 2)) or ''
  end
  if found ~= base then return 0 end
  at = at + 3
end
redis.call('SET', KEYS[1], '', 'EX', {_REMEMBERED})
while ARGV[at] do
  local command, key, last = ARGV[at], KEYS[tonumber(ARGV[at + 1])], at + 2 + tonumber(ARGV[at + 2])
  if command == 'RAISE' then
    local known = redis.call('HGET', key, ARGV[at + 3])
    if not known or offset(known) < offset(ARGV[last]) then
      table.insert(row, ARGV[at + 3])
      table.insert(row, ARGV[last])
    end
  elseif command == 'NOTE' then
    for kind, sum in pairs(sums) do
      local known = redis.call('HGET', key, kind) or '{_NO_SUM.decode()}'
      local first, second = tonumber(string.sub(known, 1, 8), 16), tonumber(string.sub(known, 9), 16)
      table.insert(row, kind)
      table.insert(row, bit.tohex(bit.bxor(sum[1], first or 0)) .. bit.tohex(bit.bxor(sum[2], second or 0)))
    end
    -- One command: what damages the name of its key, or takes it out, leaves sums that show it.
    if #row > 0 then redis.call('HSET', key, unpack(row)) end
  elseif command == 'SWEEP' then
    for _, user in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', ARGV[last - 1], 'LIMIT', 0, ARGV[last])) do
      redis.call('DEL', ARGV[at + 3] .. user)
      redis.call('ZREM', key, user)
    end
  elseif command == 'EPOCH' then
    if tonumber(redis.call('GET', key) or '0') < tonumber(ARGV[last]) then redis.call('SET', key, ARGV[last]) end
  else
    -- Of a memory; a prefix holds no brace, a user may.
    local kind = string.match(key, '^[^}}]*}}:(s%d*):')
    if kind then
      add(kind, redis.call('GETRANGE', key, 0, {_MARK - 1}))
      if command == 'SET' then add(kind, string.sub(ARGV[last], 1, {_MARK})) end
    end
    redis.call(command, key, unpack(ARGV, at + 3, last))
  end
  at = last + 1
end
return 1
""")
"""Takes the commit's name and the keys; the number of bases, each (key, '' or '=' and item, mark), (key, '<', epoch),
(key, '#' and source, least offset), or (key, '!', token), for which it answers -1; then writes, each (command, key,
number of arguments, arguments). The name comes first: a server without memory refuses it, and so all."""
_EXCHANGE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local found = redis.call('GET', KEYS[2])
if not found or found == ARGV[2] then
  redis.call('SET', KEYS[2], ARGV[3])
  return tonumber(ARGV[3])
end
return tonumber(found)
""")
"""Puts a second in the place of another one if that is the clock's, and gives the clock's; -1 if the token differs."""
_SWAP = Script("""
local found = redis.call('GET', KEYS[1])
local epoch = 0
if found then epoch = cjson.decode(found)['epoch'] end
if found == ARGV[2] then return 1 end
if epoch ~= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
""")
"""Puts a list of artifacts (ARGV[2]) in the place of the one with the epoch ARGV[1]; sent again, it changes nothing."""


class RedisStore:
    """A store on a server; processes and threads may share it.

    Args:
        address: of the server or the cluster.
        read_only: refuses writes; what other processes write is seen.

    Raises:
        StoreUnavailableError: the server does not answer; later also that it is not the one that was opened.
        StoreCorruptError: the keys under the prefix are not those of a store.
        StoreError: authentication failed, the server may evict memories, or it has no store (read_only) or one of
            another format.
    """

    shared = True
    name: str

    def __init__(self, address: Address, *, read_only: bool = False) -> None:
        self.name, self._read_only, self._now = address.name, read_only, 0
        self._prefix = address.prefix.encode()
        self._client: Any = connect(address)
        try:
            if not read_only:
                self._check_eviction(cluster=address.cluster)
            self._tags: tuple[int, ...] = tags_of(1)
            self._groups = self._head(GROUPS if address.cluster else 1)
            self._tags = tags_of(self._groups)
            self._group_at = {tag: group for group, tag in enumerate(self._tags)}
            self._tokens = self._read_tokens()
            self._clock = SharedSeconds(self._exchange)
            touched = [self._key(group, "touch") for group in range(self._groups)]
            self._replicas = Replicas(address, self._client, touched)
        except BaseException:
            self.close()
            raise

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; a store for reading is only checked.

        Raises:
            StoreForeignError: it holds no memories of this artifact, or they are not complete.
            StoreUnavailableError: replicas do not have a new claim; each commit waits for them, too.
        """
        if not self._read_only:
            self._check_alive()
            # If two claim it at once, the first one wins.
            if self._ask([("SET", self._key(0, "roster"), ArtifactList.of(identity).to_json(), "NX")])[0]:
                self._replicas.wait()
        listed = self.artifact_list()
        return space_of(self.name, listed, identity) if listed.artifacts else 0

    def artifact_list(self) -> ArtifactList:
        """The artifacts that it holds memories of."""
        written = self._read([("GET", self._key(0, "roster"))])[0]
        try:
            return ArtifactList() if written is None else ArtifactList.from_json(written)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(
                f"what {self.name} says of its artifacts cannot be read: {error}", fix="restore the server's files"
            ) from error

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """Write another list, then its epoch into every group."""
        if self._read_only:
            raise refuse_write(self.name)
        self._check_alive()
        if after != before:
            key, text = self._key(0, "roster"), after.to_json()
            if not self._run(_SWAP, [(1, key, before.epoch, text)])[0]:
                raise conflict(self.name, frozenset())
        parts: dict[int, _Part] = defaultdict(_Part)
        for group in range(self._groups):
            parts[group].write("EPOCH", self._key(group, "epoch"), after.epoch)
        self._apply(parts)

    def clear(self, space: int) -> None:
        """Empty a space of memories, key by key."""
        if self._read_only:
            raise refuse_write(self.name)
        self._check_alive()
        keys = self._keys(space)
        while some := list(islice(keys, _MOST)):
            # A command per key: in a cluster they are in different hash slots.
            self._ask([("UNLINK", key) for key in some])
        # Their sums last: a space that is emptied half-way does not look whole.
        self._ask([("HDEL", self._notes(group), _kind(space)) for group in range(self._groups)])
        # A replica that takes over must not bring back what was emptied.
        self._replicas.wait()

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        """The value of each name, None if it is absent."""
        if space == ITEMS:
            return self._items(names)
        places = defaultdict(list)
        for place, user in enumerate(names):
            places[self._group(user)].append(place)
        parts = [part for one in places.values() for part in _split(one, _MOST)]
        kind = _kind(space)
        found = self._read([("MGET", *(self._of(names[place], kind) for place in part)) for part in parts])
        records: list[bytes | None] = [None] * len(names)
        for part, values in zip(parts, found, strict=True):
            for place, value in zip(part, values, strict=True):
                records[place] = None if value is None else value[_MARK:]
        return records

    def _items(self, names: Sequence[str]) -> list[bytes | None]:
        key = self._key(0, "items")
        parts = [("HMGET", key, *map(str.encode, part)) for part in _split(names, _MOST)]
        return [value for values in self._read(parts) for value in values]

    def commit(self, change: Commit) -> None:
        """Apply one write; all of it or nothing on a single server, of each group in a cluster.

        A write of nothing waits for replicas, too: what its maker has left out as known may not have reached them.

        Raises:
            StoreConflictError: what it was made from has changed; names the users for whom nothing was kept.
            StoreUnavailableError: the server takes no writes, or does not answer, or replicas do not have what it has;
                the error says which, and what was kept.
        """
        if self._read_only:
            raise refuse_write(self.name)
        check_values(change)
        parts = self._parts(change)
        for group, part in parts.items():
            part.note(self._notes(group), change.watermarks)
            if self._groups == 1:
                self._note_sources(part, change)
        refused = self._apply(parts)
        if refused:
            raise conflict(self.name, frozenset(user for user in change.users if self._group(user) in refused))
        if (change.watermarks or SOURCES in change.records) and (self._groups > 1 or not parts):
            whole = _Part()
            self._note_sources(whole, change)
            self._require_reached(whole, change)
            whole.note(self._key(0, "watermarks"), change.watermarks)
            if self._apply({0: whole}):
                raise conflict(self.name, frozenset())

    def _note_sources(self, part: _Part, change: Commit) -> None:
        """Keep what was applied of files."""
        for name, value in change.records.get(SOURCES, {}).items():
            part.write("HSET", self._key(0, "sources"), name.encode(), value)

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied, -1 if none."""
        name = _source(source, partition)
        return self._offset(name, self._read([("HGET", self._key(0, "watermarks"), name)])[0])

    def _offset(self, name: bytes, value: bytes | None) -> int:
        """The offset of a position, -1 if there is none.

        Raises:
            StoreCorruptError: it is not what was written; the server's append-only file has no checksums.
        """
        if value is None:
            return -1
        digits = value.partition(b" ")[0]
        if not digits.isdigit() or value != _position(name, int(digits)):
            raise StoreCorruptError(
                f"the position of source {name.decode(errors='replace')!r} in {self.name} fails its checksum",
                fix="restore the server's files, or fill an emptied store from the source: see docs/redis.md",
            )
        return int(digits)

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """Per user the offset up to which the events of the user's group were applied."""
        whole = self.watermark(source, partition)
        if self._groups == 1:
            return [whole] * len(users)
        groups = list(dict.fromkeys(map(self._group, users)))
        name = _source(source, partition)
        values = self._read([("HGET", self._key(group, "marks"), name) for group in groups])
        mark_of = {group: max(whole, self._offset(name, value)) for group, value in zip(groups, values, strict=True)}
        return [mark_of[self._group(user)] for user in users]

    def clock(self) -> int:
        """The second by which event ids expire: processes with this store open advance it as time passes."""
        return self._clock.now()

    def _exchange(self, seen: int, later: int) -> int:
        """Advance the clock, if it is where it was seen and may be written; where it is now."""
        if self._read_only or not seen:
            return int(self._read([("GET", self._key(0, "clock"))])[0] or 0)
        keys = self._key(0, "token"), self._key(0, "clock")
        second = int(self._run(_EXCHANGE, [(2, *keys, self._tokens[0], seen, later)])[0])
        if second == -1:
            raise self._lost()
        return second

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """Which of (user, client event id) were applied and have not expired."""
        self._now = max(self._now, now)
        scores = self._read([("ZSCORE", self._of(user, "d"), event_id.encode()) for user, event_id in event_ids])
        return [value is not None and float(value) > now for value in scores]

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """The user's event log, oldest first."""
        if last == 0:
            return []
        stored = self._read([("ZRANGE", self._of(user, "e"), 0 if last is None else -last, -1)])[0]
        return [event[_COUNT.size :] for event in stored]

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires; expired ones too, until a later write removes them."""
        stored = self._read([("ZRANGE", self._of(user, "d"), 0, -1, "WITHSCORES")])[0]
        pairs = (
            stored if stored and isinstance(stored[0], list | tuple) else zip(stored[::2], stored[1::2], strict=True)
        )
        return [(name.decode(), int(float(expiry))) for name, expiry in pairs]

    def purge(self) -> bool:
        """False: the server keeps files of its own, which it rewrites at `BGREWRITEAOF` and at its next snapshot."""
        return False

    def check_writes(self) -> None:
        """Write a mark in every group; the client itself connects again."""
        if self._read_only:
            raise refuse_write(self.name)
        self._read([("SET", self._key(group, "probe"), "", "EX", _REMEMBERED) for group in range(self._groups)])
        # As a commit would: without enough replicas none is acknowledged.
        self._replicas.wait()

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) the user's logged events after the first `count`."""
        logs = self._read([("ZRANGEBYSCORE", self._of(user, "e"), f"({count}", "+inf") for user, count in asked])
        for (user, _), events in zip(asked, logs, strict=True):
            # As what is written under a key whose name was damaged.
            if any(len(event) < _COUNT.size for event in events):
                raise StoreCorruptError(
                    f"the event log of user {user!r} cannot be read in {self.name}", fix="restore the server's files"
                )
        return [
            [(int(_COUNT.unpack(event[: _COUNT.size])[0]), event[_COUNT.size :]) for event in events] for events in logs
        ]

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """All names of a space and their values, some at a time and in no order.

        A name that exists throughout comes, with its value at that moment, and can come twice if others are added
        meanwhile. What is committed during the scan may be in it or not.
        """
        self._opened()
        return self._sources() if space == SOURCES else self._scan(space)

    def _sources(self) -> Iterator[tuple[str, bytes]]:
        """What was applied of files; in a cluster what is in every group, and not what a part of the groups has."""
        stored = self._read([("HGETALL", self._key(0, "sources"))])[0]
        pairs = stored.items() if isinstance(stored, dict) else zip(stored[::2], stored[1::2], strict=True)
        return ((name.decode(), value) for name, value in pairs)

    def _scan(self, space: int) -> Iterator[tuple[str, bytes]]:
        names = self._names(space)
        # Some at a time: all names of a store may be more than RAM holds.
        while some := list(islice(names, _MOST)):
            for name, value in zip(some, self.read_many(some, space=space), strict=True):
                self._opened()
                if value is not None:
                    yield name, value
        # One that was emptied meanwhile has no further names.
        self._check_alive()

    def _names(self, space: int) -> Iterator[str]:
        if space == ITEMS:
            yield from map(bytes.decode, self._read([("HKEYS", self._key(0, "items"))])[0])
            return
        for key in self._keys(space):
            try:
                yield key.split(b":", 3)[3].decode()
            except UnicodeDecodeError as error:
                raise StoreCorruptError(
                    f"{self.name} holds a key that no store writes: {key!r}", fix="restore the server's files"
                ) from error

    def _keys(self, space: int) -> Iterator[bytes]:
        """Keys of all memories in a space."""
        kind = _kind(space).encode()
        pattern = b"%s:{%s}:%s:*" % (self._prefix, b"0" if self._groups == 1 else b"*", kind)
        with translated(self.name):
            for key in self._opened().scan_iter(match=pattern, count=_MOST):
                # In a cluster the first * matches in a user's id as well.
                group, its_kind = key.split(b":", 3)[1:3]
                if its_kind == kind and group[1:-1].isdigit():
                    yield key

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        if self._client is not None:
            client, self._client = self._client, None
            disconnect(client)

    def _parts(self, change: Commit) -> dict[int, _Part]:
        """What a commit does in each group, the positions left out."""
        parts: dict[int, _Part] = defaultdict(_Part)
        # What is required first: the script writes nothing before it has compared all of it.
        for space, bases in change.bases.items():
            for name, base in bases.items():
                if space == ITEMS:
                    parts[0].require(self._key(0, "items"), b"=" + name.encode(), base or b"")
                else:
                    parts[self._group(name)].require(self._of(name, _kind(space)), b"", _mark(name, base))
        epoch = change.epoch
        if change.deleted:
            artifact_list = self.artifact_list()
            epoch = artifact_list.epoch if epoch is None else epoch
            kinds = ("e", "d", *map(_kind, artifact_list.spaces))
            for user in change.deleted:
                part = parts[self._group(user)]
                for kind in kinds:
                    part.write("DEL", self._of(user, kind))
                part.write("ZREM", self._key(self._group(user), "expiries"), user.encode())
        for item in change.removed:
            parts[0].write("HDEL", self._key(0, "items"), item.encode())
        for space, records in change.records.items():
            for name, record in records.items() if space != SOURCES else ():
                if space == ITEMS:
                    parts[0].write("HSET", self._key(0, "items"), name.encode(), record)
                else:
                    key = self._of(name, _kind(space))
                    parts[self._group(name)].write("SET", key, _mark(name, record) + record)
        for user, through in change.trimmed.items():
            parts[self._group(user)].write("ZREMRANGEBYSCORE", self._of(user, "e"), "-inf", through)
        for (user, count), event in change.events.items():
            part, key = parts[self._group(user)], self._of(user, "e")
            # One event for a count: of an earlier attempt another one may be there.
            part.write("ZREMRANGEBYSCORE", key, count, count)
            part.write("ZADD", key, count, _COUNT.pack(count) + event)
        self._remember(parts, change)
        if self._groups == 1 and parts:
            self._require_reached(parts[0], change)
        if epoch is not None:
            for group, part in parts.items():
                part.require(self._key(group, "epoch"), b"<", b"%d" % epoch)
        return parts

    def _require_reached(self, part: _Part, change: Commit) -> None:
        """Refuse a write to a server that has lost what it had acknowledged."""
        for key, offset in change.reached.items():
            part.require(self._key(0, "watermarks"), b"#" + _source(*key), offset)

    def _remember(self, parts: dict[int, _Part], change: Commit) -> None:
        """Add event ids, and remove expired ones: of these users, and of some who did not come again."""
        ids_of: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        # Past is only what both the caller and the store's own clock say so of.
        now = min(self._now, self.clock())
        for (user, event_id), expiry in change.event_ids.items():
            ids_of[user].append((expiry, event_id.encode()))
        for owner, ids in ids_of.items():
            group, key = self._group(owner), self._of(owner, "d")
            part = parts[group]
            part.write("ZREMRANGEBYSCORE", key, "-inf", now)
            for expiry, name in ids:
                part.write("ZADD", key, expiry, name)
            # GT: another process may have written a later one.
            part.write("ZADD", self._key(group, "expiries"), "GT", max(ids)[0], owner.encode())
        for group, number in Counter(map(self._group, ids_of)).items():
            # Twice as many as come, so that those who are gone become fewer.
            most = 2 * number + _SWEPT
            parts[group].write("SWEEP", self._key(group, "expiries"), self._key(group, "d:"), now, most)

    def _apply(self, parts: dict[int, _Part]) -> set[int]:
        """Run the script in each group, and wait for replicas; the groups that refused it."""
        name = secrets.token_hex(8)
        for group, part in parts.items():
            part.require_first(self._key(group, "token"), b"!", self._tokens[group])
        calls = [part.arguments(self._key(group, "c:" + name)) for group, part in parts.items()]
        done = dict(zip(parts, self._run(_COMMIT, calls), strict=True))
        if -1 in done.values():
            raise self._lost()
        refused = {group for group, answer in done.items() if not answer}
        # Also where some groups have refused it: what the others have written must not be lost either.
        self._replicas.wait()
        return refused

    def _head(self, groups: int) -> int:
        """Make a new store, or check an old one; its number of groups."""
        key = self._key(0, "store")
        if not self._read_only:
            head = {"format": "lifelong-store", "version": FORMAT_VERSION, "groups": groups}
            self._ask([("SET", key, json.dumps(head), "NX")])
        value = self._ask([("GET", key)])[0]
        if value is None:
            raise StoreError(f"there is no store in {self.name}", fix="make one with `lifelong backfill` or `ingest`")
        try:
            known = json.loads(value)
            version, size = known["version"], int(known["groups"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(f"{self.name} holds no store", fix="choose another ?prefix=") from error
        if version != FORMAT_VERSION:
            raise StoreError(
                f"{self.name} has store format {version}",
                expected=f"{FORMAT_VERSION}, of this release",
                fix="use the release that wrote it, or build the store again (docs/versions.md)",
            )
        return size

    def _read_tokens(self) -> dict[int, bytes]:
        """What this store has in each group that another one under the same keys has not."""
        keys = [self._key(group, "token") for group in range(self._groups)]
        if not self._read_only:
            self._ask([("SET", key, secrets.token_hex(8), "NX") for key in keys])
            # Any second will do as the first one; this one makes expiries readable.
            self._ask([("SET", self._key(0, "clock"), int(time.time()), "NX")])
        tokens = self._ask([("GET", key) for key in keys])
        if None in tokens:
            raise StoreError(f"the store in {self.name} is being made", fix="open it again when it is written")
        return dict(enumerate(tokens))

    def _check_alive(self) -> None:
        """Raise unless the store that was opened is there, in every group."""
        self._read([("EXISTS", self._key(group, "token")) for group in range(self._groups)])

    def _read(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """`_ask`, and in the same trip whether the store that was opened answers; the second word is a key.

        Raises:
            StoreUnavailableError: it does not.
        """
        sent = list(commands)
        groups = list(dict.fromkeys(self._group_at[_tag_of(command[1])] for command in sent))
        answers = self._ask([*sent, *(("GET", self._key(group, "token")) for group in groups)])
        for group, token in zip(groups, answers[len(sent) :], strict=True):
            if token != self._tokens[group]:
                raise self._lost()
        return answers[: len(sent)]

    def _lost(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self.name} does not hold the store that was opened: it came back empty or was emptied, or another store"
            " was made there since; nothing is read or kept",
            expected="a server that keeps what it acknowledged: see `lifelong doctor --store`",
            fix="restore the server's files; or start again, which makes a new store, and fill that"
            " (`lifelong backfill`, `lifelong ingest`)",
        )

    def _check_eviction(self, *, cluster: bool) -> None:
        """Refuse a server that evicts memories when it is full.

        Raises:
            StoreError: it does.
        """
        with translated(self.name):
            client = self._opened()
            memories = (
                client.info("memory", target_nodes="primaries") if cluster else {self.name: client.info("memory")}
            )
        for memory in memories.values():
            policy = memory.get("maxmemory_policy", "noeviction")
            if memory.get("maxmemory") and policy != "noeviction":
                raise StoreError(
                    f"{self.name} evicts keys when its memory is full (maxmemory-policy {policy})",
                    expected="maxmemory-policy noeviction",
                    fix="set it: an evicted memory is lost",
                )

    def _opened(self) -> Any:
        if self._client is None:
            raise StoreError(f"{self.name} is closed", fix="open it again")
        return self._client

    def _ask(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Send commands together, and wait for their answers; each may be sent again if the connection is lost.

        Raises:
            StoreError: one of them failed.
        """
        with translated(self.name):
            return ask(self._opened(), commands)

    def _run(self, script: Script, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a script several times, and wait for the answers.

        Raises:
            StoreError: one of the calls failed.
        """
        with translated(self.name):
            return run(self._opened(), script, calls)

    def _notes(self, group: int) -> bytes:
        """The key of a group's positions and sums."""
        return self._key(group, "marks" if self._groups > 1 else "watermarks")

    def _group(self, user: str) -> int:
        return part_of(user, self._groups)

    def _key(self, group: int, name: str) -> bytes:
        return b"%s:{%d}:%s" % (self._prefix, self._tags[group], name.encode())

    def _of(self, user: str, kind: str) -> bytes:
        return self._key(self._group(user), f"{kind}:{user}")


@dataclass(slots=True)
class _Part:
    """What a commit requires and writes in one group."""

    keys: list[bytes] = field(default_factory=list)
    bases: list[Any] = field(default_factory=list)
    writes: list[Any] = field(default_factory=list)

    def require(self, key: bytes, item: bytes, base: bytes | int) -> None:
        """Refuse all of it unless a memory (no item) has this mark, or `=item` these fields; empty for none.

        `#source` must have reached an offset, and `!` is the token of the group.
        """
        self.bases += [self._place(key), item, base]

    def require_first(self, key: bytes, item: bytes, base: bytes) -> None:
        """`require` before all others."""
        self.bases[:0] = [self._place(key), item, base]

    def write(self, command: str, key: bytes, *arguments: Any) -> None:
        """Run a command."""
        self.writes += [command, self._place(key), len(arguments), *arguments]

    def note(self, key: bytes, watermarks: Mapping[tuple[str, int], int]) -> None:
        """Move positions forward, where they are not further ahead, and note the sums; after all other writes."""
        for mark, offset in watermarks.items():
            self.write("RAISE", key, _source(*mark), _position(_source(*mark), offset))
        self.write("NOTE", key)

    def arguments(self, name: bytes) -> tuple[Any, ...]:
        """Number of keys, keys and arguments of the script, under the name of a commit."""
        keys = [name, *self.keys]
        return (len(keys), *keys, len(self.bases) // 3, *self.bases, *self.writes)

    def _place(self, key: bytes) -> int:
        """Number of a key; the name of the commit is the first one."""
        if not self.keys or self.keys[-1] != key:
            self.keys.append(key)
        return len(self.keys) + 1


@cache
def tags_of(groups: int) -> tuple[int, ...]:
    """What is in the hash tags of groups: numbers whose hash slots are evenly spaced.

    Hashed group numbers would leave primaries with twice the mean, or without a group.

    >>> tags = tags_of(256)
    >>> tags[0], len({crc_hqx(b"%d" % tag, 0) % 16_384 // 64 for tag in tags})
    (0, 256)
    """
    tag_of: dict[int, int] = {}
    for number in range(100_000):
        # Counted from the slot of 0: the tag of the first group, which tells how many there are, is always the same.
        slot = crc_hqx(b"%d" % number, 0) - crc_hqx(b"0", 0) + _NEAR
        group, off = divmod(slot % _SLOTS, _SLOTS // groups)
        if off <= 2 * _NEAR:
            tag_of.setdefault(group, number)
        if len(tag_of) == groups:
            break
    return tuple(tag_of[group] for group in range(groups))


def _tag_of(key: bytes) -> int:
    """The number in the hash tag of a key."""
    return int(key[key.index(b"{") + 1 : key.index(b"}")])


def _mark(user: str, record: bytes | None) -> bytes:
    """Hash of a memory and its user, which a script compares in place of the memory itself, and sums."""
    if record is None:
        return b""
    made = blake2b(record, digest_size=_MARK)
    made.update(user.encode())
    return made.digest()


def _source(source: str, partition: int) -> bytes:
    return f"{partition}:{source}".encode()


def _position(source: bytes, offset: int) -> bytes:
    """An offset and its checksum: a changed digit would leave events out, or apply them again, and nobody would see."""
    return b"%d %08x" % (offset, zlib.crc32(b"%d:%s" % (offset, source)))


def _kind(space: int) -> str:
    """What the keys of the memories in a space are called."""
    return f"s{space}" if space else "s"


def _split(values: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + most] for start in range(0, len(values), most))
