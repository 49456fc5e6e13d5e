"""Files of events as producers leave them, and what a store holds of them."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lifelong.online.memory.event import decode_event
from lifelong.online.memory.verify import verify

START = 1_700_000_000
HEAD = "user,item,time\n"


def lines_of(first: int, number: int) -> list[str]:
    """Lines of different events of a few users."""
    return [f"u{k % 5},i{k},{START + k}\n" for k in range(first, first + number)]


def code_of(path: Path, lines: Sequence[str]) -> bytes:
    """The bytes of a file of lines, in the format that its name says."""
    code = (HEAD + "".join(lines)).encode()
    return gzip.compress(code, mtime=0) if path.suffix == ".gz" else code


def write(path: Path, lines: Sequence[str]) -> Path:
    """A file of lines."""
    path.write_bytes(code_of(path, lines))
    return path


def assert_holds_once(artifact: Any, store: Any, lines: Sequence[str]) -> None:
    """Each line is one event of the log, nothing else is, and the memories are what a replay of the log gives."""
    users = [user for user, _ in store.scan()]
    held = [(user, decode_event(value)) for user in users for value in store.events(user)]
    assert Counter(f"{user},{event.item},{event.time}\n" for user, event in held) == Counter(lines)
    found = verify(artifact, None, store)
    assert found.equal and found.events == len(lines)
