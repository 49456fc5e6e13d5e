"""API keys and what each of them opens.

A file has one key a line, and behind it the scopes that it opens; a key without scopes opens all of `OPENED`:

    s3cret-of-the-shop      events
    s3cret-of-the-ranking   score
    s3cret-of-the-owner     admin
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from lifelong.errors import UsageError

SCOPES = ("events", "score", "users", "admin")
"""`admin` opens what the others open, too."""
OPENED = frozenset(SCOPES[:-1])
"""What a key opens of which nothing is said."""
Keys = dict[str, frozenset[str]]
"""Key -> the scopes that it opens."""

_SCOPE_OF = {"/v1/events": "events", "/v1/items": "events", "/v1/score": "score", "/v1/explain": "score"}


def scope_of(path: str) -> str | None:
    """The scope that an address needs; None where it needs no key. What is not known here is for admins."""
    if not path.startswith("/v1/"):
        return None
    return "users" if path.startswith("/v1/users/") else _SCOPE_OF.get(path, "admin")


def read_keys(path: Path) -> Keys:
    """The keys of a file; empty lines and lines that start with # are left out.

    Raises:
        UsageError: the file cannot be read, holds no key, or names a scope that there is not.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the API keys: {error}", expected="a text file, one key a line") from error
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
        )
    return key, scopes or OPENED


def check_exposure(host: str, *, keys: bool, open_to_all: bool = False) -> None:
    """Refuse to serve other machines without keys.

    Args:
        host: the address to listen on.
        keys: whether there are API keys.
        open_to_all: whether that is wanted nevertheless.

    Raises:
        UsageError: everybody who reaches the machine could read and erase.
    """
    if keys or open_to_all or _is_loopback(host):
        return
    raise UsageError(
        f"--host {host} lets other machines in, and there are no API keys",
        expected="--api-key-file FILE, or a loopback address such as 127.0.0.1",
        fix="name a file with keys; --no-keys serves without them, where something before the service checks who asks",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
