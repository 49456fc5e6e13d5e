"""Where a Redis or Valkey server is: the URL of a store on it.

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

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from lifelong.errors import UsageError

EXPECTED = (
    "redis://host:port/database, redis://host:port,host:port/?cluster=true,"
    " or redis+sentinel://host:port,host:port/service/database; rediss:// for TLS"
)
SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
"""Of URLs that name a server."""
_OPTIONS = ("cluster", "prefix", "timeout", "ca", "replicas", "fsync", "replica_timeout")
_PORT, _SENTINEL_PORT = 6379, 26379
TIMEOUT, _WAITING_TIMEOUT = 2.5, 5.0
"""Seconds for one answer, without and with a wait for replicas."""


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
    server, _, query = rest.partition("?")
    server, _, path = server.partition("/")
    login, _, hosts = server.rpartition("@")
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
    return _WAITING_TIMEOUT if waits else TIMEOUT


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
