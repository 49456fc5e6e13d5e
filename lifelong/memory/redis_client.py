"""Where a Redis or Valkey server is, the way to it, and its errors as ours.

    redis://[user:password@]host[:port][/database]            one server; rediss:// with TLS
    redis://[user:password@]host[:port],host[:port]/?cluster=true      a cluster, found through any of its servers

    ?prefix=NAME     what the store's keys begin with, so that several stores share a server; "lifelong" if left out
    ?timeout=SECONDS how long one answer may take; 5 if left out
    ?ca=FILE         certificate authority of a rediss:// server, where the system does not know it

A password can stand in `LIFELONG_REDIS_PASSWORD` instead (its user in `LIFELONG_REDIS_USER`). It is in no message.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from lifelong.errors import StoreCorruptError, StoreError, StoreUnavailableError, UsageError, require

EXPECTED = "redis://host:port/database, or redis://host:port,host:port/?cluster=true; rediss:// for TLS"
_OPTIONS = ("cluster", "prefix", "timeout", "ca")
_RETRIES, _FIRST_PAUSE, _LONGEST_PAUSE = 6, 0.05, 1.0
"""Tries after the first one, and the seconds between them: together about two and a half seconds."""


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
    """

    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    cluster: bool = False
    database: int = 0
    prefix: str = "lifelong"
    timeout: float = 5.0
    ca: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The place for messages, without user and password."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{'rediss' if self.tls else 'redis'}://{hosts}/{'?cluster=true' if self.cluster else self.database}"


def parse(url: str, environment: Mapping[str, str] = os.environ) -> Address:
    """The address that a URL names.

    Args:
        url: see the module.
        environment: where user and password are looked up that the URL does not give.

    Raises:
        UsageError: it names none; says what is wrong, without the password.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    place, _, path = place.partition("/")
    login, _, hosts = place.rpartition("@")
    user, _, password = login.partition(":")
    options = _options(query)
    cluster = _flag(options.get("cluster", "false"))
    address = Address(
        hosts=tuple(_host(text) for text in hosts.split(",")),
        tls=scheme == "rediss",
        cluster=cluster,
        database=_database(path, cluster=cluster),
        prefix=_prefix(options.get("prefix", "lifelong")),
        timeout=_timeout(options.get("timeout", "5")),
        ca=options.get("ca"),
        user=unquote(user) or environment.get("LIFELONG_REDIS_USER") or None,
        password=unquote(password) or environment.get("LIFELONG_REDIS_PASSWORD") or None,
    )
    if len(address.hosts) > 1 and not cluster:
        raise _bad("several servers that are no cluster")
    return address


def without_password(url: str) -> str:
    """A store's URL as it may be shown."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}" if scheme in ("redis", "rediss") else url


def connect(address: Address) -> Any:
    """A client of the server or the cluster; several threads may use it.

    Raises:
        MissingExtraError: the package is not installed.
        StoreError: there is no such server, or it lets nobody in; see `translated`.
    """
    redis = require("redis", extra="redis", purpose="a redis:// store")
    backoff = require("redis.backoff", extra="redis", purpose="a redis:// store")
    pauses = backoff.ExponentialBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE)
    options: dict[str, Any] = {
        "username": address.user,
        "password": address.password,
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
        "retry": redis.retry.Retry(pauses, _RETRIES),
        "protocol": 2,
    }
    if address.tls:
        options |= {"ssl": True, "ssl_ca_certs": address.ca}
    with translated(address.name):
        if address.cluster:
            nodes = [redis.cluster.ClusterNode(*host) for host in address.hosts]
            return redis.RedisCluster(startup_nodes=nodes, **options)
        host, port = address.hosts[0]
        client = redis.Redis(host=host, port=port, db=address.database, **options)
        try:
            client.ping()
        except BaseException:
            client.close()
            raise
        return client


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """The client's errors as ours.

    Raises:
        StoreUnavailableError: the server does not answer, or takes no writes now.
        StoreCorruptError: a key holds something that no store puts there.
        StoreError: it lets nobody in, is none of the two servers, or is of another kind than the URL says.
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
    return StoreError(f"{place} answers: {text}")


_ACCESS = "check the user and the password: in the URL, or in LIFELONG_REDIS_USER and LIFELONG_REDIS_PASSWORD"
_ERRORS: tuple[tuple[str, type[StoreError], str, str], ...] = (
    ("invalid username|WRONGPASS|NOAUTH|Authentication required", StoreError, "does not let us in", _ACCESS),
    ("AuthenticationError|AuthenticationWrongNumberOfArgs", StoreError, "does not let us in", _ACCESS),
    ("NoPermissionError|NOPERM", StoreError, "forbids this user a command", "give the user the commands and keys"),
    ("OutOfMemoryError|^OOM", StoreUnavailableError, "has no memory left; what it refused was not kept",
     "raise the server's maxmemory, then send it again"),
    ("^MISCONF|^NOREPLICAS", StoreUnavailableError, "takes no writes; what it refused was not kept",
     "mend the server, then send it again"),
    ("ReadOnlyError|^READONLY", StoreUnavailableError, "is a replica that takes no writes", "name its primary"),
    ("Cluster mode is not enabled", StoreError, "is a server of its own", "leave out ?cluster=true"),
    ("MovedError", StoreError, "is a server of a cluster", "add ?cluster=true to the URL"),
    ("DB index|SELECT", StoreError, "has no such database", "name a database of the server"),
    ("InvalidResponse|Protocol Error", StoreError, "is no Redis or Valkey server", "check host and port"),
    ("CERTIFICATE_VERIFY_FAILED", StoreError, "has a certificate that is not trusted",
     "name its authority with ?ca=FILE"),
    ("WRONGTYPE", StoreCorruptError, "holds other things under the store's keys", "choose another ?prefix="),
    ("ConnectionError|TimeoutError|BusyLoading|ClusterDown|SlotNotCovered|cannot be connected", StoreUnavailableError,
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


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _bad(f"a server {text!r}: {error}") from error
    if not host:
        raise _bad("no server")
    return host, 6379 if port is None else port


def _database(path: str, *, cluster: bool) -> int:
    if not path:
        return 0
    if not path.isdecimal() or (cluster and int(path)):
        raise _bad(f"a database {path!r}", expected="0: a cluster has one" if cluster else "a number")
    return int(path)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise _bad(f"cluster={text}", expected="true or false")
    return text == "true"


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        raise _bad(f"a prefix {text!r}", expected="letters, digits, and _ . -")
    return text


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise _bad(f"a timeout of {text!r}", expected="seconds, more than 0")
    return seconds


def _bad(found: str, *, expected: str = EXPECTED) -> UsageError:
    return UsageError(f"the URL of the store names {found}", expected=expected)
