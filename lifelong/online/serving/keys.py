"""API keys and their scopes.

A file has one key a line, followed by its scopes; a key without scopes has all of `DEFAULT_SCOPES`:

    s3cret-of-the-shop      events
    s3cret-of-the-ranking   score
    s3cret-of-the-owner     admin
    sha256:9f86d081884c7d65...   score

A key can be listed by its SHA-256 in place of itself, so that the file opens nothing. Keys are long and random, so a
plain hash is enough. The service keeps hashes only, and reads its files again when they change.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lifelong.errors import UsageError
from lifelong.online.serving.watched import WatchedFile

SCOPES = ("events", "score", "users", "admin")
"""`admin` includes all others."""
DEFAULT_SCOPES = frozenset(SCOPES[:-1])
"""Scopes of a key that is listed without any."""
Keys = dict[str, frozenset[str]]
"""Key, or `sha256:` and its hash -> its scopes."""
HASHED = re.compile("sha256:[0-9a-f]{64}")
"""A key that is listed by its hash."""

_SCOPE_OF = {
    "/v1/events": "events",
    "/v1/items": "events",
    "/v1/score": "score",
    "/v1/explain": "score",
    "/v1/model": "score",
    "/v1/catalogue": "score",
    "/v1/users": "users",
}


def scope_of(path: str) -> str | None:
    """The scope that an address needs; None if it needs no key. Addresses not listed here are for admins.

    >>> scope_of("/v1/score"), scope_of("/v1/admin/switch"), scope_of("/metrics")
    ('score', 'admin', None)
    """
    if not path.startswith("/v1/"):
        return None
    if path.startswith("/v1/items/"):
        return "events"
    if path.startswith("/v1/users/") and path.endswith(("/features", "/top")):
        return "score"
    return "users" if path.startswith("/v1/users/") else _SCOPE_OF.get(path, "admin")


def read_keys(path: Path) -> Keys:
    """The keys of a file; empty lines and lines that start with # are left out.

    Raises:
        UsageError: the file cannot be read, holds no key, or names an unknown scope.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot read the API keys: {path}: {getattr(error, 'strerror', None) or error}"
        raise UsageError(
            problem, expected="a text file, one key a line", fix="check the path, its rights and its encoding"
        ) from error
    keys: Keys = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            key, scopes = _parsed(path, number, line)
            keys[key] = keys.get(key, frozenset()) | scopes
    if not keys:
        raise UsageError(
            f"{path} holds no API key", expected="one key a line", fix="add a key, or leave the option out"
        )
    return keys


def _parsed(path: Path, number: int, line: str) -> tuple[str, frozenset[str]]:
    key, *rest = line.split()
    scopes = frozenset(word for word in " ".join(rest).replace(",", " ").split())
    if unknown := sorted(scopes - set(SCOPES)):
        # Never the line itself, which holds the key.
        raise UsageError(
            f"{path}, line {number}: there is no scope {unknown[0]!r}",
            expected=f"KEY, or KEY and some of: {', '.join(SCOPES)}",
            fix="correct the line",
        )
    return key, scopes or DEFAULT_SCOPES


def check_exposure(host: str, *, keys: bool, open_to_all: bool = False) -> None:
    """Refuse to serve other machines without keys.

    Args:
        host: the address to listen on.
        keys: whether there are API keys.
        open_to_all: whether to serve without keys nevertheless.

    Raises:
        UsageError: everybody who reaches the machine could read and erase memories.
    """
    if keys or open_to_all or host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback):
        return
    raise UsageError(
        f"--host {host} is reachable from other machines, and there are no API keys",
        expected="--api-key-file FILE, or a loopback address such as 127.0.0.1",
        fix="name a file with keys; --no-keys serves without keys, behind a proxy that checks callers",
    )


def hashed(key: str) -> str:
    """A key as it can be listed: by its hash. What is a hash already stays one.

    >>> hashed("test")[:17], hashed(hashed("test")) == hashed("test")
    ('sha256:9f86d08188', True)
    """
    return key if HASHED.fullmatch(key) else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


class KeyFile(WatchedFile[Keys]):
    """The keys of a file, read again when it changes.

    Args:
        path: the file.
        now: a clock, in seconds.

    Raises:
        UsageError: see `read_keys`.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(path, read_keys, what="API keys", now=now)


GivenKeys = Sequence[str] | Mapping[str, frozenset[str]] | KeyFile
"""Keys without scopes, with scopes, or in a file."""


class KeyRing:
    """Which scopes a key has; knows only hashes.

    >>> ring = KeyRing({"shop": frozenset({"events"})})
    >>> ring.scopes("shop"), ring.scopes("guess")
    (frozenset({'events'}), None)

    Args:
        given: the keys.

    Raises:
        UsageError: they are something else.
    """

    def __init__(self, given: GivenKeys) -> None:
        self._source = given if isinstance(given, KeyFile) else _with_scopes(given)
        self._made: Keys | None = None
        self._scopes: Keys = {}

    def scopes(self, key: str) -> frozenset[str] | None:
        """The scopes of a key, None if there is no such key."""
        keys = self._source.content() if isinstance(self._source, KeyFile) else self._source
        # A file gives the same object as long as it has not changed.
        if keys is not self._made:
            self._made, self._scopes = keys, {}
            for name, scopes in keys.items():
                self._scopes[hashed(name)] = self._scopes.get(hashed(name), frozenset()) | scopes
        # A hash does not open anything: what is compared is the hash of what came.
        return self._scopes.get(f"sha256:{hashlib.sha256(key.encode('latin-1')).hexdigest()}")


def _with_scopes(keys: Sequence[str] | Mapping[str, frozenset[str]]) -> Keys:
    # A text is a sequence, too: each of its letters would be a key.
    if (
        isinstance(keys, str)
        or not isinstance(keys, Sequence | Mapping)
        or not all(isinstance(key, str) for key in keys)
    ):
        # Never the keys themselves.
        raise UsageError(
            f"keys of type {type(keys).__name__}",
            expected="a list of keys, key -> scopes, or a KeyFile",
            fix='create_app(artifact, store, api_keys=["..."])',
        )
    return dict(keys) if isinstance(keys, Mapping) else dict.fromkeys(keys, DEFAULT_SCOPES)


def allowed_hosts(host: str, names: Sequence[str], *, keys: bool) -> list[str] | None:
    """The names under which a service may be called; None for any.

    >>> allowed_hosts("127.0.0.1", [], keys=False), allowed_hosts("0.0.0.0", [], keys=True)
    ([], None)
    >>> allowed_hosts("shop.internal", ["ranking"], keys=False)
    ['shop.internal', 'ranking']

    Args:
        host: the address to listen on.
        names: those that were given.
        keys: whether a request needs a key, which a web page does not have.
    """
    if keys and not names:
        return None
    return [*([] if is_address(host) else [host]), *names]


# Bounded, since a client may send as many names as it likes.
@functools.lru_cache(1_024)
def is_address(host: str) -> bool:
    """Whether a host is an IP address, and no name.

    >>> is_address("::1"), is_address("localhost")
    (True, False)
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
