"""`lifelong restore`: makes a store of a backup."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from lifelong.cli.options import StorePlace
from lifelong.cli.terminal import Reply, Terminal


def restore(
    terminal: Terminal,
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder that `lifelong backup` made.")],
    store: StorePlace,
) -> Reply:
    """Create a store from a backup, in a new folder; nothing is ever overwritten."""
    from lifelong.store.backup import restore as make
    from lifelong.store.opening import local_folder

    folder = local_folder(store)
    made = make(source, folder)
    document = {"store": str(folder), "backup": str(source), "artifact": made.artifact, "made": made.made}
    made_at = datetime.fromtimestamp(made.made, UTC)
    known = f" of artifact {made.artifact[:12]}" if made.artifact else ""
    return Reply(
        document,
        [
            f"{folder} holds the backup{known}, as it was at {made_at:%Y-%m-%d %H:%M:%S} UTC.",
            "Ingest the sources again: what it holds is not doubled. Erase again who was erased since then.",
            f"Check it: lifelong verify ARTIFACT --store {quote(store)}",
        ],
    )
