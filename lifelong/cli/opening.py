"""Opens what several commands work on, and closes it again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import MemoryStore
    from lifelong.serving.scorer import Scorer


@contextlib.contextmanager
def open_pair(artifact: Path, url: str, *, read_only: bool) -> Iterator[tuple[Artifact, MemoryStore]]:
    """An artifact and a store."""
    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import open_store

    opened = Artifact.open(artifact)
    store = open_store(url, read_only=read_only)
    try:
        yield opened, store
    finally:
        store.close()


@contextlib.contextmanager
def open_scorer(artifact: Path, url: str, *, base_rate: float | Mapping[str, float] | None) -> Iterator[Scorer]:
    """A scorer on a store that is only read, so that a running service may own it."""
    with open_pair(artifact, url, read_only=True) as (opened, store):
        from lifelong.serving.scorer import Scorer

        yield Scorer(opened, store, base_rate=base_rate)
