"""`lifelong ingest`: events of a file -> memories in a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lifelong.cli.options import ArtifactPath, Late, NewCodec, StoreUrl, pairs
from lifelong.cli.terminal import Reply, Terminal


def ingest(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: StoreUrl,
    file: Annotated[Path, typer.Option("--from", metavar="FILE", help="Events: csv or jsonl (also .gz), or parquet.")],
    column: Annotated[
        list[str],
        typer.Option("--column", metavar="OURS=THEIRS", help="A column with another name, as in user=visitor."),
    ] = [],  # noqa: B006
    source: Annotated[
        str | None, typer.Option("--source", help="Name of the source, for a file that grows; by default its content.")
    ] = None,
    late: Annotated[
        Late, typer.Option("--late", help="What happens to an event older than the user's last.")
    ] = "apply",
    codec: NewCodec = None,
) -> Reply:
    """Fold the events of a file into the memories; a second run of the same file changes nothing."""
    from lifelong.cli.opening import open_pair
    from lifelong.memory import ingest as ingestion

    with open_pair(artifact, store, read_only=False) as (opened, memories), terminal.progress("reading") as advance:
        applied = ingestion.ingest(
            opened,
            memories,
            file,
            progress=advance,
            source=source,
            columns=pairs(column, option="--column"),
            late=late,
            codec=codec,
        )
    counts = asdict(applied)
    return Reply(counts, [", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in counts.items())])
