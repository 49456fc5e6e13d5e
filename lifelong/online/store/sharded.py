"""Memories on disk in several RocksDB databases side by side: `rocksdb:///path?shards=N`.

FOLDER/
  store.json    how many shards; written last, when all of them are there
  owner.json    process that has the store open for writing; it also holds a lock on FOLDER
  shard-0/ ...  each as `lifelong.online.store.rocksdb` has it; its store.json says which shard of how many it is

With `?shards=N&own=0-7` the folder has some of the shards alone, and each is the partition of its number of a topic:
one node of several. store.json then says which ones, and how producers choose a partition (`partitioner=`).

The number of shards is fixed when the store is made. One process owns the folder; it can lend the shards to processes
of its own (`lent`), so that each database is read and written under a Python lock of its own. What a commit survives is
what the commits of the shards survive, each by itself: see `lifelong.online.store.shards`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lifelong.atomic import DRAFT
from lifelong.errors import StoreCorruptError, UsageError
from lifelong.online.store.contract import ITEMS
from lifelong.online.store.folder import (
    HEAD,
    OWNER,
    SHARDED,
    after_killed_owner,
    held,
    name_owner,
    read_head,
    require_head,
    unwritable,
    way_back,
    write_head,
)
from lifelong.online.store.part import FolderUrl, Share, folder_of, is_part
from lifelong.online.store.rocksdb import CACHE, RocksDbStore
from lifelong.online.store.rocksdb_opening import prepare
from lifelong.online.store.shards import Shards

MOST = 256
"""Shards of one store."""


class ShardedStore(Shards):
    """A store of several shards in a folder; one process may write to it at a time, threads of it may share it.

    Args:
        path: the folder; made if it is not there.
        shards: how many, of a new store; of an old one None, or as many as it has.
        read_only: a fixed view of each shard as it is now, while another process may write to it.
        own: of a node, the shards that it opens; None for all, or those of before.
        partitioner: of a node, see `Share`; None for "crc32", or that of before.

    Raises:
        UsageError: the store has another number of shards or another partitioner, or a new one cannot have that many.
        StoreLockedError: another process has it open; names the process.
        StoreCorruptError: a shard is missing or damaged; names it.
        StoreUnavailableError: the disk is full or cannot be read.
        StoreError: it is not there (read_only), or of another format.
    """

    path: Path

    def __init__(
        self,
        path: Path | str,
        shards: int | None = None,
        *,
        read_only: bool = False,
        own: tuple[int, ...] | None = None,
        partitioner: str | None = None,
    ) -> None:
        if shards is not None and not 2 <= shards <= MOST:
            raise UsageError(
                f"shards = {shards}",
                expected=f"2 to {MOST}, or 1 for a store without shards",
                fix="choose about one shard for each core",
            )
        self.path = path = Path(path)
        self._read_only, named = read_only, FolderUrl(path, shards, own, partitioner)
        # Whatever fails on the way, what was opened before it is closed again.
        with contextlib.ExitStack() as stack:
            if not read_only:
                after_killed_owner(path, lambda: stack.enter_context(held(path)))
                _make(named)
            head = require_head(path, SHARDED, read_only=read_only)
            self.share: Share = share_of(named, head)
            opened = open_shards(path, self.share, read_only=read_only)
            super().__init__(str(path), self.share, opened)
            stack.callback(self._release)
            if not read_only:
                self._own()
                self.align()
                if (facts := _facts(self.share)) != {name: head.get(name) for name in facts}:
                    # Now that each of them is there: later URLs need not name them.
                    write_head(path, SHARDED, **facts)
            self._ending = stack.pop_all()

    def close(self) -> None:
        """Release the shards and the folder; a second call does nothing."""
        self._ending.close()

    @contextlib.contextmanager
    def lent(self) -> Iterator[dict[str, bytes]]:
        """Leave the shards to child processes; gives the items put online, which those without shard 0 need too.

        Meanwhile this process still owns the folder, and the store does not answer.
        """
        items = dict(self.scan(ITEMS))
        # One process at a time may have a database open; the lock on the folder stays here.
        super().close()
        try:
            yield items
        finally:
            self._shards.update(open_shards(self.path, self.share))

    def _own(self) -> None:
        try:
            name_owner(self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _release(self) -> None:
        super().close()
        if not self._read_only:
            with contextlib.suppress(OSError):
                (self.path / OWNER).unlink(missing_ok=True)


def open_folder(named: FolderUrl, *, read_only: bool) -> ShardedStore | RocksDbStore:
    """Open the store in a folder, of shards or not, or make a new one.

    Args:
        named: the folder; shards of a new store, 1 if None; of an old one None, or as many as it has.
        read_only: see `RocksDbStore`.

    Raises:
        UsageError: see `ShardedStore`.
        StoreError: see `ShardedStore`.
    """
    head, path = read_head(named.path), named.path
    if head is None:
        number = named.shards or 1
    else:
        number = head["shards"] if head["version"] == SHARDED else 1
        _check_number(path, named.shards, number)
    if number == 1 and named.own is None and named.partitioner is None:
        return RocksDbStore(path, read_only=read_only)
    return ShardedStore(path, number, read_only=read_only, own=named.own, partitioner=named.partitioner)


def share_of(named: FolderUrl, head: Mapping[str, Any]) -> Share:
    """The shards that a process opens.

    Args:
        named: what it was asked for.
        head: what store.json says, or is to say.

    Raises:
        UsageError: the store is another one than was asked for.
    """
    number, noted = head["shards"], head.get("partitioner")
    _check_number(named.path, named.shards, number)
    if named.own is None and named.partitioner is None and noted is None:
        return Share.whole(number)
    # A store without a note was filled by the rule of all stores.
    found, wanted = noted or ("crc32" if "version" in head else None), named.partitioner or noted or "crc32"
    if found not in (None, wanted):
        raise UsageError(
            f"the users of {named.path} are divided by {found}, which was fixed when it was made",
            expected=f"partitioner={found}, or nothing",
            fix="leave it out if producers choose partitions so; for others build a new store in another folder",
        )
    own = named.own or head.get("own") or range(number)
    return Share(tuple(own), number, wanted)


def _facts(share: Share) -> dict[str, Any]:
    """What store.json says of the shards in a folder."""
    own = {"own": list(share.numbers), "partitioner": share.partitioner} if share.partitioner else {}
    return {"shards": share.of, **own}


def _check_number(path: Path, wanted: int | None, found: int) -> None:
    """Refuse a store that has another number of shards.

    Raises:
        UsageError: it does.
    """
    if wanted not in (None, found):
        raise UsageError(
            f"{path} has {found} shard{'s' * (found > 1)}, which was fixed when it was made",
            expected=f"shards={found}, or no number",
            fix=f"leave out ?shards={wanted}, or build a new store in another folder",
        )


def open_shards(path: Path, share: Share, *, read_only: bool = False) -> dict[int, RocksDbStore]:
    """Open some shards of a store, which divide the usual cache among all of them; their numbers and databases.

    Args:
        path: the folder of the store; to write, this process or the one that started it owns it.
        share: which ones.
        read_only: see `RocksDbStore`.

    Raises:
        StoreError: see `ShardedStore`.
    """
    opened: dict[int, RocksDbStore] = {}
    try:
        for number in share.numbers:
            _check(path, number, share)
            # Of all shards, also where this process has some of them: the others are read elsewhere.
            folder, cache = folder_of(path, number), CACHE // share.of
            options: dict[str, Any] = {"read_only": read_only, "cache": cache, "stores": len(share.numbers)}
            shard = partial(RocksDbStore, folder, **options)
            opened[number] = shard() if read_only else after_killed_owner(folder, shard, alone=True)
    except BaseException:
        for one in opened.values():
            one.close()
        raise
    return opened


def _make(named: FolderUrl) -> None:
    """Make the shards of a new store; those that an interrupted start has left are taken as they are.

    Raises:
        StoreCorruptError: the interrupted start was one with another number.
        StoreUnavailableError: the folder cannot be written.
    """
    path = named.path
    if named.shards is None or any(not _ours(file) for file in path.iterdir()):
        return
    share = share_of(named, {"shards": named.shards})
    for number in share.numbers:
        folder = folder_of(path, number)
        prepare(folder, facts=facts_of(number, share))
        # The database, too: one that is missing later was lost.
        RocksDbStore(folder).close()
        _check(path, number, share)
    try:
        write_head(path, SHARDED, **_facts(share))
    except OSError as error:
        raise unwritable(path, error) from error


def _ours(file: Path) -> bool:
    """Whether an interrupted start may have left a file."""
    return file.name == HEAD + DRAFT or is_part(file)


def facts_of(number: int, share: Share) -> dict[str, Any]:
    """What a shard's own store.json says of it; nothing of the rule by which all stores are divided."""
    other = {} if share.partitioner in ("", "crc32") else {"partitioner": share.partitioner}
    return {"shard": number, "shards": share.of, **other}


def _check(path: Path, number: int, share: Share) -> None:
    """Refuse a shard that is not there, or is another one.

    Raises:
        StoreCorruptError: it is; names it.
    """
    folder = folder_of(path, number)
    head = read_head(folder)
    fix = way_back(folder)
    if share.partitioner:
        fix = f"restore this shard: `lifelong backup BACKUP --restore --shard {number} --store rocksdb://{path}`"
    if head is None or not (folder / "db" / "CURRENT").exists():
        raise StoreCorruptError(f"{folder} is missing, one of {share.of} shards, or has no database", fix=fix)
    wanted = facts_of(number, share)
    if {name: head.get(name) for name in ("shard", "shards", "partitioner")} != {"partitioner": None, **wanted}:
        rule = f", divided by {head['partitioner']}" if "partitioner" in head else ""
        raise StoreCorruptError(
            f"{folder} is shard {head.get('shard')} of {head.get('shards')}{rule}",
            expected=f"shard {number} of {share.of}" + f", divided by {share.partitioner}" * bool(share.partitioner),
            fix=fix,
        )
