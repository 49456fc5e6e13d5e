"""Paths or objects alike: what the public functions take in place of an opened dataset, artifact or store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.errors import ArtifactError, StoreForeignError, UsageError
from lifelong.online.store.artifact_list import StoredArtifact
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.opening import open_store

AnyDataset = Dataset | Path | str
AnyArtifact = Artifact | Path | str
AnyStore = MemoryStore | str
Counter = Callable[[int, int], None]


def as_dataset(dataset: AnyDataset) -> Dataset:
    """An opened dataset.

    Raises:
        DatasetError: the folder is not one.
        UsageError: it is neither a folder nor a dataset.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, str | Path):
        return Dataset(dataset)
    raise UsageError(
        f"a dataset of type {type(dataset).__name__}",
        expected="a Dataset, or the folder of one",
        fix='dataset = lifelong.prepare(log, out="data", user=..., item=..., time=...)',
    )


def open_artifact(path: AnyArtifact, *, verify: Literal["full", "sizes"] = "full") -> Artifact:
    """An opened artifact; see `Artifact.open`.

    Args:
        path: its folder; an artifact that is open already is given back.
        verify: "full" reads all bytes and compares checksums, "sizes" compares only names and sizes.

    Raises:
        ArtifactError: the folder is missing, not an artifact, or damaged.
        UsageError: it is neither a folder nor an artifact.
    """
    check_word("verify", verify, full="reads every byte", sizes="is faster and misses altered bytes")
    if isinstance(path, Artifact):
        return path
    if isinstance(path, str | Path):
        return Artifact.open(path, verify=verify)
    raise UsageError(
        f"an artifact of type {type(path).__name__}",
        expected="an Artifact, or the folder of one",
        fix='artifact = lifelong.train(dataset, "tally")',
    )


def as_store(store: AnyStore, *, read_only: bool = False) -> tuple[MemoryStore, bool]:
    """An opened store, and whether it was opened here: then whoever asked closes it.

    Raises:
        StoreError: it cannot be opened.
        UsageError: it is neither a URL nor a store.
    """
    if isinstance(store, str):
        return open_store(store, read_only=read_only), True
    return checked_store(store, expected="a store, or its URL"), False


def checked_store(store: MemoryStore, *, expected: str = "an opened store, which its owner closes") -> MemoryStore:
    """The store that was given.

    Raises:
        UsageError: it is none.

    >>> checked_store("memory://")
    Traceback (most recent call last):
    lifelong.errors.UsageError: a store of type str. Expected: an opened store, which its owner closes. To do: \
store = lifelong.open_store("rocksdb://store").
    """
    if not all(hasattr(store, name) for name in ("read_many", "commit", "artifact_list")):
        found, fix = f"a store of type {type(store).__name__}", 'store = lifelong.open_store("rocksdb://store")'
        raise UsageError(found, expected=expected, fix=fix)
    return store


def counter(progress: Counter | bool | None) -> Counter | None:
    """What is called with (done, total); None and False are for nothing.

    Raises:
        UsageError: it cannot be called.
    """
    if progress is None or progress is False:
        return None
    if not callable(progress):
        raise UsageError(
            f"progress = {progress!r}", expected="a function of (done, total), or None", fix="progress=print"
        )
    return progress


def check_word(name: str, given: object, **meant: str) -> None:
    """Refuse an argument that is none of the words that it may be.

    Args:
        name: of the argument.
        given: its value.
        meant: word -> what it does.

    Raises:
        UsageError: it is none of them; says what each does.

    >>> check_word("late", "maybe", apply="folds late events in", refuse="leaves them out")
    Traceback (most recent call last):
    lifelong.errors.UsageError: late = 'maybe'. Expected: "apply" or "refuse". To do: "apply" folds late events in; \
"refuse" leaves them out.
    """
    if given not in list(meant):
        expected = " or ".join(f'"{word}"' for word in meant)
        fix = "; ".join(f'"{word}" {what}' for word, what in meant.items())
        raise UsageError(f"{name} = {given!r}", expected=expected, fix=fix)


@contextlib.contextmanager
def opened_store(store: AnyStore, *, read_only: bool = False) -> Iterator[MemoryStore]:
    """A store; one that was given by its URL is closed at the end."""
    opened, own = as_store(store, read_only=read_only)
    # Whoever gave an opened store goes on using it.
    with contextlib.closing(opened) if own else contextlib.nullcontext():
        yield opened


def open_stored(stored: StoredArtifact) -> Artifact:
    """An artifact of a store's list, from the folder where it was.

    Raises:
        StoreForeignError: it is not there.
    """
    try:
        found = Artifact.open(Path(stored.identity.path)) if stored.identity.path else None
    except ArtifactError as error:
        raise _lost(stored, error.found) from error
    if found is None or found.id != stored.id:
        raise _lost(stored, f"there is another one in {stored.identity.path}" if found else "its folder is not known")
    return found


def _lost(stored: StoredArtifact, why: str) -> StoreForeignError:
    return StoreForeignError(
        f"the store also holds memories of artifact {stored.id[:12]}, which cannot be opened: {why}",
        expected="every artifact that the store holds memories of",
        fix=f"put it back, or drop its memories: lifelong switch --drop {stored.id[:12]}",
    )
