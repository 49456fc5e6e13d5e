"""The way to a Redis or Valkey server, or to a cluster of them, and its errors as ours."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lifelong.errors import StoreCorruptError, StoreError, StoreUnavailableError, require
from lifelong.online.store.redis_address import Address

_RETRIES, _FIRST_PAUSE, _LONGEST_PAUSE = 6, 0.05, 1.0
"""Tries after the first one, and the seconds between them: together about two and a half seconds."""


def connect(address: Address) -> Any:
    """A client of the server or the cluster; several threads may use it.

    Raises:
        MissingExtraError: the package is not installed.
        StoreError: there is no such server, or authentication failed; see `translated`.
    """
    redis = require("redis", extra="redis", purpose="a redis:// store")
    options = _connection(address, _RETRIES) | {"username": address.user, "password": address.password}
    with translated(address.name):
        if address.cluster:
            nodes = [redis.cluster.ClusterNode(*host) for host in address.hosts]
            client = redis.RedisCluster(startup_nodes=nodes, **options)
            _follow_to_new_servers(client.nodes_manager)
            return client
        client = _from_sentinels(address) if address.service else _from_server(address, options)
        try:
            client.ping()
        except BaseException:
            disconnect(client)
            raise
        return client


def _follow_to_new_servers(manager: Any) -> None:
    """Let a cluster's client follow an ASK to a server that owns no slot yet.

    A slot that moves is asked for at its next owner before `CLUSTER SLOTS` names that one; redis-py, which looks it up
    among the servers named there, would fail with an AttributeError.
    """
    cluster = require("redis.cluster", extra="redis", purpose="a redis:// store")
    listed = manager.get_node

    def get_node(host: str | None = None, port: int | None = None, node_name: str | None = None) -> Any:
        node = listed(host, port, node_name)
        if node is None:
            # redis-py 8.2 gives host and port, releases up to 8.0 the name made of them.
            name_host, _, name_port = (node_name or "").rpartition(":")
            new = cluster.ClusterNode(host or name_host, port or int(name_port))
            # Kept until the servers are listed again: each ASK would open a connection of its own.
            node = manager.nodes_cache.setdefault(new.name, new)
        return node

    manager.get_node = get_node


def _from_server(address: Address, options: Mapping[str, Any]) -> Any:
    redis = require("redis", extra="redis", purpose="a redis:// store")
    host, port = address.hosts[0]
    return redis.Redis(host=host, port=port, db=address.database, **options)


def _from_sentinels(address: Address) -> Any:
    """A client that asks for the primary at each new connection."""
    sentinel = require("redis.sentinel", extra="redis", purpose="a redis+sentinel:// store")
    asking = {"username": address.sentinel_user, "password": address.sentinel_password}
    manager = sentinel.Sentinel(address.hosts, sentinel_kwargs=_connection(address, 0) | asking)
    # Each try to send asks for the primary as many times again.
    options = _connection(address, _RETRIES // 2) | {"username": address.user, "password": address.password}
    return manager.master_for(address.service, db=address.database, **options)


def _connection(address: Address, retries: int) -> dict[str, Any]:
    """Options of every connection."""
    redis = require("redis", extra="redis", purpose="a redis:// store")
    backoff = require("redis.backoff", extra="redis", purpose="a redis:// store")
    pauses = backoff.ExponentialBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE)
    options: dict[str, Any] = {
        # A server that hangs would otherwise hold a thread for ever.
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
        # Not after a timeout: those that wait for a server that hangs want to know.
        "retry": redis.retry.Retry(pauses, retries, supported_errors=(redis.ConnectionError,)),
        "protocol": 2,
    }
    if address.tls:
        options |= {"ssl": True, "ssl_ca_certs": address.ca}
    return options


def disconnect(client: Any) -> None:
    """Close a client's connections, also those to Sentinels."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    client.close()
    for sentinel in () if manager is None else manager.sentinels:
        sentinel.close()


def ask(client: Any, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Send commands together, to one server over one connection, and wait for their answers.

    All of them are sent again if the connection is lost. Connections to a server that has become a replica are closed,
    so that the next call finds the new primary if the name or Sentinels lead to it.

    Raises:
        redis.RedisError: one of them failed; see `translated`.
    """
    answers = _answers(client, commands)
    _check(client, answers)
    return answers


class Script:
    """A script that servers keep; it is called by the SHA-1 of its text, as a server computes it."""

    text: str
    hash: str

    def __init__(self, text: str) -> None:
        self.text, self.hash = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def run(client: Any, script: Script, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Call a script several times, and wait for the answers; as `ask` does, all calls may be sent again.

    A server that does not have the script (a new one, one that was started again, the next primary) is sent its text.

    Args:
        client: of `connect`.
        script: what is called.
        calls: number of keys, keys and arguments of each call; in a cluster the keys of one call are on one server.

    Raises:
        redis.RedisError: one of the calls failed; see `translated`.
    """
    redis = require("redis", extra="redis", purpose="a redis:// store")
    sent = list(calls)
    answers = _answers(client, [("EVALSHA", script.hash, *call) for call in sent])
    missing = [at for at, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)]
    if missing:
        again = _answers(client, [("EVAL", script.text, *sent[at]) for at in missing])
        for at, answer in zip(missing, again, strict=True):
            answers[at] = answer
    _check(client, answers)
    return answers


def _answers(client: Any, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The answers to commands, errors among them."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    return answers


def _check(client: Any, answers: Iterable[Any]) -> None:
    """Raise the first error among answers."""
    redis = require("redis", extra="redis", purpose="a redis:// store")
    for answer in answers:
        if isinstance(answer, redis.exceptions.ReadOnlyError) and hasattr(client, "connection_pool"):
            client.connection_pool.disconnect(inuse_connections=False)
        if isinstance(answer, Exception):
            raise answer


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """The client's errors as ours.

    Raises:
        StoreUnavailableError: the server does not answer, or takes no writes now.
        StoreCorruptError: a key holds something that no store puts there.
        StoreError: authentication failed, it is neither Redis nor Valkey, or of another kind than the URL says.
    """
    redis = require("redis", extra="redis", purpose="a redis:// store")
    try:
        yield
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        raise _as_ours(place, error) from error


def _as_ours(place: str, error: Exception) -> StoreError:
    text, classes = str(error), " ".join(kind.__name__ for kind in type(error).__mro__)
    for pattern, kind, problem, fix in _ERRORS:
        if re.search(pattern, f"{classes}\n{text}", re.MULTILINE):
            return kind(f"{place} {problem}: {text}", fix=fix)
    return StoreError(f"{place} answers: {text}", fix="see the log of the server")


_ACCESS = (
    "check the user and the password: in the URL, or in LIFELONG_REDIS_USER and LIFELONG_REDIS_PASSWORD; of Sentinels"
    " in LIFELONG_SENTINEL_USER and LIFELONG_SENTINEL_PASSWORD"
)
_ERRORS: tuple[tuple[str, type[StoreError], str, str], ...] = (
    ("invalid username|WRONGPASS|NOAUTH|Authentication required", StoreError, "does not let us in", _ACCESS),
    ("AuthenticationError|AuthenticationWrongNumberOfArgs", StoreError, "does not let us in", _ACCESS),
    ("NoPermissionError|NOPERM", StoreError, "forbids this user a command", "give the user the commands and keys"),
    ("OutOfMemoryError|^OOM", StoreUnavailableError, "has no memory left; what it refused was not kept",
     "raise the server's maxmemory, then send it again"),
    ("^MISCONF|^NOREPLICAS", StoreUnavailableError, "takes no writes; what it refused was not kept",
     "fix the server, then send it again"),
    ("ReadOnlyError|^READONLY", StoreUnavailableError, "is a replica that takes no writes; nothing was kept",
     "name its primary; where it was that until now, send it again when there is a new one"),
    ("MasterNotFoundError", StoreUnavailableError,
     "names no primary of this service now; whether the last write was kept is not known",
     "check the name of the service and its servers, then send it again: events with an offset or an event_id are not"
     " applied twice"),
    ("unknown command .WAITAOF", StoreError, "cannot wait for a disk",
     "leave out fsync=true, or take a server with WAITAOF: Valkey, or Redis from 7.2 on"),
    ("WAITAOF cannot be used when numlocal", StoreError, "keeps no log that could be waited for",
     "set appendonly yes, or leave out fsync=true"),
    ("Cluster mode is not enabled", StoreError, "is a server of its own", "leave out ?cluster=true"),
    ("TTL exhausted|TryAgainError", StoreUnavailableError,
     "is moving keys between its servers; whether the last write was kept is not known",
     "send it again in a moment: events with an offset or an event_id are not applied twice"),
    ("MovedError", StoreError, "is a server of a cluster", "add ?cluster=true to the URL"),
    ("DB index|SELECT", StoreError, "has no such database", "name a database of the server"),
    ("InvalidResponse|Protocol Error", StoreError, "is no Redis or Valkey server", "check host and port"),
    ("CERTIFICATE_VERIFY_FAILED", StoreError, "has a certificate that is not trusted",
     "name its authority with ?ca=FILE"),
    ("WRONGTYPE", StoreCorruptError, "holds other things under the store's keys", "choose another ?prefix="),
    ("ConnectionError|TimeoutError|BusyLoading|ClusterDown|SlotNotCovered|cannot be connected|^UNBLOCKED|^LOADING",
     StoreUnavailableError,
     "does not answer; whether the last write was kept is not known",
     "check that the server runs, then send it again: events with an offset or an event_id are not applied twice"),
)  # fmt: skip
"""A pattern of the names of an error's classes and of its text -> our kind, what is said of the server, what to do."""
