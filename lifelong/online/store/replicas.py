"""Waits until replicas have what a client has written, and its servers have it on disk.

    write --> touch, WAIT, INFO on one connection --enough replicas?--> --same history as before?--> acknowledged

`WAIT` counts only writes of its own connection, and a client has several. So a key is written on the connection that
waits: a replica that has this write has all earlier ones, from any connection. In a cluster that is done on every
server that holds a part of the store, so that what is acknowledged depends on nothing that could be lost.

A primary has a history (`master_replid`), which a failover ends: the replica that takes over begins a new one. If the
history differs from that of the last wait, what was written or read since then may be missing, and nothing is
acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifelong.errors import StoreUnavailableError, require
from lifelong.online.store.redis_address import Address
from lifelong.online.store.redis_client import ask, translated

_TRIES = 3
"""How often a server of a cluster is looked for."""
_AGAIN = "send it again: events with an offset or an event_id are not applied twice"


class Replicas:
    """The replicas of a server, or of all servers of a cluster; waits only if the address says so.

    Args:
        address: says how many must have a write, and for how long they are waited for.
        client: of `lifelong.online.store.redis_client.connect`.
        keys: one of each part of the store, to be written.

    Raises:
        StoreError: the server does not answer; see `lifelong.online.store.redis_client.translated`.
    """

    def __init__(self, address: Address, client: Any, keys: Sequence[bytes]) -> None:
        self._address, self._client, self._keys = address, client, keys
        with translated(address.name):
            self._histories = (
                {_history(self._ask(key, [_INFO])[0]) for key in self._places()} if address.waits else set()
            )

    def wait(self) -> None:
        """Return when enough replicas have all that was written before the call.

        Raises:
            StoreUnavailableError: too few do, in time; or another server is the primary now. What was written is there.
            StoreError: the server cannot wait.
        """
        if not self._address.waits:
            return
        with translated(self._address.name):
            answers = [self._ask(key, [("SET", key, b""), self._command, _INFO]) for key in self._places()]
        histories = {_history(info) for _, _, info in answers}
        # Noted before anything is refused: the next write is compared with the primary that there is now.
        before, self._histories = self._histories, histories
        synced, copies = zip(*(self._counted(waited) for _, waited, _ in answers), strict=True)
        if not histories <= before:
            raise StoreUnavailableError(
                f"{self._address.name} has another primary than before, or was started again; what was written since"
                " the last write that was acknowledged may be missing there, and this one is not acknowledged",
                fix=_AGAIN,
            )
        if min(copies) < self._address.replicas or not all(synced):
            raise self._late(synced=all(synced), copies=min(copies))

    @property
    def _command(self) -> tuple[Any, ...]:
        # 0 would wait for ever.
        milliseconds = max(1, round(1000 * self._address.replica_timeout))
        if self._address.fsync:
            return "WAITAOF", 1, self._address.replicas, milliseconds
        return "WAIT", self._address.replicas, milliseconds

    def _counted(self, answer: Any) -> tuple[bool, int]:
        """Whether the primary has all that it must have, and how many replicas have it."""
        return (bool(answer[0]), int(answer[1])) if self._address.fsync else (True, int(answer))

    def _late(self, *, synced: bool, copies: int) -> StoreUnavailableError:
        wanted, disk = self._address.replicas, " on disk" if self._address.fsync else ""
        missing = [] if synced else ["the server itself had it not on disk"]
        missing += [] if copies >= wanted else [f"{copies} of {wanted} replicas had it{disk}"]
        return StoreUnavailableError(
            f"{self._address.name} has kept what was written, but after {self._address.replica_timeout:g} seconds"
            f" {' and '.join(missing)}; it is not acknowledged and can be lost",
            expected=f"as many replicas that keep up{', each with a log (appendonly yes)' if disk else ''};"
            " see `lifelong doctor --store`",
            fix=_AGAIN,
        )

    def _places(self) -> list[bytes]:
        """A key on each server that holds a part of the store."""
        if not self._address.cluster:
            return [self._keys[0]]
        return list({self._client.get_node_from_key(key).name: key for key in self._keys}.values())

    def _ask(self, key: bytes, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Ask the server of a key, over one connection."""
        if not self._address.cluster:
            return ask(self._client, commands)
        redis = require("redis", extra="redis", purpose="a redis:// store")
        for left in reversed(range(_TRIES)):
            node = self._client.get_node_from_key(key)
            try:
                return ask(self._client.get_redis_connection(node), commands)
            except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.MovedError):
                if not left:
                    raise
                # The cluster client follows the key to its present server, and remembers it.
                self._client.set(key, b"")
        raise AssertionError("unreachable")


_INFO = ("INFO", "replication")


def _history(info: Any) -> str:
    return str(info.get("master_replid", ""))
