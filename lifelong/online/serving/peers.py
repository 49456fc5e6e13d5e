"""Where the shards are that other nodes have: a file that says which address answers for which of them.

    "0-7" = "http://node-0.shop:8000"
    "8-15,40" = "http://node-1.shop:8000"

It is TOML, or JSON with the same keys. All nodes may have the same file; it is read again when it changes, so that a
shard has moved, or a standby has become the owner, when the file says so.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from lifelong.errors import UsageError
from lifelong.online.serving.watched import WatchedFile
from lifelong.online.store.part import numbers_of

_EXPECTED = 'lines such as "0-7" = "http://node-0:8000", in TOML or JSON'


Peers = WatchedFile[dict[int, str]]
"""Shard -> the address of the node that answers for it."""


def read_peers(path: Path) -> dict[int, str]:
    """The addresses of a file.

    Raises:
        UsageError: it cannot be read, or names no addresses, or two for one shard.
    """
    try:
        text = path.read_text(encoding="utf-8")
        named = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (OSError, ValueError) as error:
        problem = f"cannot read the addresses of other nodes: {path}: {error}"
        raise UsageError(problem, expected=_EXPECTED, fix="correct it") from error
    found: dict[int, str] = {}
    for shards, address in named.items():
        if not (isinstance(address, str) and address.startswith(("http://", "https://"))):
            raise UsageError(f"{path}: {shards!r} is at {address!r}", expected=_EXPECTED, fix="correct the address")
        for number in numbers_of(shards):
            if found.setdefault(number, address.rstrip("/")) != address.rstrip("/"):
                problem = f"{path}: shard {number} is at two addresses"
                raise UsageError(problem, expected="one owner of each shard", fix="take one out")
    return found
