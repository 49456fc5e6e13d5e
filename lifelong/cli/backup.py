"""`lifelong backup`: copies a store, also while a service owns it; and makes a store of a copy."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from lifelong.cli.terminal import Reply, Terminal


def backup(
    terminal: Terminal,
    backup: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="Folder of the copy, new unless --restore is given.")
    ],
    *,
    store: Annotated[str, typer.Option(metavar="URL", help="The store, as in rocksdb:///data/memories.")],
    restore: Annotated[
        bool, typer.Option("--restore", help="The other way: create the store from the backup.")
    ] = False,
    shard: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only this shard.")] = None,
) -> Reply:
    """Copy a rocksdb:// store with all acknowledged events, also while a service owns it; or restore such a copy."""
    return _restored(backup, store, shard) if restore else _copied(store, backup, shard)


def _copied(store: str, dest: Path, shard: int | None) -> Reply:
    from lifelong.online.store.backup import backup as make
    from lifelong.online.store.opening import local_folder

    made = make(local_folder(store), dest, shard=shard)
    document = {"backup": str(dest), "store": made.store, "artifact": made.artifact, "bytes": made.bytes}
    size = f"{len(made.files):,} files, {made.bytes / 2**20:,.1f} MiB"
    again = (
        f"To make a store of it, in a new folder: lifelong backup {quote(str(dest))} --restore --store rocksdb://NEW"
    )
    return Reply(document, [f"{dest} is a backup of {made.store}: {size}.", again])


def _restored(source: Path, store: str, shard: int | None) -> Reply:
    from lifelong.online.store.backup import restore
    from lifelong.online.store.opening import local_folder

    folder = local_folder(store)
    made = restore(source, folder, shard=shard)
    document = {"store": str(folder), "backup": str(source), "artifact": made.artifact, "made": made.made}
    made_at = datetime.fromtimestamp(made.made, UTC)
    artifact_words = f" of artifact {made.artifact[:12]}" if made.artifact else ""
    return Reply(
        document,
        [
            f"{folder} holds the backup{artifact_words}, as it was at {made_at:%Y-%m-%d %H:%M:%S} UTC.",
            "Ingest the sources again: nothing counts twice. Erase again the users who were erased since then.",
            f"Check it: lifelong verify ARTIFACT --store {quote(store)}",
        ],
    )
