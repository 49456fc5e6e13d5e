"""`lifelong serve`: the HTTP service."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.opening import open_letters, open_pair
from lifelong.cli.options import (
    ArtifactPath,
    BaseRate,
    Column,
    DeadLetter,
    Late,
    MappingFile,
    MaxAhead,
    OnBad,
    OnGap,
    StoreUrl,
    base_rate_of,
    columns_of,
)
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import LifelongError, UsageError, require

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lifelong.artifact.folder import Artifact
    from lifelong.ingestion.kafka import StreamSettings
    from lifelong.ingestion.kafka_client import KafkaAddress
    from lifelong.serving.keys import KeyFile
    from lifelong.serving.logs import LogFormat
    from lifelong.serving.service import ServiceSettings
    from lifelong.serving.writer import Writer
    from lifelong.serving.writer_process import WriterTask
    from lifelong.store.contract import MemoryStore


logger: logging.Logger = logging.getLogger(__name__)


def serve(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: StoreUrl,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that score, on a store on disk or on a server.")] = 1,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with one key per line, followed by its scopes.")
    ] = None,
    admin_key_file: Annotated[
        Path | None, typer.Option(help="File with one key per line, for /v1/admin/ and everything else.")
    ] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Accept requests from other machines without a key.")
    ] = False,
    allowed_host: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Host name that requests may use, next to localhost and addresses; repeatable. With API keys: any.",
        ),
    ] = [],  # noqa: B006
    trusted_proxy: Annotated[
        list[str],
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of a proxy that is trusted to name the client in X-Forwarded-For; repeatable.",
        ),
    ] = [],  # noqa: B006
    rate: Annotated[float | None, typer.Option(min=0.01, help="Maximum requests per second from one caller.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Maximum number of seconds to answer a request.")] = 30.0,
    head_timeout: Annotated[
        float, typer.Option(min=0.1, help="Maximum number of seconds to receive the head of a request.")
    ] = 10.0,
    max_wait: Annotated[float, typer.Option(min=0.01, help="Seconds that a request may wait under overload.")] = 0.25,
    max_connections: Annotated[
        int,
        typer.Option(min=1, help="Maximum open connections per process; at most half of its file descriptors."),
    ] = 10_000,
    log: Annotated[
        Literal["text", "json"], typer.Option(help="Format of the log; json has one line per request.")
    ] = "text",
    log_users: Annotated[bool, typer.Option("--log-users", help="Write user ids to the log.")] = False,
    data: Annotated[Path | None, typer.Option(metavar="DATA", help="Dataset for explanations.")] = None,
    late: Annotated[Late, typer.Option(help="What to do with an event older than the user's last one.")] = "apply",
    max_ahead: MaxAhead = 1.0,
    base_rate: BaseRate = None,
    place: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL", help="Also follow a topic: kafka://host:port,host:port/topic?group=NAME."
        ),
    ] = None,
    mapping: MappingFile = None,
    column: Column = [],  # noqa: B006
    on_bad: OnBad = "stop",
    dead_letter: DeadLetter = None,
    on_gap: OnGap = "stop",
    report: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Show the report of a comparison at /report.")
    ] = None,
    impressions_log: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every scored request to this folder, as parquet.")
    ] = None,
    forget_after: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Forget users without an event for this many days.")
    ] = None,
    keep_events: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Delete older events from the event log.")
    ] = None,
) -> Reply:
    """Serve scores and accept events over HTTP, and from a topic if one is given, until stopped."""
    from lifelong.serving.keys import KeyFile, allowed_hosts, check_exposure, check_proxies
    from lifelong.serving.run import check_workers, run, run_workers
    from lifelong.store.redis_client import without_password

    check_workers(workers, store, topic=place is not None)
    check_exposure(host, keys=api_key_file is not None, open_to_all=no_keys)
    keys = None if api_key_file is None else KeyFile(api_key_file)
    admin_keys = None if admin_key_file is None else KeyFile(admin_key_file)
    require("fastapi", extra="serve", purpose="serving")
    from lifelong.serving.service import ServiceSettings

    columns = columns_of(mapping, column)
    following = None if place is None else _following(place, columns, on_bad, on_gap, dead_letter, max_ahead)
    settings = ServiceSettings(
        late=late,
        max_ahead=max_ahead,
        base_rate=base_rate_of(base_rate),
        forget_after=forget_after,
        keep_events=keep_events,
        impressions_log=impressions_log,
        timeout=timeout,
        rate=rate,
        trusted_proxies=check_proxies(trusted_proxy),
        head_timeout=head_timeout,
        max_wait=max_wait,
        max_connections=max_connections,
        log_users=log_users,
    ).of_one(workers)
    hosts = allowed_hosts(host, allowed_host, keys=keys is not None)
    make_app = partial(_open_app, artifact, store, keys, admin_keys, hosts, data, report, settings, following, log)
    embedded = workers > 1 and store.startswith("rocksdb://")
    shown = {"store": without_password(store), "keys": keys is not None}

    def ready(artifact_id: str, address: str) -> None:
        _announce(terminal, {"address": address, "artifact": artifact_id, **shown}, log)

    with _failures_in(log, terminal), contextlib.ExitStack() as around:
        if embedded:
            # One process owns the store; all workers find it in this folder.
            folder = around.enter_context(_writer_for_workers(artifact, store, settings, log))
            make_app = partial(make_app, folder=folder)
        with make_app() as app:
            # With several workers, this process only finds out what is wrong with the artifact or the store.
            served = app.state.service.artifact
            if served.path.resolve() != artifact.resolve():
                _say(terminal, f"The store was switched to {served.path}: that artifact is served.", log)
            announce = partial(ready, served.id)
            if workers == 1:
                run(app, host=host, port=port, ready=announce)
        if workers > 1:
            run_workers(make_app, settings, workers=workers, host=host, port=port, ready=announce)
    return Reply(None, [] if log == "json" else ["Stopped; every accepted event is in the store."])


@dataclass(frozen=True, slots=True)
class _Following:
    """A topic to follow, and how."""

    address: KafkaAddress
    settings: StreamSettings
    dead_letter: str | None


def _following(
    place: str, columns: dict[str, str], on_bad: str, on_gap: str, dead_letter: str | None, max_ahead: float
) -> _Following:
    """The topic that a URL names."""
    from lifelong.ingestion.kafka import StreamSettings
    from lifelong.ingestion.kafka_client import EXPECTED, is_kafka, parse

    if not is_kafka(place):
        raise UsageError(f"--from {place}", expected=EXPECTED, fix="fill the store from files with `lifelong ingest`")
    return _Following(parse(place), StreamSettings(None, columns, on_bad, on_gap, max_ahead=max_ahead), dead_letter)


@contextlib.contextmanager
def _open_app(
    artifact: Path,
    store: str,
    keys: KeyFile | None,
    admin_keys: KeyFile | None,
    hosts: list[str] | None,
    data: Path | None,
    report: Path | None,
    settings: ServiceSettings,
    following: _Following | None,
    log: LogFormat,
    folder: Path | None = None,
) -> Iterator[FastAPI]:
    """The app of one process, with the store open as long as the context; `folder` names the writer of several."""
    from lifelong.data.dataset import Dataset
    from lifelong.serving.logs import log_as

    log_as(log)
    dataset = None if data is None else Dataset(data)
    if folder is not None:
        pair = _opened_for_all(artifact, folder)
    elif not store.startswith("rocksdb://"):
        pair = _opened_here(artifact, store)
    else:
        pair = _opened_by_a_writer(artifact, store, settings, log)
    with (
        pair as (opened, memories, writer),
        open_letters(None if following is None else following.dead_letter) as letters,
    ):
        from lifelong.serving.app import create_app, follow

        app = create_app(
            opened,
            memories,
            api_keys=keys,
            admin_keys=admin_keys,
            allowed_hosts=hosts,
            dataset=dataset,
            report=report,
            settings=settings,
            writer=writer,
        )
        if following is not None:
            follow(app, following.address, following.settings, letters)
        yield app


Opened = tuple["Artifact", "MemoryStore", "Writer | None"]


@contextlib.contextmanager
def _opened_here(artifact: Path, url: str) -> Iterator[Opened]:
    with open_pair(artifact, url, read_only=False) as (opened, store):
        yield opened, store, None


@contextlib.contextmanager
def _opened_by_a_writer(artifact: Path, url: str, settings: ServiceSettings, log: LogFormat) -> Iterator[Opened]:
    """The artifact, and a store that a process of its own opens meanwhile and writes to."""
    from lifelong.artifact.folder import Artifact
    from lifelong.serving.writer import OwnerProcess, Writer

    with contextlib.closing(Writer(OwnerProcess(_task(artifact, url, settings, log)))) as writer:
        opened = Artifact.open(artifact)
        _get_ready(opened)
        yield opened, writer.open(), writer


def _get_ready(artifact: Artifact) -> None:
    """Do what takes this process a second while the other one opens the store."""
    import lifelong.serving.app  # noqa: F401

    if any(part.cells is not None for part in artifact.require_memory()):
        from lifelong.memory.counting import compile_reads

        # The other process begins at the front, so that each compiles half.
        compile_reads(backwards=True)


@contextlib.contextmanager
def _writer_for_workers(artifact: Path, url: str, settings: ServiceSettings, log: LogFormat) -> Iterator[Path]:
    """The process that owns the store, for several workers; gives the folder in which they find it."""
    from lifelong.serving.run import shared_folder
    from lifelong.serving.writer import OwnerProcess

    with (
        shared_folder() as folder,
        contextlib.closing(OwnerProcess(_task(artifact, url, settings, log), folder)) as owner,
    ):
        owner.keep()
        yield folder


@contextlib.contextmanager
def _opened_for_all(artifact: Path, folder: Path) -> Iterator[Opened]:
    """The artifact, and a store that the writer of all workers owns."""
    from lifelong.artifact.folder import Artifact
    from lifelong.serving.run import held
    from lifelong.serving.writer import Writer

    with held(folder), contextlib.closing(Writer(folder)) as writer:
        opened = Artifact.open(artifact)
        yield opened, writer.open(), writer


def _task(artifact: Path, url: str, settings: ServiceSettings, log: LogFormat) -> WriterTask:
    from lifelong.serving.writer_process import WriterTask
    from lifelong.store.descriptors import raise_descriptor_limit

    # The writer has the same limit.
    raise_descriptor_limit()
    return WriterTask(url, artifact.resolve(), settings.late, settings.event_log, settings.max_ahead, log)


def _announce(terminal: Terminal, document: dict[str, Any], log: LogFormat) -> None:
    terminal.emit(document)
    address = document["address"]
    _say(terminal, f"Serving {document['artifact'][:12]} from {document['store']} at {address}  (Ctrl-C stops)", log)
    key = " -H 'X-API-Key: KEY'" if document["keys"] else ""
    body = """'{"user": "U", "items": ["I1", "I2"]}'"""
    _say(terminal, f"Try: curl{key} -H 'Content-Type: application/json' -d {body} {address}/v1/score", log)


def _say(terminal: Terminal, message: str, log: LogFormat) -> None:
    """Say something to people, or in the log where that is for machines: each of its lines is JSON."""
    if log == "text":
        terminal.say(message)
    else:
        logger.setLevel(logging.INFO)
        logger.info(message)


@contextlib.contextmanager
def _failures_in(log: LogFormat, terminal: Terminal) -> Iterator[None]:
    """Say in the log what ends the command, where that is for machines and stdout does not say it."""
    try:
        yield
    except LifelongError as error:
        if log == "text" or terminal.as_json:
            raise
        logger.error("%s", error)
        raise SystemExit(error.exit_code) from None
