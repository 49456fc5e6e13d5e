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
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from lifelong.online.store.server_url import ServerUrl

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
    parts = ServerUrl.of(url, _OPTIONS, what="store", expected=EXPECTED, fix="correct the URL")
    sentinel, cluster = parts.scheme.endswith("+sentinel"), _flag("cluster", parts)
    # Of Sentinels the path begins with the service whose primary they name.
    service, _, database = parts.path.partition("/") if sentinel else ("", "", parts.path)
    user, password = parts.login("REDIS", environment)
    asking = replace(parts, user="", password="").login("SENTINEL", environment) if sentinel else (None, None)
    # The server answers only when the wait for replicas is over.
    waits = parts.options.get("replicas", "0") != "0" or parts.options.get("fsync") == "true"
    address = Address(
        hosts=tuple(parts.host(text, _SENTINEL_PORT if sentinel else _PORT) for text in parts.hosts),
        tls=parts.scheme.startswith("rediss"),
        cluster=cluster,
        database=_database(database, parts, cluster=cluster),
        prefix=_prefix(parts),
        timeout=parts.seconds("timeout", _WAITING_TIMEOUT if waits else TIMEOUT),
        ca=parts.options.get("ca"),
        user=user,
        password=password,
        service=unquote(service) or None,
        sentinel_user=asking[0],
        sentinel_password=asking[1],
        replicas=_replicas(parts),
        fsync=_flag("fsync", parts),
        replica_timeout=parts.seconds("replica_timeout", 3.0),
    )
    _check_parts(address, parts, sentinel=sentinel)
    return address


def _check_parts(address: Address, parts: ServerUrl, *, sentinel: bool) -> None:
    """Refuse parts of a URL that do not go together."""
    if sentinel and not address.service:
        raise parts.bad(
            "Sentinels without the name of a service", expected="redis+sentinel://host:port/service/database"
        )
    if sentinel and address.cluster:
        raise parts.bad("Sentinels and a cluster", expected="one of them: a cluster finds its new primaries itself")
    if len(address.hosts) > 1 and not (address.cluster or sentinel):
        raise parts.bad("several servers that are no cluster and no Sentinels")
    if "replica_timeout" in parts.options and not address.waits:
        raise parts.bad(
            "a replica_timeout, but no replicas to wait for", expected="replicas=1, or more, or fsync=true, too"
        )
    if address.waits and address.replica_timeout >= address.timeout:
        raise parts.bad(
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


def _database(text: str, parts: ServerUrl, *, cluster: bool) -> int:
    if not text:
        return 0
    if not text.isdecimal() or (cluster and int(text)):
        raise parts.bad(f"a database {text!r}", expected="0: a cluster has one" if cluster else "a number")
    return int(text)


def _flag(name: str, parts: ServerUrl) -> bool:
    text = parts.options.get(name, "false")
    if text not in ("true", "false"):
        raise parts.bad(f"{name}={text}", expected="true or false")
    return text == "true"


def _replicas(parts: ServerUrl) -> int:
    text = parts.options.get("replicas", "0")
    if not (text.isascii() and text.isdecimal()):
        raise parts.bad(
            f"replicas={text}", expected="how many replicas have a write before it is acknowledged: 0, 1 ..."
        )
    return int(text)


def _prefix(parts: ServerUrl) -> str:
    text = parts.options.get("prefix", "lifelong")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        raise parts.bad(f"a prefix {text!r}", expected="letters, digits, and _ . -")
    return text
