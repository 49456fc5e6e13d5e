"""`lifelong verify`: replay a log and compare memories and scores with the store."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from lifelong.cli.opening import open_pair
from lifelong.cli.options import ArtifactPath, StoreUrl, Until
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from lifelong.online.memory.verify import VerifyReport


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
    max_users: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of users to check, drawn at random; by default all.")
    ] = None,
) -> Reply:
    """Replay each user's events one by one, and compare memories and scores with those of the store."""
    from lifelong.dataset.folder import Dataset
    from lifelong.online.memory import verify as verification

    with open_pair(artifact, store, read_only=True) as (opened, memories), terminal.progress("users") as advance:
        report = verification.verify(
            opened,
            None if data is None else Dataset(data),
            memories,
            until=until,
            users=max_users,
            progress=advance,
        )
    document = {**asdict(report), "equal": report.equal}
    lines = [_verdict(report, own=data is None), *_counts(report, own=data is None)]
    lines += [f"{user}: {why}" for user, why in report.reasons.items()]
    lines += _advice(report, str(artifact), None if data is None else str(data), store, until)
    return Reply(document, [*lines], exit_code=0 if report.equal else 1)


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


def _counts(report: VerifyReport, *, own: bool) -> list[str]:
    """What the numbers of a report mean; those of what is wrong only where something is."""
    log = "the store's own log" if own else "DATA"
    lines = [
        (report.missing, f"in {log}, but without a memory in the store"),
        (report.corrupt, "with a record that cannot be decoded"),
        (report.count, f"with another number of events than in {log} (more in the store: {report.extra:,})"),
        (report.last_time, "with another time of the last event"),
        (report.memory, "with a memory that differs by more than rounding explains"),
        (report.score, "with a score that differs by more than rounding explains"),
        (report.unverifiable, f"not checked, because {log} lacks some of their events"),
    ]
    return [
        f"{_users(report.users)} compared, {report.events:,} events folded again; "
        f"memories equal bit for bit: {report.exact:,}",
        f"Largest difference: {report.memory_difference:.3g} in a number of a memory, "
        f"{report.score_difference:.3g} in a score (a logit)",
        *(f"{_users(number)} {what}" for number, what in lines if number),
    ]


def _users(number: int) -> str:
    return f"{number:,} user{'' if number == 1 else 's'}"


def _advice(report: VerifyReport, artifact: str, data: str | None, store: str, until: int | None) -> list[str]:
    """What to do about what is wrong, one line for each kind of fault."""
    pair, lines = f"--store {quote(store)}", []
    differs = report.missing + report.count + report.last_time + report.memory + report.score > report.extra
    if report.corrupt or (differs and data is None):
        lines.append(
            "Next: restore a backup with `lifelong backup --restore`, or build a new store with `lifelong backfill`"
        )
    if differs and data is not None:
        limit = "" if until is None else f" --until {until}"
        command = f"lifelong backfill {quote(artifact)} {quote(data)} {pair}{limit}"
        lines.append(f"Next, to write these memories again: {command}")
    if report.extra and data is not None:
        lines.append(f"Next, to check what DATA lacks: lifelong verify {quote(artifact)} {pair}")
    if report.unverifiable and data is None:
        lines.append(f"Next, with a dataset that has these events: lifelong verify {quote(artifact)} DATA {pair}")
    return lines
