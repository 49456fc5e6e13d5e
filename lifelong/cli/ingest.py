"""`lifelong ingest`: events of a file -> memories in a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lifelong.cli.options import ArtifactPath, StoreUrl
from lifelong.cli.terminal import Reply, Terminal


def ingest(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: StoreUrl,
    source: Annotated[Path, typer.Option("--from", metavar="FILE", help="Events: csv, jsonl or parquet.")],
) -> Reply:
    """Fold the events of a file into the memories; a second run of the same file changes nothing."""
    from lifelong.cli.opening import open_pair
    from lifelong.memory import ingest as ingestion

    with open_pair(artifact, store, read_only=False) as (opened, memories), terminal.progress("events") as advance:
        applied = ingestion.ingest(opened, memories, source, progress=advance)
    counts = asdict(applied)
    return Reply(counts, [", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in counts.items())])
