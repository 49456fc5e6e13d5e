"""`lifelong backup`: copies a store, also while a service owns it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from lifelong.cli.options import StorePlace
from lifelong.cli.terminal import Reply, Terminal


def backup(
    terminal: Terminal,
    store: StorePlace,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="New folder; on the same disk, tables are hard-linked.")],
) -> Reply:
    """Copy a rocksdb:// store with all acknowledged events into a folder, also while a service owns it."""
    from lifelong.store.backup import backup as make
    from lifelong.store.opening import local_folder

    made = make(local_folder(store), dest)
    document = {"backup": str(dest), "store": made.store, "artifact": made.artifact, "bytes": made.bytes}
    size = f"{len(made.files):,} files, {made.bytes / 2**20:,.1f} MiB"
    again = f"To make a store of it, in a new folder: lifelong restore {quote(str(dest))} rocksdb://NEW"
    return Reply(document, [f"{dest} is a backup of {made.store}: {size}.", again])
