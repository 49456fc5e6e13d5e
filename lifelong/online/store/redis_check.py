"""Finds what a server's files lost or moved where no checksum covers it: names of keys, and commands that are gone.

A memory has a checksum, the name of its key has none, nor has an append-only file as a whole. Each commit therefore
notes a sum: the exclusive or of the marks of all memories of a group, in the same command as the positions.

    damage                                                             what shows it
    a memory that is gone, an earlier one, or one under another name   the sum
    positions that are gone or of an earlier commit                    the sum, which is as old as they are
    event ids that are gone or under another name                      their last expiry is not that in `expiries`
    any other key under a name that no store writes                    its name
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from lifelong.errors import StoreCorruptError
from lifelong.online.store.redis import _MARK, _MOST, _NO_SUM, RedisStore, _kind, _mark
from lifelong.online.store.redis_client import translated

logger: logging.Logger = logging.getLogger(__name__)

_NAME = re.compile(
    rb":\{(?P<group>\d+)\}:(?:(?P<kind>s\d*|e|d):(?P<user>.*)|c:[0-9a-f]{16}|store|roster|watermarks|items"
    rb"|sources|clock|marks|epoch|touch|token|probe|expiries)",
    re.DOTALL,
)
"""The rest of a key, after the prefix."""


def check(store: RedisStore, space: int) -> None:
    """Compare all keys of a store with what its commits noted. Groups that are written to meanwhile are left out.

    Raises:
        StoreCorruptError: something is gone, or under another name.
    """
    every, noted = range(store._groups), _noted(store)
    sums, ids, wrong = dict.fromkeys(every, 0), dict.fromkeys(every, 0), dict[int, str]()
    kind = _kind(space)
    for memories, with_ids in _users(store, kind):
        values = store._read([("GET", store._of(user, kind)) for user in memories])
        for user, value in zip(memories, values, strict=True):
            group = store._group(user)
            # Exclusive or: in whatever order memories come, and a memory that is replaced takes its mark out by itself.
            sums[group] ^= int.from_bytes((value or b"")[:_MARK])
            if value is not None and value[:_MARK] != _mark(user, value[_MARK:]):
                wrong[group] = f"the memory of user {user!r} was not written for that user"
        for user, whole in zip(with_ids, _have_last_ids(store, with_ids), strict=True):
            group = store._group(user)
            ids[group] += 1
            if not whole:
                wrong[group] = f"event ids of user {user!r} are missing, or are another user's"
    listed = store._read([("ZCARD", store._key(group, "expiries")) for group in every])
    for group, before, after in zip(every, noted, _noted(store), strict=True):
        if before != after:
            logger.warning("events came meanwhile: the sums of group %d of %s are not compared", group, store.name)
        elif group in wrong:
            raise _corrupt(store, wrong[group])
        elif b"%016x" % sums[group] != before.get(kind.encode(), _NO_SUM):
            raise _corrupt(store, "a memory or a position is missing, an earlier one, or under another name")
        elif ids[group] != listed[group]:
            raise _corrupt(store, "event ids of a user are missing, or under another name")


def _noted(store: RedisStore) -> list[dict[bytes, bytes]]:
    """Positions and sums of each group; positions that are not what was written are errors."""
    keys = [store._notes(group) for group in range(store._groups)]
    answers = store._read([("HGETALL", key) for key in [*keys, store._key(0, "watermarks")]])
    rows = [row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True)) for row in answers]
    for name, value in ((name, value) for row in rows for name, value in row.items()):
        if not re.fullmatch(rb"s\d*", name):
            store._offset(name, value)
    return rows[:-1]


def _users(store: RedisStore, kind: str) -> Iterator[tuple[list[str], list[str]]]:
    """Users with a memory, and users with event ids, some at a time; each once, though a server may give a key twice.

    Raises:
        StoreCorruptError: a key has a name that no store writes.
    """
    seen: set[bytes] = set()
    with translated(store.name):
        keys = store._opened().scan_iter(match=store._prefix + b":*", count=_MOST)
        while some := set(islice(keys, _MOST)):
            users: dict[str, list[str]] = {kind: [], "d": []}
            # A server may give a key twice while it grows, and it would leave the sum again.
            for key in some - seen:
                its_kind, user = _taken_apart(store, key)
                if its_kind in users:
                    seen.add(key)
                    users[its_kind].append(user)
            yield users[kind], users["d"]


def _taken_apart(store: RedisStore, key: bytes) -> tuple[str, str]:
    """Kind and user of a key, both empty if it is of no user."""
    parsed = _NAME.fullmatch(key, len(store._prefix))
    with contextlib.suppress(UnicodeDecodeError):
        kind, user = (
            ("", "") if not parsed or parsed["kind"] is None else (parsed["kind"].decode(), parsed["user"].decode())
        )
        if parsed and (key == store._of(user, kind) if kind else int(parsed["group"]) in store._tags):
            return kind, user
    raise _corrupt(store, f"no store writes the key {key!r}")


def _have_last_ids(store: RedisStore, users: Sequence[str]) -> list[bool]:
    """Per user whether the last of the event ids expires when it was noted to."""
    scores = store._read([("ZSCORE", store._key(store._group(user), "expiries"), user.encode()) for user in users])
    last = [-1 if score is None else int(float(score)) for score in scores]
    # Per user two counts: of ids that expire then or later, and later. The first must be one, the second none.
    ranges = [(user, least) for user, score in zip(users, last, strict=True) for least in (score, f"({score}")]
    counts = store._read([("ZCOUNT", store._of(user, "d"), least, "+inf") for user, least in ranges])
    return [
        score >= 0 and at > 0 and later == 0 for score, at, later in zip(last, counts[::2], counts[1::2], strict=True)
    ]


def _corrupt(store: RedisStore, what: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{store.name}: {what}",
        expected="what the commits have written",
        fix="restore the server's files, or fill an emptied store from the source: see docs/redis.md",
    )
