"""Opens the artifact, store, scorer or dead letters of a command, and closes them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.errors import UsageError

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.online.ingestion.dead_letters import FileLetters
    from lifelong.online.scoring.scorer import Scorer
    from lifelong.online.store.contract import MemoryStore


@contextlib.contextmanager
def open_pair(artifact: Path, url: str, *, read_only: bool) -> Iterator[tuple[Artifact, MemoryStore]]:
    """An artifact and a store, closed at the end of the context; until then no training replaces the artifact."""
    from lifelong.artifact.folder import Artifact
    from lifelong.atomic import guarded
    from lifelong.online.store.descriptors import raise_descriptor_limit
    from lifelong.online.store.opening import open_store

    # Before the store is opened: each of its tables takes a descriptor.
    raise_descriptor_limit()
    opened = Artifact.open(artifact)
    with guarded(opened.path), contextlib.closing(open_store(url, read_only=read_only)) as store:
        yield opened, store


def lasting(url: str) -> str:
    """The address of a store that is all that a command leaves behind.

    Raises:
        UsageError: it is this process's memory.
    """
    if url.partition("?")[0] == "memory://":
        raise UsageError(
            f"--store {url}: it is gone when this command ends",
            expected="a store that outlives it",
            fix="--store rocksdb://FOLDER, or --store redis://HOST:PORT/0",
        )
    return url


@contextlib.contextmanager
def open_scorer(artifact: Path, url: str, *, base_rate: float | Mapping[str, float] | None) -> Iterator[Scorer]:
    """A scorer on a store that is opened for reading only, so that a running service may own it."""
    with open_pair(artifact, url, read_only=True) as (opened, store):
        from lifelong.online.scoring.scorer import Scorer

        yield Scorer(opened, store, base_rate=base_rate)


@contextlib.contextmanager
def open_letters(place: str | None) -> Iterator[FileLetters | None]:
    """The file of dead letters, None if they are not kept."""
    from lifelong.online.ingestion.dead_letters import FileLetters

    with contextlib.nullcontext() if place is None else contextlib.closing(FileLetters(Path(place))) as letters:
        yield letters
