"""`lifelong backfill`: every user's memory at once, in a new store or next to the memories of another artifact."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.opening import lasting, open_pair
from lifelong.cli.options import (
    ArtifactPath,
    Column,
    KeyFile,
    MappingFile,
    NewCodec,
    StoreOrService,
    Until,
    is_service,
    pairs,
)
from lifelong.cli.remote import Remote
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import LifelongError, UsageError

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.online.memory.filling import BackfillReport
    from lifelong.online.store.contract import MemoryStore

_LOOK = 0.5
"""Seconds between two requests to a service."""
Data = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="Folder that `lifelong prepare` wrote; or a file or glob of events, ordered by user and time. Not needed"
        " if the store has every event.",
    ),
]
EventLog = Annotated[
    bool, typer.Option("--event-log", help="Also keep the events in the store's log, for the next artifact.")
]
Part = Annotated[
    str | None, typer.Option("--part", metavar="K/N", help="Only the users of shard K of a new store of N.")
]
Engine = Annotated[
    Literal["local", "spark"],
    typer.Option("--engine", help="What reads and orders DATA: spark takes Parquet in any order, and fills all parts."),
]
Join = Annotated[bool, typer.Option("--join", help="Put the parts together, once all are filled.")]


def backfill(
    terminal: Terminal,
    artifact: ArtifactPath,
    data: Data = None,
    *,
    store: StoreOrService,
    key_file: KeyFile = None,
    until: Until = None,
    mapping: MappingFile = None,
    column: Column = [],  # noqa: B006
    event_log: EventLog = False,
    codec: NewCodec = None,
    part: Part = None,
    join: Join = False,
    engine: Engine = "local",
) -> Reply:
    """Build every user's memory: from DATA in a new store, or for a new artifact in a store that serves another."""
    if is_service(store):
        return _remote(terminal, artifact, None if data is None else Path(data), store, key_file, codec)
    if join:
        return _join(store)
    options: dict[str, Any] = {"until": until, "event_log": event_log, "codec": codec, "mapping": mapping}
    if part is not None:
        return _part(artifact, data, store, part, columns=pairs(column, option="--column"), **options)
    if engine == "spark":
        return _spark(artifact, data, store, columns=pairs(column, option="--column"), **options)

    with open_pair(artifact, lasting(store), read_only=False) as (opened, memories):
        artifact_list = memories.artifact_list()
        stored = artifact_list.find(opened.id)
        if artifact_list.artifacts and (stored is None or not stored.ready):
            return _next_to_served(terminal, opened, memories, None if data is None else Path(data), codec)
        if data is None:
            raise UsageError(
                "found no DATA",
                expected="a dataset or events: the store has no events of its own to build from",
                fix="give it: lifelong backfill ARTIFACT DATA --store URL",
            )
        columns = pairs(column, option="--column")
        if Path(data).is_dir() and (mapping is not None or columns):
            raise UsageError(
                "--mapping or --column with a dataset",
                expected="files of events: a dataset is prepared already",
                fix="leave it out, or give the files",
            )
        common: dict[str, Any] = {"until": until, "codec": codec, "event_log": event_log}
        report = _filled(terminal, opened, Path(data), memories, {"mapping": mapping, "columns": columns}, **common)
        return _reply(asdict(report), [f"Next: lifelong serve {quote(str(artifact))} --store {quote(store)}"])


def _filled(
    terminal: Terminal,
    artifact: Artifact,
    data: Path,
    store: MemoryStore,
    reading: Mapping[str, Any],
    **options: Any,
) -> BackfillReport:
    """Fill a new store, from a dataset or from a log that is read in some way."""
    from lifelong.dataset.folder import Dataset
    from lifelong.online.ingestion.folding import fill_log
    from lifelong.online.memory.filling import backfill as fill

    with terminal.progress("users") as advance:
        if data.is_dir():
            return fill(artifact, Dataset(data), store, progress=advance, **options)
        return fill_log(artifact, str(data), store, progress=advance, **reading, **options)


def _part(artifact: Path, data: str | None, store: str, part: str, **options: Any) -> Reply:
    """Fill one part of a new store."""
    from lifelong.artifact.folder import Artifact
    from lifelong.online.ingestion.parts import fill_part
    from lifelong.online.store.opening import folder_of

    if data is None:
        raise UsageError("found no DATA", expected="events of the part's users", fix="give files, ordered by user")
    named, whole = folder_of(store), part.partition("/")[2]
    folder = named.path
    report = fill_part(Artifact.open(artifact), data, folder, part, partitioner=named.partitioner or "", **options)
    if report is None:
        return Reply({"part": part, "users": 0}, [f"part {part} is there already"])
    join = f"lifelong backfill {quote(str(artifact))} --join --store {quote(f'rocksdb://{folder}?shards={whole}')}"
    return _reply(asdict(report), [f"When all parts are there: {join}"])


def _spark(artifact: Path, data: str | None, store: str, **options: Any) -> Reply:
    """Fill a new store by Spark."""
    from lifelong.artifact.folder import Artifact
    from lifelong.online.ingestion import spark

    if data is None:
        raise UsageError("found no DATA", expected="events", fix="give a file or glob of Parquet, as Spark takes them")
    return _reply(
        asdict(spark.backfill(Artifact.open(artifact), data, store, **options)),
        [f"Next: lifelong serve {quote(str(artifact))} --store {quote(store)}"],
    )


def _join(store: str) -> Reply:
    """Put the parts of a store together."""
    from lifelong.online.ingestion.parts import join_parts
    from lifelong.online.store.opening import folder_of

    named = folder_of(store)
    if named.shards is None:
        raise UsageError(
            f"{store!r} does not say how many parts there are",
            expected="rocksdb:///path?shards=N",
            fix="add ?shards=N, with the N of --part K/N",
        )
    report = join_parts(named.path, named.shards, own=named.own, partitioner=named.partitioner)
    return Reply({"users": report.users, "until": report.until}, [f"users {report.users}, until {report.until}"])


def _next_to_served(
    terminal: Terminal, artifact: Artifact, store: MemoryStore, data: Path | None, codec: str | None
) -> Reply:
    """Build memories next to those of the served artifact."""
    from lifelong.dataset.folder import Dataset
    from lifelong.online.memory import takeover
    from lifelong.online.memory.rebuild import Rebuild
    from lifelong.online.memory.writer import MemoryWriter

    dataset = None if data is None else Dataset(data)
    stored = takeover.add(store, artifact, codec=codec)
    with terminal.progress("users") as advance:
        rebuild = Rebuild(store, MemoryWriter(artifact, stored.identity.codec, store), dataset=dataset)
        report = rebuild.build(progress=lambda looked, _: advance(looked, looked))
    return _reply(asdict(report), [f"Serve it with: lifelong switch {artifact.id[:12]}"])


def _remote(
    terminal: Terminal, artifact: Path, data: Path | None, service: str, key_file: Path | None, codec: str | None
) -> Reply:
    """Ask the service to build, and wait until it has."""
    from lifelong.artifact.manifest import read_manifest

    remote, wanted = Remote.of(service, key_file), read_manifest(artifact).id
    body: dict[str, Any] = {"path": str(artifact.resolve()), "codec": codec}
    body["data"] = None if data is None else str(data.resolve())
    found = remote.ask("POST", "/v1/admin/artifacts", body)
    with terminal.progress("users") as advance:
        while True:
            state = next((one for one in found["artifacts"] if one["id"] == wanted), None)
            if state is None or (state["error"] and not state["running"]):
                why = "it was dropped" if state is None else state["error"]
                raise LifelongError(
                    f"the build of {wanted[:12]} has stopped: {why}", fix="fix the cause, and start it again"
                )
            advance(state["looked"], state["looked"])
            if state["phase"] == "ready" and not state["running"]:
                break
            time.sleep(_LOOK)
            found = remote.ask("GET", "/v1/admin/artifacts")
    return _reply(
        {"artifact": wanted, "users": state["built"]}, [f"Serve it with: lifelong switch {wanted[:12]} --store ..."]
    )


def _reply(document: dict[str, Any], more: list[str]) -> Reply:
    line = ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in document.items())
    return Reply(document, [line, *more])


def _text(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
