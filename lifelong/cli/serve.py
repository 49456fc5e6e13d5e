"""`lifelong serve`: the HTTP service."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.opening import open_letters, open_pair
from lifelong.cli.options import ArtifactPath, Settings, StoreUrl
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import LifelongError, UsageError, require

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lifelong.artifact.folder import Artifact
    from lifelong.online.ingestion.kafka import StreamSettings
    from lifelong.online.ingestion.kafka_client import KafkaAddress
    from lifelong.online.serving.keys import KeyFile
    from lifelong.online.serving.logs import LogFormat
    from lifelong.online.serving.owner import OwnerProcess
    from lifelong.online.serving.peers import Peers
    from lifelong.online.serving.service import Service
    from lifelong.online.serving.settings import ServiceConfig
    from lifelong.online.serving.writer import Writer
    from lifelong.online.store.contract import MemoryStore


logger: logging.Logger = logging.getLogger(__name__)


def _print_config(wanted: bool) -> None:
    if wanted:
        require("fastapi", extra="serve", purpose="serving")
        from lifelong.online.serving.settings import service_toml

        sys.stdout.write(service_toml())
        raise typer.Exit


def serve(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: StoreUrl,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that score; not on memory://.")] = 1,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with one key per line, followed by its scopes.")
    ] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Accept requests from other machines without a key.")
    ] = False,
    place: Annotated[
        str | None,
        typer.Option(
            "--topic", metavar="URL", help="Also follow a topic: kafka://host:port,host:port/topic?group=NAME."
        ),
    ] = None,
    peers: Annotated[Path | None, typer.Option(metavar="FILE", help="Addresses of all nodes, by shard.")] = None,
    log: Annotated[
        Literal["text", "json"], typer.Option(help="Format of the log; json has one line per request.")
    ] = "text",
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Limits, tuning and privacy; see --print-config.")
    ] = None,
    changes: Settings = [],  # noqa: B006
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print such a file with every setting, its meaning and default, and exit.",
            is_eager=True,
            callback=_print_config,
        ),
    ] = False,
) -> Reply:
    """Serve scores and accept events over HTTP, and from a topic if one is given, until stopped."""
    from lifelong.online.serving.keys import KeyFile, allowed_hosts, check_exposure
    from lifelong.online.serving.run import check_workers

    check_workers(workers, store, topic=place is not None)
    check_exposure(host, keys=api_key_file is not None, open_to_all=no_keys)
    keys = None if api_key_file is None else KeyFile(api_key_file)
    require("fastapi", extra="serve", purpose="serving")
    from lifelong.config import load_record
    from lifelong.online.serving.peers import Peers, read_peers
    from lifelong.online.serving.settings import ServiceConfig

    fix = "`lifelong serve --print-config` prints all settings"
    settings = load_record(ServiceConfig, config, changes, fix=fix)
    hosts = allowed_hosts(host, settings.allowed_hosts, keys=keys is not None)
    following, others = _following(place, settings, store), None
    if peers is not None:
        others = Peers(peers, read_peers, what="addresses of other nodes")
    plan = _Plan(artifact, store, settings, keys, hosts, following, log, workers, others)
    with _failures_in(log, terminal):
        _serve(terminal, plan, host, port)
    return Reply(None, [] if log == "json" else ["Stopped; every accepted event is in the store."])


def _serve(terminal: Terminal, plan: _Plan, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, in this process or in several."""
    from lifelong.online.serving.run import run, run_workers
    from lifelong.online.store.redis_address import without_password

    shown = {"store": without_password(plan.store), "keys": plan.keys is not None}

    def ready(artifact_id: str, example: _Example, address: str) -> None:
        _announce(terminal, {"address": address, "artifact": artifact_id, **shown}, example, plan.log)

    with contextlib.ExitStack() as around:
        owner = None
        if plan.store.startswith("rocksdb://"):
            # It opens the store while this process loads its own part.
            owner = around.enter_context(_owner(plan))
            plan = replace(plan, folder=owner.task.folder)
        with _open_app(plan, owner) as app:
            # With several workers, this process only finds out what is wrong with the artifact or the store.
            served = app.state.service.artifact
            if served.path.resolve() != plan.artifact.resolve():
                _say(terminal, f"The store was switched to {served.path}: that artifact is served.", plan.log)
            announce = partial(ready, served.id, _example(app.state.service))
            if plan.workers == 1:
                run(app, host=host, port=port, ready=announce)
        if plan.workers > 1:
            # Workers are new processes, to which a closure could not be sent.
            make_app = partial(_open_app, plan)
            run_workers(make_app, workers=plan.workers, host=host, port=port, ready=announce)


@dataclass(frozen=True, slots=True)
class _Following:
    """A topic to follow, and how."""

    address: KafkaAddress
    settings: StreamSettings
    dead_letter: str | None


def _following(place: str | None, config: ServiceConfig, store: str) -> _Following | None:
    """The topic that a URL names, and which of its partitions are followed into a store."""
    from lifelong.online.store.opening import node_of

    share = node_of(store)
    if place is None and share is not None:
        raise UsageError(
            f"--store {store} without a topic: each of its shards is a partition of one",
            expected="the topic by which events come to this node and its standbys",
            fix="name it: --topic kafka://host:port/topic",
        )
    if place is None:
        return None
    from lifelong.dataset.mapping import mapping_from
    from lifelong.online.ingestion.kafka import StreamSettings
    from lifelong.online.ingestion.kafka_client import EXPECTED, is_kafka, parse

    if not is_kafka(place):
        raise UsageError(f"--topic {place}", expected=EXPECTED, fix="fill the store from files with `lifelong ingest`")
    mapping = None if config.mapping is None else mapping_from(config.mapping)
    settings = StreamSettings(
        None, config.columns, config.on_bad, config.on_gap, max_ahead=config.max_ahead, mapping=mapping, share=share
    )
    return _Following(parse(place), settings, config.dead_letter)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What each process of a service opens; in `folder` it finds the owner of a store on disk."""

    artifact: Path
    store: str
    settings: ServiceConfig
    keys: KeyFile | None
    hosts: list[str] | None
    following: _Following | None
    log: LogFormat
    workers: int
    peers: Peers | None = None
    folder: Path | None = None


@contextlib.contextmanager
def _open_app(plan: _Plan, owner: OwnerProcess | None = None) -> Iterator[FastAPI]:
    """The app of one process, with the store open as long as the context; `owner` is for the parent of all."""
    from lifelong.dataset.folder import Dataset
    from lifelong.online.serving.logs import log_as

    log_as(plan.log)
    settings, following = plan.settings, plan.following
    dataset = None if settings.data is None else Dataset(settings.data)
    if plan.folder is None:
        pair = _opened_here(plan.artifact, plan.store)
    else:
        pair = _opened_by_owner(plan, plan.folder, owner)
    with (
        pair as (opened, memories, writer),
        open_letters(None if following is None else following.dead_letter) as letters,
    ):
        from lifelong.online.serving.app import create_app, follow

        app = create_app(
            opened,
            memories,
            api_keys=plan.keys,
            allowed_hosts=plan.hosts,
            dataset=dataset,
            report=settings.report,
            settings=settings,
            writer=writer,
            peers=plan.peers,
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
def _opened_by_owner(plan: _Plan, folder: Path, owner: OwnerProcess | None) -> Iterator[Opened]:
    """The artifact, and a store that a process of its own owns."""
    from lifelong.artifact.folder import Artifact
    from lifelong.online.serving.writer import Writer

    with contextlib.closing(Writer(folder, shared=plan.workers > 1)) as writer:
        opened = Artifact.open(plan.artifact)
        if owner is not None:
            _get_ready(opened)
            owner.wait()
        yield opened, writer.open(), writer


def _get_ready(artifact: Artifact) -> None:
    """Do what takes this process a second while the other one opens the store."""
    import lifelong.online.serving.app  # noqa: F401

    if any(field.cells is not None for field in artifact.require_memory()):
        from lifelong.online.memory.compiling import compile_reads

        # The other process begins at the front, so that each compiles half.
        compile_reads(backwards=True)


@contextlib.contextmanager
def _owner(plan: _Plan) -> Iterator[OwnerProcess]:
    """The process that owns a store on disk, for all processes of a service."""
    from lifelong.online.serving.owner import OwnerProcess, WriterTask
    from lifelong.online.serving.run import shared_folder
    from lifelong.online.store.descriptors import raise_descriptor_limit

    # The owner has the same limit.
    raise_descriptor_limit()
    settings = plan.settings
    with shared_folder() as folder:
        task = WriterTask(
            folder,
            plan.store,
            plan.artifact.resolve(),
            settings.late,
            settings.event_log,
            settings.max_ahead,
            plan.log,
        )
        with contextlib.closing(OwnerProcess(task)) as owner:
            yield owner


_Example = tuple[str | None, list[str]]
"""A user who has a memory, None where nobody has one, and items of the catalogue."""


def _example(service: Service) -> _Example:
    from lifelong.errors import StoreUnavailableError

    ids = service.artifact.catalogue.ids
    items = [ids.id_at(index) for index in range(min(len(ids), 2))]
    # A service starts without its store, and is not ready until that is back.
    with contextlib.suppress(StoreUnavailableError):
        return next((user for user, _ in service.store.scan(service.scorer.space)), None), items
    return None, items


def _announce(terminal: Terminal, document: dict[str, Any], example: _Example, log: LogFormat) -> None:
    terminal.emit(document)
    address = document["address"]
    _say(terminal, f"Serving {document['artifact'][:12]} from {document['store']} at {address}  (Ctrl-C stops)", log)
    if log == "json":
        # Nobody copies a command from there, and a log that is kept is no place for a user's id.
        return
    user, items = example
    key = " -H 'X-API-Key: KEY'" if document["keys"] else ""
    body = shlex.quote(json.dumps({"user": user or "anybody", "items": items}, ensure_ascii=False))
    terminal.say(f"Try: curl{key} -H 'Content-Type: application/json' -d {body} {address}/v1/score")
    if user is None:
        terminal.say("No user has a memory yet: whoever is asked about is scored as a new user.")


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
