"""`lifelong verify`: replay a log and compare memories and scores with the store."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifelong.cli.opening import open_pair
from lifelong.cli.options import ArtifactPath, StoreUrl, Until
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from lifelong.memory.verify import VerifyReport


def verify(
    terminal: Terminal,
    artifact: ArtifactPath,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA", help="Dataset of the events that the store must hold; by default the store's own log."
        ),
    ] = None,
    *,
    store: StoreUrl,
    until: Until = None,
    users: Annotated[
        int | None, typer.Option(min=1, help="Number of users to check, drawn at random; by default all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
) -> Reply:
    """Replay each user's events one by one, and compare memories and scores with those of the store."""
    from lifelong.data.dataset import Dataset
    from lifelong.memory import verify as verification

    with open_pair(artifact, store, read_only=True) as (opened, memories), terminal.progress("users") as advance:
        report = verification.verify(
            opened,
            None if data is None else Dataset(data),
            memories,
            until=until,
            users=users,
            seed=seed,
            progress=advance,
        )
    document = {**asdict(report), "equal": report.equal}
    counts = {name: value for name, value in asdict(report).items() if name != "reasons"}
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in counts.items()]
    lines += [f"{user}: {why}" for user, why in report.reasons.items()]
    return Reply(document, [_verdict(report, own=data is None), *lines], exit_code=0 if report.equal else 1)


def _verdict(report: VerifyReport, *, own: bool) -> str:
    log = "its own log" if own else "DATA"
    if report.equal:
        return f"The store holds what the log gives ({log})."
    if report.unverifiable == report.users:
        return f"Nothing could be checked: {log} does not have the events."
    if report.count == report.extra and replace(report, count=0).equal and not own:
        return (
            f"The store has events that {log} lacks. Without {log}, it is checked against its own log, if it has one."
        )
    return f"The store differs from the log ({log}), or part of it could not be checked."
