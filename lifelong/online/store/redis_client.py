"""Where a Redis or Valkey server is, the way to it, and its errors as ours.

    redis://[user:password@]host[:port][/database]            one server; rediss:// with TLS
    redis://[user:password@]host[:port],host[:port]/?cluster=true      a cluster, found through any of its servers
    redis+sentinel://[user:password@]host[:port],host[:port]/service[/database]
                                                  the primary of a service, as Sentinels name it; rediss+sentinel://

    ?prefix=NAME     what the store's keys begin with, so that several stores share a server; "lifelong" if left out
    ?timeout=SECONDS how long one answer may take; 2.5 if left out, or 5 where replicas are waited for
    ?ca=FILE         certificate authority of a rediss:// server, where the system does not know it
    ?replicas=N      this many replicas have a write before it is acknowledged (`online.store.replicas`); default 0
    ?fsync=true      ... and it is on the disk of the primary and of these replicas, if all have `appendfsync always`
    ?replica_timeout=SECONDS   how long that may take; 3 if left out

A password can be in `LIFELONG_REDIS_PASSWORD` instead (its user in `LIFELONG_REDIS_USER`). No message shows it. The
login for Sentinels that want one is in `LIFELONG_SENTINEL_USER` and `LIFELONG_SENTINEL_PASSWORD`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from lifelong.errors import StoreCorruptError, StoreError, StoreUnavailableError, UsageError, require

EXPECTED = (
    "redis://host:port/database, redis://host:port,host:port/?cluster=true,"
    " or redis+sentinel://host:port,host:port/service/database; rediss:// for TLS"
)
SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
"""Of URLs that name a server."""
_OPTIONS = ("cluster", "prefix", "timeout", "ca", "replicas", "fsync", "replica_timeout")
_PORT, _SENTINEL_PORT = 6379, 26379
_RETRIES, _FIRST_PAUSE, _LONGEST_PAUSE = 6, 0.05, 1.0
"""Tries after the first one, and the seconds between them: together about two and a half seconds."""
_TIMEOUT, _WAITING_TIMEOUT, _ALMOST = 2.5, 5.0, 0.9
"""Seconds for one answer. A server that took it all is not asked again: those that wait for it want to know."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL.

    Args:
        hosts: (name, port) of each server that is named.
        tls: whether the connection is encrypted.
        cluster: whether the servers are a cluster.
        database: number of the database, 0 in a cluster.
        prefix: of all keys.
        timeout: seconds for one answer.
        ca: file of the certificate authority.
        user: to log in with, None for the server's default one.
        password: None where the server wants none.
        service: name of the primary that the Sentinels are asked for; None if the servers are no Sentinels.
        sentinel_user: to log in to Sentinels with.
        sentinel_password: None where they want none.
        replicas: how many have a write before it is acknowledged.
        fsync: whether it must be on a disk, too.
        replica_timeout: seconds in which that must be so.
    """

    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    cluster: bool = False
    database: int = 0
    prefix: str = "lifelong"
    timeout: float = 2.5
    ca: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    service: str | None = None
    sentinel_user: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    replicas: int = 0
    fsync: bool = False
    replica_timeout: float = 3.0

    @property
    def name(self) -> str:
        """The place for messages, without user and password."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        scheme = f"{'rediss' if self.tls else 'redis'}{'+sentinel' if self.service else ''}"
        service = f"{self.service}/" if self.service else ""
        return f"{scheme}://{hosts}/{service}{'?cluster=true' if self.cluster else self.database}"

    @property
    def waits(self) -> bool:
        """Whether a write must be somewhere else, too, before it is acknowledged."""
        return self.replicas > 0 or self.fsync


def parse(url: str, environment: Mapping[str, str] = os.environ) -> Address:
    """The address that a URL names.

    Args:
        url: see the module.
        environment: where user and password are looked up if the URL does not give them.

    Raises:
        UsageError: the URL is not valid; says what is wrong, without the password.

    Example:
        >>> address = parse("redis://ann:secret@host:7000,other/?cluster=true&replicas=1", {})
        >>> address.hosts, address.cluster, address.replicas
        ((('host', 7000), ('other', 6379)), True, 1)
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    place, _, path = place.partition("/")
    login, _, hosts = place.rpartition("@")
    user, _, password = login.partition(":")
    options = _options(query)
    sentinel = scheme.endswith("+sentinel")
    service, _, path = path.partition("/") if sentinel else ("", "", path)
    cluster = _flag("cluster", options)
    address = Address(
        hosts=tuple(_host(text, _SENTINEL_PORT if sentinel else _PORT) for text in hosts.split(",")),
        tls=scheme.startswith("rediss"),
        cluster=cluster,
        database=_database(path, cluster=cluster),
        prefix=_prefix(options.get("prefix", "lifelong")),
        timeout=_timeout(options),
        ca=options.get("ca"),
        user=unquote(user) or environment.get("LIFELONG_REDIS_USER") or None,
        password=unquote(password) or environment.get("LIFELONG_REDIS_PASSWORD") or None,
        service=unquote(service) or None,
        sentinel_user=(environment.get("LIFELONG_SENTINEL_USER") or None) if sentinel else None,
        sentinel_password=(environment.get("LIFELONG_SENTINEL_PASSWORD") or None) if sentinel else None,
        replicas=_replicas(options.get("replicas", "0")),
        fsync=_flag("fsync", options),
        replica_timeout=_seconds("replica_timeout", options.get("replica_timeout", "3")),
    )
    _check_parts(address, sentinel=sentinel, options=options)
    return address


def _check_parts(address: Address, *, sentinel: bool, options: Mapping[str, str]) -> None:
    """Refuse parts of a URL that do not go together."""
    if sentinel and not address.service:
        raise _bad("Sentinels without the name of a service", expected="redis+sentinel://host:port/service/database")
    if sentinel and address.cluster:
        raise _bad("Sentinels and a cluster", expected="one of them: a cluster finds its new primaries itself")
    if len(address.hosts) > 1 and not (address.cluster or sentinel):
        raise _bad("several servers that are no cluster and no Sentinels")
    if "replica_timeout" in options and not address.waits:
        raise _bad("a replica_timeout, but no replicas to wait for", expected="replicas=1, or more, or fsync=true, too")
    if address.waits and address.replica_timeout >= address.timeout:
        raise _bad(
            f"a replica_timeout of {address.replica_timeout:g} seconds and a timeout of {address.timeout:g}",
            expected="a shorter replica_timeout: the server answers only when it is over",
        )


def without_password(url: str) -> str:
    """A store's URL as it may be shown.

    Example:
        >>> without_password("redis://ann:secret@host:6379/0")
        'redis://host:6379/0'
    """
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}" if scheme in SCHEMES else url


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
            return redis.RedisCluster(startup_nodes=nodes, **options)
        client = _from_sentinels(address) if address.service else _from_server(address, options)
        try:
            client.ping()
        except BaseException:
            disconnect(client)
            raise
        return client


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
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
        "retry": _bounded(redis.retry.Retry)(pauses, retries),
        "protocol": 2,
    }
    if address.tls:
        options |= {"ssl": True, "ssl_ca_certs": address.ca}
    return options


def _bounded(retry: Any) -> Any:
    """A kind of `Retry` that does not try again when the tries so far took as long as all pauses would."""

    class Bounded(retry):  # type: ignore[misc]
        _retries: int

        def call_with_retry(self, do: Any, fail: Any, *rest: Any, **more: Any) -> Any:
            started, most = time.monotonic(), int(self._retries)

            def attempt() -> Any:
                try:
                    return do()
                except Exception:
                    # The error goes to the caller unless there are tries left.
                    late = time.monotonic() - started >= _TIMEOUT * _ALMOST
                    self._retries = 0 if late else most
                    raise

            try:
                return super().call_with_retry(attempt, fail, *rest, **more)
            finally:
                self._retries = most

    return Bounded


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


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise _bad(f"an option {name!r}", expected=f"one of: {', '.join(_OPTIONS)}")
    return options


def _host(text: str, usual: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _bad(f"a server {text!r}: {error}") from error
    if not host:
        raise _bad("no server")
    return host, usual if port is None else port


def _database(path: str, *, cluster: bool) -> int:
    if not path:
        return 0
    if not path.isdecimal() or (cluster and int(path)):
        raise _bad(f"a database {path!r}", expected="0: a cluster has one" if cluster else "a number")
    return int(path)


def _flag(name: str, options: Mapping[str, str]) -> bool:
    text = options.get(name, "false")
    if text not in ("true", "false"):
        raise _bad(f"{name}={text}", expected="true or false")
    return text == "true"


def _replicas(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise _bad(f"replicas={text}", expected="how many replicas have a write before it is acknowledged: 0, 1, ...")
    return int(text)


def _timeout(options: Mapping[str, str]) -> float:
    if "timeout" in options:
        return _seconds("timeout", options["timeout"])
    # The server answers only when the wait for replicas is over.
    waits = options.get("replicas", "0") != "0" or options.get("fsync") == "true"
    return _WAITING_TIMEOUT if waits else _TIMEOUT


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        raise _bad(f"a prefix {text!r}", expected="letters, digits, and _ . -")
    return text


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise _bad(f"a {name} of {text!r}", expected="seconds, more than 0")
    return seconds


def _bad(found: str, *, expected: str = EXPECTED) -> UsageError:
    return UsageError(f"the URL of the store names {found}", expected=expected, fix="correct the URL")
