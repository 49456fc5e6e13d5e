"""`lifelong verify`: replay a log and compare memories and scores with the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from lifelong.cli.options import ArtifactPath, DataPath, StoreUrl, Until
from lifelong.cli.terminal import Reply, Terminal


def verify(
    terminal: Terminal,
    artifact: ArtifactPath,
    data: DataPath,
    *,
    store: StoreUrl,
    until: Until = None,
    users: Annotated[int | None, typer.Option("--users", min=1, help="Only so many users, drawn at random.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draw.")] = 0,
) -> Reply:
    """Fold each user's events anew, one by one, and compare memories and scores with what the store holds."""
    from lifelong.cli.opening import open_pair
    from lifelong.data.dataset import Dataset
    from lifelong.memory import verify as verification

    with open_pair(artifact, store, read_only=True) as (opened, memories), terminal.progress("users") as advance:
        report = verification.verify(
            opened, Dataset(data), memories, until=until, users=users, seed=seed, progress=advance
        )
    document = {**asdict(report), "equal": report.equal}
    verdict = "The store holds what the log gives." if report.equal else "The store differs from the log."
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in asdict(report).items()]
    return Reply(document, [verdict, *lines], exit_code=0 if report.equal else 1)
