"""Opens a store by its URL; the only module that knows all kinds of stores."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl

from lifelong.errors import UsageError
from lifelong.online.store.contract import MemoryStore
from lifelong.online.store.part import PARTITIONERS, FolderUrl, Share, numbers_of
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.redis_address import SCHEMES, parse
from lifelong.plugins import Registry

STORES = Registry[Callable[..., MemoryStore]]("stores", {}, reserved=("memory", "rocksdb", *SCHEMES))
"""Scheme -> what opens a store of another package."""


def open_store(url: str, *, read_only: bool = False) -> MemoryStore:
    """Open a store, or make a new one.

    Args:
        url: `memory://` (gone with the process), `rocksdb:///path` (see `lifelong.online.store.rocksdb`), with
            `?shards=N` for a new store of several databases, of which `&own=0-7` opens some (see
            `lifelong.online.store.sharded`), or `redis://host:port/database` (see
            `lifelong.online.store.redis_address` and `.redis`); or the URL of a store of another package (see
            `lifelong.plugins`).
        read_only: opens an existing store, which another process may own: of a folder a fixed view, of a server its
            present state.

    Raises:
        UsageError: the URL names no kind of store, or another number of shards than the store has.
        StoreLockedError: another process owns it.
        StoreError: it cannot be opened.

    Example:
        >>> store = open_store("memory://")
        >>> store.read_many(["ann"]), store.artifact_list().identity
        ([None], None)
    """
    if not isinstance(url, str):
        raise UsageError(f"a URL of type {type(url).__name__}", expected="a text", fix="write rocksdb://store")
    scheme, separator, place = url.partition("://")
    STORES.check_names()
    expected = "memory://, rocksdb:///path or redis://host:port/database"
    if not separator:
        raise UsageError(f"{url!r} is not the URL of a store", expected=expected, fix=f"write {_meant(url)}")
    if scheme == "memory":
        if place:
            raise UsageError(
                f"{url!r}: a store in memory has no place",
                expected="memory://",
                fix="leave out the place, or use rocksdb:///path for a store that lasts",
            )
        return InMemoryStore(read_only=read_only)
    if scheme == "rocksdb":
        from lifelong.online.store.sharded import open_folder

        return open_folder(folder_of(url), read_only=read_only)
    if scheme in SCHEMES:
        from lifelong.online.store.redis import RedisStore

        return RedisStore(parse(url), read_only=read_only)
    if scheme in STORES:
        return _open_other(scheme, url, read_only=read_only)
    others = "".join(f", {name}://" for name in STORES)
    raise UsageError(
        f"there is no store {scheme}://",
        expected=expected + others,
        fix="correct the URL, or install the package that brings this store",
    )


def _open_other(scheme: str, url: str, *, read_only: bool) -> MemoryStore:
    """Open a store of another package, and say what is missing if it is none."""
    opener = STORES[scheme]
    try:
        # A few builtins have no signature.
        with contextlib.suppress(ValueError):
            inspect.signature(opener).bind(url, read_only=read_only)
    except TypeError as error:
        raise UsageError(
            f"what opens {scheme}:// cannot be called with a URL and read_only: {error}",
            expected="a function of (url, *, read_only) that gives a store",
            fix="begin it with: def open_store(url, *, read_only=False)",
        ) from error
    store = opener(url, read_only=read_only)
    missing = [name for name in vars(MemoryStore) if not name.startswith("_") and not hasattr(store, name)]
    if missing:
        raise UsageError(
            f"what {scheme}:// opens, of type {type(store).__name__}, lacks {', '.join(missing)}",
            expected="a store, see MemoryStore in lifelong.online.store.contract",
            fix="run the checks of lifelong.testing.store_contract on it",
        )
    return store


def local_folder(url: str) -> Path:
    """The folder of a store on this machine's disk.

    Raises:
        UsageError: the URL is not that of one.

    Example:
        >>> local_folder("rocksdb:///data/memories")
        PosixPath('/data/memories')
    """
    if not url.startswith("rocksdb://"):
        raise UsageError(
            f"{url!r} is not a store on a disk of this machine",
            expected="rocksdb:///path",
            fix="docs/backup.md says how to copy a server",
        )
    return folder_of(url).path


def node_of(url: str) -> Share | None:
    """The shards of a node: those that it owns, and how partitions are chosen; None if the store is not divided so.

    Raises:
        UsageError: see `folder_of`, and `open_store`.
    """
    if not url.startswith("rocksdb://"):
        return None
    from lifelong.online.store.folder import read_head
    from lifelong.online.store.sharded import share_of

    named = folder_of(url)
    head = read_head(named.path) or {"shards": named.shards}
    share = None if head.get("shards") is None else share_of(named, head)
    return share if share is not None and share.partitioner else None


def folder_of(url: str) -> FolderUrl:
    """What a `rocksdb://` URL says.

    Raises:
        UsageError: it names no folder, or has an unknown option.

    Example:
        >>> named = folder_of("rocksdb:///data/memories?shards=64&own=0-2,12")
        >>> named.path, named.shards, named.own
        (PosixPath('/data/memories'), 64, (0, 1, 2, 12))
    """
    folder, _, query = url.partition("://")[2].partition("?")
    expected = "rocksdb:///path, or rocksdb:///path?shards=N for a new store of N shards, or ?shards=N&own=0-7 for some"
    if not folder:
        raise UsageError(f"{url!r} names no folder", expected=expected, fix="add the path of a folder")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not all(re.fullmatch(_OPTIONS.get(name, "$^"), value) for name, value in options.items()):
        raise UsageError(f"{url!r} has the option {query!r}", expected=expected, fix="correct the URL")
    own, shards = options.get("own"), options.get("shards")
    named = int(shards) if shards else None, numbers_of(own) if own else None
    return FolderUrl(Path(folder), *named, options.get("partitioner"))


_OPTIONS = {"shards": r"0*[1-9]\d{0,8}", "own": ".+", "partitioner": "|".join(PARTITIONERS)}
"""What a value is, by the name of the option."""


def _meant(url: str) -> str:
    """The URL that was probably meant: one slash of a known scheme is missing, or the scheme itself.

    >>> _meant("rocksdb:/data/store"), _meant("/data/store")
    ('rocksdb:///data/store', 'rocksdb:///data/store')
    """
    scheme, colon, place = url.partition(":")
    if colon and scheme in ("rocksdb", "memory", *SCHEMES):
        return f"{scheme}://{place}" if scheme == "rocksdb" else f"{scheme}://{place.lstrip('/')}"
    return f"rocksdb://{url}"
