"""A store in a folder, filled part by part by whoever schedules: Kubernetes jobs, Slurm, Ray, a shell loop.

    log --users of part k--> fold --> hidden folder --rename--> STORE/shard-k        `fill_part`, for each k, anywhere
    all parts there --> store.json, and until when the store is filled               `join_parts`, once

Until the last step nothing is a store. A part that is there is left as it is, and a process that is killed leaves a
hidden folder only, which the last step removes: a part may be filled twice, one after another or at the same time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.artifact.folder import Artifact
from lifelong.atomic import building, remove_remains, sync, sync_tree, unfinished
from lifelong.errors import UsageError
from lifelong.online.ingestion.folding import fill_log
from lifelong.online.memory.filling import BackfillReport
from lifelong.online.store.contract import filled_until, note_filled
from lifelong.online.store.folder import read_head
from lifelong.online.store.part import Share, folder_of
from lifelong.online.store.rocksdb import RocksDbStore
from lifelong.online.store.rocksdb_opening import prepare
from lifelong.online.store.sharded import MOST, ShardedStore, facts_of

_NAMED = 5


def fill_part(
    artifact: Artifact, log: Any, store: Path, part: str, *, partitioner: str = "", **options: Any
) -> BackfillReport | None:
    """Fill one part of a new store from a log; None if the part is there already.

    Args:
        artifact: of a model that is served.
        log: see `fill_log`; users of other parts are left out.
        store: its folder; made if it is not there.
        part: number of the part and how many there are, as in "3/64": those users of whose ids the CRC-32, modulo 64,
            is 3.
        partitioner: of a node, see `Share`.
        options: of `fill_log`.

    Raises:
        UsageError: there is no such part, or the store is complete already.
    """
    share = replace(share_of(part), partitioner=partitioner)
    (number,), out = share.numbers, folder_of(store, share.numbers[0])
    check_new(store)
    if out.exists():
        return None
    with building(out) as draft:
        folder = draft / "store"
        prepare(folder, facts=facts_of(number, share))
        shard = RocksDbStore(folder)
        try:
            report = fill_log(artifact, log, shard, share=share, **options)
        finally:
            shard.close()
        # Before it has its name: a part that is there counts as whole.
        sync_tree(folder)
        try:
            folder.rename(out)
        except OSError:
            # Somebody else was filling the same part, and was faster: that one is as good.
            if not out.exists():
                raise
            return None
        sync(store)
    return report


def check_new(store: Path) -> None:
    """Check that a folder is not a store yet.

    Raises:
        UsageError: it is one.
    """
    if read_head(store) is not None:
        raise UsageError(
            f"{store} is a store already",
            expected="a new one: parts are filled before it is put together",
            fix="fill another folder, or send the events with `lifelong ingest`",
        )


def join_parts(store: Path, parts: int, **node: Any) -> BackfillReport:
    """Make one store of all its parts, and note until when it is filled. A second call changes nothing.

    Args:
        store: its folder.
        parts: how many there are.
        node: `own` and `partitioner` of `ShardedStore`, where the folder has some of them.

    Returns:
        What the store has now: users, and until when it is filled.

    Raises:
        UsageError: a part is missing, or is still being filled.
        StoreError: a part is damaged, or is one of another number of parts.
    """
    numbers = node.get("own") or range(parts)
    missing = [number for number in numbers if not folder_of(store, number).is_dir()]
    if missing:
        some = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise UsageError(
            f"{store} lacks {len(missing)} of {parts} parts: {some}",
            expected="all of them",
            fix=f"fill them: lifelong backfill ARTIFACT LOG --store rocksdb://{store} --part {missing[0]}/{parts}",
        )
    for number in numbers:
        # What nobody holds goes; what is left after this is still being filled.
        remove_remains(folder_of(store, number))
    busy = next((left for number in numbers for left in unfinished(folder_of(store, number))), None)
    if busy is not None:
        raise UsageError(
            f"{busy} is still being filled", expected="no process that fills a part", fix="wait for it, or end it"
        )
    whole = ShardedStore(store, parts, **node)
    try:
        moment = filled_until(whole)
        if moment is not None:
            note_filled(whole, moment)
        users = sum(1 for _ in whole.scan(whole.artifact_list().require_served().space))
    finally:
        whole.close()
    return replace(BackfillReport(users, 0, 0, 0, 0, 0.0), until=moment)


def share_of(part: str) -> Share:
    """The users of one part, as "3/64" names it.

    Raises:
        UsageError: it names none.

    >>> share_of("3/64").numbers
    (3,)
    """
    number, _, of = part.partition("/")
    if number.isdecimal() and of.isdecimal() and 2 <= int(of) <= MOST and int(number) < int(of):
        return Share((int(number),), int(of))
    raise UsageError(
        f"part = {part!r}",
        expected=f"NUMBER/PARTS, of 2 to {MOST} parts, from 0 on",
        fix="name it like 0/8, and fill 0/8 to 7/8",
    )
